//! What the API server forbids because it has not heard yet.
//!
//! Its node authoriser and its NodeRestriction admission know which pod is on which node from watches of their own, and
//! those can be behind ours: a token or a Secret that is asked for as soon as a pod is bound is then refused with 403, as
//! if the pod were another node's, or a token with 404, as if there were no pod (kubernetes
//! `plugin/pkg/auth/authorizer/node`, `plugin/pkg/admission/noderestriction`). A moment later it is allowed, and nobody
//! should be told of it.

use super::{ApiError, Result};
use std::time::Duration;
use tokio::time::Instant;

/// The pause before the second try; each one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Nothing is asked later than this after the first question.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks for what belongs to a pod of ours until it is allowed; what is still forbidden after two seconds stays so.
///
/// # Errors
/// Those of the last answer. Whatever else goes wrong is not tried again here.
pub(super) async fn until_allowed<T, F: Future<Output = Result<T>>>(ask: impl Fn() -> F) -> Result<T> {
    let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        match ask().await {
            Err(error) if may_be_early(&error) && begun.elapsed() + pause <= PATIENCE => {
                tracing::debug!(%error, ?pause, "forbidden; asked again");
                tokio::time::sleep_until(Instant::now() + pause).await;
                pause *= 2;
            }
            answer => return answer,
        }
    }
}

/// Whether the answer may be another one once the server has heard of the pod.
fn may_be_early(error: &ApiError) -> bool {
    match error {
        ApiError::Refused { status: 403, .. } => true,
        ApiError::NotFound(message) => message.starts_with("pods "),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::ready;

    fn refused(status: u16) -> ApiError {
        ApiError::Refused {
            status,
            message: "node requested token bound to a pod scheduled on a different node".into(),
        }
    }

    /// How often a server is asked that refuses so many times, what comes of it, and how long that takes.
    async fn asked(refusals: u32, error: ApiError) -> (u32, bool, Duration) {
        let (tries, start) = (Cell::new(0), Instant::now());
        let answer = until_allowed(|| {
            tries.set(tries.get() + 1);
            ready(if tries.get() <= refusals { Err(error.clone()) } else { Ok(()) })
        });
        let allowed = answer.await.is_ok();
        (tries.get(), allowed, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_learns_of_the_pod_a_moment_later_is_asked_again() {
        for error in [refused(403), ApiError::NotFound("pods \"p\" not found".into())] {
            let (tries, allowed, took) = asked(2, error).await;
            assert_eq!((tries, allowed), (3, true));
            assert!((150..200).contains(&took.as_millis()), "{took:?}");
        }
    }

    /// Mutant: each try has its own patience, and a slow server is asked for minutes.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_its_time_to_refuse_is_not_asked_again() {
        let tries = Cell::new(0);
        let answer = until_allowed(async || {
            tries.set(tries.get() + 1);
            tokio::time::sleep_until(Instant::now() + PATIENCE).await;
            Err::<(), _>(refused(403))
        });
        answer.await.unwrap_err();
        assert_eq!(tries.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_stays_forbidden_is_said_within_two_seconds() {
        let (tries, allowed, took) = asked(u32::MAX, refused(403)).await;
        assert_eq!((tries, allowed), (6, false));
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_other_refusal_is_questioned() {
        for error in [refused(401), refused(422), ApiError::NotFound("serviceaccounts \"robot\" not found".into())] {
            assert_eq!(asked(u32::MAX, error).await, (1, false, Duration::ZERO));
        }
    }
}
