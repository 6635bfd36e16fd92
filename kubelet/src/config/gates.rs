//! Feature gates: upstream's of 1.36 by name and default, and what setting one comes to here.

use super::ConfigError;
use super::yaml::{Key, Node, Value};

/// On unless turned off.
const ON: &str = "\
    CPUManagerPolicyBetaOptions ContainerCheckpoint ContainerRestartRules ContextualLogging CustomCPUCFSQuotaPeriod \
    DRAConsumableCapacity DRAExtendedResource DisableCPUQuotaWithExclusiveCPUs EnvFiles ExtendWebSocketsToKubelet \
    GracefulNodeShutdown GracefulNodeShutdownBasedOnPodPriority HostnameOverride \
    InPlacePodLevelResourcesVerticalScaling InPlacePodVerticalScalingInitContainers KubeletCrashLoopBackOffMax \
    KubeletEnsureSecretPulledImages KubeletPodResourcesListUseActivePods KubeletSeparateDiskGC \
    KubeletServiceAccountTokenForCredentialProviders LoggingBetaOptions NodeDeclaredFeatures PLEGOnDemandRelist \
    PodLevelResources PodReadyToStartContainersCondition PreventStaticPodAPIReferences \
    ReloadKubeletServerCertificateFile ResourceHealthStatus ResourceHealthStatusMessage \
    RestartAllContainersOnContainerExits RotateKubeletServerCertificate TopologyManagerPolicyBetaOptions \
    WatchListClient WindowsGracefulNodeShutdown \
";

/// Off unless turned on.
const OFF: &str = "\
    AllAlpha AllBeta AllowDNSOnlyNodeCSR CPUManagerPolicyAlphaOptions CRIListStreaming CSIVolumeHealth \
    ChangeContainerStatusOnKubeletRestart ClusterTrustBundleProjection ComponentFlagz ComponentStatusz \
    ContainerStopSignals DRAWorkloadResourceClaims EventedPLEG GenericWorkload ImageVolumeWithDigest \
    InPlacePodVerticalScalingExclusiveCPUs InPlacePodVerticalScalingExclusiveMemory KubeletInUserNamespace \
    KubeletRegistrationGetOnExistsOnly LocalStorageCapacityIsolationFSQuotaMonitoring LoggingAlphaOptions MemoryQoS \
    PodAndContainerStatsFromCRI PodCertificateRequest PodLevelResourceManagers PodLogsQuerySplitStreams PodsAPI \
    QOSReserved ReduceDefaultCrashLoopBackOffDecay RuntimeClassInImageCriApi SELinuxMount \
    TaintTolerationComparisonOperators TopologyManagerPolicyAlphaOptions UserNamespacesHostNetworkSupport \
    WindowsCPUAndMemoryAffinity WindowsHostNetwork \
";

/// On for good.
const LOCKED_ON: &str = "\
    CPUManagerPolicyOptions CSIServiceAccountTokenSecrets ComponentSLIs DisableNodeKubeProxyVersion \
    DynamicResourceAllocation ExecProbeTimeout ImageMaximumGCAge ImageVolume InPlacePodVerticalScaling \
    KubeletCgroupDriverFromCRI KubeletFineGrainedAuthz KubeletPSI KubeletPodResourcesDynamicResources \
    KubeletPodResourcesGet KubeletTracing MutableCSINodeAllocatableCount NodeLogQuery NodeSwap \
    PodLifecycleSleepAction PodLifecycleSleepActionAllowZero PodObservedGenerationTracking ProcMountType \
    RecoverVolumeExpansionFailure RecursiveReadOnlyMounts RelaxedDNSSearchValidation \
    RelaxedEnvironmentVariableValidation SELinuxChangePolicy SELinuxMountReadWriteOncePod SidecarContainers \
    SupplementalGroupsPolicy SystemdWatchdog TopologyManagerPolicyOptions UserNamespacesSupport \
";

/// Off for good.
const LOCKED_OFF: &str = "\
    GitRepoVolumeDriver \
";

