//! What controllers make of a node: Deployment with Service, Job, CronJob, DaemonSet.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tests::cluster::a_minute;
use tests::eventually;

use crate::cluster::stage::{POD_DEADLINE, Stage, condition, container, http, is_ready};

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: web
        image: AGNHOST
        args: [netexec, --http-port=8080]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
";

pub(super) fn a_deployment_is_scaled_and_rolled(stage: &Stage<'_, '_>) {
    stage.apply(WEB);
    stage.ok(&format!("rollout status deployment/web {}", a_minute()));
    let first = served_pods(stage, 3);

    stage.ok("scale deployment/web --replicas=5");
    let more = served_pods(stage, 5);
    assert!(first.is_subset(&more), "{first:?} of {more:?}");
    stage.ok("scale deployment/web --replicas=2");
    served_pods(stage, 2);

    stage.ok("set env deployment/web ROLLED=yes");
    stage.ok(&format!("rollout status deployment/web {}", a_minute()));
    let rolled = served_pods(stage, 2);
    assert!(rolled.is_disjoint(&more), "{rolled:?} has a pod of {more:?}");
}

/// Waits until the service has `count` ready endpoints and nothing else is left, asks each for its name, and returns
/// the names.
fn served_pods(stage: &Stage<'_, '_>, count: usize) -> BTreeSet<String> {
    let addresses = eventually("the service has exactly the ready pods", POD_DEADLINE, || {
        let pods = stage.pods("app=web")?;
        let ready: BTreeSet<String> =
            pods.iter().filter(|pod| is_ready(pod)).map(|pod| text(&pod["status"]["podIP"])).collect();
        let slices = stage.object("apis/discovery.k8s.io/v1", "endpointslices")?;
        let endpoints = slices["items"].as_array().into_iter().flatten();
        let endpoints = endpoints.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        let serving: BTreeSet<String> = endpoints
            .filter(|endpoint| endpoint["conditions"]["ready"] == true)
            .map(|endpoint| text(&endpoint["addresses"][0]))
            .collect();
        let settled = pods.len() == count && serving.len() == count && ready == serving;
        if settled { Ok(serving) } else { Err(format!("{} pods, ready {ready:?}, serving {serving:?}", pods.len())) }
    });
    let names = addresses.iter().map(|address| http(&format!("{address}:8080"), "/hostname").expect("a pod's name"));
    let names: BTreeSet<String> = names.collect();
    let known = stage.pods("app=web").expect("the pods").iter().map(|pod| text(&pod["metadata"]["name"])).collect();
    assert_eq!(names, known);
    names
}

pub(super) fn a_job_that_fails_twice_succeeds(stage: &Stage<'_, '_>) {
    stage.apply(
        "
apiVersion: batch/v1
kind: Job
metadata: {name: third-time-lucky}
spec:
  backoffLimit: 5
  template:
    spec:
      restartPolicy: OnFailure
      volumes: [{name: attempts, emptyDir: {}}]
      containers:
      - name: main
        image: BUSYBOX
        command: [sh, -c, 'echo x >> /attempts/list; test $(wc -l < /attempts/list) = 3']
        volumeMounts: [{name: attempts, mountPath: /attempts}]
",
    );
    let job = eventually("the job is complete", Duration::from_secs(90), || {
        let job = stage.object("apis/batch/v1", "jobs/third-time-lucky")?;
        if condition(&job, "Complete")["status"] == "True" { Ok(job) } else { Err(job["status"].to_string()) }
    });
    assert_eq!(job["status"]["succeeded"], json!(1));
    let pods = stage.pods("job-name=third-time-lucky").expect("the job's pods");
    assert_eq!(pods.len(), 1, "the pod restarts its container in place");
    let main = container(&pods[0], "main");
    assert_eq!(main["restartCount"], json!(2), "{main}");
    assert_eq!(main["state"]["terminated"]["reason"], json!("Completed"), "{main}");
    assert_eq!(main["lastState"]["terminated"]["exitCode"], json!(1), "{main}");
    assert_eq!(pods[0]["status"]["phase"], json!("Succeeded"));
}

pub(super) fn a_cron_job_runs_at_the_full_minute(stage: &Stage<'_, '_>) {
    stage.apply(
        "
apiVersion: batch/v1
kind: CronJob
metadata: {name: minutely}
spec:
  schedule: '* * * * *'
  jobTemplate:
    spec:
      template:
        metadata: {labels: {app: minutely}}
        spec:
          restartPolicy: Never
          containers: [{name: main, image: BUSYBOX, command: [date]}]
",
    );
    eventually("a job of the minute has succeeded", Duration::from_secs(100), || {
        let pods = stage.pods("app=minutely")?;
        let done = pods.iter().any(|pod| pod["status"]["phase"] == "Succeeded");
        if done { Ok(()) } else { Err(format!("{} pods", pods.len())) }
    });
    eventually("the cron job knows its last success", Duration::from_secs(30), || {
        let cron = stage.object("apis/batch/v1", "cronjobs/minutely")?;
        if cron["status"]["lastSuccessfulTime"].is_string() { Ok(()) } else { Err(cron["status"].to_string()) }
    });
}

pub(super) fn a_daemon_set_with_host_network_serves_on_the_node(stage: &Stage<'_, '_>) {
    stage.apply(
        "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 2
      containers:
      - name: agent
        image: AGNHOST
        args: [netexec, --http-port=8081, --udp-port=-1]
        ports: [{containerPort: 8081}]
        readinessProbe: {tcpSocket: {port: 8081}, periodSeconds: 1}
",
    );
    stage.ok(&format!("rollout status daemonset/agent {}", a_minute()));
    let pods = stage.pods("app=agent").expect("the agent's pods");
    assert_eq!(pods.len(), 1, "one node takes it");
    let ip = stage.node.kubelet().ip().to_string();
    for field in ["podIP", "hostIP"] {
        assert_eq!(pods[0]["status"][field], json!(ip), "{field}");
    }
    assert_eq!(pods[0]["spec"]["containers"][0]["ports"][0]["hostPort"], json!(8081));
    let answer = http(&format!("{ip}:8081"), "/healthz");
    assert!(answer.is_ok(), "{answer:?}");
    stage.ok(&format!("delete daemonset/agent {}", a_minute()));
    eventually("its pod is gone", POD_DEADLINE, || stage.pods("app=agent").is_ok_and(|pods| pods.is_empty()));
    assert!(http(&format!("{ip}:8081"), "/healthz").is_err(), "nothing serves any more");
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
