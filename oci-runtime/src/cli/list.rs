//! list: all containers of a root.

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use super::Error;
use super::args::{self, Stop, Token};
use super::help::Help;
use super::log::Log;
use super::state::Shown;
use super::store::{Container, Store};

/// list
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

pub(crate) const HELP: Help = Help {
    about: "lists the containers of a root",
    usage: "[-f FORMAT] [-q]",
    details: "",
    flags: &[&[("--format FORMAT, -f FORMAT", "table (the default) or json"), ("--quiet, -q", "ids alone")]],
};

pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<Flags, Stop> {
    let mut flags = Flags::default();
    while let Some(token) = args::next_token(parser)? {
        let Token::Flag(name) = token else { return Err(args::count_is_wrong("list", "exactly 0")) };
        match name.as_str() {
            "-q" | "--quiet" => flags.quiet = args::switch(parser, &name)?,
            "-f" | "--format" => match args::text(parser)?.as_str() {
                "table" => flags.json = false,
                "json" => flags.json = true,
                _ => return Err("invalid format option".into()),
            },
            name => return Err(args::unknown(name)),
        }
    }
    Ok(flags)
}

/// Prints a table, JSON, or ids alone. A container that cannot be read is told of and left out.
pub(crate) fn list(store: &Store<'_>, flags: &Flags, log: &mut Log) -> Result<(), Error> {
    let mut all = Vec::new();
    for id in store.ids()? {
        match store.load(&id).and_then(|container| shown(&container)) {
            Ok(shown) => all.push(shown),
            Err(error) => log.warn(&format!("load container {id}: {error}")),
        }
    }
    let text = match (flags.quiet, flags.json) {
        (true, _) => all.iter().map(|shown| format!("{}\n", shown.id)).collect(),
        (false, true) => json(&all)?,
        (false, false) => table(&all),
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| format!("write to stdout: {error}").into())
}

fn shown(container: &Container) -> Result<Shown, Error> {
    let named = |error| format!("look at {}: {error}", container.dir.display());
    let uid = std::fs::metadata(&container.dir).map_err(named)?.uid();
    let mut shown = Shown::of(container)?;
    shown.owner = user(uid);
    Ok(shown)
}

/// The name of a user, read from the file itself: glibc would load the host's name services into a static program.
fn user(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let wanted = uid.to_string();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == wanted).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("#{uid}"))
}

/// An array, and Go's `null` for none.
fn json(all: &[Shown]) -> Result<String, Error> {
    match all {
        [] => Ok("null\n".to_owned()),
        all => Ok(serde_json::to_string(all).map_err(|error| format!("encode the list: {error}"))? + "\n"),
    }
}

/// Columns at least 12 wide, three spaces apart, the last one as it is.
fn table(all: &[Shown]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let mut rows = vec![header];
    rows.extend(all.iter().map(|shown| {
        let bundle = shown.bundle.display().to_string();
        [
            shown.id.clone(),
            shown.pid.to_string(),
            shown.status.clone(),
            bundle,
            shown.created.clone(),
            shown.owner.clone(),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count() + 3).max().unwrap_or(0).max(12);
    let widths: Vec<usize> = (0..5).map(width).chain([0]).collect();
    let mut text = String::new();
    for row in &rows {
        text.extend(row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")));
        text.push('\n');
    }
    text
}
