//! What a step stands on: the shared cluster and node, and a namespace of its own with short ways to ask about it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tests::cluster::{Api, ControlPlane, Implementation, Kubectl, Node, Settings};
use tests::{Registry, World, eventually, images};

/// How long a pod may take from its creation to whatever a step waits for, unless the step says otherwise.
pub(super) const POD_DEADLINE: Duration = Duration::from_secs(60);

/// The stage of one step.
pub(super) struct Stage<'s, 'w> {
    pub world: &'w World,
    pub cluster: &'s ControlPlane<'w>,
    pub registry: &'s Registry,
    /// The node that all steps share.
    pub node: &'s Node<'w>,
    /// What is under test: a step that makes a node of its own makes one like this.
    pub settings: &'s Settings<'s>,
    /// The step's namespace.
    pub namespace: String,
}

/// One event of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub kind: String,
    pub reason: String,
    pub message: String,
    pub count: u64,
}

impl<'s, 'w> Stage<'s, 'w> {
    pub(super) fn new(
        world: &'w World,
        cluster: &'s ControlPlane<'w>,
        registry: &'s Registry,
        node: &'s Node<'w>,
        settings: &'s Settings<'s>,
        step: &str,
    ) -> Stage<'s, 'w> {
        // A namespace's name is a DNS label.
        let name: String = step.replace('_', "-").chars().take(60).collect();
        let namespace = name.trim_end_matches('-').to_owned();
        cluster.create_namespace(&namespace);
        Stage { world, cluster, registry, node, settings, namespace }
    }

    /// The same namespace in another cluster.
    pub(super) fn moved<'o>(&'o self, cluster: &'o ControlPlane<'w>, node: &'o Node<'w>) -> Stage<'o, 'w> {
        cluster.create_namespace(&self.namespace);
        Stage {
            world: self.world,
            cluster,
            registry: self.registry,
            node,
            settings: self.settings,
            namespace: self.namespace.clone(),
        }
    }

    /// Asks for the namespace's end, and does not wait for it.
    pub(super) fn finish(&self) {
        let _the_node_s_retirement_proves_it = self.api().delete(&format!("/api/v1/namespaces/{}", self.namespace));
    }

    pub(super) fn api(&self) -> Api {
        self.cluster.api()
    }

    pub(super) fn kubectl(&self) -> &Kubectl {
        self.cluster.kubectl()
    }

    /// Whether the upstream kubelet is under test.
    pub(super) fn is_upstream(&self) -> bool {
        self.settings.kubelet == Implementation::Upstream
    }

    /// `kubectl` in the step's namespace; its standard output.
    #[track_caller]
    pub(super) fn ok(&self, arguments: &str) -> String {
        self.kubectl().ok(&self.words(arguments))
    }

    /// What the pod's one container has logged so far, if that can be told now.
    pub(super) fn logs(&self, pod: &str) -> Result<String, tests::Output> {
        let done = self.run(&format!("logs {pod}"));
        if done.code == 0 { Ok(done.stdout) } else { Err(done) }
    }

    /// `kubectl` in the step's namespace, whatever it answers.
    pub(super) fn run(&self, arguments: &str) -> tests::Output {
        self.kubectl().run(&self.words(arguments))
    }

    fn words<'a>(&'a self, arguments: &'a str) -> Vec<&'a str> {
        ["--namespace", &self.namespace].into_iter().chain(arguments.split(' ')).collect()
    }

    /// Applies YAML in which `AGNHOST` and `BUSYBOX` stand for the images.
    #[track_caller]
    pub(super) fn apply(&self, manifests: &str) {
        let manifests = manifests.replace("AGNHOST", images::AGNHOST).replace("BUSYBOX", images::upstream::BUSYBOX);
        self.kubectl().apply(&self.namespace, &manifests);
    }

    /// An object of the namespace: `object("pods/web")`, `object("apis/apps/v1", "deployments/web")`.
    pub(super) fn object(&self, group: &str, path: &str) -> Result<Value, String> {
        self.api().get(&format!("/{group}/namespaces/{}/{path}", self.namespace))
    }

    pub(super) fn pod(&self, name: &str) -> Result<Value, String> {
        self.object("api/v1", &format!("pods/{name}"))
    }

    /// The pods with a label `key=value`.
    pub(super) fn pods(&self, label: &str) -> Result<Vec<Value>, String> {
        let list = self.object("api/v1", &format!("pods?labelSelector={}", label.replace('=', "%3D")))?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until `holds` is true of the pod, and returns the pod.
    #[track_caller]
    pub(super) fn wait_for(&self, name: &str, what: &str, deadline: Duration, holds: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{name}: {what}"), deadline, || {
            let pod = self.pod(name)?;
            if holds(&pod) { Ok(pod) } else { Err(format!("{:#}\nevents: {:#?}", pod["status"], self.events(name))) }
        })
    }

    /// Waits until the pod is Ready.
    #[track_caller]
    pub(super) fn wait_until_ready(&self, name: &str) -> Value {
        self.wait_for(name, "Ready", POD_DEADLINE, is_ready)
    }

    /// Waits until the pod has ended well.
    #[track_caller]
    pub(super) fn wait_until_succeeded(&self, name: &str) -> Value {
        self.wait_for(name, "Succeeded", POD_DEADLINE, |pod| pod["status"]["phase"] == "Succeeded")
    }

    /// Waits until the pod's status says that its container `main` is not made yet. Events overtake a status.
    #[track_caller]
    pub(super) fn wait_until_creating(&self, name: &str) {
        self.wait_for(name, "ContainerCreating", POD_DEADLINE, |pod| {
            container(pod, "main")["state"]["waiting"]["reason"] == "ContainerCreating"
        });
    }

    /// Waits until an object is gone.
    #[track_caller]
    pub(super) fn wait_until_gone(&self, name: &str, deadline: Duration) {
        eventually(&format!("{name} is gone"), deadline, || match self.pod(name) {
            Err(error) if error.contains(": 404 ") => Ok(()),
            Err(error) => Err(error),
            Ok(pod) => Err(pod["metadata"]["deletionTimestamp"].to_string()),
        });
    }

    /// Runs a pod of one busybox container to its end and returns what it printed.
    #[track_caller]
    pub(super) fn output_of(&self, name: &str, spec: &Value) -> String {
        self.create(name, spec);
        self.wait_until_succeeded(name);
        self.ok(&format!("logs {name}"))
    }

    /// Creates a pod by its spec. It never restarts and is quick to end, where the spec says nothing.
    #[track_caller]
    pub(super) fn create(&self, name: &str, spec: &Value) {
        let mut spec = spec.clone();
        for (field, default) in [("restartPolicy", json!("Never")), ("terminationGracePeriodSeconds", json!(1))] {
            if spec[field].is_null() {
                spec[field] = default;
            }
        }
        let labels = json!({ "app": name });
        let pod =
            json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": labels }, "spec": spec });
        self.create_object("api/v1", "pods", &pod);
    }

    /// Creates any object of the namespace.
    #[track_caller]
    pub(super) fn create_object(&self, group: &str, kind: &str, object: &Value) {
        let path = format!("/{group}/namespaces/{}/{kind}", self.namespace);
        self.api().post(&path, object).unwrap_or_else(|error| panic!("{error}"));
    }

    /// The events of the object `name`, oldest first.
    pub(super) fn events(&self, name: &str) -> Vec<Event> {
        let list = self.object("api/v1", &format!("events?fieldSelector=involvedObject.name%3D{name}"));
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let mut events: Vec<(String, Event)> = list
            .iter()
            .flat_map(|list| list["items"].as_array().into_iter().flatten())
            .map(|event| {
                let count = event["count"].as_u64().unwrap_or(1);
                let (kind, reason, message) = (text(event, "type"), text(event, "reason"), text(event, "message"));
                (text(event, "firstTimestamp"), Event { kind, reason, message, count })
            })
            .collect();
        events.sort_by(|(first, _), (second, _)| first.cmp(second));
        events.into_iter().map(|(_, event)| event).collect()
    }

    /// Waits for an event of `name` with `reason` whose message holds `words`.
    #[track_caller]
    pub(super) fn wait_for_event(&self, name: &str, reason: &str, words: &str) -> Event {
        eventually(&format!("event {reason} {words:?} of {name}"), POD_DEADLINE, || {
            let events = self.events(name);
            let found = events.iter().find(|event| event.reason == reason && event.message.contains(words)).cloned();
            found.ok_or(events)
        })
    }
}

