//! PullImage: fetches an image and answers with its id, the same string that every list has.
//!
//! The client's going away cancels the pull, unless another one waits for the same image.

use super::image_status::name;
use crate::failure::{Failure, Result, chain};
use crate::pods::Pods;
use crate::pull_service::code;
use image::{Credentials, PullErrorKind, PullOptions, Reference, Secret};
use proto::{AuthConfig, PullImageRequest, PullImageResponse};
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

pub(crate) async fn pull_image(
    pods: &Arc<Pods>,
    request: PullImageRequest,
    patience: Option<Duration>,
) -> Result<PullImageResponse> {
    let name = name(request.image.as_ref())?;
    let reference = Reference::parse(name).map_err(|error| Failure::invalid(chain(&error)))?;
    let options = PullOptions {
        auth: request.auth.as_ref().map(credentials).transpose()?.flatten(),
        hosts_dirs: pods.config.registry_hosts_dirs.clone(),
        ..PullOptions::default()
    };
    let pull = pods.images.pull(&reference, options);
    let pulled = match patience {
        Some(patience) => tokio::time::timeout(patience, pull).await.map_err(|_elapsed| {
            let text = format!("pull {reference}: not done after {} ms", patience.as_millis());
            Failure::new(Code::DeadlineExceeded, text)
        })?,
        None => pull.await,
    };
    match pulled {
        Ok(id) => Ok(PullImageResponse { image_ref: id.to_string() }),
        Err(error) => {
            let text = chain(&error);
            // The word by which a kubelet knows that trying later may help.
            let text = if matches!(error.kind(), PullErrorKind::Unavailable | PullErrorKind::RateLimited) {
                format!("RegistryUnavailable: {text}")
            } else {
                text
            };
            Err(Failure::new(code(error.kind()), text))
        }
    }
}

/// What a client sends as credentials: a token for the registry, one to be exchanged, a name with a password, or those
/// two in base64. Nothing at all is anonymous.
fn credentials(auth: &AuthConfig) -> Result<Option<Credentials>> {
    let server = (!auth.server_address.is_empty()).then(|| auth.server_address.clone());
    let secret = if !auth.registry_token.is_empty() {
        Secret::Registry(auth.registry_token.clone())
    } else if !auth.identity_token.is_empty() {
        Secret::Identity(auth.identity_token.clone())
    } else if !auth.username.is_empty() || !auth.password.is_empty() {
        Secret::Password { username: auth.username.clone(), password: auth.password.clone() }
    } else if !auth.auth.is_empty() {
        Secret::from_encoded(&auth.auth).map_err(|error| Failure::invalid(chain(&error)))?
    } else {
        return Ok(None);
    };
    Ok(Some(Credentials { secret, server }))
}
