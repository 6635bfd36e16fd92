//! Which of memory, disk and process ids run short.
//!
//! What is left is sampled every ten seconds (`sample.rs`) and compared with the thresholds of `evictionHard` and
//! `evictionSoft`. A pressure begins when a threshold is crossed, soft or hard and without waiting for a soft one's grace
//! period, as upstream's does; it ends `evictionPressureTransitionPeriod` after it was last seen, so that the taint which
//! follows from it does not flap. Nothing is evicted here.
//!
//! Upstream's `containerfs` signals are not built: it overrides what is configured for them by the thresholds of `nodefs`
//! or `imagefs`, and measures the same file system.

mod sample;

pub(super) use sample::{ImageStore, MachineSampler, Sampler};

use crate::config::Limits;
use crate::spec::quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How often what is left is sampled.
pub(super) const PERIOD: Duration = Duration::from_secs(10);

/// The three pressures, as conditions and admission see them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressures {
    /// `MemoryPressure`.
    pub memory: bool,
    /// `DiskPressure`.
    pub disk: bool,
    /// `PIDPressure`.
    pub pid: bool,
}

/// Something that can run short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Signal {
    /// `memory.available`.
    Memory,
    /// `allocatableMemory.available`: below kubepods' limit. Has the hard threshold of memory.
    AllocatableMemory,
    /// `nodefs.available`.
    NodeStorage,
    /// `nodefs.inodesFree`.
    NodeInodes,
    /// `imagefs.available`.
    ImageStorage,
    /// `imagefs.inodesFree`.
    ImageInodes,
    /// `pid.available`.
    Pids,
}

/// What is there of something, and what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// Bytes, inodes or process ids.
    pub(super) available: u64,
    /// In all.
    pub(super) capacity: u64,
}

/// One round of readings. What could not be read is missing, and crosses no threshold.
pub(super) type Sample = BTreeMap<Signal, Reading>;

/// A threshold: an amount, or a part of what is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Threshold {
    Amount(u64),
    /// In 0..1; upstream computes with a float of 32 bits.
    Part(f32),
    /// `0%` and `100%`: switched off.
    Never,
}

/// Judges samples.
#[derive(Debug)]
pub(super) struct Judge {
    thresholds: Vec<(Signal, Threshold)>,
    transition: Duration,
    /// When each pressure was last seen.
    seen: BTreeMap<Pressure, Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Pressure {
    Memory,
    Disk,
    Pid,
}

impl Signal {
    fn named(name: &str) -> Option<Signal> {
        Some(match name {
            "memory.available" => Signal::Memory,
            "allocatableMemory.available" => Signal::AllocatableMemory,
            "nodefs.available" => Signal::NodeStorage,
            "nodefs.inodesFree" => Signal::NodeInodes,
            "imagefs.available" => Signal::ImageStorage,
            "imagefs.inodesFree" => Signal::ImageInodes,
            "pid.available" => Signal::Pids,
            _ => return None,
        })
    }

    fn pressure(self) -> Pressure {
        match self {
            Signal::Memory | Signal::AllocatableMemory => Pressure::Memory,
            Signal::NodeStorage | Signal::NodeInodes | Signal::ImageStorage | Signal::ImageInodes => Pressure::Disk,
            Signal::Pids => Pressure::Pid,
        }
    }
}

impl Threshold {
    /// Reads `100Mi` or `10%`; `None` for what is neither, or not positive.
    pub(super) fn parse(text: &str) -> Option<Threshold> {
        match text.strip_suffix('%') {
            Some("0" | "100") => Some(Threshold::Never),
            Some(percent) => {
                let part = percent.parse::<f32>().ok()? / 100.0;
                (0.0..=1.0).contains(&part).then_some(Threshold::Part(part))
            }
            None => {
                let amount = quantity::units(&Quantity(text.to_owned())).ok()?;
                u64::try_from(amount).ok().filter(|amount| *amount > 0).map(Threshold::Amount)
            }
        }
    }

    /// The amount, where `capacity` is there in all.
    pub(super) fn quantity(self, capacity: u64) -> u64 {
        match self {
            Threshold::Amount(amount) => amount,
            Threshold::Part(part) => (capacity as f64 * f64::from(part)) as u64,
            Threshold::Never => 0,
        }
    }
}

impl Judge {
    /// With the thresholds of these limits; a signal that is not built is passed over.
    pub(super) fn new(limits: &Limits) -> Judge {
        let mut thresholds = Vec::new();
        for (name, value) in limits.eviction_hard.iter().chain(&limits.eviction_soft) {
            if let (Some(signal), Some(threshold)) = (Signal::named(name), Threshold::parse(value)) {
                thresholds.push((signal, threshold));
            }
        }
        let memory = limits.eviction_hard.get("memory.available").and_then(|value| Threshold::parse(value));
        if let (true, Some(threshold)) = (limits.enforce_allocatable, memory) {
            thresholds.push((Signal::AllocatableMemory, threshold));
        }
        Judge { thresholds, transition: limits.pressure_transition, seen: BTreeMap::new() }
    }

    /// What a sample that was taken `now` means.
    pub(super) fn judge(&mut self, sample: &Sample, now: Instant) -> Pressures {
        let crossed = |(signal, threshold): &(Signal, Threshold)| {
            let reading = sample.get(signal)?;
            (reading.available < threshold.quantity(reading.capacity)).then_some(signal.pressure())
        };
        let now_seen: Vec<Pressure> = self.thresholds.iter().filter_map(crossed).collect();
        for pressure in &now_seen {
            self.seen.insert(*pressure, now);
        }
        self.seen.retain(|pressure, at| now_seen.contains(pressure) || now - *at < self.transition);
        let is = |pressure| self.seen.contains_key(&pressure);
        Pressures { memory: is(Pressure::Memory), disk: is(Pressure::Disk), pid: is(Pressure::Pid) }
    }
}

#[cfg(test)]
mod tests;
