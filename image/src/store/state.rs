//! What the store knows, in memory: the database's rows, who holds what, and what follows from both.
//!
//! No function here does I/O; changes are computed here, made durable elsewhere, and then taken over by
//! [`State::apply`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::database::Rows;
use super::records::{Change, ImageRecord, SnapshotRecord};
use super::{Image, ImageId};
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::reference::Reference;

/// What a small file takes on disk.
const BLOB_BYTES: u64 = 4096;
/// Shorter prefixes of ids are more likely names.
const MIN_PREFIX: usize = 4;

/// The store's memory.
pub(super) struct State {
    images: BTreeMap<ImageId, Known>,
    snapshots: BTreeMap<Digest, SnapshotRecord>,
    /// By container.
    leases: HashMap<String, ImageId>,
    /// Layers that running pulls count on, by pull.
    pulls: HashMap<u64, Vec<Digest>>,
    next_pull: u64,
    /// What the transaction that is being written deletes.
    doomed: Doomed,
    /// False until all leases from before a restart are taken again.
    gc: bool,
}

/// Images and layers that are about to go: nobody who asks now gets them.
#[derive(Default)]
struct Doomed {
    images: HashSet<ImageId>,
    snapshots: HashSet<Digest>,
}

/// An image's row with its config, and what callers see of it.
struct Known {
    record: ImageRecord,
    image: Arc<Image>,
}

impl State {
    /// Images whose layers or configs are missing are left out, and returned by id: somebody has been at the files.
    pub(super) fn new(rows: Rows, config: impl Fn(&ImageId) -> Option<ImageConfig>) -> (Self, Vec<ImageId>) {
        let mut state = Self {
            images: BTreeMap::new(),
            snapshots: rows.snapshots,
            leases: HashMap::new(),
            pulls: HashMap::new(),
            next_pull: 0,
            doomed: Doomed::default(),
            gc: false,
        };
        let mut broken = Vec::new();
        for (id, record) in rows.images {
            let layers_are_there = record.layers.iter().all(|chain| state.snapshots.contains_key(chain));
            match config(&id).filter(|_| layers_are_there) {
                Some(config) => state.put(record, Arc::new(config)),
                None => broken.push(id),
            }
        }
        (state, broken)
    }

