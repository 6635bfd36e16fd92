//! Whether the kubelet may run on this machine: swap, cgroup v1, sysctls.

use super::ConfigError;
use super::document::Document;
use super::machine;
use super::settle::Reader;
use std::path::Path;

/// What the machine is.
struct Host {
    swap: bool,
    cgroup_v2: bool,
    /// Name, wanted value, found value.
    other_sysctls: Vec<(&'static str, &'static str, String)>,
}

/// Refuses a machine that the configuration says the kubelet must not run on, in upstream's words.
///
/// # Errors
/// The first thing that is against it, with the field that would allow it.
pub(super) fn check(document: &Document) -> Result<(), ConfigError> {
    let read = |name: &str| std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok();
    let host = Host {
        swap: std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| machine::swap_is_on(&swaps)),
        cgroup_v2: machine::cgroup_v2(),
        other_sysctls: machine::other_sysctls(read),
    };
    judge(&Reader { document }, &host)
}

fn judge(read: &Reader<'_>, host: &Host) -> Result<(), ConfigError> {
    let fail = |path: &str, title: &str, help: &str| Err(read.place(path).mistake(title, help));
    if read.bool("failCgroupV1") && !host.cgroup_v2 {
        let title = "kubelet is configured to not run on a host using cgroup v1. cgroup v1 support is unsupported and will \
                     be removed in a future release";
        return fail("failCgroupV1", title, "set failCgroupV1 to false to run nevertheless");
    }
    if !host.cgroup_v2 && read.document.given("singleProcessOOMKill") && !read.bool("singleProcessOOMKill") {
        let title =
            "invalid configuration: singleProcessOOMKill must not be explicitly set to false when using cgroup v1";
        return fail("singleProcessOOMKill", title, "");
    }
    if read.bool("failSwapOn") && host.swap {
        let title = "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false";
        return fail("failSwapOn", title, "");
    }
    match host.other_sysctls.first() {
        Some((name, wanted, found)) if read.bool("protectKernelDefaults") => {
            let title = format!("invalid kernel flag: {name}, expected value: {wanted}, actual value: {found}");
            fail("protectKernelDefaults", &title, "")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flags::Given;

    const FINE: fn() -> Host = || Host { swap: false, cgroup_v2: true, other_sysctls: Vec::new() };

    #[track_caller]
    fn check(flags: &[(&str, &str)], host: &Host, wants: Option<&str>) {
        let given: Vec<_> = flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut document = Document::defaults();
        document.add_flags(&Given::new(&given).unwrap()).unwrap();
        let verdict = judge(&Reader { document: &document }, host).map_err(|error| error.to_string());
        match wants {
            None => assert_eq!(verdict, Ok(())),
            Some(want) => assert!(verdict.as_ref().is_err_and(|error| error.contains(want)), "{verdict:?}"),
        }
    }

    #[test]
    fn a_machine_that_upstream_refuses_is_refused_unless_it_is_allowed() {
        check(&[], &FINE(), None);
        check(&[], &Host { cgroup_v2: false, ..FINE() }, Some("configured to not run on a host using cgroup v1"));
        check(&[("fail-cgroupv1", "false")], &Host { cgroup_v2: false, ..FINE() }, None);
        check(&[], &Host { swap: true, ..FINE() }, Some("running with swap on is not supported"));
        check(&[("fail-swap-on", "false")], &Host { swap: true, ..FINE() }, None);
        let other = || Host { other_sysctls: vec![("kernel/panic", "10", "0".to_owned())], ..FINE() };
        check(&[], &other(), None);
        check(&[("protect-kernel-defaults", "true")], &other(), Some("invalid kernel flag: kernel/panic"));
    }
}
