//! agnhost, the program of the Kubernetes tests, as the image under whose name they ask for it.

use super::{Compression, Image, Layer};
use crate::programs::cluster_program;

/// Its name in manifests.
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";

/// The image: `/agnhost` as the entry point, which pauses unless it is told otherwise, as upstream's does.
pub fn agnhost() -> Image {
    let program = std::fs::read(cluster_program("agnhost")).expect("the agnhost program");
    let layer = Layer::new()
        .dir("tmp", 0o1777)
        .dir("etc", 0o755)
        .file("etc/passwd", 0o644, "root:x:0:0:root:/:/agnhost\nnobody:x:65534:65534:nobody:/:/agnhost\n")
        .file("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n")
        .file("agnhost", 0o755, program);
    // Compressing 60 MB would cost more than it saves on loopback.
    Image::new(vec![layer.finish(Compression::None)], &["pause"]).with("Entrypoint", vec!["/agnhost"])
}
