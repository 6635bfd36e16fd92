//! A connection.

use super::{Answer, connect, join_host_port};
use std::time::Duration;

/// Connects and closes: yes is a connection.
pub(super) async fn ask(host: &str, port: u16, timeout: Duration) -> Answer {
    match tokio::time::timeout(timeout, connect(host, port)).await {
        Ok(Ok(_)) => Answer::Success,
        Ok(Err(message)) => Answer::Failure(message),
        Err(_) => Answer::Failure(format!("dial tcp {}: i/o timeout", join_host_port(host, port))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_listens_is_well_and_one_that_does_not_is_named() {
        let (socket, port) = crate::probes::check::tests::closed_port();
        let timeout = Duration::from_secs(5);
        let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(ask("127.0.0.1", port, timeout).await, Answer::Failure(refused));
        let _listener = socket.listen(1).unwrap();
        assert_eq!(ask("127.0.0.1", port, timeout).await, Answer::Success);
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_a_failure() {
        // No name at all: no server has to be asked, which may be slow to answer or not there.
        let unknown = Answer::Failure("dial tcp: lookup nobody..invalid: no such host".to_owned());
        assert_eq!(ask("nobody..invalid", 80, Duration::from_secs(10)).await, unknown);
    }
}
