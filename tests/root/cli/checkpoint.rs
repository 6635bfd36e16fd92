//! checkpoint, as far as it goes without CRIU; `criu.rs` goes further.

use std::process::Stdio;

use serde_json::json;
use tests::{World, output, write_program};

use super::{Container, STAY, check_refused, is_ours};

#[test]
fn without_criu_the_error_says_so_and_the_container_runs_on() {
    if !is_ours() {
        return;
    }
    let world = World::enter();
    let container = Container::started(&world);
    let saved = container.bundle.dir.join("images");
    let mut command = container.bundle.runtime();
    command.arg("checkpoint").arg("--image-path").arg(&saved).arg(&container.bundle.id).env("PATH", "/nonexistent");
    check_refused(&output(&mut command), 1, "criu is not installed");
    assert_eq!(container.status(), "running");
}

#[test]
fn only_what_runs_can_be_saved() {
    let world = World::enter();
    let container = Container::new(&world, "true");
    container.create(&[]).success();
    check_refused(&container.verb(&["checkpoint"]), 1, "Container cannot be checkpointed in created state");
    container.verb(&["start"]).success();
    container.has_stopped();
    check_refused(&container.verb(&["checkpoint"]), 1, "Container cannot be checkpointed in stopped state");
}

/// The request that a verb sends to criu, in whose place is a program that keeps it and gives no answer.
fn asked(container: &Container<'_>, verb: &[&str]) -> String {
    let dir = &container.bundle.dir;
    let (bin, images) = (dir.join("bin"), dir.join("images"));
    std::fs::create_dir_all(&bin).expect("a directory");
    let script = format!("#!/bin/bash\nexec dd bs=64k count=1 of={} <&$2 2>/dev/null\n", dir.join("asked").display());
    write_program(&bin.join("criu"), script);
    let mut command = container.bundle.runtime();
    let path = std::env::join_paths([bin.as_path(), "/usr/bin".as_ref(), "/bin".as_ref()]).expect("a PATH");
    command.env("PATH", path).args(verb).arg("--image-path").arg(&images).arg(&container.bundle.id);
    let done = output(command.current_dir(dir).stdin(Stdio::null()));
    check_refused(&done, 1, "criu ended without an answer");
    String::from_utf8_lossy(&std::fs::read(dir.join("asked")).expect("a request")).into_owned()
}

#[test]
fn a_container_is_saved_as_it_was_made_whatever_became_of_its_bundle() {
    if !is_ours() {
        return;
    }
    let world = World::enter();
    let mut container = Container::new(&world, STAY);
    // Of the container, where it leads to a directory; the host has a file there.
    container.bundle.set("/linux/maskedPaths", json!(["/link", "/file"]));
    tests::write(&container.bundle.rootfs("file"), "");
    std::fs::create_dir_all(container.bundle.rootfs("etc/hostname")).expect("a directory");
    std::os::unix::fs::symlink("/etc/hostname", container.bundle.rootfs("link")).expect("a link");
    container.start();
    std::fs::remove_file(container.bundle.dir.join("config.json")).expect("config.json is removed");
    let request = asked(&container, &["checkpoint"]);
    assert!(request.contains("/file"), "a masked file: {request:?}");
    assert!(!request.contains("/link"), "a masked directory: {request:?}");
}

#[test]
fn a_restore_without_its_streams_leaves_nothing() {
    if !is_ours() {
        return;
    }
    let world = World::enter();
    let container = Container::new(&world, STAY);
    container.bundle.write_config();
    let images = container.bundle.dir.join("images");
    std::fs::create_dir(&images).expect("a directory");
    let mut command = container.bundle.runtime();
    command.args(["restore", "--detach", "--image-path"]).arg(&images).arg(&container.bundle.id);
    let done = output(command.current_dir(&container.bundle.dir).stdin(Stdio::null()));
    check_refused(&done, 1, "descriptors.json");
    let left = std::fs::read_dir(container.bundle.dir.join("state")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "state directories");
    // That its cgroups are gone the World proves.
}

#[test]
fn criu_follows_runcs_configuration_or_that_of_the_containers_annotation() {
    if !is_ours() {
        return;
    }
    let world = World::enter();
    for (annotation, named, not_named) in [
        (None, Some("/etc/criu/runc.conf"), "/special.conf"),
        (Some("/etc/special.conf"), Some("/etc/special.conf"), "runc.conf"),
        (Some(""), None, ".conf"),
    ] {
        let mut container = Container::new(&world, STAY);
        if let Some(path) = annotation {
            container.bundle.set("/annotations", json!({"org.criu.config": path}));
        }
        container.start();
        let checkpoint = asked(&container, &["checkpoint"]);
        container.verb(&["delete", "--force"]).success();
        let restore = asked(&container, &["restore"]);
        for request in [checkpoint, restore] {
            assert!(named.is_none_or(|path| request.contains(path)), "{annotation:?}: {request}");
            assert!(!request.contains(not_named), "{annotation:?}: {request}");
        }
    }
}
