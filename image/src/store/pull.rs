//! A pull, from name to image: resolve, choose the platform's manifest, bring the layers, commit.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::try_join_all;
use sys::rootfd::RootFd;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::commit::Pulled;
use super::flight::{Flight, Landed, Status};
use super::pull_error::{FetchError, PullError, PullFailure};
use super::records::ImageRecord;
use super::snapshot::NewSnapshot;
use super::{ImageId, Inner, Store, StoreError, blobs, file_error};
use crate::config::ImageConfig;
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::layer::{self, Expected, LayerError, Limits};
use crate::manifest::{self, Descriptor, Document, MAX_DOCUMENT, MAX_INDEX_DEPTH, Manifest};
use crate::platform::Platform;
use crate::progress::{Phase, Progress, ProgressSink};
use crate::reference::Reference;
use crate::registry::{Resolved, Session};

/// Chunks of a download that wait to be inflated; each is some 16 KiB.
const CHUNKS_IN_FLIGHT: usize = 64;

/// What one pull is given.
#[derive(Clone, Default)]
pub struct PullOptions {
    /// Sent to their own registry only; `None` is anonymous.
    pub auth: Option<Credentials>,
    /// `certs.d` directories, first wins; read again at each pull.
    pub hosts_dirs: Vec<PathBuf>,
    /// `None`: this machine's.
    pub platform: Option<Platform>,
    /// Told of every step.
    pub progress: Option<ProgressSink>,
    /// The image is exempt from its caller's garbage collection.
    pub pinned: bool,
}

impl Store {
    /// Pulls an image and returns its id. Dropping the future cancels the pull, unless another pull waits for the
    /// same layers; two pulls of the same layer at once do the work once.
    pub async fn pull(&self, reference: &Reference, options: PullOptions) -> Result<ImageId, PullError> {
        let mut pulled = self.inner.clone().pull(reference, &options).await;
        if let Err(PullFailure::Store(StoreError::LayerGone(layer))) = &pulled {
            tracing::info!(%layer, "removed while it was counted on, pulling it again");
            pulled = self.inner.clone().pull(reference, &options).await;
        }
        pulled.map_err(|source| PullError { reference: reference.to_string(), source })
    }
}

/// Blocking work that ends with a layer on disk.
type Unpacking = JoinHandle<Result<Landed, LayerError>>;

/// The documents of an image, all verified.
struct Documents {
    manifest: Manifest,
    config: Arc<ImageConfig>,
    bytes: Vec<(Digest, Bytes)>,
}

/// One layer of an image, and how to get it.
struct Layer {
    descriptor: Descriptor,
    chain: Digest,
    diff_id: Digest,
}

impl Inner {
    async fn pull(self: Arc<Self>, reference: &Reference, options: &PullOptions) -> Result<ImageId, PullFailure> {
        let (transport, tokens) = (self.transport.clone(), self.tokens.clone());
        let (named, auth, hosts_dirs) = (reference.clone(), options.auth.clone(), options.hosts_dirs.clone());
        let reading = move || Session::new(transport, tokens, &named, auth, &hosts_dirs);
        let session = tokio::task::spawn_blocking(reading).await.map_err(|_| PullFailure::Stopping)??;
        let session = Arc::new(session);
        let resolved = session.resolve().await?;
        let digest = resolved.digest.clone();
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let documents = self.documents(&session, resolved, &platform).await?;
        let layers = documents.layers();
        tell(&options.progress, || Progress::Resolved {
            digest: digest.clone(),
            layers: layers.iter().map(|l| (l.descriptor.digest.clone(), l.descriptor.size)).collect(),
        });

        let pin = Pin::new(&self, layers.iter().map(|layer| layer.chain.clone()).collect());
        let landed = layers.iter().map(|layer| self.layer(&session, layer, &options.progress));
        let (landed, flights): (Vec<_>, Vec<_>) = try_join_all(landed).await?.into_iter().unzip();
        tell(&options.progress, || Progress::Syncing);
        let record = ImageRecord {
            id: ImageId(documents.manifest.config.digest.clone()),
            tags: reference.tag_name().into_iter().collect(),
            digests: BTreeSet::from([reference.digest_name(&digest)]),
            blobs: documents.bytes.iter().map(|(digest, _)| digest.clone()).collect(),
            layers: layers.into_iter().map(|layer| layer.chain).collect(),
            pinned: options.pinned,
            removed: false,
        };
        let Documents { config, bytes, .. } = documents;
        let commit = move || {
            let _pin = pin;
            // Until the layers are here for all to see, who wants them finds them by their flights.
            let _flights = flights;
            self.commit_image(&Pulled { record, config, documents: bytes, layers: landed })
        };
        // Once begun it ends, even if the caller has gone.
        tokio::task::spawn_blocking(commit).await.map_err(|_| PullFailure::Stopping)?.map_err(PullFailure::Store)
    }

