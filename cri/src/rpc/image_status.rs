//! ImageStatus: by tag, digest, id or a beginning of one; an image that is not here is no error.

use crate::failure::{Failure, Result};
use crate::pods::Pods;
use crate::spec::user::image_user;
use image::Image;
use proto::{ImageSpec, ImageStatusResponse, Int64Value};
use serde_json::json;

pub(crate) fn image_status(pods: &Pods, spec: Option<&ImageSpec>, verbose: bool) -> Result<ImageStatusResponse> {
    let name = name(spec)?;
    let Some(image) = pods.images.find(name) else { return Ok(ImageStatusResponse::default()) };
    let mut response = ImageStatusResponse { image: Some(to_cri(&image)), ..ImageStatusResponse::default() };
    if verbose {
        let config = &image.config;
        let info = json!({
            "chainID": image.layers.last().map(ToString::to_string),
            "imageSpec": {
                "created": config.created,
                "architecture": config.architecture,
                "os": config.os,
                "config": {
                    "User": config.user,
                    "Env": config.env,
                    "Entrypoint": config.entrypoint,
                    "Cmd": config.cmd,
                    "WorkingDir": config.working_dir,
                    "StopSignal": config.stop_signal,
                    "Labels": config.labels,
                    "Volumes": config.volumes,
                    "ExposedPorts": config.exposed_ports,
                },
                "rootfs": {
                    "type": "layers",
                    "diff_ids": config.diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
                },
            },
        });
        response.info.insert("info".into(), info.to_string());
    }
    Ok(response)
}

/// The name in an image spec.
pub(super) fn name(spec: Option<&ImageSpec>) -> Result<&str> {
    match spec.map_or("", |spec| spec.image.as_str()) {
        "" => Err(Failure::invalid("image is missing")),
        name => Ok(name),
    }
}

pub(super) fn to_cri(image: &Image) -> proto::Image {
    let (uid, username) = image_user(&image.config.user);
    proto::Image {
        id: image.id.to_string(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        // A client takes zero for an error.
        size: image.size.max(1),
        uid: uid.map(|value| Int64Value { value }),
        username,
        spec: None,
        pinned: image.pinned,
    }
}
