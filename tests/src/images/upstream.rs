//! The images that the upstream CRI suite names in its own source, rebuilt from busybox and `workload`, and the host names
//! under which it asks for them.

use std::path::Path;

use super::{Blob, Compression, Format, Image, Layer, busybox_layer, workload_layer};
use crate::{Registry, mirror_host};

/// The hosts in the suite's image names. A daemon that mirrors them needs no network.
pub const HOSTS: [&str; 3] = ["registry.k8s.io", "k8s.gcr.io", "gcr.io"];

/// The default container image.
pub const BUSYBOX: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";

/// Stores all of them in `registry` and makes a daemon that reads `hosts_dir` look for them there.
pub fn serve(registry: &Registry, hosts_dir: &Path) {
    for (repository, tag, image) in all() {
        registry.add(repository, tag, &image);
    }
    for host in HOSTS {
        mirror_host(hosts_dir, host, &registry.host());
    }
}

/// Every image as (repository, tag, image). The one that the suite names by digest cannot be rebuilt.
pub fn all() -> Vec<(&'static str, &'static str, Image)> {
    const MARKED: [(&str, &str); 9] = [
        ("k8s-staging-cri-tools/test-image-latest", "latest"),
        ("k8s-staging-cri-tools/test-image-tag", "test"),
        ("k8s-staging-cri-tools/test-image-tag", "all"),
        ("k8s-staging-cri-tools/test-image-1", "latest"),
        ("k8s-staging-cri-tools/test-image-2", "latest"),
        ("k8s-staging-cri-tools/test-image-3", "latest"),
        ("k8s-staging-cri-tools/test-image-tags", "1"),
        ("k8s-staging-cri-tools/test-image-tags", "2"),
        ("k8s-staging-cri-tools/test-image-tags", "3"),
    ];
    let base = vec![busybox_layer(), workload_layer()];
    let shell = Image::new(base.clone(), &["sh"]);
    let user = |user: &str| shell.clone().with("User", user);
    let mut images: Vec<(&'static str, &'static str, Image)> = MARKED
        .iter()
        // Three tags are one image, everything else differs in one file.
        .map(|(repository, tag)| {
            let content = if repository.ends_with("-tags") { *repository } else { &format!("{repository}:{tag}") };
            (*repository, *tag, marked(&base, content))
        })
        .collect();
    images.extend([
        ("e2e-test-images/busybox", "1.29-2", docker(shell.clone())),
        ("e2e-test-images/nginx", "1.14-2", with_program(&base, "usr/sbin/nginx", &["nginx"])),
        ("e2e-test-images/httpd", "2.4.39-4", with_program(&base, "usr/sbin/httpd", &["httpd"])),
        ("e2e-test-images/nonewprivs", "1.3", no_new_privileges(&base)),
        (
            "k8s-staging-cri-tools/hostnet-nginx-amd64",
            "latest",
            with_program(&base, "usr/sbin/nginx", &["nginx", "12003"]),
        ),
        ("k8s-staging-cri-tools/test-image-user-uid", "latest", user("1002")),
        ("k8s-staging-cri-tools/test-image-user-username", "latest", user("www-data")),
        ("k8s-staging-cri-tools/test-image-user-uid-group", "latest", user("1003:1004")),
        ("k8s-staging-cri-tools/test-image-user-username-group", "latest", user("www-data:1004")),
        ("k8s-staging-cri-tools/test-image-predefined-group", "latest", predefined_group(&base)),
        ("pause", "3.9", Image::new(vec![workload_layer()], &[]).with("Entrypoint", vec!["/bin/workload", "pause"])),
    ]);
    images
}

/// An image whose id nothing else has: a file says which one it is.
fn marked(base: &[Blob], content: &str) -> Image {
    let mark = Layer::new().file("mark", 0o644, content).finish(Compression::Gzip);
    Image::new([base, &[mark]].concat(), &["sh"])
}

/// `workload` at `path`, under whose name it is then called. A link would not do: it may not lead into a lower layer.
fn with_program(base: &[Blob], path: &str, command: &[&str]) -> Image {
    let program = Layer::new().file(path, 0o755, workload()).finish(Compression::Gzip);
    Image::new([base, &[program]].concat(), command)
}

/// `nnp`, set-user-ID root, in an image that runs as another user.
fn no_new_privileges(base: &[Blob]) -> Image {
    let layer = Layer::new().file("usr/bin/nnp", 0o4755, workload()).finish(Compression::Gzip);
    Image::new([base, &[layer]].concat(), &["/usr/bin/nnp"]).with("User", "1000")
}

fn workload() -> Vec<u8> {
    std::fs::read(crate::binary("workload")).expect("the workload binary")
}

/// A user whom only the image's own group file puts into group 50000.
fn predefined_group(base: &[Blob]) -> Image {
    let accounts = Layer::new()
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\ndefault-user:x:1000:1000::/home:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")
        .finish(Compression::Gzip);
    Image::new([base, &[accounts]].concat(), &["sh"]).with("User", "1000")
}

fn docker(image: Image) -> Image {
    Image { format: Format::Docker, ..image }
}