    /// From what the name means to the manifest and config of the platform.
    async fn documents(
        &self,
        session: &Session,
        resolved: Resolved,
        platform: &Platform,
    ) -> Result<Documents, PullFailure> {
        let Resolved { mut digest, mut media_type, document } = resolved;
        let mut kept = Vec::new();
        let mut in_hand = document;
        for _ in 0..MAX_INDEX_DEPTH {
            let at_hand = match in_hand.take() {
                Some(body) => Some(body),
                None => self.local_document(&digest).await?,
            };
            let body = match at_hand {
                Some(body) => body,
                None => {
                    let (body, said) = session.manifest(&digest).await?;
                    media_type = if media_type.is_empty() { said } else { media_type };
                    body
                }
            };
            let wrong = |source| PullFailure::Manifest { digest: digest.clone(), source };
            let parsed = Document::parse(&body, &media_type).map_err(wrong)?;
            kept.push((digest.clone(), body));
            match parsed {
                Document::Manifest(manifest) => return self.with_config(session, manifest, kept, platform).await,
                Document::Index(entries) => {
                    let entry = manifest::choose(&entries, platform).map_err(wrong)?.clone();
                    media_type = entry.media_type;
                    digest = entry.digest;
                }
            }
        }
        Err(PullFailure::IndexDepth(MAX_INDEX_DEPTH))
    }

    async fn with_config(
        &self,
        session: &Session,
        manifest: Manifest,
        mut bytes: Vec<(Digest, Bytes)>,
        platform: &Platform,
    ) -> Result<Documents, PullFailure> {
        let Descriptor { digest, size, .. } = manifest.config.clone();
        if size > MAX_DOCUMENT {
            return Err(PullFailure::Length { digest, got: size, want: MAX_DOCUMENT });
        }
        let body = match self.local_document(&digest).await? {
            Some(body) => body,
            None => session.document_blob(&manifest.config).await?,
        };
        if body.len() as u64 != size {
            return Err(PullFailure::Length { digest, got: body.len() as u64, want: size });
        }
        let wrong = |source| PullFailure::Config { digest: digest.clone(), source };
        let config = ImageConfig::parse(&body).map_err(wrong)?;
        if config.diff_ids.len() != manifest.layers.len() {
            let (layers, diff_ids) = (manifest.layers.len(), config.diff_ids.len());
            return Err(PullFailure::LayerCount { layers, diff_ids });
        }
        if platform.fit(&config.os, &config.architecture, "").is_none() {
            let found = format!("{}/{}", config.os, config.architecture);
            return Err(PullFailure::Platform { found, wanted: platform.to_string() });
        }
        bytes.push((digest, body));
        Ok(Documents { manifest, config: Arc::new(config), bytes })
    }

    /// A document that an earlier pull kept.
    async fn local_document(&self, digest: &Digest) -> Result<Option<Bytes>, PullFailure> {
        let (root, digest) = (self.root.clone(), digest.clone());
        tokio::task::spawn_blocking(move || blobs::read(&root, &digest)).await.map_err(|_| PullFailure::Stopping)
    }

    /// Brings one layer, or waits for whoever is bringing it. `None`: it is here. The flight that brought it, if one did,
    /// is to be held until the layer is committed.
    async fn layer(
        self: &Arc<Self>,
        session: &Arc<Session>,
        layer: &Layer,
        progress: &Option<ProgressSink>,
    ) -> Result<(Option<Arc<Landed>>, Option<Arc<Flight>>), PullFailure> {
        let (digest, total) = (&layer.descriptor.digest, layer.descriptor.size);
        let say = |phase, done| {
            tell(progress, || Progress::Layer { digest: digest.clone(), phase, done, total });
        };
        if self.state().has_layer(&layer.chain) {
            say(Phase::Present, total);
            return Ok((None, None));
        }
        say(Phase::Waiting, 0);
        loop {
            let (flight, is_ours) = self.flights.join(&layer.chain, |status| {
                self.clone().fetch(
                    session.clone(),
                    layer.descriptor.clone(),
                    layer.chain.clone(),
                    layer.diff_id.clone(),
                    status,
                )
            });
            let result = flight
                .wait(|arrived| {
                    if arrived > 0 {
                        say(Phase::Fetching, arrived)
                    }
                })
                .await;
            match result {
                Ok(landed) => {
                    say(Phase::Done, total);
                    return Ok((landed, Some(flight)));
                }
                Err(error) if !is_ours && error.is_personal() => {} // now with our own credentials
                Err(source) => return Err(PullFailure::Layer { digest: digest.clone(), source }),
            }
        }
    }

