//! Drives a private image store from the command line: for measurements, and for tests that kill it.
//!
//! ```text
//! pull ROOT pull REFERENCE [--hosts DIR]… [--user NAME:PASSWORD] [--stall SECONDS]   prints the image's id
//! pull ROOT list                                                                     id, names, bytes
//! pull ROOT remove NAME
//! pull ROOT mount NAME --at DIRECTORY [--writable DIRECTORY]                         attaches the root file system
//! ```

use std::process::ExitCode;
use std::time::Duration;

use image::{Config, Credentials, MountOptions, Proxies, PullOptions, Reference, Secret, Store};

fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut next = error.source();
            while let Some(cause) = next {
                text.push_str(&format!(": {cause}"));
                next = cause.source();
            }
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    let [root, verb, rest @ ..] = arguments.as_slice() else {
        return Err(
            "usage: pull ROOT pull|list|remove|mount [NAME] [--hosts DIR] [--user NAME:PASSWORD] [--stall SECONDS]"
                .into(),
        );
    };
    let option = |name: &str| rest.iter().position(|a| a == name).and_then(|at| rest.get(at + 1)).cloned();
    let stall = option("--stall").map_or(Ok(60.0), |text| text.parse::<f64>())?;
    let config = Config {
        parallel_layers: 4,
        stall_timeout: Duration::from_secs_f64(stall),
        proxies: Proxies::from_variables(|name| std::env::var(name).ok()),
    };
    let store = Store::open(root.as_ref(), config)?;
    store.start_gc();
    match (verb.as_str(), rest.first()) {
        ("pull", Some(name)) => {
            let secret = option("--user").and_then(|pair| {
                let (username, password) = pair.split_once(':')?;
                Some(Secret::Password { username: username.to_owned(), password: password.to_owned() })
            });
            let options = PullOptions {
                auth: secret.map(|secret| Credentials { secret, server: None }),
                hosts_dirs: option("--hosts").map(Into::into).into_iter().collect(),
                ..PullOptions::default()
            };
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            println!("{}", runtime.block_on(store.pull(&Reference::parse(name)?, options))?);
        }
        ("list", None) => {
            for image in store.list() {
                println!("{} {} {} {}", image.id, image.repo_tags.join(","), image.repo_digests.join(","), image.size);
            }
        }
        ("mount", Some(name)) => {
            let image = store.find(name).ok_or("no such image")?;
            let at = option("--at").ok_or("mount needs --at DIRECTORY")?;
            let writable = option("--writable");
            let options = MountOptions { readonly: writable.is_none(), volatile: true };
            let writable = writable.unwrap_or_default();
            let mount = store.mount_rootfs(&image.id, writable.as_ref(), options)?;
            sys::mount::attach(&mount, at)?;
        }
        ("remove", Some(name)) => println!("{}", store.remove(name)?),
        _ => return Err(format!("unknown verb {verb:?}").into()),
    }
    Ok(())
}
