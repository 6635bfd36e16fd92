//! The private image service: `orlop image pull` asks the running daemon, which owns the store, and sees the pull move.

use image::{Credentials, Phase, Progress, PullErrorKind, PullOptions, Reference, Secret, Store};
use proto::image::images_server::Images;
use proto::image::pull_update::Update;
use proto::image::{Layer, LayerUpdate, PullRequest, PullUpdate, Pulled, Resolved, Syncing};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status};

/// Serves pulls from the daemon's own store.
pub(crate) struct PullService {
    pub(crate) store: Store,
    pub(crate) hosts_dirs: Vec<PathBuf>,
}

#[tonic::async_trait]
impl Images for PullService {
    type PullStream = UnboundedReceiverStream<Result<PullUpdate, Status>>;

    async fn pull(&self, request: Request<PullRequest>) -> Result<Response<Self::PullStream>, Status> {
        let request = request.into_inner();
        let reference: Reference =
            Reference::parse(&request.reference).map_err(|e| Status::invalid_argument(crate::chain(&e)))?;
        // Unbounded, because a pull must not wait for a slow terminal; a layer sends a bounded number of updates.
        let (updates, stream) = mpsc::unbounded_channel();
        let progress = updates.clone();
        let options = PullOptions {
            auth: credentials(&request),
            hosts_dirs: self.hosts_dirs.clone(),
            platform: None,
            pinned: false,
            progress: Some(Arc::new(move |event| _ = progress.send(Ok(update(event))))),
        };
        let store = self.store.clone();
        tokio::spawn(async move {
            let last = tokio::select! {
                result = store.pull(&reference, options) => match result {
                    Ok(id) => Ok(PullUpdate { update: Some(Update::Pulled(Pulled { id: id.to_string() })) }),
                    Err(error) => Err(Status::new(code(error.kind()), crate::chain(&error))),
                },
                () = updates.closed() => return,
            };
            _ = updates.send(last);
        });
        Ok(Response::new(UnboundedReceiverStream::new(stream)))
    }
}

fn credentials(request: &PullRequest) -> Option<Credentials> {
    if request.username.is_empty() && request.password.is_empty() {
        return None;
    }
    let secret = Secret::Password { username: request.username.clone(), password: request.password.clone() };
    Some(Credentials { secret, server: None })
}

/// The gRPC code of a failed pull.
pub(crate) fn code(kind: PullErrorKind) -> tonic::Code {
    match kind {
        PullErrorKind::NotFound => tonic::Code::NotFound,
        PullErrorKind::Denied => tonic::Code::PermissionDenied,
        PullErrorKind::Unavailable => tonic::Code::Unavailable,
        PullErrorKind::RateLimited | PullErrorKind::DiskFull => tonic::Code::ResourceExhausted,
        PullErrorKind::Corrupt => tonic::Code::DataLoss,
        PullErrorKind::Unsupported => tonic::Code::Unimplemented,
        PullErrorKind::Internal => tonic::Code::Internal,
    }
}

fn update(event: Progress) -> PullUpdate {
    let update = match event {
        Progress::Resolved { digest, layers } => Update::Resolved(Resolved {
            digest: digest.to_string(),
            layers: layers.into_iter().map(|(digest, size)| Layer { digest: digest.to_string(), size }).collect(),
        }),
        Progress::Layer { digest, phase, done, total } => {
            let phase = match phase {
                Phase::Waiting => proto::image::Phase::Waiting,
                Phase::Fetching => proto::image::Phase::Fetching,
                Phase::Done => proto::image::Phase::Done,
                Phase::Present => proto::image::Phase::Present,
            };
            Update::Layer(LayerUpdate { digest: digest.to_string(), phase: phase.into(), done, total })
        }
        Progress::Syncing => Update::Syncing(Syncing {}),
    };
    PullUpdate { update: Some(update) }
}
