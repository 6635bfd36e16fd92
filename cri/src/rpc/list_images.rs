//! ListImages: each image once, with all its names.

use super::image_status::to_cri;
use crate::pods::Pods;
use proto::{ImageFilter, ListImagesResponse};

pub(crate) fn list_images(pods: &Pods, filter: Option<&ImageFilter>) -> ListImagesResponse {
    let name = filter.and_then(|filter| filter.image.as_ref()).map_or("", |image| image.image.as_str());
    let images = if name.is_empty() { pods.images.list() } else { pods.images.find(name).into_iter().collect() };
    ListImagesResponse { images: images.iter().map(|image| to_cri(image)).collect() }
}
