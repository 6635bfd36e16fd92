//! `linux.intelRdt`: the container's share of caches and memory bandwidth (Documentation/filesystems/resctrl.rst).

use oci_spec::runtime::LinuxIntelRdt;

use super::{PlanError, invalid};

/// What a container asks of resctrl.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntelRdt {
    /// The class of service that it shares with others; `None` is one of its own, named after it.
    pub class: Option<String>,
    /// Lines of the file `schemata`, in order.
    pub schemata: Vec<String>,
    /// Some of them are for the L3 cache, by `l3CacheSchema`.
    pub of_cache: bool,
    /// Some of them are for the memory bandwidth, by `memBwSchema`.
    pub of_bandwidth: bool,
    /// A monitoring group of its own.
    pub monitoring: bool,
}

/// The class that all are in who are in no other: the root of resctrl.
pub const DEFAULT_CLASS: &str = "/";

impl IntelRdt {
    pub(super) fn from_spec(rdt: &LinuxIntelRdt) -> Result<IntelRdt, PlanError> {
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let class = set(rdt.clos_id());
        if let Some(class) = class.as_deref().filter(|class| *class != DEFAULT_CLASS) {
            // Names of resctrl itself, which are no groups, can't be made; the kernel refuses them.
            if class == "." || class == ".." || class.contains(['/', '\0', '\n']) {
                return Err(invalid("linux.intelRdt.closID", format!("{class:?} is not a name")));
            }
        }
        let (cache, bandwidth) = (set(rdt.l3_cache_schema()), set(rdt.mem_bw_schema()));
        if let Some(line) = bandwidth.as_deref().filter(|line| !line.starts_with("MB:") || line.contains('\n')) {
            return Err(invalid("linux.intelRdt.memBwSchema", format!("{line:?} is not a line that begins with MB:")));
        }
        let lines = rdt.schemata().iter().flatten().filter(|line| !line.is_empty());
        if let Some(line) = lines.clone().find(|line| line.contains('\n')) {
            return Err(invalid("linux.intelRdt.schemata", format!("{line:?} is more than a line")));
        }
        Ok(IntelRdt {
            class,
            of_cache: cache.is_some(),
            of_bandwidth: bandwidth.is_some(),
            schemata: cache.into_iter().chain(bandwidth).chain(lines.cloned()).collect(),
            monitoring: rdt.enable_monitoring().unwrap_or(false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<IntelRdt, String> {
        let rdt = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
        IntelRdt::from_spec(&rdt).map_err(|error| error.to_string())
    }

    #[test]
    fn schemata_come_last() {
        let json =
            r#"{"closID":"gold","memBwSchema":"MB:0=20","l3CacheSchema":"L3:0=f","schemata":["L2:0=1","MB:0=30"]}"#;
        let rdt = plan(json).unwrap();
        assert_eq!(rdt.schemata, ["L3:0=f", "MB:0=20", "L2:0=1", "MB:0=30"]);
        assert_eq!((rdt.class.as_deref(), rdt.monitoring), (Some("gold"), false));
        let bare = plan(r#"{"enableMonitoring":true,"closID":""}"#).unwrap();
        assert_eq!((bare.class, bare.schemata.len(), bare.monitoring), (None, 0, true));
        assert_eq!(plan(r#"{"closID":"/"}"#).unwrap().class.as_deref(), Some(DEFAULT_CLASS));
    }

    #[test]
    fn what_is_no_name_or_no_line_is_refused() {
        for class in [".", "..", "a/b", "/a"] {
            let error = plan(&format!(r#"{{"closID":"{class}"}}"#)).unwrap_err();
            assert_eq!(error, format!("linux.intelRdt.closID: {class:?} is not a name"));
        }
        for (json, field) in [
            (r#"{"memBwSchema":"L3:0=f"}"#, "memBwSchema"),
            (r#"{"memBwSchema":"MB:0=1\nL3:0=f"}"#, "memBwSchema"),
            (r#"{"schemata":["L3:0=f\nMB:0=1"]}"#, "schemata"),
        ] {
            assert!(plan(json).unwrap_err().starts_with(&format!("linux.intelRdt.{field}: ")), "{json}");
        }
    }
}
