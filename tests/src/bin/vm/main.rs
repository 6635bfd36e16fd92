//! Boots the test VM and runs a job in it as root.
//!
//! ```text
//! vm IMAGE JOB SECONDS         runs JOB/run, prints what it prints, ends with its exit code, and removes JOB
//! vm --boots N IMAGE JOB       the median time from power-on to the first word of JOB/run
//! vm --shell IMAGE             gives the guest's console to the terminal
//! ```
//!
//! `IMAGE` is the folder that `scripts/vm-image` has made: `kernel`, `initrd`, `root.img`. The folder `JOB` becomes a
//! read-only disk at `/job`. A guest that panics, hangs or never ends is one line and the last fifty of its console on
//! standard error, and exit code 124 or 125. No process is left in any case: not after a signal that ends us, and not
//! after one that nobody can catch.

mod accelerator;
mod disks;
mod guest;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{SigSet, Signal};

use disks::Disks;
use guest::{Console, Event, Guest};

/// With this and `exit N` the guest says that the job has ended.
const END: &str = "\u{1e}exit ";
/// As `timeout` does.
const TOO_LONG: u8 = 124;
/// The guest ended, and said nothing of the job.
const NO_WORD: u8 = 125;
/// How long a guest that only boots may take.
const BOOT: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--shell", image] => shell(Path::new(image)),
        ["--boots", count, image, job] => boots(count, Path::new(image), Path::new(job)),
        [image, job, seconds] => once(Path::new(image), Path::new(job), seconds),
        _ => Err(anyhow::anyhow!("usage: vm IMAGE JOB SECONDS | vm --boots N IMAGE JOB | vm --shell IMAGE")),
    };
    done.unwrap_or_else(|error| {
        eprintln!("vm: {error:#}");
        ExitCode::from(NO_WORD)
    })
}

fn once(image: &Path, job: &Path, seconds: &str) -> anyhow::Result<ExitCode> {
    let deadline =
        Duration::from_secs(seconds.parse().with_context(|| format!("SECONDS is a number, not {seconds:?}"))?);
    ensure!(job.join("run").exists(), "{} is missing", job.join("run").display());
    // Before any thread: it is inherited.
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block().context("block signals")?;
    let disks = Disks::make(image, job)?;
    fs::remove_dir_all(job).with_context(|| format!("remove {}", job.display()))?;
    let mut guest = Guest::power_on(disks, accelerator::choose(image)?)?;
    guest.hear_signals(signals);
    let end = run(&mut guest, Instant::now() + deadline, &mut |text| {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("write the job's output")
    })?;
    Ok(match end {
        End::Job(code) => ExitCode::from(code),
        End::TooLong => {
            complain(&format!("the guest did not end in {} s", deadline.as_secs()), guest.console());
            ExitCode::from(TOO_LONG)
        }
        End::NoWord => {
            let console = guest.console();
            complain(
                &console.panic().unwrap_or_else(|| "the guest ended without a word of the job".to_owned()),
                console,
            );
            ExitCode::from(NO_WORD)
        }
        End::Signal(signal) => {
            eprintln!("vm: ended by {signal}, and the guest with it");
            ExitCode::from(128 + u8::try_from(signal as i32).unwrap_or(0))
        }
    })
}

/// How a guest's life ended.
enum End {
    /// The job ended with this code.
    Job(u8),
    TooLong,
    NoWord,
    Signal(Signal),
}

/// Hands on what the job prints until it has ended, or the guest has.
fn run(guest: &mut Guest, end: Instant, print: &mut dyn FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<End> {
    loop {
        match guest.next_event(end) {
            Event::Line(line) => {
                let (text, code) =
                    line.split_once(END).map_or((line.as_str(), None), |(text, code)| (text, Some(code)));
                if !text.is_empty() {
                    print(text)?;
                }
                if let Some(code) = code {
                    return Ok(End::Job(code.trim().parse().context("the guest's last line")?));
                }
            }
            Event::Silence => return Ok(End::NoWord),
            Event::Deadline => return Ok(End::TooLong),
            Event::Signal(signal) => return Ok(End::Signal(signal)),
        }
    }
}

fn complain(reason: &str, console: &Console) {
    eprintln!("vm: {reason}; its console ends:\n{}", console.last_lines(50));
}

fn boots(count: &str, image: &Path, job: &Path) -> anyhow::Result<ExitCode> {
    let count: usize = count.parse().context("N is a number")?;
    ensure!(count > 0, "N is at least 1");
    let accelerator = accelerator::choose(image)?;
    let mut times = Vec::new();
    for _ in 0..count {
        let disks = Disks::make(image, job)?;
        let power_on = Instant::now();
        let mut guest = Guest::power_on(disks, accelerator)?;
        let mut first = None;
        let end = run(&mut guest, power_on + BOOT, &mut |_| {
            first.get_or_insert_with(|| power_on.elapsed());
            Ok(())
        })?;
        match (first, end) {
            (Some(time), End::Job(0)) => times.push(time),
            _ => bail!("the guest did not boot; its console ends:\n{}", guest.console().last_lines(50)),
        }
    }
    times.sort();
    let seconds = |index: usize| times[index].as_secs_f64();
    let (least, median, most) = (seconds(0), seconds(count / 2), seconds(count - 1));
    println!(
        "{median:.2} s from power-on to the job, {accelerator} (median of {count} boots, {least:.2} to {most:.2})"
    );
    Ok(ExitCode::SUCCESS)
}

fn shell(image: &Path) -> anyhow::Result<ExitCode> {
    let job = tempfile::tempdir().context("make a folder")?;
    let script = "#!/bin/sh\nexec setsid sh -c 'exec bash -i </dev/ttyS0 >/dev/ttyS0 2>&1'\n";
    tests::write(&job.path().join("run"), script);
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(job.path().join("run"), executable).context("make the job executable")?;
    let status = guest::on_the_terminal(&Disks::make(image, job.path())?, accelerator::choose(image)?)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
