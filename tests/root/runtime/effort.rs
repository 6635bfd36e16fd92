//! How long the races and fuzzers go on: seconds in `scripts/test`, minutes in `scripts/bench fuzz`.

use std::time::Instant;

/// `short`, with its [`rounds`](tests::rounds), or `long` if `ORLOP_FUZZ=long`.
pub(crate) fn tries(short: u32, long: u32) -> u32 {
    match std::env::var("ORLOP_FUZZ").as_deref() {
        Ok("long") => long,
        Ok(other) => panic!("ORLOP_FUZZ={other}: only `long` is known"),
        Err(_) => tests::rounds(short),
    }
}

/// Prints the line that `scripts/bench fuzz` collects: what was done how often, and how long it took.
pub(crate) fn report(row: &str, counts: &[(&str, u64)], begun: Instant) {
    let counts: Vec<String> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    println!("fuzz: {row}: {}, {:.1} s", counts.join(", "), begun.elapsed().as_secs_f32());
}
