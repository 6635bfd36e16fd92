//! Many requests, many connections, slow ones: none costs without end, and none locks out the others.

use super::http::{Client, connect, connect_from};
use super::{ALLOWED, Served};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::net::TcpStream;

/// Waits for at most a minute.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while !condition() {
            looks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), wait).await.expect(what);
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Memory is a process's, and the other tests grow this one's meanwhile: the flood has a process of its own.
#[test]
fn thousands_of_requests_leave_no_memory_behind() {
    const ALONE: &str = "ORLOP_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(flood());
        return;
    }
    let name = "server::tests::floods::thousands_of_requests_leave_no_memory_behind";
    let mut test = std::process::Command::new(std::env::current_exe().unwrap());
    let done = test.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
}

async fn flood() {
    let served = Served::start().await;
    served.put_running(&["a line"]);
    let run = async |requests: usize| {
        let mut clients = tokio::task::JoinSet::new();
        for number in 0..10 {
            // Half of them with tokens that nobody has: each is another question to the API server.
            let mut client = Client::tls_two(served.address).await.with_token(Some(ALLOWED));
            clients.spawn(async move {
                for request in 0..requests / 10 {
                    let token = format!("stranger-{number}-{request}");
                    let token = if request % 2 == 0 { ALLOWED } else { &token };
                    client = client.with_token(Some(token));
                    client.send("GET", "/containerLogs/ns/web/c?token=x").await;
                }
            });
        }
        clients.join_all().await;
    };
    run(500).await;
    let before = resident();
    run(5000).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 48 << 20, "grown by {} MiB", grown >> 20);
}

#[tokio::test]
async fn silent_connections_do_not_lock_out_others() {
    let served = Served::start().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    // Those beyond the bound of one address are closed at once.
    let is_closed = |stream: &TcpStream| match stream.try_read(&mut [0]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    let closed = || silent.iter().filter(|stream| is_closed(stream)).count();
    until("the others are closed", || closed() >= 200 - 128).await;
    // All are once they were silent for ten seconds.
    assert_eq!(closed(), 200 - 128, "only those are");
    // Another address is served while they are held,
    connect_from([127, 0, 0, 2], served.address).await.expect("a place for somebody else");
    // and this one is again when they are gone.
    drop(silent);
    let accepted = async {
        let mut tries = tokio::time::interval(Duration::from_millis(5));
        while connect(served.address, None, b"http/1.1").await.is_err() {
            tries.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), accepted).await.expect("the server accepts somebody");
}

#[tokio::test]
async fn a_hanging_runtime_hangs_nobody_who_does_not_ask_it() {
    let served = Served::start().await;
    served.put_running(&[]);
    served.runtime.state().stats_hang = true;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let mut client = served.client(Some(ALLOWED)).await;
        waiting.spawn(async move { client.send("GET", "/metrics/resource").await.status });
    }
    let mut client = served.client(Some(ALLOWED)).await;
    for path in ["/pods", "/metrics", "/healthz", "/containerLogs/ns/web/c"] {
        let answer = tokio::time::timeout(Duration::from_secs(5), client.send("GET", path)).await;
        assert_eq!(answer.expect("an answer in time").status, 200, "{path}");
    }
    until("it is asked", || served.runtime.state().stats_asked > 0).await;
    assert!(waiting.try_join_next().is_none(), "the others still wait");
    assert_eq!(served.runtime.state().stats_asked, 1);
}

#[tokio::test]
async fn the_end_of_the_server_ends_its_streams_and_removes_its_socket() {
    let (end, ended) = tokio::sync::oneshot::channel();
    let mut served = Served::until(|_| {}, async move { drop(ended.await) }).await;
    served.put_running(&["a line"]);
    let mut client = Client::tls_two(served.address).await.with_token(Some(ALLOWED));
    let following = client.open("GET", "/containerLogs/ns/web/c?follow=true").await;
    end.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(10), &mut served.serving).await.expect("an end").unwrap();
    assert!(!served.folder.path().join("kubelet.sock").exists());
    drop(following);
}
