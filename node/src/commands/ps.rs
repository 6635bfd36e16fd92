//! `orlop ps`: pods and containers, how they are and what they use.
//!
//! What runs is asked of the CRI, so that the list is there while the kubelet is not. What is ready, and pods that have no
//! sandbox yet, are the kubelet's to say.

mod rows;
mod table;

use crate::args::Output;
use crate::local::Kubelet;
use crate::settings::Settings;
use anyhow::Context;
use cri::client::{Client, ClientError, ListedPod};
use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// How often `--watch` looks.
const PERIOD: Duration = Duration::from_secs(2);

/// How far two measurements lie apart that CPU is computed from, where there is no earlier one.
const SAMPLE: Duration = Duration::from_millis(150);

/// Prints the list once, or until it is interrupted.
///
/// # Errors
/// No CRI answers on the socket.
pub(crate) fn run(settings: &Settings, watch: bool, output: Output) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the async runtime")?;
    runtime.block_on(async {
        let cri = Client::connect(&settings.socket()).await.map_err(|error| match error {
            // Its source is only the system's word for "nobody listens".
            ClientError::NoDaemon { .. } => anyhow::anyhow!("{error}: start `orlop up`, or name another by --socket"),
            error => error.into(),
        })?;
        let node = Node { cri, kubelet: Kubelet::new(settings) };
        let mut before = node.sample().await?;
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + SAMPLE, PERIOD);
        loop {
            ticks.tick().await;
            before = match node.print(before, watch, output).await {
                Ok(now) => now,
                // `orlop ps | head` has seen enough.
                Err(error) if is_closed(&error) => return Ok(()),
                Err(error) => return Err(error),
            };
            if !watch {
                return Ok(());
            }
        }
    })
}

struct Node {
    cri: Client,
    kubelet: Kubelet,
}

/// CPU time of containers when they were measured last: id → (nanoseconds since the epoch, CPU nanoseconds).
type Sample = HashMap<String, (i64, u64)>;

impl Node {
    async fn sample(&self) -> anyhow::Result<Sample> {
        Ok(sample(&self.cri.pods().await?))
    }

    /// Prints what is now, with CPU as the difference to `before`.
    async fn print(&self, before: Sample, watch: bool, output: Output) -> anyhow::Result<Sample> {
        let (running, known) = tokio::join!(self.cri.pods(), self.kubelet.pods());
        let running = running?;
        let pods = rows::pods(&running, known.as_deref().ok(), &before, now());
        let text = match output {
            Output::Table => table::table(&pods),
            Output::Json => table::json(&pods)?,
        };
        let mut out = std::io::stdout().lock();
        if watch && output == Output::Table && out.is_terminal() {
            // Home, then the text, then everything below it away: a screen that is redrawn does not flicker.
            writeln!(out, "\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))?;
        } else {
            writeln!(out, "{text}")?;
        }
        out.flush()?;
        if let Err(error) = known
            && !watch
        {
            eprintln!("readiness is the kubelet's to say: {error:#}");
        }
        Ok(sample(&running))
    }
}

/// Whether nobody reads standard output any more.
fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn sample(pods: &[ListedPod]) -> Sample {
    let containers = pods.iter().flat_map(|pod| &pod.containers);
    containers
        .filter_map(|container| Some((container.id.clone(), (container.usage?.at, container.usage?.cpu_ns))))
        .collect()
}

/// Nanoseconds since the epoch.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
