//! Bodies of answers: bounded, never awaited for ever, and never printed unread.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;

use super::error::RegistryError;
use super::transport::{origin, protocol};

/// How much of a registry's own words is passed on.
const MAX_MESSAGE: usize = 300;

/// The next bytes of a body; `None` at its end.
pub(super) async fn chunk(
    response: &mut Response,
    stall: Duration,
    what: &str,
) -> Result<Option<Bytes>, RegistryError> {
    match tokio::time::timeout(stall, response.chunk()).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(source)) => Err(RegistryError::Network {
            host: origin(response.url()),
            what: what.to_owned(),
            source: source.without_url(),
        }),
        Err(_) => Err(RegistryError::Stalled { host: origin(response.url()), what: what.to_owned(), after: stall }),
    }
}

/// All of a body, which must not be longer than `max` bytes.
pub(super) async fn read(
    mut response: Response,
    max: usize,
    stall: Duration,
    what: &str,
) -> Result<Vec<u8>, RegistryError> {
    let mut body = Vec::new();
    while let Some(chunk) = chunk(&mut response, stall, what).await? {
        if body.len() + chunk.len() > max {
            return Err(protocol(response.url(), what, format!("the answer is longer than {max} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What an error's body says, made fit for one line: the messages of a registry's JSON, or the first line of a text.
pub(super) fn message(body: &[u8]) -> String {
    let from_json = serde_json::from_slice::<serde_json::Value>(body).ok().and_then(|json| {
        let errors = json.get("errors").and_then(|errors| errors.as_array().cloned()).unwrap_or_default();
        let texts: Vec<String> = errors
            .iter()
            .filter_map(|error| error.get("message").or(error.get("code")).and_then(|text| text.as_str()))
            .map(str::to_owned)
            .collect();
        let plain = ["details", "message", "error"].iter().find_map(|key| json.get(key)?.as_str().map(str::to_owned));
        if texts.is_empty() { plain } else { Some(texts.join(", ")) }
    });
    let text = from_json.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let line: String =
        text.trim().chars().take_while(|c| *c != '\n').filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
    if line.starts_with('<') { String::new() } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_registry_fit_one_line() {
        for (body, want) in [
            (&br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#[..], "manifest unknown"),
            (br#"{"errors":[{"code":"DENIED"},{"message":"b"}]}"#, "DENIED, b"),
            (br#"{"details":"bad token"}"#, "bad token"),
            (b"plain\ntext\x1b[31m", "plain"),
            (b"a\x1b[31mb", "a[31mb"),
            (b"<html><body>502", ""),
            (b"", ""),
        ] {
            assert_eq!(message(body), want);
        }
        assert_eq!(message(&[b'x'; 5000]).len(), MAX_MESSAGE);
    }
}
