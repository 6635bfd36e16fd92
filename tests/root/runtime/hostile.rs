//! Fuzzers: configurations, process objects and users as hostile input, and a root file system that changes while its
//! container starts.
//!
//! Everything comes from a seed: a failure names the seed and the number of the try, and `ORLOP_FUZZ_SEED` repeats it.

pub(super) mod attempt;
mod config;
mod host;
mod layout;
mod mutate;
mod random;
mod rootfs;
mod safety;
mod seeds;

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use attempt::End;
use tests::World;

use super::effort;

/// How many Worlds work side by side.
const WORKERS: u32 = 3;

/// The seed of all: of the environment, else always the same.
fn seed() -> u64 {
    match std::env::var("ORLOP_FUZZ_SEED") {
        Ok(seed) => seed.parse().expect("ORLOP_FUZZ_SEED is a number"),
        Err(_) => 5,
    }
}

/// Shares `tries` out in chunks to workers, each chunk with a World of its own: what is left behind shows at its end.
/// Adds up what `work`, which is told the World and the numbers of its tries, counted.
fn side_by_side(tries: u32, work: impl Fn(&World, Range<u32>) -> Counts + Sync) -> Counts {
    const CHUNK: u32 = 100;
    let next = AtomicU32::new(0);
    let worker = || {
        let mut counts = Counts::default();
        loop {
            let from = next.fetch_add(CHUNK, Ordering::Relaxed);
            if from >= tries {
                return counts;
            }
            let world = World::enter();
            let more = work(&world, from..tries.min(from + CHUNK));
            counts = Counts { ran: counts.ran + more.ran, refused: counts.refused + more.refused };
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
        let counts = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        counts.fold(Counts::default(), |a, b| Counts { ran: a.ran + b.ran, refused: a.refused + b.refused })
    })
}

/// What the tries came to.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    ran: u64,
    refused: u64,
}

impl Counts {
    fn add(&mut self, end: End) {
        match end {
            End::Ran => self.ran += 1,
            End::Refused => self.refused += 1,
        }
    }

    fn report(self, row: &str, begun: Instant) {
        let counts = [("tries", self.ran + self.refused), ("ran", self.ran), ("refused", self.refused)];
        effort::report(row, &counts, begun);
    }
}
