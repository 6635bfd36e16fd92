//! ImageFsInfo: what images take, and what writable layers do; both lie on the same file system.

use crate::host::now;
use crate::pods::Pods;
use proto::{FilesystemIdentifier, FilesystemUsage, ImageFsInfoResponse, UInt64Value};

pub(crate) fn image_fs_info(pods: &Pods) -> ImageFsInfoResponse {
    let images = pods.images.usage();
    let containers = pods.usage.total();
    let mountpoint = images.mountpoint.to_string_lossy().into_owned();
    let usage = |timestamp: i64, bytes: u64, inodes: u64| FilesystemUsage {
        timestamp,
        fs_id: Some(FilesystemIdentifier { mountpoint: mountpoint.clone() }),
        used_bytes: Some(UInt64Value { value: bytes }),
        inodes_used: Some(UInt64Value { value: inodes }),
    };
    let counted = if containers.timestamp == 0 { now() } else { containers.timestamp };
    ImageFsInfoResponse {
        image_filesystems: vec![usage(now(), images.bytes, images.inodes)],
        container_filesystems: vec![usage(counted, containers.bytes, containers.inodes)],
    }
}
