//! Version: four fields, none empty, or a kubelet refuses to connect.

use proto::VersionResponse;

pub(crate) fn version() -> VersionResponse {
    VersionResponse {
        version: "0.1.0".into(),
        runtime_name: "orlop".into(),
        runtime_version: env!("CARGO_PKG_VERSION").into(),
        runtime_api_version: "v1".into(),
    }
}