/// Gates of other components, which one list for the whole cluster may contain: the kubelet never asks for them.
const ELSEWHERE: &str = "\
    APIResponseCompression APIServerIdentity APIServerTracing APIServingWithRoutine \
    AggregatedDiscoveryRemoveBetaType AllowInsecureKubeletCertificateSigningRequests \
    AllowOverwriteTerminationGracePeriodSeconds AllowParsingUserUIDFromCertAuth AllowServiceExternalIPs \
    AllowUnsafeMalformedObjectDeletion AnonymousAuthConfigurableEndpoints AnyVolumeDataSource AtomicFIFO \
    AuthorizeNodeWithSelectors AuthorizePodWebsocketUpgradeCreatePermission AuthorizeWithSelectors BtreeWatchCache \
    CBORServingAndStorage CRDObservedGenerationTracking CRDValidationRatcheting \
    ClearingNominatedNodeNameAfterBinding ClientsAllowCARotation ClientsAllowCBOR ClientsAllowTLSCacheGC \
    ClientsPreferCBOR CloudControllerManagerWatchBasedRoutesReconciliation CloudControllerManagerWebhook \
    ClusterTrustBundle ConcurrentWatchObjectDecode ConsistentListFromCache ConstrainedImpersonation \
    ControllerManagerReleaseLeaderElectionLockOnExit CoordinatedLeaderElection CrossNamespaceVolumeDataSource \
    CustomResourceFieldSelectors DRAAdminAccess DRADeviceBindingConditions DRADeviceTaintRules DRADeviceTaints \
    DRAListTypeAttributes DRANodeAllocatableResources DRAPartitionableDevices DRAPrioritizedList \
    DRAResourceClaimDeviceStatus DRAResourceClaimGranularStatusAuthorization DRAResourcePoolStatus \
    DRASchedulerFilterTimeout DeclarativeValidation DeclarativeValidationBeta DeclarativeValidationTakeover \
    DeploymentReplicaSetTerminatingReplicas DetectCacheInconsistency DisableAllocatorDualWrite \
    ExternalServiceAccountTokenSigner GangScheduling HPAConfigurableTolerance HPAScaleToZero InOrderInformers \
    InOrderInformersBatchProcess InformerResourceVersion JobBackoffLimitPerIndex JobManagedBy \
    JobPodReplacementPolicy JobSuccessPolicy KMSv1 ListFromCacheSnapshot LogarithmicScaleDown \
    ManifestBasedAdmissionControlConfig MatchLabelKeysInPodAffinity MatchLabelKeysInPodTopologySpread \
    MatchLabelKeysInPodTopologySpreadSelectorMerge MaxUnavailableStatefulSet MultiCIDRServiceAllocator \
    MutablePVNodeAffinity MutablePodResourcesForSuspendedJobs MutableSchedulingDirectivesForSuspendedJobs \
    MutatingAdmissionPolicy NFTablesProxyMode NodeInclusionPolicyInPodTopologySpread NominatedNodeNameForExpectation \
    OpenAPIEnums OpportunisticBatching OrderedNamespaceDeletion PersistentVolumeClaimUnusedSinceTime PodDeletionCost \
    PodSchedulingReadiness PodTopologyLabelsAdmission PortForwardWebsockets PreferSameTrafficDistribution \
    RelaxedServiceNameValidation RemoteRequestHeaderUID ResilientWatchCacheInitialization RetryGenerateName \
    SchedulerAsyncAPICalls SchedulerAsyncPreemption SchedulerPopFromBackoffQ SchedulerQueueingHints \
    SeparateCacheWatchRPC SeparateTaintEvictionController ServiceAccountNodeAudienceRestriction \
    ServiceAccountTokenJTI ServiceAccountTokenNodeBinding ServiceAccountTokenNodeBindingValidation \
    ServiceAccountTokenPodNodeInfo ServiceCIDRStatusFieldWiping ShardedListAndWatch SizeBasedListCostEstimate \
    StaleControllerConsistencyDaemonSet StaleControllerConsistencyJob StaleControllerConsistencyReplicaSet \
    StaleControllerConsistencyStatefulSet StatefulSetSemanticRevisionComparison StorageCapacityScoring \
    StorageNamespaceIndex StorageVersionAPI StorageVersionHash StorageVersionMigrator \
    StreamingCollectionEncodingToJSON StreamingCollectionEncodingToProtobuf StrictIPCIDRValidation \
    StructuredAuthenticationConfiguration StructuredAuthenticationConfigurationEgressSelector \
    StructuredAuthenticationConfigurationJWKSMetrics TokenRequestServiceAccountUIDValidation \
    TopologyAwareWorkloadScheduling TranslateStreamCloseWebsocketRequests UnauthenticatedHTTP2DOSMitigation \
    UnknownVersionInteroperabilityProxy UnlockWhileProcessingFIFO VolumeAttributesClass VolumeLimitScaling \
    WatchCacheInitializationPostStartHook WatchList WinDSR WinOverlay WorkloadAwarePreemption WorkloadWithJob \
";

