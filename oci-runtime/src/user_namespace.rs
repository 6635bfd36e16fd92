//! User namespaces: made or opened before a container's first process is cloned, which then joins one like any other.
//!
//! A process that is ended again holds the namespace until its maps are written or read: both can only be done through a
//! process that is in it. Written by the creator: nobody in a namespace may map ids that are not its own.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

use sys::namespace::Kind;
use sys::process::{CloneFlags, Pid, exit_now};
use sys::procfs::ProcFd;

use crate::error::{Error, Step};
use crate::inputs::Parent;
use crate::launch::{Channel, Launch, Launched, launch};
use crate::plan::{IdMap, IdMaps, Namespace, Plan};

/// One with its maps.
pub(crate) struct UserNamespace {
    pub(crate) namespace: OwnedFd,
    pub(crate) maps: IdMaps,
}

impl UserNamespace {
    /// The plan's, made or joined; `None` if the container stays in its creator's.
    ///
    /// # Errors
    /// It can't be made or joined, or has other ids than the plan needs.
    pub(crate) fn open(plan: &Plan, procfs: &ProcFd) -> Result<Option<UserNamespace>, Error> {
        let joined = match (&plan.namespaces.user, &plan.id_maps) {
            (Namespace::New, Some(maps)) => return UserNamespace::make(maps.clone(), procfs).map(Some),
            (Namespace::Joined(path), _) => {
                let namespace = sys::namespace::open(path, Kind::User);
                namespace.step(|| format!("open namespace {}", path.display()))?
            }
            (Namespace::Inherited | Namespace::New, _) => return Ok(None),
        };
        let own = sys::namespace::current(Kind::User).step(|| "open the own user namespace".to_owned())?;
        if sys::namespace::same(&joined, &own).step(|| "compare user namespaces".to_owned())? {
            return Err(Error::Refused("linux.namespaces: the user namespace to join is the runtime's own".to_owned()));
        }
        let namespace = UserNamespace::read(joined, procfs)?;
        namespace.check(plan)?;
        Ok(Some(namespace))
    }

    /// A new one.
    pub(crate) fn make(maps: IdMaps, procfs: &ProcFd) -> Result<UserNamespace, Error> {
        let (holder, namespace) = hold(CloneFlags::CLONE_NEWUSER, None)?;
        let written = write_maps(procfs, holder.child.pid, &maps);
        holder.end();
        written?;
        Ok(UserNamespace { namespace, maps })
    }

    /// One that exists already.
    fn read(joined: OwnedFd, procfs: &ProcFd) -> Result<UserNamespace, Error> {
        let (holder, namespace) = hold(CloneFlags::empty(), Some(joined))?;
        let maps = maps_of(procfs, holder.child.pid);
        holder.end();
        Ok(UserNamespace { namespace, maps: maps? })
    }

    /// Clients name the maps of a namespace that they have made themselves beside its path: they have to be these.
    fn check(&self, plan: &Plan) -> Result<(), Error> {
        if plan.id_maps.as_ref().is_some_and(|maps| *maps != self.maps) {
            return Err(Error::Refused(
                "linux.uidMappings: other ones than those of the user namespace that is to be joined".to_owned(),
            ));
        }
        self.maps.check(plan).map_err(|error| Error::Refused(error.to_string()))
    }
}

/// The maps of the user namespace that a process is in, outside ids as the caller's namespace has them.
pub(crate) fn maps_of(procfs: &ProcFd, pid: Pid) -> Result<IdMaps, Error> {
    let read = |name: &str| {
        let text = procfs.read(&format!("{pid}/{name}")).step(|| format!("read {name} of a user namespace"))?;
        IdMap::parse(&text).ok_or_else(|| Error::Refused(format!("{name} of a user namespace is {text:?}")))
    };
    Ok(IdMaps { users: read("uid_map")?, groups: read("gid_map")? })
}

fn write_maps(procfs: &ProcFd, pid: Pid, maps: &IdMaps) -> Result<(), Error> {
    for (name, field, map) in
        [("gid_map", "linux.gidMappings", &maps.groups), ("uid_map", "linux.uidMappings", &maps.users)]
    {
        procfs.write_of(pid, name, map.to_text()).step(|| format!("write {field}"))?;
    }
    Ok(())
}

/// A process in a user namespace, a new one or `joined`, until it is ended; and the namespace.
fn hold(new: CloneFlags, joined: Option<OwnedFd>) -> Result<(Launched, OwnedFd), Error> {
    let how = Launch { namespaces: new, cgroup: None, pid_namespace: None, parent: Parent::Caller };
    let step = || "make a process in the user namespace".to_owned();
    let mut holder = launch(&how, |channel| stay(channel, joined))?;
    let namespace = holder.hear(&mut |_| {}, &mut |asked| Err(crate::create::unknown(&asked)))?;
    match namespace {
        Some(namespace) => Ok((holder, namespace)),
        None => {
            holder.end();
            Err(Error::Refused(step()))
        }
    }
}

fn stay(channel: &Channel, joined: Option<OwnedFd>) -> Result<Infallible, Error> {
    if let Some(namespace) = joined {
        sys::namespace::setns(&namespace, Kind::User).step(|| "join the user namespace".to_owned())?;
    }
    let namespace = sys::namespace::current(Kind::User).step(|| "open the user namespace".to_owned())?;
    if channel.ready(Some(namespace.as_fd())) {
        channel.wait();
    }
    exit_now(0)
}