    pub(super) fn images(&self) -> Vec<Arc<Image>> {
        self.visible().map(|known| known.image.clone()).collect()
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Image>> {
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        let is_hex = hex.len() >= MIN_PREFIX && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex {
            let mut matching = self.visible().filter(|known| known.record.id.0.hex().starts_with(hex));
            if let Some(known) = matching.next()
                && matching.next().is_none()
            {
                return Some(known.image.clone());
            }
        }
        let reference = Reference::parse(name).ok()?;
        let known = match (reference.digest(), reference.tag_name()) {
            (Some(digest), _) => {
                let name = reference.digest_name(digest);
                self.visible().find(|known| known.record.digests.contains(&name))
            }
            (None, Some(tag)) => self.visible().find(|known| known.record.tags.contains(&tag)),
            (None, None) => None,
        };
        known.map(|known| known.image.clone())
    }

    /// An image by id, even one that was removed while somebody holds it.
    pub(super) fn by_id(&self, id: &ImageId) -> Option<Arc<Image>> {
        self.images.get(id).map(|known| known.image.clone())
    }

    pub(super) fn record(&self, id: &ImageId) -> Option<&ImageRecord> {
        self.images.get(id).map(|known| &known.record)
    }

    /// True if the layer is here, and stays for whoever has pinned it before asking.
    pub(super) fn has_layer(&self, chain: &Digest) -> bool {
        self.snapshots.contains_key(chain) && !self.doomed.snapshots.contains(chain)
    }

    pub(super) fn snapshot(&self, chain: &Digest) -> Option<&SnapshotRecord> {
        self.snapshots.get(chain)
    }

    /// Bytes and inodes of everything.
    pub(super) fn usage(&self) -> (u64, u64) {
        let blobs = self.blobs().len() as u64;
        self.snapshots
            .values()
            .fold((blobs * BLOB_BYTES, blobs), |(bytes, inodes), row| (bytes + row.bytes, inodes + row.inodes))
    }

    /// The blobs that some image needs.
    pub(super) fn blobs(&self) -> HashSet<&Digest> {
        self.images.values().flat_map(|known| &known.record.blobs).collect()
    }

    /// Keeps `layers` from being collected until [`State::unpin`] with the number that this returns.
    pub(super) fn pin(&mut self, layers: Vec<Digest>) -> u64 {
        self.next_pull += 1;
        self.pulls.insert(self.next_pull, layers);
        self.next_pull
    }

    pub(super) fn unpin(&mut self, pull: u64) {
        self.pulls.remove(&pull);
    }

    pub(super) fn lease(&mut self, container: &str, id: &ImageId) -> Option<Arc<Image>> {
        let image = self.by_id(id).filter(|_| !self.doomed.images.contains(id))?;
        self.leases.insert(container.to_owned(), id.clone());
        Some(image)
    }

    pub(super) fn release(&mut self, container: &str) {
        self.leases.remove(container);
    }

    pub(super) fn start_gc(&mut self) {
        self.gc = true;
    }

    /// The records that change when the image `new` was pulled as `tag` or `digest`: it gets the names, and whoever had
    /// the tag loses it.
    pub(super) fn named(&self, mut new: ImageRecord) -> Vec<ImageRecord> {
        let mut changed = Vec::new();
        for known in self.images.values().filter(|known| known.record.id != new.id) {
            if !known.record.tags.is_disjoint(&new.tags) {
                let mut record = known.record.clone();
                record.tags = &record.tags - &new.tags;
                changed.push(record);
            }
        }
        if let Some(known) = self.images.get(&new.id).filter(|known| !known.record.removed) {
            new.tags = &new.tags | &known.record.tags;
            new.digests = &new.digests | &known.record.digests;
            new.blobs = &new.blobs | &known.record.blobs;
            new.pinned |= known.record.pinned;
        }
        changed.push(new);
        changed
    }

    /// The change that removes an image: its row goes, or becomes invisible as long as somebody holds it or nobody
    /// knows yet who does.
    pub(super) fn removal(&self, id: &ImageId) -> Change {
        let Some(record) = self.record(id) else { return Change::default() };
        let mut record = record.clone();
        record.removed = true;
        record.tags.clear();
        record.digests.clear();
        match self.gc && !self.is_leased(id) {
            true => self.without(std::slice::from_ref(id)),
            false => Change { put_images: vec![record], ..Change::default() },
        }
    }

    /// The change that drops everything nobody can reach.
    pub(super) fn garbage(&self) -> Change {
        if !self.gc {
            return Change::default();
        }
        let gone: Vec<ImageId> = self
            .images
            .values()
            .filter(|known| known.record.removed && !self.is_leased(&known.record.id))
            .map(|known| known.record.id.clone())
            .collect();
        self.without(&gone)
    }

    /// The change that makes `rows` say what this says.
    pub(super) fn correction(&self, rows: &Rows) -> Change {
        let mine = |known: &&Known| rows.images.get(&known.record.id) != Some(&known.record);
        let put_snapshots = self.snapshots.iter().filter(|(chain, row)| rows.snapshots.get(*chain) != Some(*row));
        Change {
            put_images: self.images.values().filter(mine).map(|known| known.record.clone()).collect(),
            delete_images: rows.images.keys().filter(|id| !self.images.contains_key(*id)).cloned().collect(),
            put_snapshots: put_snapshots.map(|(chain, row)| (chain.clone(), row.clone())).collect(),
            delete_snapshots: rows.snapshots.keys().filter(|c| !self.snapshots.contains_key(*c)).cloned().collect(),
        }
    }

    /// From now on nobody new gets what `change` deletes, until it is applied or [`State::spare`] takes this back.
    pub(super) fn doom(&mut self, change: &Change) {
        self.doomed = Doomed {
            images: change.delete_images.iter().cloned().collect(),
            snapshots: change.delete_snapshots.iter().cloned().collect(),
        };
    }

    /// Nothing is deleted after all.
    pub(super) fn spare(&mut self) {
        self.doomed = Doomed::default();
    }

    /// Takes over what is durable now. `configs` has the configs of new images.
    pub(super) fn apply(&mut self, change: &Change, configs: &HashMap<ImageId, Arc<ImageConfig>>) {
        self.spare();
        self.snapshots.extend(change.put_snapshots.iter().cloned());
        for chain in &change.delete_snapshots {
            self.snapshots.remove(chain);
        }
        for id in &change.delete_images {
            self.images.remove(id);
        }
        for record in &change.put_images {
            let known = self.images.get(&record.id).map(|known| known.image.config.clone());
            if let Some(config) = configs.get(&record.id).cloned().or(known) {
                self.put(record.clone(), config);
            }
        }
    }

    /// The change that deletes the images `gone`, and the snapshots that then nobody needs.
    fn without(&self, gone: &[ImageId]) -> Change {
        let mut needed: BTreeSet<&Digest> = self.pulls.values().flatten().collect();
        for known in self.images.values().filter(|known| !gone.contains(&known.record.id)) {
            needed.extend(&known.record.layers);
        }
        let delete_snapshots = self.snapshots.keys().filter(|chain| !needed.contains(chain)).cloned().collect();
        Change { delete_images: gone.to_vec(), delete_snapshots, ..Change::default() }
    }

    fn is_leased(&self, id: &ImageId) -> bool {
        self.leases.values().any(|leased| leased == id)
    }

    fn visible(&self) -> impl Iterator<Item = &Known> {
        self.images.values().filter(|known| !known.record.removed)
    }

    fn put(&mut self, record: ImageRecord, config: Arc<ImageConfig>) {
        let size = record.layers.iter().filter_map(|chain| self.snapshots.get(chain)).map(|row| row.bytes).sum::<u64>();
        let image = Arc::new(Image {
            id: record.id.clone(),
            repo_tags: record.tags.iter().cloned().collect(),
            repo_digests: record.digests.iter().cloned().collect(),
            size: size + record.blobs.len() as u64 * BLOB_BYTES,
            config,
            layers: record.layers.clone(),
            pinned: record.pinned,
        });
        self.images.insert(record.id.clone(), Known { record, image });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::sha256(name.as_bytes())
    }

    fn record(name: &str, tag: &str, layers: &[&str]) -> ImageRecord {
        ImageRecord {
            id: ImageId(digest(name)),
            tags: BTreeSet::from([format!("docker.io/library/{tag}")]),
            digests: BTreeSet::from([format!("docker.io/library/{}@{}", tag.split(':').next().unwrap(), digest("m"))]),
            blobs: BTreeSet::from([digest(name)]),
            layers: layers.iter().map(|layer| digest(layer)).collect(),
            pinned: false,
            removed: false,
        }
    }

    fn add(state: &mut State, record: ImageRecord) {
        let row = |chain: &Digest| SnapshotRecord {
            directory: 1,
            diff_id: chain.clone(),
            bytes: 10,
            inodes: 1,
            opaque_root: false,
        };
        let put_snapshots = record.layers.iter().map(|chain| (chain.clone(), row(chain))).collect();
        let configs = HashMap::from([(record.id.clone(), Arc::new(ImageConfig::default()))]);
        let change = Change { put_images: state.named(record), put_snapshots, ..Change::default() };
        state.apply(&change, &configs);
    }

    fn state() -> State {
        let mut state = State::new(Rows::default(), |_| None).0;
        state.start_gc();
        state
    }

    #[test]
    fn an_image_is_found_by_every_name_it_has() {
        let mut state = state();
        add(&mut state, record("a", "app:1", &["l"]));
        let id = ImageId(digest("a")).to_string();
        let names =
            ["app:1", "docker.io/library/app:1", &format!("app@{}", digest("m")), &id, &id[7..], &id[..20], &id[7..12]];
        for name in names {
            assert!(state.find(name).is_some(), "{name}");
        }
        for name in ["app", "app:2", "quay.io/library/app:1", &id[7..10], "", "::"] {
            assert!(state.find(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_tag_belongs_to_one_image_and_moves() {
        let mut state = state();
        add(&mut state, record("a", "app:1", &["l"]));
        add(&mut state, record("a", "app:2", &["l"]));
        add(&mut state, record("b", "app:1", &["l"]));
        assert_eq!(state.find("app:1").unwrap().id.0, digest("b"));
        assert_eq!(state.by_id(&ImageId(digest("a"))).unwrap().repo_tags, ["docker.io/library/app:2"]);
    }

    #[test]
    fn a_removed_image_leaves_only_what_others_need() {
        let mut state = state();
        add(&mut state, record("a", "a:1", &["shared", "own"]));
        add(&mut state, record("b", "b:1", &["shared"]));
        let change = state.removal(&ImageId(digest("a")));
        assert_eq!(change.delete_images, [ImageId(digest("a"))]);
        assert_eq!(change.delete_snapshots, [digest("own")]);
        state.apply(&change, &HashMap::new());
        assert_eq!(state.usage(), (10 + BLOB_BYTES, 2));
    }

    #[test]
    fn a_leased_image_vanishes_but_stays() {
        let mut state = state();
        add(&mut state, record("a", "a:1", &["own"]));
        let id = ImageId(digest("a"));
        state.lease("container", &id).unwrap();
        let change = state.removal(&id);
        state.apply(&change, &HashMap::new());
        assert!(state.find("a:1").is_none() && state.images().is_empty());
        assert!(state.snapshot(&digest("own")).is_some());
        assert!(state.lease("again", &id).is_some(), "a restart takes its leases again");
        assert!(state.garbage().is_empty());
        state.release("container");
        state.release("again");
        assert_eq!(state.garbage().delete_snapshots, [digest("own")]);
    }

    #[test]
    fn what_is_being_deleted_is_given_to_nobody() {
        let mut state = state();
        add(&mut state, record("a", "a:1", &["own"]));
        let id = ImageId(digest("a"));
        let change = state.removal(&id);
        state.doom(&change);
        assert!(state.lease("late", &id).is_none() && !state.has_layer(&digest("own")));
        state.spare();
        assert!(state.lease("in time", &id).is_some() && state.has_layer(&digest("own")));
        assert!(state.removal(&id).delete_images.is_empty());
    }

    #[test]
    fn nothing_is_collected_before_the_leases_are_known_or_while_a_pull_needs_it() {
        let mut state = State::new(Rows::default(), |_| None).0;
        add(&mut state, record("a", "a:1", &["own"]));
        let change = state.removal(&ImageId(digest("a")));
        assert!(change.delete_images.is_empty() && change.delete_snapshots.is_empty());
        state.apply(&change, &HashMap::new());
        assert!(state.garbage().is_empty());
        let pull = state.pin(vec![digest("own")]);
        state.start_gc();
        assert_eq!(state.garbage().delete_images.len(), 1);
        assert!(state.garbage().delete_snapshots.is_empty());
        state.unpin(pull);
        assert_eq!(state.garbage().delete_snapshots, [digest("own")]);
    }

    #[test]
    fn an_image_that_comes_back_is_seen_again() {
        let mut state = state();
        add(&mut state, record("a", "a:1", &["own"]));
        state.lease("container", &ImageId(digest("a"))).unwrap();
        let change = state.removal(&ImageId(digest("a")));
        state.apply(&change, &HashMap::new());
        add(&mut state, record("a", "a:2", &["own"]));
        assert_eq!(state.find("a:2").unwrap().repo_tags, ["docker.io/library/a:2"]);
    }
}
