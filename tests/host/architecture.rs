//! The crate table of ARCHITECTURE.md, as a test: who may import whom, what never enters the static binaries, where
//! `unsafe` may stand.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Every crate of ours and the crates of ours that its code may import. `dev-dependencies` are free.
const IMPORTS: [(&str, &[&str]); 15] = [
    ("sys", &[]),
    ("oci-runtime", &["sys", "cgroup", "seccomp"]),
    ("cgroup", &["sys"]),
    ("seccomp", &[]),
    ("image", &["sys"]),
    ("cni", &["sys"]),
    ("proto", &[]),
    ("cri", &["proto", "image", "cni", "cgroup", "seccomp", "shim-protocol", "sys"]),
    ("shim", &["oci-runtime", "shim-protocol", "sys"]),
    ("shim-protocol", &[]),
    ("kubelet", &["proto", "cgroup", "sys"]),
    ("node", &["cri", "kubelet", "image", "sys"]),
    ("tests", &["proto", "sys"]),
    ("vm-init", &[]),
    ("workload", &[]),
];

/// The crates behind the static binaries: they run with one thread and must stay small.
const SYNCHRONOUS: [&str; 8] = ["sys", "oci-runtime", "cgroup", "seccomp", "cni", "shim", "shim-protocol", "workload"];

/// What no synchronous crate may pull in, at any depth.
const RUNTIMES: [&str; 4] = ["tokio", "async-io", "async-executor", "smol"];

/// The workspace as `cargo metadata` describes it.
struct Workspace {
    metadata: Value,
}

impl Workspace {
    fn read() -> Workspace {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["metadata", "--format-version", "1", "--locked", "--offline"]).current_dir(root());
        let metadata = tests::output(&mut cargo).success();
        Workspace { metadata: serde_json::from_str(&metadata).expect("cargo's metadata") }
    }

    fn packages(&self) -> impl Iterator<Item = &Value> {
        self.metadata["packages"].as_array().expect("packages").iter()
    }

    /// Our packages by name.
    fn members(&self) -> BTreeMap<String, &Value> {
        self.packages().filter(|package| package["source"].is_null()).map(|package| (name(package), package)).collect()
    }

    /// The names of all packages that `package` is built with: normal and build dependencies, without dev ones.
    fn tree(&self, package: &str) -> BTreeSet<String> {
        let nodes: BTreeMap<&str, &Value> = self.metadata["resolve"]["nodes"]
            .as_array()
            .expect("the resolved graph")
            .iter()
            .map(|node| (node["id"].as_str().expect("an id"), node))
            .collect();
        let names: BTreeMap<&str, String> =
            self.packages().map(|package| (package["id"].as_str().expect("an id"), name(package))).collect();
        let mut waiting = vec![self.members()[package]["id"].as_str().expect("an id")];
        let mut seen = BTreeSet::new();
        while let Some(id) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            for dependency in nodes[id]["deps"].as_array().expect("dependencies") {
                let kinds = dependency["dep_kinds"].as_array().expect("kinds");
                if kinds.iter().any(|kind| kind["kind"].is_null()) {
                    waiting.push(dependency["pkg"].as_str().expect("an id"));
                }
            }
        }
        seen.into_iter().map(|id| names[id].clone()).collect()
    }
}

#[test]
fn every_crate_imports_only_what_the_table_allows() {
    let workspace = Workspace::read();
    let members = workspace.members();
    let table: BTreeMap<&str, &[&str]> = IMPORTS.into();
    let listed: Vec<&str> = members.keys().map(String::as_str).collect();
    assert_eq!(listed, table.keys().copied().collect::<Vec<_>>(), "crates of the workspace and rows of the table");
    for (crate_name, package) in &members {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        let normal = dependencies.iter().filter(|dependency| dependency["kind"] != "dev").map(name);
        let ours: Vec<String> = normal.filter(|dependency| members.contains_key(dependency)).collect();
        let forbidden: Vec<&String> =
            ours.iter().filter(|import| !table[crate_name.as_str()].contains(&import.as_str())).collect();
        assert!(
            forbidden.is_empty(),
            "{crate_name} imports {forbidden:?}; the table allows {:?}",
            table[crate_name.as_str()]
        );
    }
}

#[test]
fn the_static_binaries_hold_no_async_runtime() {
    let workspace = Workspace::read();
    for crate_name in SYNCHRONOUS {
        let tree = workspace.tree(crate_name);
        let found: Vec<&&str> = RUNTIMES.iter().filter(|runtime| tree.contains(**runtime)).collect();
        assert!(found.is_empty(), "{crate_name} is built with {found:?}");
    }
}

#[test]
fn unsafe_stands_only_in_sys() {
    let allowed = root().join("sys");
    for file in sources("rs").into_iter().filter(|file| !file.starts_with(&allowed)) {
        for (number, line) in read(&file).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let words = code.split(|character: char| !(character.is_alphanumeric() || character == '_'));
            let found = words.into_iter().any(|word| word == concat!("un", "safe")) && !code.contains('"');
            assert!(!found, "{}:{}: {line}", file.display(), number + 1);
        }
    }
}

#[test]
fn no_file_names_a_package_registry() {
    // Where packages come from is the machine's affair: a mirror must be enough. Lock files name cargo's own index.
    let hosts = [
        concat!("crates", ".io/api"),
        concat!("static.", "crates"),
        concat!("index.", "crates"),
        concat!("proxy.", "golang"),
        concat!("sum.", "golang"),
        concat!("deb.", "debian"),
        concat!("pypi", ".org"),
    ];
    for extension in ["rs", "toml", "sh", "md", "mod", "txt", ""] {
        for file in sources(extension) {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let found: Vec<&&str> = hosts.iter().filter(|host| text.contains(**host)).collect();
            assert!(found.is_empty(), "{} names {found:?}", file.display());
        }
    }
}

#[test]
fn a_file_of_ours_explains_itself_in_its_first_line() {
    for file in sources("rs") {
        let text = read(&file);
        assert!(text.trim_start().starts_with("//!"), "{} begins with {:?}", file.display(), text.lines().next());
    }
}

#[test]
fn a_file_of_ours_is_at_most_800_lines_long() {
    for file in sources("rs") {
        let lines = read(&file).lines().count();
        assert!(lines <= 800, "{} has {lines} lines: split it", file.display());
    }
}

fn name(value: &Value) -> String {
    value["name"].as_str().expect("a name").to_owned()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("read {}: {error}", file.display()))
}

/// Every file with this extension (none: ""), outside build output and hidden folders.
fn sources(extension: &str) -> Vec<PathBuf> {
    let mut waiting = vec![root()];
    let mut found = Vec::new();
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).expect("a folder of the workspace").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    waiting.push(path);
                }
            } else if path.extension().unwrap_or_default() == extension {
                found.push(path);
            }
        }
    }
    found
}
