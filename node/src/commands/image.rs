//! `orlop image`: pull, list and remove images. A running daemon owns the store, so it is asked; without one the store is
//! opened here, by the same code.

mod progress;
mod table;

use crate::args::{Image, Output};
use crate::settings::Settings;
use anyhow::Context;
use cri::client::{Client, ClientError, ListedImage};
use image::{Credentials, PullOptions, Reference, Secret, Store};
use std::io::Read;
use std::sync::Arc;

/// Runs one of the commands.
///
/// # Errors
/// Whatever kept it from being done; an image to remove that isn't there is one.
pub(crate) fn run(command: Image, settings: &Settings) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the async runtime")?;
    runtime.block_on(async {
        let images = Images::open(settings).await?;
        match command {
            Image::Pull { reference, creds } => pull(&images, &reference, creds, settings).await,
            Image::Ls { output } => list(&images, output).await,
            Image::Rm { images: names } => remove(&images, &names).await,
        }
    })
}

/// Where the images are.
enum Images {
    Daemon(Client),
    Store(Store),
}

impl Images {
    async fn open(settings: &Settings) -> anyhow::Result<Images> {
        match Client::connect(&settings.socket()).await {
            Ok(client) => Ok(Images::Daemon(client)),
            Err(ClientError::NoDaemon { .. }) => {
                let root = settings.root.join("image");
                let store = Store::open(&root, cri::image_config(settings.image.parallel_layers, super::proxies()))?;
                store.start_gc();
                Ok(Images::Store(store))
            }
            Err(error) => Err(error.into()),
        }
    }
}

async fn pull(images: &Images, text: &str, creds: Option<String>, settings: &Settings) -> anyhow::Result<()> {
    let reference = Reference::parse(text)?;
    let login = creds.map(login).transpose()?;
    let bars = progress::Bars::new(&reference.to_string());
    let id = match images {
        Images::Daemon(client) => client.pull(text, login, |event| bars.show(event)).await?,
        Images::Store(store) => {
            let sink = bars.clone();
            let options = PullOptions {
                auth: login.map(|(username, password)| Credentials {
                    secret: Secret::Password { username, password },
                    server: None,
                }),
                hosts_dirs: settings.registry.hosts_dirs.clone(),
                platform: None,
                pinned: false,
                progress: Some(Arc::new(move |event| sink.show(event))),
            };
            store.pull(&reference, options).await?.to_string()
        }
    };
    bars.finish();
    println!("{id}");
    Ok(())
}

/// `USER:PASSWORD`, or `-` to read that from standard input, so that it needn't stand in a process list.
fn login(creds: String) -> anyhow::Result<(String, String)> {
    let mut text = creds;
    if text == "-" {
        text.clear();
        std::io::stdin().take(64 * 1024).read_to_string(&mut text).context("read credentials from standard input")?;
    }
    let pair = text.trim_end_matches(['\r', '\n']).split_once(':').context("credentials are USER:PASSWORD")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

async fn list(images: &Images, output: Output) -> anyhow::Result<()> {
    let mut listed = match images {
        Images::Daemon(client) => client.list().await?,
        Images::Store(store) => store.list().iter().map(|image| row(image)).collect(),
    };
    listed.sort_by(|a, b| (&a.repo_tags, &a.id).cmp(&(&b.repo_tags, &b.id)));
    match output {
        Output::Table => println!("{}", table::images(&listed)),
        Output::Json => println!("{}", table::images_json(&listed)?),
    }
    Ok(())
}

fn row(image: &image::Image) -> ListedImage {
    ListedImage {
        id: image.id.to_string(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
    }
}

async fn remove(images: &Images, names: &[String]) -> anyhow::Result<()> {
    for name in names {
        let removed = match images {
            Images::Daemon(client) => client.remove(name).await?,
            Images::Store(store) => store.remove(name)?,
        };
        anyhow::ensure!(removed, "no image {name:?}");
        println!("removed {name}");
    }
    Ok(())
}
