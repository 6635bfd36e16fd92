//! What a person sees who gives `orlop kubelet` a configuration that can't be used: the file, the line, the key, and exit
//! code 78, by which a service manager knows that starting again won't help.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{Output, binary, output, write};

const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nfailCgroupV1: false\n";

/// sysexits.h EX_CONFIG.
const CONFIG: i32 = 78;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().expect("its folder")).expect("its folder");
        write(&path, text);
        path
    }
}

fn kubelet(flags: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(binary("orlop"));
    command.arg("kubelet");
    for (flag, value) in flags {
        command.arg(flag).arg(value);
    }
    output(&mut command)
}

#[track_caller]
fn refused(flags: &[(&str, &Path)], wants: &[&str]) {
    let ended = kubelet(flags);
    assert_eq!(ended.code, CONFIG, "{}", ended.stderr);
    for want in wants {
        assert!(ended.stderr.contains(want), "{want:?} is not in:\n{}", ended.stderr);
    }
}

#[test]
fn an_unknown_key_is_refused_with_file_line_and_the_key_that_was_meant() {
    let folder = Folder::new();
    let file = folder.file("kubelet.yaml", &format!("{HEAD}clusterDns: [10.96.0.10]\n"));
    let place = format!("{}:4:1", file.display());
    refused(&[("--config", &file)], &["unknown field `clusterDns`", &place, "did you mean `clusterDNS`?"]);
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_its_line() {
    let folder = Folder::new();
    let file = folder.file("kubelet.yaml", &format!("{HEAD}maxPods: plenty\n"));
    refused(&[("--config", &file)], &["`maxPods` wants an integer, this is a string", "kubelet.yaml:4:10"]);
}

#[test]
fn a_key_that_stands_twice_is_refused_with_its_line() {
    let folder = Folder::new();
    let file = folder.file("kubelet.yaml", &format!("{HEAD}maxPods: 1\nport: 2\nmaxPods: 3\n"));
    refused(&[("--config", &file)], &["duplicate", "kubelet.yaml:6"]);
}

#[test]
fn a_mistake_in_a_drop_in_names_the_drop_in() {
    let folder = Folder::new();
    let file = folder.file("kubelet.yaml", HEAD);
    folder.file("drop-ins/10.conf", &format!("{HEAD}port: 1\n"));
    folder.file("drop-ins/20.conf", &format!("{HEAD}port: 70000\n"));
    let drop_ins = folder.0.path().join("drop-ins");
    refused(&[("--config", &file), ("--config-dir", &drop_ins)], &["`port` must be between", "20.conf:4:7"]);
}

#[test]
fn what_would_harm_if_it_were_ignored_is_refused_with_the_reason() {
    let folder = Folder::new();
    let file = folder.file("kubelet.yaml", &format!("{HEAD}serverTLSBootstrap: true\n"));
    refused(&[("--config", &file)], &["`serverTLSBootstrap: true` is not supported", "tlsCertFile", "kubelet.yaml:4"]);
}

#[test]
fn a_file_that_is_missing_is_named() {
    refused(&[("--config", Path::new("/nowhere/kubelet.yaml"))], &["/nowhere/kubelet.yaml", "No such file"]);
    let folder = Folder::new();
    let file = folder.file("kubelet.yaml", HEAD);
    let flags = [("--config", file.as_path()), ("--kubeconfig", Path::new("/nowhere/kubelet.conf"))];
    refused(&flags, &["/nowhere/kubelet.conf", "No such file"]);
}

#[test]
fn a_bad_kubeconfig_is_refused_with_its_line() {
    let folder = Folder::new();
    let file = folder.file("kubelet.yaml", HEAD);
    let config = "apiVersion: v1\nkind: Config\ncurrent-context: here\ncontexts: [{name: there, context: {}}]\n";
    let kubeconfig = folder.file("kubelet.conf", config);
    refused(
        &[("--config", &file), ("--kubeconfig", &kubeconfig)],
        &["`contexts` has no \"here\"", "kubelet.conf:3:18"],
    );
    let broken = folder.file("broken.conf", "clusters: [\n  {name: a\n");
    refused(&[("--config", &file), ("--kubeconfig", &broken)], &["broken.conf:"]);
}

#[test]
fn bootstrap_without_a_kubeconfig_says_that_it_comes_later() {
    let folder = Folder::new();
    let file = folder.file("kubelet.yaml", HEAD);
    let bootstrap = folder.file("bootstrap.conf", "");
    let kubeconfig = folder.0.path().join("kubelet.conf");
    let flags = [("--config", file.as_path()), ("--kubeconfig", &kubeconfig), ("--bootstrap-kubeconfig", &bootstrap)];
    refused(&flags, &["TLS bootstrap", "not supported yet", "kubelet.conf is missing"]);
}

#[test]
fn a_kubelet_that_would_only_remove_pods_does_not_start() {
    let folder = Folder::new();
    let file = folder.file("kubelet.yaml", HEAD);
    refused(&[("--config", &file)], &["nothing to run", "--kubeconfig", "--pod-manifest-path"]);
}

#[test]
fn aliases_that_multiply_are_refused_at_once() {
    let folder = Folder::new();
    let mut bomb = format!("{HEAD}a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let references = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{references}]\n"));
    }
    let file = folder.file("kubelet.yaml", &bomb);
    refused(&[("--config", &file)], &["kubelet.yaml:"]);
}

#[test]
fn an_unknown_flag_is_refused_with_the_one_that_was_meant() {
    let ended = kubelet(&[("--max-podz", Path::new("5"))]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("--max-pods"), "{}", ended.stderr);
}

#[test]
fn config_names_another_kind_of_file_for_the_other_commands() {
    let folder = Folder::new();
    let toml = folder.file("config.toml", "state = \"/run/elsewhere\"\n");
    let shown = output(Command::new(binary("orlop")).args(["config", "show", "--config"]).arg(&toml)).success();
    assert!(shown.contains("state = \"/run/elsewhere\""), "{shown}");
    refused(&[("--config", &toml)], &["config.toml", "KubeletConfiguration"]);
}
