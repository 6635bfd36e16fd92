//! RemoveImage: with all its names; one that is not here is fine.

use super::image_status::name;
use crate::failure::{Failure, Result};
use crate::pods::{Pods, blocking};
use proto::ImageSpec;
use std::sync::Arc;

pub(crate) async fn remove_image(pods: &Arc<Pods>, spec: Option<&ImageSpec>) -> Result<()> {
    let name = name(spec)?.to_owned();
    let remover = Arc::clone(pods);
    blocking("remove an image", move || {
        let removed = remover.images.remove(&name);
        removed.map(drop).map_err(|error| Failure::internal(format!("remove image {name:?}"), &error))
    })
    .await
}
