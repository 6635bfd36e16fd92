//! The texts of `-h`.

use super::verb::VERBS;

/// What a verb is, and its flags.
#[derive(Debug)]
pub(crate) struct Help {
    /// One line.
    pub(crate) about: &'static str,
    /// The arguments after the verb.
    pub(crate) usage: &'static str,
    /// What else there is to know; may be empty.
    pub(crate) details: &'static str,
    /// A flag as it is written, and what it does. Obsolete ones are not shown.
    pub(crate) flags: &'static [&'static [(&'static str, &'static str)]],
}

impl Help {
    /// All of it.
    pub(crate) fn text(&self, verb: &str) -> String {
        let Help { about, usage, details, flags } = self;
        let mut text = format!("NAME:\n   orlop-runtime {verb} - {about}\n\nUSAGE:\n   orlop-runtime {verb} {usage}\n");
        if !details.is_empty() {
            text += &format!("\nDESCRIPTION:\n{}", indented(details));
        }
        if !flags.is_empty() {
            text += "\nOPTIONS:\n";
            text += &columns(flags.iter().copied().flatten().copied());
        }
        text
    }
}

const GLOBAL: [(&str, &str); 8] = [
    ("--root DIR", "where the state of containers is kept (/run/orlop/runtime)"),
    ("--log FILE", "where errors and warnings are written, instead of stderr"),
    ("--log-format FORMAT", "text (the default) or json"),
    ("--debug", "accepted; there is nothing more to tell"),
    ("--systemd-cgroup", "refused: the systemd cgroup driver is not built yet"),
    ("--rootless WHETHER", "auto or false; true is refused: containers without root are not built yet"),
    ("--help, -h", "this text, or that of a verb"),
    ("--version, -v", "the version, and that of the runtime-spec"),
];

/// The verbs and the flags before them.
pub(crate) fn overview() -> String {
    let verbs = VERBS.iter().map(|entry| (entry.name, entry.help.about));
    format!(
        "NAME:\n   orlop-runtime - runs containers as the Open Container Initiative describes them\n\n\
         USAGE:\n   orlop-runtime [global flags] VERB [flags] [arguments]\n\n\
         COMMANDS:\n{}\nGLOBAL OPTIONS:\n{}",
        columns(verbs.chain([("help, h", "the text of a verb, or this one")])),
        columns(GLOBAL.into_iter())
    )
}

fn columns(rows: impl Iterator<Item = (&'static str, &'static str)> + Clone) -> String {
    let width = rows.clone().map(|(left, _)| left.len()).max().unwrap_or(0);
    rows.map(|(left, right)| format!("   {left:width$}  {right}\n")).collect()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("   {line}").trim_end().to_owned() + "\n").collect()
}
