//! What KubeletConfiguration's fields must be together, and what names in it may look like; upstream's rules.

use super::ConfigError;
use super::ciphers;
use super::settle::Reader;
use super::yaml::Value;

/// Checks all rules.
///
/// # Errors
/// The first one that is broken, at the field that can mend it.
pub(super) fn check(read: &Reader<'_>) -> Result<(), ConfigError> {
    serving(read)?;
    images(read)?;
    eviction(read)?;
    enforcement(read)?;
    reserved(read, "kubeReserved")?;
    reserved(read, "systemReserved")?;
    shutdown(read)?;
    pod_logs(read)?;
    let fail = |path: &str, title: &str| Err(read.place(path).mistake(title, ""));
    if read.given_text("systemCgroups").is_some() && read.given_text("cgroupRoot").is_none() {
        return fail("systemCgroups", "`systemCgroups` is given without `cgroupRoot`");
    }
    if read.int("userNamespaces.idsPerPod") % 65536 != 0 {
        return fail("userNamespaces.idsPerPod", "`userNamespaces.idsPerPod` must be a multiple of 65536");
    }
    if read.bool("enableSystemLogQuery") && !read.bool("enableSystemLogHandler") {
        return fail("enableSystemLogQuery", "`enableSystemLogQuery` requires `enableSystemLogHandler`");
    }
    Ok(())
}

fn serving(read: &Reader<'_>) -> Result<(), ConfigError> {
    ciphers::check(read)?;
    for (given, missing) in [("tlsCertFile", "tlsPrivateKeyFile"), ("tlsPrivateKeyFile", "tlsCertFile")] {
        if read.given_text(given).is_some() && read.given_text(missing).is_none() {
            return Err(read.place(given).mistake(&format!("`{given}` is given without `{missing}`"), ""));
        }
    }
    Ok(())
}

fn images(read: &Reader<'_>) -> Result<(), ConfigError> {
    let (low, high) = (read.int("imageGCLowThresholdPercent"), read.int("imageGCHighThresholdPercent"));
    if low >= high {
        let title =
            format!("`imageGCLowThresholdPercent` {low} must be less than `imageGCHighThresholdPercent` {high}");
        let low_given = read.document.given("imageGCLowThresholdPercent");
        let place = read.place(if low_given { "imageGCLowThresholdPercent" } else { "imageGCHighThresholdPercent" });
        return Err(place.mistake(&title, ""));
    }
    let parallel = read.given_int("maxParallelImagePulls").is_some_and(|count| count > 1);
    if parallel && read.document.given("serializeImagePulls") && read.bool("serializeImagePulls") {
        let title = "`maxParallelImagePulls` can't be larger than 1 unless `serializeImagePulls` is false";
        return Err(read.place("maxParallelImagePulls").mistake(title, ""));
    }
    let (least, most) = (read.duration("imageMinimumGCAge"), read.duration("imageMaximumGCAge"));
    if !most.is_zero() && most <= least {
        let title = "`imageMaximumGCAge` must be greater than `imageMinimumGCAge`";
        return Err(read.place("imageMaximumGCAge").mistake(title, ""));
    }
    Ok(())
}

fn eviction(read: &Reader<'_>) -> Result<(), ConfigError> {
    let grace = read.text_map("evictionSoftGracePeriod");
    match read.map("evictionSoft").iter().find(|(key, _)| !grace.contains_key(&key.name)) {
        None => Ok(()),
        Some((key, _)) => {
            let title = format!("grace period must be specified for the soft eviction threshold {}", key.name);
            Err(key.place.mistake(&title, "`evictionSoftGracePeriod` has them"))
        }
    }
}

/// What `enforceNodeAllocatable` may name, and what of it is built.
fn enforcement(read: &Reader<'_>) -> Result<(), ConfigError> {
    const BEYOND_PODS: [&str; 4] =
        ["system-reserved", "system-reserved-compressible", "kube-reserved", "kube-reserved-compressible"];
    let path = "enforceNodeAllocatable";
    let names = read.texts(path);
    let fail = |title: String, help: &str| Err(read.place(path).mistake(&title, help));
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return fail(format!("`{path}` names {name:?} twice"), "");
        }
        if BEYOND_PODS.contains(&name.as_str()) {
            let help = "what is reserved is kept from pods, but not enforced on others yet";
            return fail(format!("`{path}: {name}` is not supported"), help);
        }
        if !matches!(name.as_str(), "pods" | "none") {
            return fail(format!("`{path}` doesn't know {name:?}"), "it knows pods and none");
        }
    }
    if names.len() > 1 && names.iter().any(|name| name == "none") {
        return fail(format!("`{path}` may not contain other names beside none"), "");
    }
    if names.iter().any(|name| name == "pods") && !read.bool("cgroupsPerQOS") {
        let title = "`cgroupsPerQOS` must be true where `enforceNodeAllocatable` has pods";
        return Err(read.place("cgroupsPerQOS").mistake(title, ""));
    }
    Ok(())
}

fn reserved(read: &Reader<'_>, path: &str) -> Result<(), ConfigError> {
    const RESOURCES: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pid"];
    match read.map(path).iter().find(|(key, _)| !RESOURCES.contains(&key.name.as_str())) {
        None => Ok(()),
        Some((key, _)) => {
            let title = format!("cannot reserve {:?} resource", key.name);
            Err(key.place.mistake(&title, "cpu, memory, ephemeral-storage and pid can be reserved"))
        }
    }
}

fn shutdown(read: &Reader<'_>) -> Result<(), ConfigError> {
    let (all, critical) = ("shutdownGracePeriod", "shutdownGracePeriodCriticalPods");
    if read.duration(critical) > read.duration(all) {
        return Err(read.place(critical).mistake(&format!("`{critical}` must not be longer than `{all}`"), ""));
    }
    for path in [all, critical] {
        let period = read.duration(path);
        if !period.is_zero() && period.as_secs() == 0 {
            return Err(read.place(path).mistake(&format!("`{path}` must be 0s or at least 1s"), ""));
        }
    }
    if let Some(Value::List(items)) = read.document.get("shutdownGracePeriodByPodPriority").map(|node| &node.value)
        && !items.is_empty()
        && !read.duration(all).is_zero()
    {
        let path = "shutdownGracePeriodByPodPriority";
        return Err(read.place(path).mistake(&format!("`{path}` and `{all}` exclude each other"), ""));
    }
    Ok(())
}

fn pod_logs(read: &Reader<'_>) -> Result<(), ConfigError> {
    let path = read.text("podLogsDir");
    let clean = !path.split('/').skip(1).any(|part| matches!(part, "" | "." | ".."));
    if path.starts_with('/') && path.is_ascii() && clean {
        return Ok(());
    }
    let title = format!("`podLogsDir` must be an absolute, normalized path of ASCII characters, this is {path:?}");
    Err(read.place("podLogsDir").mistake(&title, ""))
}

/// `[prefix/]name`: upstream's `IsQualifiedName`.
pub(super) fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_name(prefix) && is_label(name) && !name.is_empty(),
        None => is_label(text) && !text.is_empty(),
    }
}

/// A label's value: empty, or at most 63 of `[A-Za-z0-9_.-]` that begin and end with a letter or digit.
pub(super) fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63 && text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().last())
}

/// An RFC 1123 subdomain.
pub(super) fn is_dns_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let label =
        |label: &str| !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-');
    !text.is_empty() && text.len() <= 253 && text.split('.').all(label)
}
