//! What `orlop up` says: what it did, how to look at it, and when pods are ready.

use crate::local::Kubelet;
use crate::settings::Settings;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How often pods are looked at while one isn't ready: at first, and after [`HASTE`].
const LOOK: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// How long a person waits for the first pod with open eyes.
const HASTE: Duration = Duration::from_secs(15);

/// Pods that aren't ready by then have a reason that `orlop ps` shows.
const LONG_ENOUGH: Duration = Duration::from_mins(2);

/// Says what was done, on standard error beside the log.
pub(super) fn started(done: &[(&'static str, String)]) {
    for (what, how) in done {
        eprintln!("  {what:<10} {how}");
    }
}

/// The command that lists this instance's pods.
pub(super) fn ps_command(settings: &Settings) -> String {
    let default = Settings::default();
    let mut command = String::from("orlop");
    if settings.state != default.state {
        command.push_str(&format!(" --state {}", settings.state.display()));
    }
    if settings.socket() != settings.state.join("orlop.sock") {
        command.push_str(&format!(" --socket {}", settings.socket().display()));
    }
    command + " ps --watch"
}

/// Says when each of the first pods is ready, and ends when all of them are.
pub(super) async fn first_pods(kubelet: Kubelet) {
    let begin = Instant::now();
    let mut told = BTreeSet::new();
    while begin.elapsed() < LONG_ENOUGH {
        let pause = if begin.elapsed() < HASTE { LOOK[0] } else { LOOK[1] };
        tokio::time::sleep_until(tokio::time::Instant::now() + pause).await;
        // It may not serve yet, and later calls will do.
        let Ok(pods) = kubelet.pods().await else { continue };
        for pod in pods.iter().filter(|pod| pod.is_ready()) {
            if told.insert(pod.metadata.uid.clone()) {
                let name = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
                eprintln!("  ready      {name} after {:.2} s", begin.elapsed().as_secs_f64());
            }
        }
        if !pods.is_empty() && pods.iter().all(|pod| told.contains(&pod.metadata.uid)) {
            return;
        }
    }
}
