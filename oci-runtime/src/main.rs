//! `orlop-runtime`: the OCI runtime command line, a drop-in for runc.
//!
//! A thin front of the `oci_runtime` library: arguments, container ids, state files, terminals and exit codes live
//! here, containers there. One process with one thread for each call, and nothing of it stays behind.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os().skip(1).collect())
}
