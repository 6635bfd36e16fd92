//! A running daemon, for `orlop image` and `orlop ps`: the daemon owns the store, so that its commands ask it.
//!
//! Progress comes back as the store's own [`Progress`], so that a caller draws the same bars whether it asked a daemon or
//! opened the store itself.

mod pods;

use image::{Digest, Phase, Progress};
pub use pods::{ListedContainer, ListedPod, Usage};
pub use proto::ContainerState;
use proto::image::images_client::ImagesClient;
use proto::image::pull_update::Update;
use proto::image::{LayerUpdate, PullRequest, Resolved};
use proto::image_service_client::ImageServiceClient;
use proto::{ImageSpec, ListImagesRequest, RemoveImageRequest};
use std::path::{Path, PathBuf};
use tonic::transport::{Channel, Endpoint, Uri};

/// A connection to a daemon.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
}

/// An image as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedImage {
    /// The digest of its config.
    pub id: String,
    /// `host/path:tag` names.
    pub repo_tags: Vec<String>,
    /// `host/path@digest` names.
    pub repo_digests: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
}

/// What a daemon could not do, or why it could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no daemon listens on {socket}", socket = .socket.display())]
    NoDaemon {
        /// The socket's path.
        socket: PathBuf,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The daemon's own words.
    #[error("{0}")]
    Refused(String),
    /// The daemon ended, or speaks another version.
    #[error("the daemon's answer makes no sense: {0}")]
    Answer(&'static str),
}

impl From<tonic::Status> for ClientError {
    fn from(status: tonic::Status) -> Self {
        ClientError::Refused(status.message().to_owned())
    }
}

impl Client {
    /// Connects to the daemon's socket.
    ///
    /// # Errors
    /// [`ClientError::NoDaemon`].
    pub async fn connect(socket: &Path) -> Result<Client, ClientError> {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
        });
        // The URI is only the `:authority` that gRPC wants; the connector dials the socket.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await;
        Ok(Client { channel: channel.map_err(|source| ClientError::NoDaemon { socket: socket.to_owned(), source })? })
    }

    /// Pulls an image, tells `progress` of every step, and returns the image's id.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn pull(
        &self,
        reference: &str,
        login: Option<(String, String)>,
        progress: impl Fn(Progress),
    ) -> Result<String, ClientError> {
        let (username, password) = login.unwrap_or_default();
        let request = PullRequest { reference: reference.to_owned(), username, password };
        let mut updates = ImagesClient::new(self.channel.clone()).pull(request).await?.into_inner();
        while let Some(update) = updates.message().await? {
            match update.update {
                Some(Update::Pulled(pulled)) => return Ok(pulled.id),
                Some(Update::Resolved(resolved)) => progress(self::resolved(&resolved)?),
                Some(Update::Layer(layer)) => progress(self::layer(&layer)?),
                Some(Update::Syncing(_)) => progress(Progress::Syncing),
                None => {}
            }
        }
        Err(ClientError::Answer("the pull ended without a result"))
    }

    /// Every image.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn list(&self) -> Result<Vec<ListedImage>, ClientError> {
        let answer = self.cri().list_images(ListImagesRequest::default()).await?.into_inner();
        let listed = |image: proto::Image| ListedImage {
            id: image.id,
            repo_tags: image.repo_tags,
            repo_digests: image.repo_digests,
            size: image.size,
        };
        Ok(answer.images.into_iter().map(listed).collect())
    }

    /// Removes an image with all its names; `false`: there was none.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn remove(&self, name: &str) -> Result<bool, ClientError> {
        let spec = ImageSpec { image: name.to_owned(), ..ImageSpec::default() };
        let status = proto::ImageStatusRequest { image: Some(spec.clone()), verbose: false };
        if self.cri().image_status(status).await?.into_inner().image.is_none() {
            return Ok(false);
        }
        self.cri().remove_image(RemoveImageRequest { image: Some(spec) }).await?;
        Ok(true)
    }

    fn cri(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(crate::MAX_MESSAGE)
    }
}

fn resolved(resolved: &Resolved) -> Result<Progress, ClientError> {
    let layers = resolved.layers.iter().map(|layer| Ok((digest(&layer.digest)?, layer.size)));
    Ok(Progress::Resolved { digest: digest(&resolved.digest)?, layers: layers.collect::<Result<_, ClientError>>()? })
}

fn layer(layer: &LayerUpdate) -> Result<Progress, ClientError> {
    let phase = match layer.phase() {
        proto::image::Phase::Waiting => Phase::Waiting,
        proto::image::Phase::Fetching => Phase::Fetching,
        proto::image::Phase::Done => Phase::Done,
        proto::image::Phase::Present => Phase::Present,
    };
    Ok(Progress::Layer { digest: digest(&layer.digest)?, phase, done: layer.done, total: layer.total })
}

fn digest(text: &str) -> Result<Digest, ClientError> {
    text.parse().map_err(|_| ClientError::Answer("a digest that is none"))
}
