//! The document of `/stats/summary`: k8s.io/kubelet/pkg/apis/stats/v1alpha1, field by field.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Seconds since an epoch that JSON shows as RFC 3339, as metav1.Time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time(pub Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

macro_rules! documents {
    ($($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty,)* })*) => {
        $($(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Default, Serialize)]
        #[serde(rename_all = "camelCase")]
        #[allow(missing_docs, reason = "the fields are those of upstream's API")]
        pub struct $name { $($(#[$attribute])* pub $field: $kind,)* })*
    };
}

documents! {
    /// All of it.
    Summary {
        node: NodeStats,
        pods: Vec<PodStats>,
    }
    /// The machine.
    NodeStats {
        node_name: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        system_containers: Vec<ContainerStats>,
        start_time: Time,
        #[serde(skip_serializing_if = "Option::is_none")]
        cpu: Option<CpuStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        memory: Option<MemoryStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        io: Option<IoStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        network: Option<NetworkStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        fs: Option<FsStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        runtime: Option<RuntimeStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        rlimit: Option<RlimitStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        swap: Option<SwapStats>,
    }
    /// Process ids of the machine.
    RlimitStats {
        time: Time,
        #[serde(rename = "maxpid", skip_serializing_if = "Option::is_none")]
        max_pid: Option<i64>,
        #[serde(rename = "curproc", skip_serializing_if = "Option::is_none")]
        running: Option<i64>,
    }
    /// The runtime's file systems.
    RuntimeStats {
        #[serde(skip_serializing_if = "Option::is_none")]
        image_fs: Option<FsStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        container_fs: Option<FsStats>,
    }
    /// A pod.
    PodStats {
        pod_ref: PodReference,
        start_time: Time,
        containers: Vec<ContainerStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cpu: Option<CpuStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        memory: Option<MemoryStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        io: Option<IoStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        network: Option<NetworkStats>,
        #[serde(rename = "volume", skip_serializing_if = "Vec::is_empty")]
        volumes: Vec<VolumeStats>,
        #[serde(rename = "ephemeral-storage", skip_serializing_if = "Option::is_none")]
        ephemeral_storage: Option<FsStats>,
        #[serde(rename = "process_stats", skip_serializing_if = "Option::is_none")]
        process_stats: Option<ProcessStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        swap: Option<SwapStats>,
    }
    /// Which pod.
    PodReference {
        name: String,
        namespace: String,
        uid: String,
    }
    /// Processes of a pod.
    ProcessStats {
        #[serde(rename = "process_count", skip_serializing_if = "Option::is_none")]
        process_count: Option<u64>,
    }
    /// A container.
    ContainerStats {
        name: String,
        start_time: Time,
        #[serde(skip_serializing_if = "Option::is_none")]
        cpu: Option<CpuStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        memory: Option<MemoryStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        io: Option<IoStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        rootfs: Option<FsStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        logs: Option<FsStats>,
        #[serde(skip_serializing_if = "Option::is_none")]
        swap: Option<SwapStats>,
    }
    /// Processors.
    CpuStats {
        time: Time,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage_nano_cores: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage_core_nano_seconds: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        psi: Option<PsiStats>,
    }
    /// Memory.
    MemoryStats {
        time: Time,
        #[serde(skip_serializing_if = "Option::is_none")]
        available_bytes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage_bytes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        working_set_bytes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        rss_bytes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        page_faults: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        major_page_faults: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        psi: Option<PsiStats>,
    }
    /// Pressure of I/O.
    IoStats {
        time: Time,
        #[serde(skip_serializing_if = "Option::is_none")]
        psi: Option<PsiStats>,
    }
    /// Pressure (PSI).
    PsiStats {
        full: PsiData,
        some: PsiData,
    }
    /// One line of a pressure file; `total` in nanoseconds.
    PsiData {
        total: u64,
        avg10: f64,
        avg60: f64,
        avg300: f64,
    }
    /// Swap.
    SwapStats {
        time: Time,
        #[serde(skip_serializing_if = "Option::is_none")]
        swap_available_bytes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        swap_usage_bytes: Option<u64>,
    }
    /// The default interface, and all of them.
    NetworkStats {
        time: Time,
        #[serde(flatten)]
        default: InterfaceStats,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        interfaces: Vec<InterfaceStats>,
    }
    /// One interface.
    InterfaceStats {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        rx_bytes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        rx_errors: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tx_bytes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tx_errors: Option<u64>,
    }
    /// A volume.
    VolumeStats {
        #[serde(flatten)]
        fs: FsStats,
        name: String,
    }
    /// A file system, and what somebody uses of it.
    FsStats {
        time: Time,
        #[serde(skip_serializing_if = "Option::is_none")]
        available_bytes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        capacity_bytes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        used_bytes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        inodes_free: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        inodes: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        inodes_used: Option<u64>,
    }
}

impl FsStats {
    /// A file system, and so much of it used by somebody.
    pub fn new(
        time: Time,
        whole: Option<sys::fs::Usage>,
        used_bytes: Option<u64>,
        inodes_used: Option<u64>,
    ) -> FsStats {
        FsStats {
            time,
            available_bytes: whole.map(|whole| whole.bytes_available),
            capacity_bytes: whole.map(|whole| whole.bytes),
            used_bytes,
            inodes_free: whole.map(|whole| whole.inodes_free),
            inodes: whole.map(|whole| whole.inodes),
            inodes_used,
        }
    }
}
