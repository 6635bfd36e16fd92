//! Pods on a network, through the CRI: by our plugins and by the reference plugins, which must be the same to a user.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tests::{CriDaemon, Plugins, Registry, World, eventually, images, pods, slow};

/// One `GET /`, the whole answer.
fn get(address: SocketAddr) -> std::io::Result<String> {
    let patience = Duration::from_secs(2) * slow();
    let mut connection = TcpStream::connect_timeout(&address, patience)?;
    connection.set_read_timeout(Some(patience))?;
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A web server in a pod answers at the pod's address and at the host's port, and nothing of it is left afterwards.
fn check(plugins: Plugins) {
    let world = World::enter();
    let registry = Registry::start(&world);
    registry.add("base", "1", &images::busybox());
    let daemon = CriDaemon::with(&world, plugins);
    daemon.mirror("registry.example", &registry.host());
    let client = daemon.client();
    client.pull("registry.example/base:1").expect("pull");

    let config = pods::as_kubelet(pods::pod("web", &daemon.logs().join("web"), &world.cgroup("web")), Some(18_080));
    let pod = client.run_pod(&config).expect("run a pod");
    let server = pods::container("server", "registry.example/base:1", &["workload", "httpd", "80"]);
    let server = client.create(&pod, &config, &pods::container_as_kubelet(server)).expect("create the server");
    client.start(&server).expect("start the server");
    let ip = client.pod_status(&pod).expect("the pod's status").network.expect("its network").ip;
    for place in [format!("{ip}:80"), "127.0.0.1:18080".to_owned()] {
        let address = place.parse().expect("an address");
        let page = eventually(&format!("the page at {place}"), Duration::from_secs(20), || get(address));
        assert!(page.contains("It works!"), "{page}");
    }
    client.stop_pod(&pod).expect("stop the pod");
    let status = client.pod_status(&pod).expect("a stopped pod still has a status");
    assert_eq!(status.state(), proto::PodSandboxState::SandboxNotready);
    get("127.0.0.1:18080".parse().expect("an address")).expect_err("the host port is free again");
    client.remove_pod(&pod).expect("remove the pod");
}

#[test]
fn a_web_server_is_reached_at_its_pod_address_and_host_port_through_our_plugins() {
    check(Plugins::Ours);
}

#[test]
fn a_web_server_is_reached_at_its_pod_address_and_host_port_through_the_reference_plugins() {
    check(Plugins::Reference);
}
