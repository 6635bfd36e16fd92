//! `orlop-shim`: the one process that a pod costs.
//!
//! One thread, no runtime. It is the parent of the pod's containers: it holds their streams, writes their logs, reaps
//! them and remembers how they ended. It outlives the daemon that started it. Its life is a loop over poll(2)
//! ([`supervisor`]); whatever could wait runs in short-lived forks ([`stage`]).
//!
//! | file | holds |
//! |---|---|
//! | `supervisor.rs` | all state, the loop |
//! | `connection.rs`, `requests.rs`, `verbs/<verb>.rs` | daemons and what they ask for |
//! | `stage.rs`, `report.rs`, `task.rs`, `progress.rs`, `stages.rs` | verbs that take time, their deadlines |
//! | `sandbox.rs`, `shared_memory.rs`, `reaper.rs` | the pod itself |
//! | `container.rs`, `exec_process.rs`, `status.rs`, `reap.rs`, `ending.rs` | processes, from birth to record |
//! | `hooks.rs` | what runs at the turns of a container's life |
//! | `stdio.rs`, `log/`, `attach.rs` | output and input |
//! | `state_dir.rs` | what is on disk |

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("orlop-shim is built for Linux on x86_64 only");

mod arguments;
mod attach;
mod cgroups;
mod connection;
mod container;
mod ending;
mod exec_process;
mod failure;
mod hooks;
mod log;
mod process;
mod progress;
mod reap;
mod reaper;
mod report;
mod requests;
mod sandbox;
mod shared_memory;
mod sources;
mod stage;
mod stages;
mod state_dir;
mod status;
mod stdio;
mod supervisor;
mod task;
mod verbs;

use arguments::Arguments;
use failure::{chain, note};
use state_dir::StateDir;
use std::error::Error;
use std::process::ExitCode;
use supervisor::Shim;

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("{}", chain(error.as_ref())));
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Box<dyn Error>> {
    // Free when the daemon has started us through such a mount itself.
    oci_runtime::protect_own_image()?;
    let arguments = Arguments::parse(std::env::args_os().skip(1))?;
    let inherited = process::inherit(arguments.listen_fd)?;
    let dir = StateDir::open(std::path::absolute(arguments.dir)?)?;
    let signals = process::detach()?;
    let listener = inherited.map_or_else(|| dir.listen(), Ok)?;
    let cgroups = cgroups::Cgroups::find()?;
    dir.write_identity(process::own()?)?;
    Shim::new(dir, listener, signals, process::raise(), cgroups).run();
    Ok(())
}
