//! spec: a config.json to start from, the one that runc writes.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_runtime::cgroup::{Layout, Mode};

use super::Error;
use super::args::{self, Stop, Token};
use super::help::Help;

/// spec
#[derive(Debug, Default)]
pub(crate) struct Flags {
    pub(crate) bundle: Option<PathBuf>,
    pub(crate) rootless: bool,
}

pub(crate) const HELP: Help = Help {
    about: "writes a config.json to start from",
    usage: "[-b DIR] [--rootless]",
    details: "One that is there is not overwritten.",
    flags: &[&[
        ("--bundle DIR, -b DIR", "where; the working directory without it"),
        ("--rootless", "for a container in a user namespace, whose root is the caller"),
    ]],
};

pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<Flags, Stop> {
    let mut flags = Flags::default();
    while let Some(token) = args::next_token(parser)? {
        let Token::Flag(name) = token else { return Err(args::count_is_wrong("spec", "exactly 0")) };
        match name.as_str() {
            "-b" | "--bundle" => flags.bundle = args::path(parser)?,
            "--rootless" => flags.rootless = args::switch(parser, &name)?,
            name => return Err(args::unknown(name)),
        }
    }
    Ok(flags)
}

/// For root, on a host with cgroup v1.
const CONFIG: &str = include_str!("spec/config.json");

/// A part of [`CONFIG`], and what takes its place.
type Change = (&'static str, String);

/// Writes it.
pub(crate) fn spec(flags: &Flags) -> Result<(), Error> {
    let directory = flags.bundle.as_deref().unwrap_or(Path::new(""));
    let path = directory.join("config.json");
    let config = config(flags.rootless, Layout::detect().is_ok_and(|layout| layout.mode() == Mode::V2));
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o666).open(&path);
    let mut file = file.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => format!("File {} exists. Remove it first", path.display()),
        _ => format!("make {}: {error}", path.display()),
    })?;
    file.write_all(config.as_bytes()).map_err(|error| format!("write {}: {error}", path.display()).into())
}

fn config(rootless: bool, v2: bool) -> String {
    let mut changes = Vec::new();
    if rootless {
        changes.extend(rootless_changes());
    }
    if v2 {
        let mount = "\t\t\t{\n\t\t\t\t\"type\": \"mount\"\n\t\t\t}";
        changes.push((mount, format!("{mount},\n\t\t\t{{\n\t\t\t\t\"type\": \"cgroup\"\n\t\t\t}}")));
    }
    changes.iter().fold(CONFIG.to_owned(), |text, (part, other)| text.replacen(part, other, 1))
}

/// In a user namespace of one id: no group 5, no new sysfs without a network namespace, no limits.
fn rootless_changes() -> [Change; 5] {
    let (uid, gid) = sys::credentials::effective_ids();
    let mapping = |name: &str, id: u32| {
        format!(
            "\t\t\"{name}\": [\n\t\t\t{{\n\t\t\t\t\"containerID\": 0,\n\t\t\t\t\"hostID\": {id},\n\t\t\t\t\"size\": 1\n\t\t\t}}\n\t\t]"
        )
    };
    [
        (",\n\t\t\t\t\"gid=5\"", String::new()),
        (
            "\"type\": \"sysfs\",\n\t\t\t\"source\": \"sysfs\",\n\t\t\t\"options\": [\n",
            "\"type\": \"none\",\n\t\t\t\"source\": \"/sys\",\n\t\t\t\"options\": [\n\t\t\t\t\"rbind\",\n".to_owned(),
        ),
        (RESOURCES, format!("{},\n{}", mapping("uidMappings", uid), mapping("gidMappings", gid))),
        ("\t\t\t{\n\t\t\t\t\"type\": \"network\"\n\t\t\t},\n", String::new()),
        (
            "\t\t\t{\n\t\t\t\t\"type\": \"mount\"\n\t\t\t}",
            "\t\t\t{\n\t\t\t\t\"type\": \"mount\"\n\t\t\t},\n\t\t\t{\n\t\t\t\t\"type\": \"user\"\n\t\t\t}".to_owned(),
        ),
    ]
}

const RESOURCES: &str = "\t\t\"resources\": {\n\t\t\t\"devices\": [\n\t\t\t\t{\n\t\t\t\t\t\"allow\": false,\n\t\t\t\t\t\"access\": \"rwm\"\n\t\t\t\t}\n\t\t\t]\n\t\t}";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(rootless: bool, v2: bool) -> Value {
        serde_json::from_str(&config(rootless, v2)).expect("JSON")
    }

    fn namespaces(config: &Value) -> Vec<&str> {
        let list = config["linux"]["namespaces"].as_array().expect("namespaces");
        list.iter().map(|namespace| namespace["type"].as_str().expect("a type")).collect()
    }

    #[test]
    fn on_cgroup_v2_the_container_gets_a_cgroup_namespace() {
        assert_eq!(namespaces(&parsed(false, false)), ["pid", "network", "ipc", "uts", "mount"]);
        assert_eq!(namespaces(&parsed(false, true)), ["pid", "network", "ipc", "uts", "mount", "cgroup"]);
    }

    #[test]
    fn a_rootless_config_needs_nothing_that_only_root_has() {
        for (part, _) in rootless_changes() {
            assert_eq!(CONFIG.matches(part).count(), 1, "{part}");
        }
        let config = parsed(true, false);
        assert_eq!(namespaces(&config), ["pid", "ipc", "uts", "mount", "user"]);
        assert!(config["linux"].get("resources").is_none());
        assert_eq!(config["linux"]["uidMappings"][0]["containerID"], json!(0));
        let mounts = config["mounts"].as_array().expect("mounts");
        let sys = mounts.iter().find(|mount| mount["destination"] == "/sys").expect("/sys");
        assert_eq!(
            (&sys["type"], &sys["source"], &sys["options"][0]),
            (&json!("none"), &json!("/sys"), &json!("rbind"))
        );
        assert!(!config.to_string().contains("gid=5"));
    }
}
