//! Debian's `docker-registry`, serving a directory on a loopback port of the World.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::images::Image;
use crate::{World, eventually, write};

/// A running registry. Dropping it ends the process; its directory stays with the World.
pub struct Registry {
    process: Child,
    port: u16,
    dir: PathBuf,
}

impl Registry {
    /// Starts a registry over an empty directory.
    ///
    /// # Panics
    /// If `docker-registry` is missing or does not answer in time.
    pub fn start(world: &World) -> Registry {
        Registry::serve(world, &world.new_dir("registry"))
    }

    /// Starts a registry over `dir`, which may already hold what an earlier one left there.
    ///
    /// # Panics
    /// If `docker-registry` is missing or does not answer in time.
    pub fn serve(world: &World, dir: &Path) -> Registry {
        let port = free_port();
        let config = dir.join("config.yml");
        write(&config, configuration(dir, port));
        let log = std::fs::File::create(dir.join("log")).expect("the registry's log");
        let process = world
            .command("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the registry's log"))
            .stderr(log)
            .spawn()
            .expect("start docker-registry (Debian package docker-registry)");
        eventually("docker-registry listens", Duration::from_secs(20), || TcpStream::connect(("127.0.0.1", port)));
        Registry { process, port, dir: dir.to_owned() }
    }

    /// `127.0.0.1:<port>`, as it stands in front of an image reference.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its directory, in the layout of the distribution project: what lies below may be broken on purpose.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Stores `image` as `repository:tag` and returns the digest of its manifest.
    pub fn add(&self, repository: &str, tag: &str, image: &Image) -> String {
        image.store(&self.dir, repository, tag)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// A port that nothing listens on in the calling thread's network namespace, which only the World's suite shares.
fn free_port() -> u16 {
    let probe = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    probe.local_addr().expect("its address").port()
}

fn configuration(dir: &Path, port: u16) -> String {
    format!(
        "version: 0.1\n\
         log: {{level: warn, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}, maintenance: {{uploadpurging: {{enabled: false}}}}}}\n\
         http: {{addr: '127.0.0.1:{port}'}}\n",
        dir.display()
    )
}
