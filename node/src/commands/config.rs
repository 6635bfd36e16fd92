//! `orlop config show`: the settings in force, as TOML that could be a configuration file.

use crate::settings::layers::{Layered, keys};
use std::io::Write;
use toml::{Table, Value};

/// Prints every key; with `origin`, a comment behind each says where its value comes from.
///
/// # Errors
/// Standard output is closed.
pub(crate) fn show(layered: &Layered, origin: bool) -> anyhow::Result<()> {
    let table = Table::try_from(&layered.settings)?;
    let mut out = std::io::stdout().lock();
    let mut section = String::new();
    for key in ordered(&table) {
        let (head, name) = key.rsplit_once('.').unwrap_or(("", &key));
        if head != section {
            writeln!(out, "\n[{head}]")?;
            section = head.to_owned();
        }
        let line = format!("{name} = {}", value(&table, &key));
        match layered.origins.get(&key) {
            Some(place) if origin => writeln!(out, "{line:<58} # {place}")?,
            _ => writeln!(out, "{line}")?,
        }
    }
    Ok(())
}

/// TOML wants the top level's own keys before the first section.
fn ordered(table: &Table) -> Vec<String> {
    let mut all = keys(table, "");
    all.sort_by_key(|key| (key.contains('.'), key.clone()));
    all
}

fn value(table: &Table, key: &str) -> String {
    let found = key.split('.').try_fold(Value::Table(table.clone()), |value, part| value.get(part).cloned());
    found.map_or_else(String::new, |value| value.to_string())
}
