//! The `WWW-Authenticate` header (RFC 9110, section 11.6.1): which proof a registry wants.

/// One way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token from the server `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// The challenges of one header that we understand.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = header.trim_start();
    while let Some((scheme, after)) = token(rest) {
        let (parameters, after) = parameters(after);
        let value = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => challenges.push(Challenge::Basic),
            "bearer" => {
                if let Some(realm) = value("realm") {
                    challenges.push(Challenge::Bearer { realm, service: value("service"), scope: value("scope") });
                }
            }
            _ => {}
        }
        let next = after.trim_start_matches([',', ' ', '\t']);
        if next.len() == rest.len() {
            break; // nothing of it was understood
        }
        rest = next;
    }
    challenges
}

fn token(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// `key=value` and `key="value"` pairs up to the next scheme.
fn parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let mut pairs = Vec::new();
    let mut rest = text;
    loop {
        let start = rest.trim_start_matches([',', ' ', '\t']);
        let Some((key, after)) = token(start) else { return (pairs, rest) };
        let Some(after) = after.trim_start().strip_prefix('=') else { return (pairs, rest) };
        let Some((value, after)) = value(after.trim_start()) else { return (pairs, rest) };
        pairs.push((key.to_ascii_lowercase(), value));
        rest = after;
    }
}

fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(value, rest)| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned), scope: scope.map(str::to_owned) }
    }

    #[test]
    fn challenges_are_read_in_all_their_forms() {
        for (header, want) in [
            (r#"Basic realm="x""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:a/b:pull,push"),
                )],
            ),
            (r#"BEARER Realm = "https://a/\"b" , error="invalid_token""#, vec![bearer("https://a/\"b", None, None)]),
            (
                r#"Digest realm="d", nonce="n", Basic realm="b", Bearer realm=x"#,
                vec![Challenge::Basic, bearer("x", None, None)],
            ),
            ("Bearer service=x", vec![]),
            (r#"Bearer realm="open"#, vec![]),
            ("", vec![]),
            (",,,;;;", vec![]),
        ] {
            assert_eq!(parse(header), want, "{header}");
        }
    }
}