/// Gates that must not be on without effect, and why.
const REFUSED_ON: &[(&str, &str)] = &[
    ("KubeletInUserNamespace", "the kubelet can't run without being root on the host"),
    ("MemoryQoS", "memory isn't reserved for containers yet: requests would not be protected"),
    ("QOSReserved", "memory can't be reserved for a QoS class"),
    ("LocalStorageCapacityIsolationFSQuotaMonitoring", "project quotas aren't set up"),
    ("AllAlpha", "most alpha features aren't built: name those that are meant"),
];

/// Checks `featureGates` and returns those that are set to what they don't do, as `featureGates.Name`.
///
/// # Errors
/// A gate that upstream doesn't know, that is locked, or whose feature would be missed.
pub(super) fn check(entries: &[(Key, Node)]) -> Result<Vec<String>, ConfigError> {
    let mut later = Vec::new();
    for (key, node) in entries {
        let Value::Bool(wanted) = node.value else { continue };
        let name = key.name.as_str();
        match meaning(name) {
            Some(Meaning::Elsewhere) => {}
            Some(Meaning::Free(default)) if default == wanted => {}
            Some(Meaning::Locked(fixed)) if fixed == wanted => {}
            Some(Meaning::Locked(fixed)) => {
                let title = format!("cannot set feature gate {name} to {wanted}, feature is locked to {fixed}");
                return Err(node.place.mistake(&title, ""));
            }
            Some(Meaning::Free(_)) => match REFUSED_ON.iter().find(|(gate, _)| wanted && *gate == name) {
                Some((_, reason)) => {
                    return Err(node.place.mistake(&format!("feature gate {name} is not supported"), reason));
                }
                None => later.push(format!("featureGates.{name}")),
            },
            None => return Err(key.place.mistake(&format!("unrecognized feature gate: {name}"), &suggestion(name))),
        }
    }
    Ok(later)
}

enum Meaning {
    Free(bool),
    Locked(bool),
    Elsewhere,
}

fn meaning(name: &str) -> Option<Meaning> {
    let listed = |list: &str| list.split_whitespace().any(|gate| gate == name);
    let lists = [
        (ON, Meaning::Free(true)),
        (OFF, Meaning::Free(false)),
        (LOCKED_ON, Meaning::Locked(true)),
        (LOCKED_OFF, Meaning::Locked(false)),
        (ELSEWHERE, Meaning::Elsewhere),
    ];
    lists.into_iter().find(|(list, _)| listed(list)).map(|(_, meaning)| meaning)
}

fn suggestion(name: &str) -> String {
    let likeness = |gate: &str| (strsim::jaro_winkler(gate, name) * 1000.0) as u32;
    let all = [ON, OFF, LOCKED_ON, LOCKED_OFF].into_iter().flat_map(str::split_whitespace);
    match all.max_by_key(|gate| likeness(gate)) {
        Some(gate) if likeness(gate) > 850 => format!("did you mean {gate}?"),
        _ => "Kubernetes 1.36 has no such gate".to_owned(),
    }
}