/// Whether a pod's condition Ready is true.
pub(super) fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready")["status"] == "True" && pod["metadata"]["deletionTimestamp"].is_null()
}

/// A condition of a pod or node; null if it has none of that kind.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

/// The status of a pod's container, init containers included; null if there is none.
pub(super) fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let mut statuses = lists.iter().flat_map(|list| pod["status"][list].as_array().into_iter().flatten());
    statuses.find(|status| status["name"] == name).unwrap_or(&Value::Null)
}

/// How often a pod's containers were started anew, by their ids: the same afterwards means that nothing was touched.
pub(super) fn lives(pods: &[Value]) -> Vec<(String, String, String, u64)> {
    let mut lives: Vec<_> = pods
        .iter()
        .flat_map(|pod| {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
            pod["status"]["containerStatuses"].as_array().into_iter().flatten().map(move |status| {
                let id = status["containerID"].as_str().unwrap_or_default().to_owned();
                (name.to_owned(), uid.to_owned(), id, status["restartCount"].as_u64().unwrap_or(u64::MAX))
            })
        })
        .collect();
    lives.sort();
    lives
}

/// The body of an HTTP answer from a pod or node of the World.
pub(super) fn http(address: &str, path: &str) -> Result<String, String> {
    let deadline = Duration::from_secs(5) * tests::slow();
    let mut answer = String::new();
    let exchange = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(deadline))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
        stream.read_to_string(&mut answer)
    });
    exchange.map_err(|error| format!("{address}{path}: {error}"))?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).ok_or(answer)
}

/// A busybox container named `main` that runs a shell script.
pub(super) fn script(script: &str) -> Value {
    json!({ "name": "main", "image": images::upstream::BUSYBOX, "command": ["sh", "-c", script] })
}

/// A pod's spec of one such container.
pub(super) fn runs(text: &str) -> Value {
    json!({ "containers": [script(text)] })
}
