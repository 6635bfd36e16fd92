//! ps: the processes of a container.

use std::io::Write;
use std::process::Command;

use super::Error;
use super::args::{self, Stop, Token};
use super::help::Help;
use super::store::Store;

/// ps
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) id: String,
    pub(crate) json: bool,
    /// For ps(1).
    pub(crate) arguments: Vec<String>,
}

pub(crate) const HELP: Help = Help {
    about: "lists the processes of a container",
    usage: "[-f FORMAT] ID [PS-ARGUMENT]…",
    details: "The table is what ps(1) prints, with `-ef` or the arguments given, about the container's processes.",
    flags: &[&[("--format FORMAT, -f FORMAT", "table (the default), or json: numbers of processes")]],
};

/// Everything after the id is for ps(1).
pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<Flags, Stop> {
    let mut json = false;
    while let Some(token) = args::next_token(parser)? {
        match token {
            Token::Plain(id) => return Ok(Flags { id, json, arguments: args::rest(parser)? }),
            Token::Flag(name) if ["-f", "--format"].contains(&name.as_str()) => match args::text(parser)?.as_str() {
                "table" => json = false,
                "json" => json = true,
                _ => return Err("invalid format option".into()),
            },
            Token::Flag(name) => return Err(args::unknown(&name)),
        }
    }
    Err(args::count_is_wrong("ps", "a minimum of 1"))
}

/// Prints the table, or the numbers as JSON.
pub(crate) fn ps(store: &Store<'_>, flags: &Flags) -> Result<(), Error> {
    let mut pids = store.load(&flags.id)?.cgroup()?.processes()?;
    pids.sort_unstable();
    let text = match flags.json {
        true => json(&pids)?,
        false => {
            let table = run(&flags.arguments)?;
            select(&table, &pids).ok_or("couldn't find PID field in ps output")?
        }
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| format!("write to stdout: {error}").into())
}

/// An array, and Go's `null` for none.
fn json(pids: &[i32]) -> Result<String, Error> {
    match pids {
        [] => Ok("null\n".to_owned()),
        pids => Ok(serde_json::to_string(pids).map_err(|error| format!("encode the list: {error}"))? + "\n"),
    }
}

fn run(arguments: &[String]) -> Result<String, Error> {
    let mut command = Command::new("ps");
    match arguments {
        [] => command.arg("-ef"),
        arguments => command.args(arguments),
    };
    let output = command.output().map_err(|error| format!("run ps: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(text),
        false => Err(format!("ps: {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// The header and the lines about these processes; `None` without a column of numbers.
fn select(table: &str, pids: &[i32]) -> Option<String> {
    let mut lines = table.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|name| name == "PID")?;
    let of_container = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    Some([header].into_iter().chain(lines.filter(of_container)).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_the_column_of_numbers() {
        let table = "UID   PID  PPID CMD\nroot    7     1 init\nroot   17     7 sleep 7\n";
        assert_eq!(select(table, &[7]).unwrap(), "UID   PID  PPID CMD\nroot    7     1 init\n");
        assert_eq!(select("COMMAND\nsh\n", &[7]), None);
        assert_eq!(select("", &[7]), None);
    }
}
