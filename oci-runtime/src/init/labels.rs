//! What a Linux security module calls the process: the label that counts from the exec on.
//!
//! Written through our own procfs, never the container's (CVE-2019-16884).

use std::os::fd::OwnedFd;

use sys::Errno;
use sys::procfs::ProcFd;

use crate::error::{Error, Step};
use crate::plan::{MountKind, MountPlan, Plan, ProcessPlan};

/// A session keyring that is made from now on has the program's own label (keyctl(2)); before
/// [`start_session`](super::process::start_session).
pub(crate) fn label_keys(plan: &ProcessPlan, procfs: &ProcFd) -> Result<(), Error> {
    let Some(label) = &plan.selinux_label else { return Ok(()) };
    match procfs.write_self("attr/keycreate", label) {
        // A kernel without keyrings.
        Err(error) if error.is(Errno::ENOENT) => Ok(()),
        written => written.step(|| format!("label keys with process.selinuxLabel {label}")),
    }
}

/// The kernel applies it at the exec, whoever of our line executes.
pub(crate) fn label_program(plan: &ProcessPlan, procfs: &ProcFd) -> Result<(), Error> {
    if let Some(profile) = &plan.apparmor_profile {
        let written = procfs.write_self("attr/apparmor/exec", format!("exec {profile}"));
        let missing = written.as_ref().is_err_and(|error| error.is(Errno::ENOENT) && error.call() == "openat2");
        let why = if missing { ": AppArmor is not enabled" } else { "" };
        written.step(|| format!("set process.apparmorProfile {profile}{why}"))?;
    }
    if let Some(label) = &plan.selinux_label {
        procfs.write_self("attr/exec", label).step(|| format!("set process.selinuxLabel {label}"))?;
    }
    Ok(())
}

/// `mountLabel` of a mqueue, which can't be given when it is made.
pub(super) fn label_queues(plan: &Plan, mount: &MountPlan, made: &OwnedFd) -> sys::Result<()> {
    match (&mount.kind, &plan.mount_label) {
        (MountKind::Filesystem { fstype, .. }, Some(label)) if fstype == "mqueue" => {
            sys::at::fsetxattr(&sys::at::reopen_directory(made)?, "security.selinux", label.as_bytes())
        }
        _ => Ok(()),
    }
}

/// Refuses a label that nobody would heed. To be called by the creator.
pub(crate) fn refuse_without_selinux(field: &str, label: Option<&String>, procfs: &ProcFd) -> Result<(), Error> {
    if label.is_none() || has_selinux(procfs).step(|| "look for SELinux".to_owned())? {
        return Ok(());
    }
    // The words after the field are runc's.
    Err(Error::Refused(format!(
        "{field}: selinux label is specified in config, but selinux is disabled or not supported"
    )))
}

/// Both labels of a config.
pub(crate) fn refuse_labels_without_selinux(plan: &Plan, procfs: &ProcFd) -> Result<(), Error> {
    refuse_without_selinux("process.selinuxLabel", plan.process.selinux_label.as_ref(), procfs)?;
    refuse_without_selinux("linux.mountLabel", plan.mount_label.as_ref(), procfs)
}

/// The kernel knows the file system only if SELinux was enabled when it booted (security/selinux/selinuxfs.c); without a policy
/// everything is called `kernel`.
fn has_selinux(procfs: &ProcFd) -> sys::Result<bool> {
    if !procfs.read("filesystems")?.split_ascii_whitespace().any(|name| name == "selinuxfs") {
        return Ok(false);
    }
    Ok(procfs.read("self/attr/current")?.trim_end_matches(['\0', '\n']) != "kernel")
}
