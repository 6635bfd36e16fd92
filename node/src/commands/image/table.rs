//! Lists of images, for a person and for a program.

use cri::client::ListedImage;
use indicatif::HumanBytes;

/// A table with a line per name; an image without one shows its digest's.
pub(crate) fn images(images: &[ListedImage]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["IMAGE", "TAG", "IMAGE ID", "SIZE"]);
    for image in images {
        for (name, tag) in names(image) {
            table.add_row([name, tag, short(&image.id), HumanBytes(image.size).to_string()]);
        }
    }
    table.trim_fmt()
}

fn names(image: &ListedImage) -> Vec<(String, String)> {
    // A tag stands behind the last colon, if no slash follows it: a host's port has one.
    let split = |name: &String| match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        _ => (name.clone(), "<none>".to_owned()),
    };
    if !image.repo_tags.is_empty() {
        return image.repo_tags.iter().map(split).collect();
    }
    let name = image.repo_digests.first().and_then(|name| name.split_once('@'));
    vec![(name.map_or("<none>", |(name, _)| name).to_owned(), "<none>".to_owned())]
}

fn short(id: &str) -> String {
    id.split_once(':').map_or(id, |(_, hex)| hex).chars().take(12).collect()
}

/// `crictl images -o json`'s shape, so that a script can read either.
pub(crate) fn images_json(images: &[ListedImage]) -> serde_json::Result<String> {
    let listed: Vec<_> = images
        .iter()
        .map(|image| {
            serde_json::json!({
                "id": image.id,
                "repoTags": image.repo_tags,
                "repoDigests": image.repo_digests,
                "size": image.size.to_string(),
            })
        })
        .collect();
    serde_json::to_string_pretty(&serde_json::json!({ "images": listed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(tags: &[&str], digests: &[&str]) -> ListedImage {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        ListedImage {
            id: "sha256:0123456789abcdef".into(),
            repo_tags: owned(tags),
            repo_digests: owned(digests),
            size: 2048,
        }
    }

    #[test]
    fn a_port_is_not_taken_for_a_tag() {
        assert_eq!(names(&image(&["localhost:5000/a:1"], &[])), [("localhost:5000/a".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn an_image_without_tags_shows_the_name_of_its_digest() {
        let listed = images(&[image(&[], &["docker.io/library/a@sha256:00"])]);
        assert!(listed.contains("docker.io/library/a"), "{listed}");
        assert!(listed.contains("0123456789ab"), "{listed}");
    }
}
