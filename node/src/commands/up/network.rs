//! A network for pods on a machine that has none: a bridge of ours, until somebody configures another.
//!
//! CNI's folder belongs to whoever runs the network. Ours is written only if it is empty, under a name that sorts last, and
//! removed as soon as another configuration appears; the CRI takes the first by name, so that there is no moment between.
//! A node of a cluster gets none: its pods would have addresses that no other node knows, until the cluster's network comes.

use anyhow::Context;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use sys::fs::{Durability, atomic_write};

/// Our configuration's name; no package ships one of this name.
const OURS: &str = "99-orlop.conflist";

/// How often the folder is looked at for another configuration.
const LOOK: Duration = Duration::from_secs(5);

/// The plugins of our multi-call binary.
const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// Networks for pods, of which the first is taken that the machine has no route into.
const SUBNETS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(10, 87, 0, 0), Ipv4Addr::new(10, 186, 0, 0), Ipv4Addr::new(172, 28, 0, 0)];

/// What the pods' network is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Network {
    /// Configured by somebody else.
    Given(PathBuf),
    /// Ours, written now or by an earlier `orlop up`.
    Ours { path: PathBuf, new: bool },
    /// The cluster's, which is yet to be configured here.
    Awaited(PathBuf),
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::Given(path) => write!(f, "{}", path.display()),
            Network::Ours { path, new: true } => write!(f, "wrote {}, as nothing was there", path.display()),
            Network::Ours { path, new: false } => write!(f, "{}, from an earlier time", path.display()),
            Network::Awaited(folder) => {
                write!(f, "none yet: the node is ready when the cluster's is configured in {}", folder.display())
            }
        }
    }
}

/// Links to our plugins in a folder of this instance, for the case that the machine has none.
pub(super) fn plugins(state: &Path) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("find this program")?.with_file_name("orlop-cni");
    anyhow::ensure!(program.is_file(), "the network plugins {} are not there", program.display());
    let folder = state.join("cni-bin");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    for plugin in PLUGINS {
        let link = folder.join(plugin);
        if std::fs::read_link(&link).is_ok_and(|target| target == program) {
            continue;
        }
        _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&program, &link).with_context(|| format!("link {}", link.display()))?;
    }
    Ok(folder)
}

/// Finds the network's configuration, or writes ours if there is none.
pub(super) fn provide(folder: &Path) -> anyhow::Result<Network> {
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    if let Some(path) = others(folder).into_iter().next() {
        retire(folder);
        return Ok(Network::Given(path));
    }
    let path = folder.join(OURS);
    if path.exists() {
        return Ok(Network::Ours { path, new: false });
    }
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let subnet =
        free(&routes).context("every network that could be the pods' is routed to elsewhere: configure one")?;
    atomic_write(&path, conflist(subnet).as_bytes(), Durability::Synced, 0o644).context("configure a network")?;
    Ok(Network::Ours { path, new: true })
}

/// Finds the configuration of a cluster's network. Ours goes, if this machine was alone before.
pub(super) fn left_to_cluster(folder: &Path) -> anyhow::Result<Network> {
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    retire(folder);
    Ok(others(folder).into_iter().next().map_or_else(|| Network::Awaited(folder.to_owned()), Network::Given))
}

/// Removes our configuration when another appears.
pub(super) async fn give_way(folder: PathBuf) {
    let mut ticks = tokio::time::interval(LOOK);
    while folder.join(OURS).exists() {
        ticks.tick().await;
        if let Some(other) = others(&folder).first()
            && retire(&folder)
        {
            tracing::info!(other = %other.display(), "another network was configured: ours is removed");
        }
    }
}

/// Whether ours was there, and went.
fn retire(folder: &Path) -> bool {
    std::fs::remove_file(folder.join(OURS)).is_ok()
}

/// The configurations that libcni would load, by name, without ours.
fn others(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let configuration = |path: &PathBuf| {
        path.extension().is_some_and(|extension| ["conf", "conflist", "json"].iter().any(|known| extension == *known))
            && path.file_name().is_some_and(|name| name != OURS)
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(configuration).collect();
    found.sort();
    found
}

fn conflist(subnet: Ipv4Addr) -> String {
    let config = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "orlop",
        "plugins": [
            {
                "type": "bridge", "bridge": "orlop0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": format!("{subnet}/16")}]]},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    format!("{config:#}\n")
}

/// The first network of ours that no route of `/proc/net/route` overlaps; default routes lead everywhere and don't count.
fn free(routes: &str) -> Option<Ipv4Addr> {
    let taken: Vec<(u32, u32)> = routes.lines().filter_map(route).filter(|(_, mask)| *mask != 0).collect();
    let mask: u32 = 0xffff_0000;
    let overlaps = |subnet: u32| taken.iter().any(|(network, theirs)| (network ^ subnet) & (theirs & mask) == 0);
    SUBNETS.into_iter().find(|subnet| !overlaps(u32::from(*subnet)))
}

/// Network and mask, which the kernel prints in its own byte order.
fn route(line: &str) -> Option<(u32, u32)> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let number = |index: usize| Some(u32::from_be(u32::from_str_radix(columns.get(index)?, 16).ok()?));
    Some((number(1)?, number(7)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: PathBuf) {
        atomic_write(path, b"{}", Durability::Rename, 0o644).unwrap();
    }

    #[test]
    fn ours_is_written_once_into_an_empty_folder_only_and_goes_when_another_comes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(OURS);
        assert_eq!(provide(folder.path()).unwrap(), Network::Ours { path: path.clone(), new: true });
        assert_eq!(provide(folder.path()).unwrap(), Network::Ours { path: path.clone(), new: false });
        write(folder.path().join("10-calico.conflist"));
        let given = Network::Given(folder.path().join("10-calico.conflist"));
        assert_eq!(provide(folder.path()).unwrap(), given);
        assert!(!path.exists());
        assert_eq!(provide(folder.path()).unwrap(), given);
        assert!(!path.exists());
    }

    #[test]
    fn a_node_of_a_cluster_waits_for_the_clusters_network() {
        let folder = tempfile::tempdir().unwrap();
        provide(folder.path()).unwrap();
        assert_eq!(left_to_cluster(folder.path()).unwrap(), Network::Awaited(folder.path().to_owned()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "ours is gone");
        let path = folder.path().join("05-cilium.conflist");
        write(path.clone());
        assert_eq!(left_to_cluster(folder.path()).unwrap(), Network::Given(path));
    }

    #[test]
    fn a_file_that_is_no_configuration_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path().join("README"));
        write(folder.path().join("10-x.conflist.bak"));
        assert!(matches!(provide(folder.path()).unwrap(), Network::Ours { new: true, .. }));
    }

    #[test]
    fn a_network_that_the_machine_routes_elsewhere_is_not_taken() {
        let route =
            |destination: &str, mask: &str| format!("eth0\t{destination}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n");
        assert_eq!(free(""), Some(SUBNETS[0]));
        assert_eq!(free(&route("00000000", "00000000")), Some(SUBNETS[0]));
        // 10.87.5.0/24 lies inside the first; 10.0.0.0/8 holds the first two.
        assert_eq!(free(&route("0005570A", "00FFFFFF")), Some(SUBNETS[1]));
        assert_eq!(free(&route("0000000A", "000000FF")), Some(SUBNETS[2]));
    }
}