    /// The task behind a flight.
    async fn fetch(
        self: Arc<Self>,
        session: Arc<Session>,
        descriptor: Descriptor,
        chain: Digest,
        diff_id: Digest,
        status: watch::Sender<Status>,
    ) {
        let expected = Expected { blob: descriptor.digest.clone(), size: descriptor.size, diff_id };
        let result = self.fetch_layer(&session, &descriptor, &chain, &expected, &status).await;
        status.send_replace(Status::Ended(result.map_err(Arc::new)));
    }

    async fn fetch_layer(
        &self,
        session: &Session,
        descriptor: &Descriptor,
        chain: &Digest,
        expected: &Expected,
        status: &watch::Sender<Status>,
    ) -> Result<Option<Arc<Landed>>, FetchError> {
        let _slot = self.layer_slots.acquire().await.map_err(|_| FetchError::Cancelled)?;
        if self.state().has_layer(chain) {
            return Ok(None);
        }
        let mut skip = 0;
        loop {
            let (chunks, received) = channel(CHUNKS_IN_FLIGHT);
            let unpacking = self.unpack(chain, expected, received)?;
            let arrived = |bytes| drop(status.send_replace(Status::Flying(bytes)));
            let (sent, unpacked) = tokio::join!(session.blob(descriptor, skip, chunks, arrived), unpacking);
            let unpacked = unpacked.map_err(|_| FetchError::Cancelled)?;
            match (sent, unpacked) {
                (_, Ok(landed)) => return Ok(Some(Arc::new(landed))),
                (Err(error), Err(LayerError::Incomplete { .. })) => return Err(error.into()),
                // What one mirror spoiled the next may have whole.
                (Ok(from), Err(LayerError::WrongBlob { got })) if from + 1 < session.blob_endpoints() => {
                    tracing::warn!(layer = %descriptor.digest, %got, "an endpoint sent wrong content, asking the next");
                    skip = from + 1;
                }
                (_, Err(error)) => return Err(error.into()),
            }
        }
    }

    /// Starts unpacking what comes out of `chunks` into a new directory, which lives until the blocking work has ended,
    /// whatever becomes of the pull.
    fn unpack(&self, chain: &Digest, expected: &Expected, chunks: Receiver<Bytes>) -> Result<Unpacking, StoreError> {
        let number = self.next_snapshot.fetch_add(1, Ordering::Relaxed);
        let path = self.snapshot_path(number);
        let made = NewSnapshot::make(number, path.clone(), chain, self.trash.clone());
        let snapshot = Arc::new(made.map_err(file_error("make", &path))?);
        let root = RootFd::open(snapshot.tree()).map_err(|e| file_error("open", &path)(e.into()))?;
        let expected = expected.clone();
        let work = move || layer::apply(chunks, &expected, root, Limits::PULL).map(|tree| Landed { snapshot, tree });
        Ok(tokio::task::spawn_blocking(work))
    }
}

impl Documents {
    fn layers(&self) -> Vec<Layer> {
        let chain = self.config.chain_ids();
        let parts = self.manifest.layers.iter().zip(chain).zip(&self.config.diff_ids);
        parts
            .map(|((descriptor, chain), diff_id)| Layer {
                descriptor: descriptor.clone(),
                chain,
                diff_id: diff_id.clone(),
            })
            .collect()
    }
}

/// Layers that must not be collected while a pull counts on them.
struct Pin {
    inner: Arc<Inner>,
    number: u64,
}

impl Pin {
    fn new(inner: &Arc<Inner>, layers: Vec<Digest>) -> Self {
        let number = inner.state().pin(layers);
        Self { inner: inner.clone(), number }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.inner.state().unpin(self.number);
    }
}

fn tell(progress: &Option<ProgressSink>, event: impl FnOnce() -> Progress) {
    if let Some(progress) = progress {
        progress(event());
    }
}
