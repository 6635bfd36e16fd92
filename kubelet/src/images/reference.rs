//! Names of images, as far as a kubelet looks into them: is it a name at all, which repository's credentials does it
//! need, which tag has it.

/// A name that is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// `docker.io/library/busybox`: what credentials are looked up by.
    pub(super) repository: String,
    /// As it was asked for, without tag and digest: what is remembered of a pull.
    pub(super) name: String,
    /// As it was asked for, with `:latest` where it has neither tag nor digest: what the runtime is asked for. The
    /// registry is not filled in: which one is meant is the runtime's to say.
    pub(super) full: String,
    /// Whether the tag is `latest`, given or not: such an image is pulled always, where a pod does not say otherwise.
    pub(super) latest: bool,
}

/// Reads a name by the grammar that all runtimes share (distribution/reference).
///
/// # Errors
/// Upstream's text.
pub(super) fn parse(image: &str) -> Result<Reference, String> {
    let fail = |what: &str| format!("couldn't parse image name {image:?}: {what}");
    let wrong = || fail("invalid reference format");
    let (named, digest) = match image.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (image, None),
    };
    let (domain, rest) = split_domain(named);
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(fail("invalid reference format: repository name must be lowercase"));
    }
    let valid = path.split('/').all(is_path_component)
        && is_domain(domain)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest);
    if !valid || named.len() - tag.map_or(0, |tag| tag.len() + 1) > 255 {
        return Err(wrong());
    }
    let official = matches!(domain, "docker.io" | "index.docker.io") && !path.contains('/');
    let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
    let bare = tag.is_none() && digest.is_none();
    Ok(Reference {
        name: named[..named.len() - tag.map_or(0, |tag| tag.len() + 1)].to_owned(),
        repository: format!("{domain}/{}{path}", if official { "library/" } else { "" }),
        full: if bare { format!("{image}:latest") } else { image.to_owned() },
        latest: digest.is_none() && tag.is_none_or(|tag| tag == "latest"),
    })
}

/// The first part is a host if it looks like one: docker.io stands for what does not.
fn split_domain(named: &str) -> (&str, &str) {
    match named.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => ("docker.io", named),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !domain.ends_with(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let named = match address {
        Some(address) => !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':'),
        None => host.split('.').all(label),
    };
    named && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Lower-case letters and digits, with `.`, `_`, `__` or dashes between them.
fn is_path_component(component: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separator = |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    component.starts_with(word) && component.ends_with(word) && component.split(word).all(separator)
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let inner = |byte: u8| word(byte) || matches!(byte, b'.' | b'-');
    (1..=128).contains(&tag.len()) && tag.bytes().next().is_some_and(word) && tag.bytes().all(inner)
}

fn is_digest(digest: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
    match digest.split_once(':') {
        Some(("sha256", text)) => text.len() == 64 && hex(text),
        Some(("sha384", text)) => text.len() == 96 && hex(text),
        Some(("sha512", text)) => text.len() == 128 && hex(text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(image: &str, repository: &str, full: &str, latest: bool) {
        let found = parse(image).expect("a name");
        assert_eq!(
            (found.repository.as_str(), found.full.as_str(), found.latest),
            (repository, full, latest),
            "{image}"
        );
    }

    #[test]
    fn what_is_remembered_has_neither_tag_nor_digest() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for image in ["h:1/a/b", "h:1/a/b:t", &format!("h:1/a/b@{digest}"), &format!("h:1/a/b:t@{digest}")] {
            assert_eq!(parse(image).expect("a name").name, "h:1/a/b", "{image}");
        }
    }

    #[test]
    fn a_name_is_completed_for_credentials_and_not_for_the_runtime() {
        check("root", "docker.io/library/root", "root:latest", true);
        check("root:tag", "docker.io/library/root", "root:tag", false);
        check("user/repo:latest", "docker.io/user/repo", "user/repo:latest", true);
        check("docker.io/busybox", "docker.io/library/busybox", "docker.io/busybox:latest", true);
        check("index.docker.io/a/b:1", "docker.io/a/b", "index.docker.io/a/b:1", false);
        check("localhost/app", "localhost/app", "localhost/app:latest", true);
        check("host:5000/a/b-c__d.e:v1", "host:5000/a/b-c__d.e", "host:5000/a/b-c__d.e:v1", false);
        check("[2001:db8::1]:5000/app:1", "[2001:db8::1]:5000/app", "[2001:db8::1]:5000/app:1", false);
        let digest = format!("sha256:{}", "a".repeat(64));
        check(&format!("q.io/x@{digest}"), "q.io/x", &format!("q.io/x@{digest}"), false);
        check(&format!("q.io/x:t@{digest}"), "q.io/x", &format!("q.io/x:t@{digest}"), false);
    }

    #[test]
    fn what_is_no_name_is_refused_in_upstream_s_words() {
        for image in
            ["", "a b", ":tag", "a//b", "-a", "a-", "a___b", "a..b", "x@sha256:12", "x:", "../x", "a:b:c", "/x"]
        {
            let expected = format!("couldn't parse image name {image:?}: invalid reference format");
            assert_eq!(parse(image), Err(expected), "{image}");
        }
        assert_eq!(
            parse("Root/Busybox").map_err(|error| error.ends_with("repository name must be lowercase")),
            Err(true)
        );
    }
}
