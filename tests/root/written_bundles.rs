//! config.json as other programs write it: umoci's bundles, and what buildah hands to a runtime. Those of containerd and podman are
//! in `ctr.rs` and `podman.rs`.

use std::path::PathBuf;

use tests::{World, binary, images, output, write};

/// The image as a file; engines call it `test`.
fn archive(world: &World) -> PathBuf {
    let file = world.dir().join("image.tar");
    let image = images::busybox().with("Cmd", vec!["sh", "-c", "id -u; pwd; exit 3"]).with("WorkingDir", "/home");
    write(&file, images::archive(&image, "test"));
    file
}

#[test]
fn a_bundle_that_umoci_unpacked_runs() {
    let world = World::enter();
    let (layout, bundle) = (world.new_dir("layout"), world.dir().join("bundle"));
    output(world.command("tar").arg("-xf").arg(archive(&world)).arg("-C").arg(&layout)).success();
    let image = format!("{}:test", layout.display());
    output(world.command("umoci").args(["unpack", "--image", &image]).arg(&bundle)).success();
    // Its process wants a terminal.
    let runtime = binary("orlop-runtime");
    let root = world.dir().join("state");
    let run = format!("{} --root {} run --bundle {} umoci", runtime.display(), root.display(), bundle.display());
    let told = output(world.command("script").args(["--quiet", "--return", "--command", &run, "/dev/null"]));
    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.stdout.ends_with("0\r\n/home\r\n"), "{told:?}");
}

#[test]
fn a_command_of_buildah_runs() {
    let world = World::enter();
    let archive = format!("oci-archive:{}", archive(&world).display());
    let buildah = || {
        let mut command = world.command("buildah");
        for (flag, folder) in [("--root", "root"), ("--runroot", "run")] {
            command.arg(flag).arg(world.dir().join("buildah").join(folder));
        }
        command.args(["--storage-driver", "vfs"]);
        command
    };
    let container = output(buildah().args(["from", &archive])).success();
    let mut run = buildah();
    run.args(["run", "--isolation", "oci", "--network", "none", "--runtime"]).arg(binary("orlop-runtime"));
    let told = output(run.args([container.trim(), "--", "sh", "-c", "echo out; exit 4"]));
    assert_eq!((told.code, told.stdout.as_str()), (4, "out\n"), "{}", told.stderr);
    output(buildah().args(["rm", container.trim()])).success();
}

#[test]
fn the_bundle_that_spec_makes_runs() {
    let world = World::enter();
    let bundle = world.new_dir("bundle");
    let layers = images::busybox().layers;
    let rootfs = bundle.join("rootfs");
    std::fs::create_dir(&rootfs).expect("a root file system");
    for (number, layer) in layers.iter().enumerate() {
        let file = world.dir().join(format!("layer-{number}"));
        write(&file, &layer.bytes);
        output(world.command("tar").arg("-xzf").arg(&file).arg("-C").arg(&rootfs)).success();
    }
    let runtime = binary("orlop-runtime");
    output(world.command(&runtime).arg("spec").arg("--bundle").arg(&bundle)).success();
    let run =
        format!("{} --root {}/state run --bundle {} spec", runtime.display(), world.dir().display(), bundle.display());
    let mut script = world.command("script");
    script.args(["--quiet", "--return", "--command", &run, "/dev/null"]);
    // The shell reads from the terminal.
    let mut shell = script
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("start a terminal");
    std::io::Write::write_all(&mut shell.stdin.take().expect("its input"), b"hostname; exit 5\n").expect("a command");
    let told = shell.wait_with_output().expect("its end");
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert_eq!(told.status.code(), Some(5), "{text}");
    assert!(text.contains("\r\norlop\r\n"), "{text}");
}
