//! Whether there is a usable network, and if not, why and since when, in one sentence.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use super::Error;
use super::chain::chain_of;
use super::conflist::{self, NetworkList};

/// How long the plugins' answer to STATUS is believed. Each question starts a process per plugin.
const STATUS_KEPT: Duration = Duration::from_secs(5);

/// Why no network is usable now: the `message` of the CRI's NetworkReady condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotReady {
    /// One sentence that names the directory, file or plugin, and since when.
    pub reason: String,
}

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    /// The reason of the last look, without its time, and when it was first seen.
    since: Mutex<Option<(String, SystemTime)>>,
    plugins: Mutex<Option<PluginsAnswer>>,
}

/// What the plugins of a configuration said to STATUS.
#[derive(Debug)]
struct PluginsAnswer {
    list: NetworkList,
    when: Instant,
    answer: Result<(), NotReady>,
}

impl Readiness {
    /// Loads the network.
    pub(super) fn look(&self, conf_dir: &Path, bin_dirs: &[PathBuf]) -> Result<NetworkList, NotReady> {
        let found = load(conf_dir, bin_dirs);
        let mut since = lock(&self.since);
        match found {
            Ok(list) => {
                *since = None;
                Ok(list)
            }
            Err(reason) => {
                let first_seen = match since.take() {
                    Some((same, first_seen)) if same == reason => first_seen,
                    _ => SystemTime::now(),
                };
                *since = Some((reason.clone(), first_seen));
                Err(NotReady { reason: reason.replace(SINCE, &clock(first_seen)) })
            }
        }
    }

    /// The plugins' STATUS: the kept answer, or a new one.
    pub(super) fn ask_plugins(
        &self,
        list: &NetworkList,
        ask: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), NotReady> {
        // Held while asking: a second question waits for the answer instead of starting the plugins again.
        let mut kept = lock(&self.plugins);
        if let Some(kept) = &*kept
            && kept.list == *list
            && kept.when.elapsed() < STATUS_KEPT
        {
            return kept.answer.clone();
        }
        let answer = ask().map_err(|error| NotReady { reason: chain_of(&error) });
        *kept = Some(PluginsAnswer { list: list.clone(), when: Instant::now(), answer: answer.clone() });
        answer
    }
}

/// A panic while holding the lock leaves nothing half-written behind.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Where a reason has its time.
const SINCE: &str = "\u{0}since\u{0}";

fn load(conf_dir: &Path, bin_dirs: &[PathBuf]) -> Result<NetworkList, String> {
    let dir = conf_dir.display();
    let file = conflist::first_file(conf_dir).map_err(|error| format!("list {dir}: {error} (since {SINCE})"))?;
    let Some(file) = file else { return Err(nothing_there(conf_dir)) };
    let list = NetworkList::load(&file).map_err(|error| format!("{} (since {SINCE})", chain_of(&error)))?;
    match list.missing_plugin(bin_dirs) {
        None => Ok(list),
        Some(plugin) => {
            let searched: Vec<_> = bin_dirs.iter().map(|directory| directory.display().to_string()).collect();
            let (file, searched) = (file.display(), searched.join(":"));
            Err(format!("plugin {plugin:?} of {file} is not an executable file in {searched} (since {SINCE})"))
        }
    }
}

/// No file: since when is told by the directory itself, if it is there.
fn nothing_there(conf_dir: &Path) -> String {
    let state = match conf_dir.metadata().and_then(|metadata| metadata.modified()) {
        Ok(changed) => format!("dir empty since {}", clock(changed)),
        Err(_) => format!("dir missing, first seen {SINCE}"),
    };
    format!("no *.conflist in {} ({state}; want e.g. flannel)", conf_dir.display())
}

/// A time of day; with the date if that isn't today.
fn clock(time: SystemTime) -> String {
    let stamp = |time| Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    let (time, now) = (stamp(time), stamp(SystemTime::now()));
    let day = |stamp: Timestamp| stamp.strftime("%Y-%m-%d").to_string();
    let format = if day(time) == day(now) { "%H:%M UTC" } else { "%Y-%m-%d %H:%M UTC" };
    time.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    fn put(path: &Path, mode: u32, text: &str) {
        let mut options = std::fs::File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(mode).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn reason(readiness: &Readiness, conf_dir: &Path, bin_dir: &Path) -> String {
        readiness.look(conf_dir, &[bin_dir.into()]).unwrap_err().reason
    }

    #[test]
    fn every_reason_names_its_thing_and_ends_without_a_restart() {
        let base = tempfile::tempdir().unwrap();
        let (conf, bin) = (base.path().join("net.d"), base.path().join("bin"));
        let readiness = Readiness::default();
        let missing = reason(&readiness, &conf, &bin);
        assert!(
            missing.starts_with(&format!("no *.conflist in {} (dir missing, first seen ", conf.display())),
            "{missing}"
        );
        std::fs::create_dir(&conf).unwrap();
        let empty = reason(&readiness, &conf, &bin);
        assert!(empty.contains("(dir empty since ") && empty.ends_with(" UTC; want e.g. flannel)"), "{empty}");
        let file = conf.join("10-x.conflist");
        put(&file, 0o644, "{\n  \"name\" 1}");
        let broken = reason(&readiness, &conf, &bin);
        assert!(broken.starts_with(&format!("{}: expected `:` at line 2 column 10", file.display())), "{broken}");
        put(&file, 0o644, r#"{"name": "n", "plugins": [{"type": "flannel"}]}"#);
        let plugin = reason(&readiness, &conf, &bin);
        assert!(
            plugin.starts_with(&format!("plugin \"flannel\" of {} is not an executable", file.display())),
            "{plugin}"
        );
        std::fs::create_dir(&bin).unwrap();
        put(&bin.join("flannel"), 0o644, "");
        assert!(readiness.look(&conf, std::slice::from_ref(&bin)).is_err(), "not executable");
        std::fs::remove_file(bin.join("flannel")).unwrap();
        put(&bin.join("flannel"), 0o755, "");
        assert_eq!(readiness.look(&conf, &[bin]).unwrap().name, "n");
    }

    #[test]
    fn a_broken_first_file_is_the_reason_and_never_the_next_files_network() {
        let base = tempfile::tempdir().unwrap();
        put(&base.path().join("10-broken.conflist"), 0o644, "{");
        put(&base.path().join("20-good.conflist"), 0o644, r#"{"name": "n", "plugins": [{"type": "x"}]}"#);
        assert!(reason(&Readiness::default(), base.path(), base.path()).contains("10-broken.conflist"));
    }

    #[test]
    fn the_plugins_are_asked_once_in_a_while_and_again_after_a_change() {
        let readiness = Readiness::default();
        let list = |name: &str| {
            let text = format!(r#"{{"name": "{name}", "plugins": [{{"type": "x"}}]}}"#);
            NetworkList::parse(Path::new(""), text.into_bytes()).unwrap()
        };
        let mut asked = 0;
        for name in ["a", "a", "b", "b"] {
            let ask = || {
                asked += 1;
                Ok(())
            };
            readiness.ask_plugins(&list(name), ask).unwrap();
        }
        assert_eq!(asked, 2);
    }
}
