//! `bench cri|kubelet|oci [ROUNDS] [JSON_FILE]`: Orlop beside its peers, in the same run.
//!
//! Prints a table of medians with ratios and writes all samples as JSON. `scripts/bench` builds what it needs.

mod cri;
mod kubelet;
mod measure;
mod oci;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some("cri") => cri::run(&arguments[1..]),
        Some("kubelet") => kubelet::run(&arguments[1..]),
        Some("oci") => oci::run(&arguments[1..]),
        _ => Err(anyhow::anyhow!("usage: bench cri|kubelet|oci [ROUNDS] [JSON_FILE]")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
