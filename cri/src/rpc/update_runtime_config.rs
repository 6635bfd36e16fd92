//! UpdateRuntimeConfig: a kubelet tells the node's pod CIDR. Whoever wrote the CNI configuration knows it already.

use proto::UpdateRuntimeConfigRequest;

pub(crate) fn update_runtime_config(request: &UpdateRuntimeConfigRequest) {
    let network = request.runtime_config.as_ref().and_then(|config| config.network_config.as_ref());
    if let Some(network) = network {
        tracing::info!(
            pod_cidr = network.pod_cidr,
            "the kubelet's pod CIDR; addresses come from the CNI configuration"
        );
    }
}
