//! Whether a kubeconfig can be used, before anything is done with it: the client reports its mistakes late and without lines.

use super::ConfigError;
use super::source::Source;
use super::yaml::{self, Key, Node, Value};
use std::path::Path;
use std::sync::Arc;

/// Checks that the current context names a cluster with a server and a user with credentials that are built.
///
/// # Errors
/// The first thing that is missing, with its place.
pub(super) fn check(path: &Path) -> Result<(), ConfigError> {
    check_source(&Source::read_secret(path)?)
}

fn check_source(source: &Arc<Source>) -> Result<(), ConfigError> {
    let root = yaml::parse(source)?;
    let Value::Map(top) = &root.value else {
        return Err(source.mistake(
            "this is not a kubeconfig",
            "it has clusters, users, contexts and current-context",
            0..0,
        ));
    };
    let Some((name, at)) = find(top, "current-context").and_then(text).filter(|(name, _)| !name.is_empty()) else {
        return Err(source.mistake("`current-context` is missing", "it names one of `contexts`", 0..0));
    };
    let context = named(source, top, ("contexts", "context"), name, at)?;
    for (reference, list, entry) in [("cluster", "clusters", "cluster"), ("user", "users", "user")] {
        let Some((name, at)) = find(context, reference).and_then(text) else {
            return Err(at.place.mistake(&format!("the context {name:?} has no `{reference}`"), ""));
        };
        let found = named(source, top, (list, entry), name, at)?;
        match reference {
            "cluster" => server(name, at, found)?,
            _ => credentials(found)?,
        }
        found.iter().try_for_each(file)?;
    }
    Ok(())
}

fn server(name: &str, at: &Node, cluster: &[(Key, Node)]) -> Result<(), ConfigError> {
    match find(cluster, "server").and_then(text) {
        Some((url, _)) if url.starts_with("https://") || url.starts_with("http://") => Ok(()),
        Some((url, node)) => Err(node.place.mistake(&format!("`server` is not a URL: {url:?}"), "https://HOST:PORT")),
        None => Err(at.place.mistake(&format!("the cluster {name:?} has no `server`"), "")),
    }
}

fn credentials(user: &[(Key, Node)]) -> Result<(), ConfigError> {
    match user.iter().find(|(key, _)| matches!(key.name.as_str(), "exec" | "auth-provider")) {
        Some((key, _)) => {
            let title = format!("a user with `{}` is not supported", key.name);
            Err(key.place.mistake(&title, "give a client certificate, a token or a tokenFile"))
        }
        None => Ok(()),
    }
}

/// Whether a file that an entry names can be opened; relative ones start at the kubeconfig.
fn file((key, node): &(Key, Node)) -> Result<(), ConfigError> {
    const FILES: [&str; 4] = ["certificate-authority", "client-certificate", "client-key", "tokenFile"];
    let Some((name, _)) = text(node).filter(|_| FILES.contains(&key.name.as_str())) else { return Ok(()) };
    let path = node.place.folder().unwrap_or(Path::new("")).join(name);
    match std::fs::File::open(&path) {
        Ok(_) => Ok(()),
        Err(error) => Err(node.place.mistake(&format!("`{}`: read {}: {error}", key.name, path.display()), "")),
    }
}

/// The inner mapping of a named entry: `clusters: [{name: a, cluster: {…}}]`.
fn named<'a>(
    source: &Source,
    top: &'a [(Key, Node)],
    (list, inner): (&str, &str),
    name: &str,
    at: &Node,
) -> Result<&'a [(Key, Node)], ConfigError> {
    let Some(Node { value: Value::List(items), .. }) = find(top, list) else {
        return Err(source.mistake(&format!("`{list}` is missing, or no list"), "", 0..0));
    };
    let entries = items.iter().filter_map(|item| match &item.value {
        Value::Map(entries) => Some(entries.as_slice()),
        _ => None,
    });
    let mut same =
        entries.filter(|entries| find(entries, "name").and_then(text).is_some_and(|(found, _)| found == name));
    let missing = || at.place.mistake(&format!("`{list}` has no {name:?}"), "");
    match find(same.next().ok_or_else(missing)?, inner).map(|node| &node.value) {
        Some(Value::Map(entries)) => Ok(entries),
        _ => Err(at.place.mistake(&format!("{name:?} in `{list}` has no `{inner}`"), "")),
    }
}

fn find<'a>(entries: &'a [(Key, Node)], name: &str) -> Option<&'a Node> {
    entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
}

fn text(node: &Node) -> Option<(&str, &Node)> {
    match &node.value {
        Value::Text(text) => Some((text, node)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:6443'}}]
users: [{name: u, user: {token: t}}]
";

    fn source(text: String) -> Arc<Source> {
        Arc::new(Source { path: "k.conf".into(), text, secret: true })
    }

    #[track_caller]
    fn refused(change: (&str, &str), wants: &[&str]) {
        let text = GOOD.replace(change.0, change.1);
        let error = check_source(&source(text)).unwrap_err().to_string();
        for want in wants {
            assert!(error.contains(want), "{want:?} is not in:\n{error}");
        }
    }

    #[test]
    fn one_that_is_whole_is_taken() {
        check_source(&source(GOOD.to_owned())).unwrap();
    }

    #[test]
    fn what_is_missing_is_named_with_its_line() {
        refused(("current-context: here\n", ""), &["`current-context` is missing", "k.conf"]);
        refused(("current-context: here", "current-context: there"), &["`contexts` has no \"there\"", "k.conf:3"]);
        refused(("cluster: c, user: u", "cluster: x, user: u"), &["`clusters` has no \"x\"", "k.conf:4"]);
        refused(("cluster: c, user: u", "cluster: c"), &["has no `user`", "k.conf:3"]);
        refused(("server: 'https://127.0.0.1:6443'", "server: 7443"), &["no `server`"]);
        refused(("https://127.0.0.1:6443", "127.0.0.1"), &["is not a URL", "k.conf:5"]);
        refused(("{token: t}", "{exec: {command: x}}"), &["a user with `exec` is not supported", "k.conf:6"]);
        refused(("users: [", "users: {"), &["k.conf:6"]);
        let missing = "{client-certificate: gone.pem}";
        refused(("{token: t}", missing), &["`client-certificate`: read gone.pem: No such file", "k.conf:6"]);
    }

    #[test]
    fn no_mistake_shows_a_credential_wherever_it_stands() {
        let json = "{\"users\":[{\"name\":\"u\",\"user\":{\"token\":\"hunter2\"}}],\"current-context\":\"x\"}";
        for text in [
            GOOD.replace("server: 'https://127.0.0.1:6443'", "server: 'x'").replace("token: t", "token: hunter2"),
            GOOD.replace("{token: t}", "\n    token: hunter2: def"),
            GOOD.replace("{token: t}", "{token: hunter2, client-certificate: /nope}"),
            GOOD.replace("{token: t}", "{token: hunter2, token: hunter2}"),
            GOOD.replace("{token: t}", "{token: *hunter2}"),
            GOOD.replace("{token: t}", "{token: !hunter2!x y}"),
            json.to_owned(),
        ] {
            let error = check_source(&source(text)).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
            assert!(error.contains("k.conf:"), "{error}");
        }
    }
}
