//! The query of `/containerLogs`: the fields of v1.PodLogOptions, decoded and validated as upstream does.

use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};

/// Which part of a log is wanted, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Go on when the end is reached, as long as the container runs.
    pub(super) follow: bool,
    /// The log of the container before this one.
    pub(super) previous: bool,
    /// Prefix every line with its time.
    pub(super) timestamps: bool,
    /// Only records from then on.
    pub(super) since: Option<Timestamp>,
    /// So many records from the end.
    pub(super) tail: Option<u64>,
    /// At most so many bytes.
    pub(super) limit: Option<u64>,
}

/// A query that is not answered: status and text.
pub(super) type Refused = (StatusCode, String);

impl Options {
    /// Decodes a query's pairs.
    pub(super) fn parse(pairs: &[(String, String)], now: Timestamp) -> Result<Options, Refused> {
        let first = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        // kubectl before 1.0 said `tail`, with "all" for no limit.
        let tail = match first("tail").filter(|tail| !tail.is_empty()) {
            Some("all") => None,
            Some(tail) => integer(Some(tail))?,
            None => integer(first("tailLines"))?,
        };
        let limit = integer(first("limitBytes"))?;
        let since_seconds = integer(first("sinceSeconds"))?;
        let since_time = first("sinceTime").filter(|text| !text.is_empty());
        let since_time = since_time.map(|text| text.parse::<Timestamp>().map_err(|_| undecodable())).transpose()?;
        let both = since_seconds.is_some() && since_time.is_some();
        let small = tail.is_some_and(|tail| tail < 0)
            || limit.is_some_and(|limit| limit < 1)
            || since_seconds.is_some_and(|seconds| seconds < 1);
        if both || small {
            return Err(invalid());
        }
        stream(first("stream"), tail.is_some())?;
        let since = match since_seconds {
            Some(seconds) => Some(now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN)),
            None => since_time,
        };
        Ok(Options {
            follow: boolean(first("follow")),
            previous: boolean(first("previous")),
            timestamps: boolean(first("timestamps")),
            since,
            tail: tail.and_then(|tail| u64::try_from(tail).ok()),
            limit: limit.and_then(|limit| u64::try_from(limit).ok()),
        })
    }
}

/// A key without a value is true; so is anything but `false` and `0`.
fn boolean(value: Option<&str>) -> bool {
    value.is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
}

fn integer(value: Option<&str>) -> Result<Option<i64>, Refused> {
    value.map(|value| value.parse().map_err(|_| undecodable())).transpose()
}

/// Only all streams together: the alpha gate PodLogsQuerySplitStreams is not built.
fn stream(value: Option<&str>, tail: bool) -> Result<(), Refused> {
    match value {
        None | Some("All") => Ok(()),
        Some("Stdout" | "Stderr") if tail => Err(invalid()),
        Some(stream @ ("Stdout" | "Stderr")) => Err((
            StatusCode::BAD_REQUEST,
            format!(
                "unable to return the given log stream: {stream:?}. Please enable PodLogsQuerySplitStreams feature gate in kubelet"
            ),
        )),
        Some(_) => Err(invalid()),
    }
}

fn undecodable() -> Refused {
    (StatusCode::BAD_REQUEST, r#"{"message": "Unable to decode query."}"#.to_owned())
}

fn invalid() -> Refused {
    (StatusCode::UNPROCESSABLE_ENTITY, r#"{"message": "Invalid request."}"#.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Options, u16> {
        let pairs: Vec<(String, String)> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        Options::parse(&pairs, now).map_err(|(status, _)| status.as_u16())
    }

    #[test]
    fn every_option_is_understood() {
        let expected = Options {
            follow: true,
            previous: true,
            timestamps: false,
            since: Some("2026-01-01T00:00:30Z".parse().unwrap()),
            tail: Some(5),
            limit: Some(100),
        };
        let query = "follow=true&previous&timestamps=false&sinceSeconds=30&tailLines=5&limitBytes=100&unknown=1";
        assert_eq!(parse(query), Ok(expected));
        assert_eq!(parse("stream=All&tail=all"), Ok(Options::default()));
        assert_eq!(parse("tail=3"), Ok(Options { tail: Some(3), ..Options::default() }));
        let since = Some("2025-12-31T23:00:00Z".parse().unwrap());
        assert_eq!(parse("sinceTime=2026-01-01T00:00:00+01:00"), Ok(Options { since, ..Options::default() }));
    }

    #[test]
    fn what_can_not_be_decoded_is_400_and_what_makes_no_sense_is_422() {
        for (query, status) in [
            ("tailLines=x", 400),
            ("limitBytes=1.5", 400),
            ("sinceTime=yesterday", 400),
            ("stream=Stdout", 400),
            ("tailLines=-1", 422),
            ("limitBytes=0", 422),
            ("sinceSeconds=0", 422),
            ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", 422),
            ("stream=stdout", 422),
            ("stream=Stderr&tailLines=1", 422),
        ] {
            assert_eq!(parse(query), Err(status), "{query}");
        }
    }
}
