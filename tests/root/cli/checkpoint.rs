//! checkpoint, as far as it goes without CRIU; `criu.rs` goes further.

use tests::{World, output};

use super::{Container, check_refused, is_ours};

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
