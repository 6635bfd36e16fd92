//! gRPC probes against servers that answer, refuse and hang.

use super::*;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tonic_health::pb::HealthCheckResponse;
use tonic_health::pb::health_server::{Health, HealthServer};

/// Answers each service's name with a status, and notes what called it.
#[derive(Clone, Default)]
struct Server {
    agents: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl Health for Server {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        let agent = request.metadata().get("user-agent").map(|agent| agent.to_str().unwrap().to_owned());
        self.agents.lock().unwrap().extend(agent);
        let status = match request.get_ref().service.as_str() {
            "" => ServingStatus::Serving,
            "down" => ServingStatus::NotServing,
            "slow" => {
                // What comes next is the client's deadline.
                tokio::time::pause();
                std::future::pending().await
            }
            "none" => return Err(Status::unimplemented("unknown service grpc.health.v1.Health")),
            _ => return Err(Status::not_found("unknown service")),
        };
        Ok(tonic::Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: tonic::Request<HealthCheckRequest>) -> Result<tonic::Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

async fn serve(server: Server) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(HealthServer::new(server.clone()));
            tokio::spawn(async move {
                let builder = Builder::new(TokioExecutor::new()).http2_only();
                // A client that goes away is an error here.
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (port, task)
}

async fn ask(port: u16, service: &str, millis: u64) -> Answer {
    let grpc = GRPCAction { port: i32::from(port), service: Some(service.to_owned()) };
    Request::new(&grpc, "127.0.0.1").unwrap().ask(Duration::from_millis(millis)).await
}

#[tokio::test]
async fn a_service_is_well_that_answers_serving_in_time() {
    let server = Server::default();
    let (port, task) = serve(server.clone()).await;
    let failure = |text: &str| Answer::Failure(text.to_owned());
    assert_eq!(ask(port, "", 5000).await, Answer::Success);
    assert_eq!(ask(port, "down", 5000).await, failure("service unhealthy (responded with \"NOT_SERVING\")"));
    assert_eq!(
        ask(port, "other", 5000).await,
        failure("error: health rpc probe failed: rpc error: code = NotFound desc = unknown service")
    );
    assert_eq!(
        ask(port, "none", 5000).await,
        failure(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): \
             unknown service grpc.health.v1.Health"
        )
    );
    assert_eq!(ask(port, "slow", 5000).await, failure("timeout: health rpc did not complete within 5s"));
    let agents = server.agents.lock().unwrap().clone();
    assert!(agents.iter().all(|agent| agent.starts_with(USER_AGENT)), "{agents:?}");
    task.abort();
}

#[tokio::test]
async fn nobody_there_is_a_failure_at_once_and_silence_one_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silence = "timeout: health rpc did not complete within 200ms".to_owned();
    // The kernel takes the connection, nobody answers on it.
    let answer = ask(port, "", 200).await;
    let connecting =
        format!("timeout: failed to connect service \"127.0.0.1:{port}\" within 200ms: context deadline exceeded");
    assert!([silence, connecting].map(Answer::Failure).contains(&answer), "{answer:?}");
    let (_socket, port) = crate::probes::check::tests::closed_port();
    let refused = format!("error: failed to connect service at \"127.0.0.1:{port}\": connection refused");
    assert_eq!(ask(port, "", 5000).await, Answer::Failure(refused));
}
