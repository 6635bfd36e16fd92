//! The stages that a verb goes through, and how long each took: what a deadline's error tells.

use shim_protocol::Stage;
use std::time::Instant;

/// A verb has a handful of stages and one per volume; more than this are not kept.
const STAGES_LIMIT: usize = 128;
/// A name that is longer, in bytes, is cut: it may hold a path.
const NAME_LIMIT: usize = 256;

/// Stages in the order in which they began; the last one is under way.
#[derive(Debug)]
pub(crate) struct Stages {
    begun: Vec<(String, Instant)>,
}

impl Stages {
    /// The first stage begins now.
    pub(crate) fn begin(name: &str, now: Instant) -> Self {
        let mut stages = Self { begun: Vec::new() };
        stages.next(name, now);
        stages
    }

    /// Another stage begins, the one before is over.
    pub(crate) fn next(&mut self, name: &str, now: Instant) {
        if self.begun.len() < STAGES_LIMIT {
            self.begun.push((cut(name).to_owned(), now));
        }
    }

    /// What the last stage is called.
    pub(crate) fn current(&self) -> &str {
        self.begun.last().map_or("", |(name, _)| name)
    }

    /// All stages with their durations, the last one ending `now`.
    pub(crate) fn told(&self, now: Instant) -> Vec<Stage> {
        let ends = self.begun.iter().skip(1).map(|(_, begin)| *begin).chain([now]);
        let told = self.begun.iter().zip(ends).map(|((name, begin), end)| Stage {
            name: name.clone(),
            ms: u64::try_from(end.saturating_duration_since(*begin).as_millis()).unwrap_or(u64::MAX),
        });
        told.collect()
    }
}

/// As much of a name as is kept.
pub(crate) fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_LIMIT)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_stage_lasts_until_the_next_and_the_last_until_now() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut stages = Stages::begin("read spec", at(0));
        stages.next("open volume /mnt/nfs", at(3));
        let told = stages.told(at(5003));
        assert_eq!(told[0], Stage { name: "read spec".into(), ms: 3 });
        assert_eq!(told[1], Stage { name: "open volume /mnt/nfs".into(), ms: 5000 });
        assert_eq!(stages.current(), "open volume /mnt/nfs");
    }

    #[test]
    fn a_long_name_and_endless_stages_are_bounded() {
        let now = Instant::now();
        let mut stages = Stages::begin(&"ö".repeat(NAME_LIMIT), now);
        (0..1000).for_each(|_| stages.next("again", now));
        assert!(stages.told(now).len() == STAGES_LIMIT && stages.told(now)[0].name.len() <= NAME_LIMIT);
    }
}
