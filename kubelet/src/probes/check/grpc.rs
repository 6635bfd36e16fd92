//! `grpc.health.v1.Health/Check`, without TLS.

use super::{Answer, USER_AGENT, join_host_port};
use crate::config::duration;
use k8s_openapi::api::core::v1::GRPCAction;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::error::Error;
use std::time::Duration;
use tokio::time::timeout_at;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// What is asked, and where.
#[derive(Debug, Clone)]
pub(in crate::probes) struct Request {
    address: String,
    service: String,
}

impl Request {
    pub(super) fn new(grpc: &GRPCAction, host: &str) -> Result<Request, String> {
        let port = super::port(&IntOrString::Int(grpc.port), &k8s_openapi::api::core::v1::Container::default())?;
        let address = join_host_port(host, port);
        Ok(Request { address, service: grpc.service.clone().unwrap_or_default() })
    }

    /// Asks over a connection of its own: yes is SERVING.
    pub(super) async fn ask(&self, timeout: Duration) -> Answer {
        let deadline = tokio::time::Instant::now() + timeout;
        let limit = duration::format(timeout);
        let address = &self.address;
        let endpoint = match self.endpoint() {
            Ok(endpoint) => endpoint,
            Err(error) => return Answer::unknown(format!("{address}: {error}")),
        };
        let channel = match timeout_at(deadline, endpoint.connect()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => {
                let cause = root(&error);
                return Answer::Failure(format!("error: failed to connect service at {address:?}: {cause}"));
            }
            Err(_) => {
                return Answer::Failure(format!(
                    "timeout: failed to connect service {address:?} within {limit}: context deadline exceeded"
                ));
            }
        };
        match timeout_at(deadline, self.health(channel)).await {
            Ok(Ok(ServingStatus::Serving)) => Answer::Success,
            Ok(Ok(status)) => Answer::Failure(format!("service unhealthy (responded with {:?})", status.as_str_name())),
            Ok(Err(status)) => Answer::Failure(refusal(&status)),
            Err(_) => Answer::Failure(format!("timeout: health rpc did not complete within {limit}")),
        }
    }

    fn endpoint(&self) -> Result<Endpoint, tonic::transport::Error> {
        Endpoint::from_shared(format!("http://{}", self.address))?.user_agent(USER_AGENT)
    }

    async fn health(&self, channel: Channel) -> Result<ServingStatus, Status> {
        let request = HealthCheckRequest { service: self.service.clone() };
        let response = HealthClient::new(channel).check(request).await?;
        Ok(response.into_inner().status())
    }
}

fn refusal(status: &Status) -> String {
    let message = status.message();
    match status.code() {
        Code::Unimplemented => {
            format!("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}")
        }
        code => {
            let name = if code == Code::Cancelled { "Canceled".to_owned() } else { format!("{code:?}") };
            format!("error: health rpc probe failed: rpc error: code = {name} desc = {message}")
        }
    }
}

/// The innermost cause: that of a transport's error is what says something.
fn root(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<std::io::Error>() {
        Some(error) => super::words(error),
        None => cause.to_string(),
    }
}

#[cfg(test)]
mod tests;
