//! `images DIR`: stores the demo's image as `demo:1` in the registry directory DIR. `ORLOP_BIN_DIR` names the folder of
//! the `workload` program that goes into it.

use std::path::Path;
use std::process::ExitCode;

use tests::images;

fn main() -> ExitCode {
    let Some(dir) = std::env::args().nth(1) else {
        eprintln!("usage: images DIR");
        return ExitCode::FAILURE;
    };
    images::busybox().store(Path::new(&dir), "demo", "1");
    ExitCode::SUCCESS
}
