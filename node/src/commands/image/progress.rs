//! A pull's progress on standard error: a bar per layer on a terminal, a line per step elsewhere.

use image::{Digest, Phase, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

/// Shows the events of one pull; clones show the same.
#[derive(Clone)]
pub(crate) struct Bars {
    screen: MultiProgress,
    layers: Arc<Mutex<HashMap<Digest, ProgressBar>>>,
    head: ProgressBar,
    terminal: bool,
}

impl Bars {
    /// Starts with the image's name.
    pub(crate) fn new(name: &str) -> Bars {
        let terminal = std::io::stderr().is_terminal();
        let screen = MultiProgress::new();
        let head = screen.add(ProgressBar::new_spinner().with_style(style("{spinner} {msg}")));
        head.set_message(format!("{name}: resolving"));
        if !terminal {
            eprintln!("{name}: resolving");
        }
        Bars { screen, layers: Arc::default(), head, terminal }
    }

    /// Shows one event; called from any thread.
    pub(crate) fn show(&self, event: Progress) {
        match event {
            Progress::Resolved { digest, layers } => {
                self.say(format!("{digest}: {} layers", layers.len()));
                for (layer, size) in layers {
                    self.bar(&layer, size);
                }
            }
            Progress::Layer { digest, phase, done, total } => {
                let bar = self.bar(&digest, total);
                bar.set_position(done);
                match phase {
                    Phase::Waiting => bar.set_message("waiting"),
                    Phase::Fetching => bar.set_message("fetching"),
                    Phase::Done => self.end(&bar, &digest, "done"),
                    Phase::Present => self.end(&bar, &digest, "already here"),
                }
            }
            Progress::Syncing => self.say("making it durable".to_owned()),
        }
    }

    /// Leaves the bars as they are at the end.
    pub(crate) fn finish(&self) {
        self.head.finish();
    }

    fn bar(&self, digest: &Digest, size: u64) -> ProgressBar {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let style = style("  {prefix} {bar:30} {bytes:>10}/{total_bytes:<10} {bytes_per_sec:>12} {msg}");
            let bar = self.screen.add(ProgressBar::new(size).with_style(style));
            bar.set_prefix(short(digest));
            bar
        };
        layers.entry(digest.clone()).or_insert_with(new).clone()
    }

    fn end(&self, bar: &ProgressBar, digest: &Digest, how: &'static str) {
        if !self.terminal && !bar.is_finished() {
            eprintln!("{}: {how}", short(digest));
        }
        bar.finish_with_message(how);
    }

    fn say(&self, text: String) {
        if !self.terminal {
            eprintln!("{text}");
        }
        self.head.set_message(text);
    }
}

fn short(digest: &Digest) -> String {
    let text = digest.to_string();
    let hex = text.split_once(':').map_or(text.as_str(), |(_, hex)| hex);
    hex.chars().take(12).collect()
}

/// A template of ours; a typo in it shows as a plain bar rather than as a failed pull.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
