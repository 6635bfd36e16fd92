//! Volumes, as the processes see them.

use std::time::Duration;

use serde_json::{Value, json};
use tests::eventually;

use crate::cluster::stage::{POD_DEADLINE, Stage, container, script};

pub(super) fn changed_config_maps_and_secrets_arrive_in_the_volume(stage: &Stage<'_, '_>) {
    stage.ok("create configmap settings --from-literal=value=old --from-literal=gone=soon");
    stage.ok("create secret generic keys --from-literal=value=old");
    let mut main = script(
        "while :; do now=\"$(cat /config/value) $(cat /secret/value) $(ls /config | tr '\\n' ' ')$(cat /pinned)\"; \
         if [ \"$now\" != \"$last\" ]; then echo \"$now\"; last=$now; fi; usleep 50000; done",
    );
    main["volumeMounts"] = json!([
        { "name": "config", "mountPath": "/config" },
        { "name": "secret", "mountPath": "/secret" },
        { "name": "config", "mountPath": "/pinned", "subPath": "value" },
    ]);
    let volumes = json!([
        { "name": "config", "configMap": { "name": "settings" } },
        { "name": "secret", "secret": { "secretName": "keys" } },
    ]);
    stage.create("reader", &json!({ "containers": [main], "volumes": volumes }));
    stage.wait_until_ready("reader");
    eventually("the first content is read", POD_DEADLINE, || {
        stage.logs("reader").is_ok_and(|log| log == "old old gone value old\n")
    });
    let data = |group: &str| format!("/api/v1/namespaces/{}/{group}", stage.namespace);
    let changed = json!({ "data": { "value": "new", "gone": null, "more": "here" } });
    stage.api().merge(&data("configmaps/settings"), &changed).expect("a changed ConfigMap");
    stage.api().merge(&data("secrets/keys"), &json!({ "stringData": { "value": "new" } })).expect("a changed Secret");
    // A kubelet looks at a pod again within a minute and a half.
    eventually("the new content arrives", Duration::from_secs(110), || {
        let log = stage.logs("reader");
        // What a subPath shows is pinned to the file that was there at the start.
        if log.as_ref().is_ok_and(|log| log.ends_with("new new more value old\n")) { Ok(()) } else { Err(log) }
    });
}

pub(super) fn every_kind_of_volume_holds_what_it_should(stage: &Stage<'_, '_>) {
    stage.ok("create configmap settings --from-literal=a=1 --from-literal=b=2");
    stage.ok("create secret generic keys --from-literal=key=hidden");
    let mut main = script(
        "stat -c '%a' /empty; grep -c ' /memory tmpfs ' /proc/mounts; cat /chosen/dir/a; echo; ls /chosen; stat -Lc '%a' /chosen/dir/a; \
         stat -Lc '%a' /secret/key; cat /all/name /all/labels; echo; cat /all/a /all/key; echo; ls /all; \
         touch /secret/x 2>&1; echo from-the-pod > /host/file; ls /optional",
    );
    main["volumeMounts"] = json!([
        { "name": "empty", "mountPath": "/empty" },
        { "name": "memory", "mountPath": "/memory" },
        { "name": "chosen", "mountPath": "/chosen" },
        { "name": "secret", "mountPath": "/secret", "readOnly": true },
        { "name": "all", "mountPath": "/all" },
        { "name": "host", "mountPath": "/host" },
        { "name": "optional", "mountPath": "/optional" },
    ]);
    let host = stage.world.new_dir("host-path");
    let made = host.join("made");
    let volumes = json!([
        { "name": "empty", "emptyDir": {} },
        { "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "8Mi" } },
        { "name": "chosen", "configMap": { "name": "settings", "items": [{ "key": "a", "path": "dir/a", "mode": 0o400 }] } },
        { "name": "secret", "secret": { "secretName": "keys", "defaultMode": 0o440 } },
        { "name": "all", "projected": { "sources": [
            { "configMap": { "name": "settings", "items": [{ "key": "a", "path": "a" }] } },
            { "secret": { "name": "keys" } },
            { "downwardAPI": { "items": [
                { "path": "name", "fieldRef": { "fieldPath": "metadata.name" } },
                { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
            ] } },
        ] } },
        { "name": "host", "hostPath": { "path": made, "type": "DirectoryOrCreate" } },
        { "name": "optional", "configMap": { "name": "none", "optional": true } },
    ]);
    let printed = stage.output_of("holder", &json!({ "containers": [main], "volumes": volumes }));
    let expected = "777\n1\n1\ndir\n400\n440\nholderapp=\"holder\"\n1hidden\na\nkey\nlabels\nname\n\
                    touch: /secret/x: Read-only file system\n";
    assert_eq!(printed, expected);
    assert_eq!(std::fs::read_to_string(made.join("file")).expect("what the pod wrote"), "from-the-pod\n");

    // A volume is made for the containers that mount it.
    let mut main = script("true");
    main["volumeMounts"] = json!([{ "name": "host", "mountPath": "/host" }]);
    let mut spec = json!({ "containers": [main] });
    spec["volumes"] = json!([{ "name": "host", "hostPath": { "path": host.join("absent"), "type": "Directory" } }]);
    stage.create("no-directory", &spec);
    stage.wait_for_event(
        "no-directory",
        "FailedMount",
        "MountVolume.SetUp failed for volume \"host\" : hostPath type check failed: ",
    );
    stage.wait_until_creating("no-directory");
}

pub(super) fn a_sub_path_shows_only_its_part(stage: &Stage<'_, '_>) {
    let writer = |name: &str, text: &str, mount: Value| {
        let mut container = script(text);
        container["name"] = json!(name);
        container["volumeMounts"] = json!([mount]);
        container["env"] = json!([{ "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }]);
        container
    };
    let spec = json!({
        "volumes": [{ "name": "data", "emptyDir": {} }],
        "initContainers": [
            writer("part", "echo part > /part/file", json!({ "name": "data", "mountPath": "/part", "subPath": "a/b" })),
            writer("named", "echo named > /own/file", json!({ "name": "data", "mountPath": "/own", "subPathExpr": "pods/$(POD)" })),
            writer("link", "ln -s /etc /data/escape", json!({ "name": "data", "mountPath": "/data" })),
        ],
        "containers": [writer("main", "cat /data/a/b/file /data/pods/sub/file; ls /data", json!({ "name": "data", "mountPath": "/data" }))],
    });
    let printed = stage.output_of("sub", &spec);
    assert_eq!(printed, "part\nnamed\na\nescape\npods\n");

    let mut escaping = spec.clone();
    escaping["containers"] =
        json!([writer("main", "cat /out/passwd", json!({ "name": "data", "mountPath": "/out", "subPath": "escape" }))]);
    stage.create("escape", &escaping);
    let pod = stage.wait_for("escape", "refused", POD_DEADLINE, |pod| {
        let main = &container(pod, "main")["state"]["waiting"]["reason"];
        main == "CreateContainerConfigError"
    });
    let message = container(&pod, "main")["state"]["waiting"]["message"].clone();
    assert!(
        message.as_str().is_some_and(
            |message| message.contains("failed to prepare subPath for volumeMount \"data\" of container \"main\"")
        ),
        "{message}"
    );
}
