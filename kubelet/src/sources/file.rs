//! file
use crate::clock::Clock;
use crate::pod::Pod;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

pub(super) fn start(folder: PathBuf, every: Duration, node_name: String, clock: Clock) -> mpsc::Receiver<Vec<Pod>> {
    let _ = (folder, every, node_name, clock);
    todo!()
}
