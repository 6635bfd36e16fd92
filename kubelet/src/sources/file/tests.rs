//! A folder of manifests while it changes.

use super::*;

/// A folder of manifests, and what is read of it.
struct Scene {
    temp: tempfile::TempDir,
    folder: Folder,
}

impl Scene {
    fn new() -> Scene {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("manifests");
        std::fs::create_dir(&path).unwrap();
        Scene { temp, folder: Folder { path, node_name: "n".to_owned(), files: BTreeMap::new(), problem: None } }
    }

    fn put(&self, file: &str, text: &str) {
        let path = self.folder.path.join(file);
        sys::fs::atomic_write(path, text.as_bytes(), sys::fs::Durability::Rename, 0o644).unwrap();
    }

    fn remove(&self, file: &str) {
        std::fs::remove_file(self.folder.path.join(file)).unwrap();
    }

    /// `name image` of all pods, after another look.
    fn pods(&mut self) -> Vec<String> {
        self.folder.read("2026-01-01T00:00:00Z".parse().unwrap());
        let show = |pod: &Pod| format!("{} {}", pod.name(), pod.spec().containers[0].image.clone().unwrap());
        let mut all: Vec<_> = self.folder.pods().iter().map(show).collect();
        all.sort();
        all
    }

    fn problems(&self) -> Vec<String> {
        self.folder.files.values().filter_map(|known| known.problem.clone()).collect()
    }
}

fn manifest(name: &str, image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers: [{{name: c, image: {image}}}]\n"
    )
}

#[test]
fn every_file_is_a_pod_but_dotfiles_and_folders() {
    let mut scene = Scene::new();
    scene.put("a.yaml", &manifest("a", "one"));
    scene.put(".b.yaml.swp", &manifest("b", "one"));
    std::fs::create_dir(scene.folder.path.join("c")).unwrap();
    assert_eq!(scene.pods(), ["a-n one"]);
    scene.remove("a.yaml");
    assert!(scene.pods().is_empty());
}

#[test]
fn a_manifest_that_breaks_leaves_its_last_good_version_and_the_others() {
    let mut scene = Scene::new();
    scene.put("a.yaml", &manifest("a", "one"));
    scene.put("b.yaml", &manifest("b", "one"));
    scene.pods();
    scene.put("a.yaml", "apiVersion: v1\nkind: Pod\nspec: [\n");
    assert_eq!(scene.pods(), ["a-n one", "b-n one"]);
    assert_eq!(scene.problems().len(), 1);
    scene.put("a.yaml", &manifest("a", "two"));
    assert_eq!(scene.pods(), ["a-n two", "b-n one"]);
    assert!(scene.problems().is_empty());
}

#[test]
fn a_file_that_is_touched_is_the_same_pod_seen_when_it_was_first_seen() {
    let mut scene = Scene::new();
    scene.put("a.yaml", &manifest("a", "one"));
    scene.pods();
    scene.put("a.yaml", &format!("# touched\n{}", manifest("a", "one")));
    scene.folder.read("2026-02-02T00:00:00Z".parse().unwrap());
    assert_eq!(scene.folder.pods()[0].annotation("kubernetes.io/config.seen"), Some("2026-01-01T00:00:00Z"));
}

#[test]
fn of_two_manifests_with_one_name_the_first_file_counts() {
    let mut scene = Scene::new();
    scene.put("a.yaml", &manifest("same", "one"));
    scene.put("b.yaml", &manifest("same", "two"));
    assert_eq!(scene.pods(), ["same-n one"]);
    assert!(scene.problems()[0].ends_with("b.yaml: another manifest has the name of this pod"));
    scene.remove("a.yaml");
    assert_eq!(scene.pods(), ["same-n two"]);
}

#[test]
fn a_folder_that_is_not_there_has_no_pods_and_one_that_comes_has() {
    let mut scene = Scene::new();
    scene.put("a.yaml", &manifest("a", "one"));
    let away = scene.temp.path().join("away");
    std::fs::rename(&scene.folder.path, &away).unwrap();
    assert!(scene.pods().is_empty());
    std::fs::rename(&away, &scene.folder.path).unwrap();
    assert_eq!(scene.pods(), ["a-n one"]);
}

#[test]
fn a_manifest_that_could_not_be_read_is_read_again() {
    let mut scene = Scene::new();
    // It opens, and reading it fails.
    std::os::unix::fs::symlink("/proc/self/mem", scene.folder.path.join("a.yaml")).unwrap();
    assert!(scene.pods().is_empty());
    assert!(scene.problems()[0].contains("Input/output error"), "{:?}", scene.problems());
    assert!(scene.folder.files.values().all(|known| known.stamp.is_none()), "the next look skips it");
}

#[test]
fn a_manifest_with_a_uid_of_its_own_changes_like_any_other() {
    let mut scene = Scene::new();
    let own = |name: &str, image: &str| manifest(name, image).replace("metadata: {", "metadata: {uid: own, ");
    scene.put("a.yaml", &own("a", "one"));
    assert_eq!(scene.pods(), ["a-n one"]);
    scene.put("a.yaml", &own("a", "two"));
    assert_eq!(scene.pods(), ["a-n two"]);
    scene.put("b.yaml", &own("b", "one"));
    assert_eq!(scene.pods(), ["a-n two"]);
    assert!(scene.problems()[0].ends_with("b.yaml: another manifest has the metadata.uid of this pod"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_before_the_folder_could_be_read() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("not-yet").join("manifests");
    let file = temp.path().join("not-yet");
    sys::fs::atomic_write(&file, b"", sys::fs::Durability::Rename, 0o644).unwrap();
    let mut lists = start(path.clone(), Duration::from_secs(20), "n".to_owned(), Clock::system());
    assert!(
        tokio::time::timeout(Duration::from_secs(120), lists.recv()).await.is_err(),
        "a folder in a file has no pods"
    );
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir_all(&path).unwrap();
    assert_eq!(lists.recv().await.map(|pods| pods.len()), Some(0));
}

#[test]
fn a_manifest_that_is_too_large_is_not_read() {
    let mut scene = Scene::new();
    let file = File::create(scene.folder.path.join("a.yaml")).unwrap();
    file.set_len(LARGEST + 1).unwrap();
    assert!(scene.pods().is_empty());
    assert!(scene.problems()[0].ends_with("larger than 10 MiB"), "{:?}", scene.problems());
}

#[tokio::test]
async fn a_change_is_seen_at_once() {
    let scene = Scene::new();
    scene.put("a.yaml", &manifest("a", "one"));
    let clock = Clock::system();
    let mut lists = start(scene.folder.path.clone(), Duration::from_secs(3600), "n".to_owned(), clock);
    let next = async |lists: &mut mpsc::Receiver<Vec<Pod>>| {
        let pods = tokio::time::timeout(Duration::from_secs(10), lists.recv()).await.unwrap().unwrap();
        let mut names: Vec<_> = pods.iter().map(|pod| pod.name().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(next(&mut lists).await, ["a-n"]);
    scene.put("b.yaml", &manifest("b", "one"));
    assert_eq!(next(&mut lists).await, ["a-n", "b-n"]);
    scene.remove("a.yaml");
    assert_eq!(next(&mut lists).await, ["b-n"]);
}
