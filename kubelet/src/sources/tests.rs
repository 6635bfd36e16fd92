//! What the sources say, merged.

use super::*;
use crate::fakes::api::FakeApi;
use serde_json::json;

fn object(name: &str, uid: &str, mirror: Option<&str>) -> PodObject {
    let annotations = mirror.map(|hash| json!({mirror::MIRROR: hash}));
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "uid": uid, "annotations": annotations},
        "spec": {"containers": [{"name": "c"}]},
    }))
    .unwrap()
}

fn static_pod(name: &str, uid: &str) -> Pod {
    Pod::new(Arc::new(object(name, uid, None)), Source::File).unwrap()
}

struct Scene {
    fake: FakeApi,
    mirrors: Mirrors,
    files: mpsc::Sender<Vec<Pod>>,
    updates: mpsc::Receiver<Update>,
}

impl Scene {
    fn new() -> Scene {
        let fake = FakeApi::new();
        let mirrors = Mirrors::new(fake.api(), "n1");
        let (updates, receiver) = mpsc::channel(QUEUE);
        let (files, lists) = mpsc::channel(8);
        let merge = Merge { updates, mirrors: mirrors.clone(), statics: BTreeMap::new(), files_seen: false };
        tokio::spawn(merge.run(fake.api().watch_pods(), Some(lists)));
        Scene { fake, mirrors, files, updates: receiver }
    }

    /// All updates until nothing more comes.
    async fn told(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..20 {
            tokio::task::yield_now().await;
            while let Ok(update) = self.updates.try_recv() {
                all.push(match update {
                    Update::Set { source, pods } => {
                        format!("{source:?} {:?}", pods.iter().map(|pod| pod.uid().as_str()).collect::<Vec<_>>())
                    }
                    Update::Upsert(pod) => format!("upsert {}", pod.uid()),
                    Update::Remove { source, uid } => format!("remove {source:?} {uid}"),
                });
            }
        }
        all
    }
}

#[tokio::test]
async fn each_source_says_all_it_has_and_then_what_changes() {
    let mut scene = Scene::new();
    assert_eq!(scene.told().await, ["Api []"]);
    scene.files.send(vec![static_pod("s", "s1")]).await.unwrap();
    assert_eq!(scene.told().await, ["File [\"s1\"]"]);
    scene.fake.put_pod(object("a", "a1", None));
    scene.fake.remove_pod("default", "a");
    assert_eq!(scene.told().await, ["upsert a1", "remove Api a1"]);
    scene.files.send(vec![static_pod("s", "s2"), static_pod("t", "t1")]).await.unwrap();
    assert_eq!(scene.told().await, ["remove File s1", "upsert s2", "upsert t1"]);
}

#[tokio::test]
async fn a_list_after_a_gap_is_said_as_a_whole() {
    let mut scene = Scene::new();
    scene.fake.put_pod(object("a", "a1", None));
    scene.told().await;
    scene.fake.say(PodChange::All(vec![object("b", "b1", None)]));
    assert_eq!(scene.told().await, ["Api [\"b1\"]"]);
}

#[tokio::test]
async fn mirrors_are_not_pods_but_wake_theirs() {
    let mut scene = Scene::new();
    scene.files.send(vec![static_pod("s", "s1")]).await.unwrap();
    scene.told().await;
    scene.fake.put_pod(object("s", "mirror", Some("s1")));
    assert_eq!(scene.told().await, ["upsert s1"]);
    assert!(scene.mirrors.get("default", "s").is_some());
    scene.fake.remove_pod("default", "s");
    assert_eq!(scene.told().await, ["upsert s1"]);
    assert!(scene.mirrors.get("default", "s").is_none());
}

#[tokio::test]
async fn a_node_that_appears_lets_static_pods_have_their_mirrors() {
    let mut scene = Scene::new();
    scene.files.send(vec![static_pod("s", "s1")]).await.unwrap();
    scene.told().await;
    scene.fake.put_node(serde_json::from_value(json!({"metadata": {"name": "n1", "uid": "n"}})).unwrap());
    assert_eq!(scene.told().await, ["upsert s1"]);
    scene.fake.put_node(serde_json::from_value(json!({"metadata": {"name": "n1", "uid": "n"}})).unwrap());
    assert!(scene.told().await.is_empty());
}

#[tokio::test]
async fn a_pod_that_cannot_be_worked_with_is_passed_over() {
    let mut scene = Scene::new();
    scene.told().await;
    scene.fake.put_pod(object("a", "../../etc", None));
    scene.fake.put_pod(object("b", "b1", None));
    assert_eq!(scene.told().await, ["upsert b1"]);
}

#[tokio::test]
async fn a_static_pod_with_a_uid_of_its_own_is_said_again_when_it_changes() {
    let mut scene = Scene::new();
    scene.files.send(vec![static_pod("a", "own")]).await.unwrap();
    scene.told().await;
    let mut changed = static_pod("a", "own").object().clone();
    changed.spec.get_or_insert_default().containers[0].image = Some("two".into());
    scene.files.send(vec![Pod::new(Arc::new(changed), Source::File).unwrap()]).await.unwrap();
    assert_eq!(scene.told().await, ["upsert own"]);
}
