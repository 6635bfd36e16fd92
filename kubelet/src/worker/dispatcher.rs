//! Which pods have a worker, and what each is told.
//!
//! One task owns all of it. Nothing is dispatched before the runtime has been listed once: a pod that runs already is not
//! admitted again, and one that ran before a reboot is only asked whether this kubelet builds all it asks for. Nothing that the runtime has is ended as nobody's before every source has said all it has.

use super::order::Order;
use super::pod::{Beginning, Worker};
use super::{Context, orphan};
use crate::admission::{self, Rejection};
use crate::api::events::Kind;
use crate::plan::Lifecycle;
use crate::pod::{Pod, PodUid, Source};
use crate::runtime::{News, ObservedPod, RuntimePod};
use crate::sources::Update;
use crate::status::{self, Termination};
use crate::table::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a static pod that runs already is left alone until its mirror tells what was said of it. Without an API server
/// that takes the list of pods nothing is known of it, and it is looked after all the same.
const MIRROR_PATIENCE: Duration = Duration::from_secs(5);

/// Says whether a pod may run beside the others.
pub(crate) type Gate = Arc<dyn Fn(&Pod, &[Entry]) -> Result<(), Rejection> + Send + Sync>;

/// What the dispatcher listens to.
pub(crate) struct Inputs {
    /// News of the sources.
    pub(crate) updates: mpsc::Receiver<Update>,
    /// Pods that something changed for.
    pub(crate) wakes: mpsc::UnboundedReceiver<PodUid>,
    /// What the runtime has.
    pub(crate) news: mpsc::Receiver<News>,
    /// Asks for a list of it.
    pub(crate) relist: Arc<Notify>,
}

/// The dispatcher.
pub(crate) struct Dispatcher {
    context: Context,
    gate: Gate,
    /// The sources that have not yet said all they have.
    unheard: BTreeSet<Source>,
    slots: BTreeMap<PodUid, Slot>,
    workers: JoinSet<PodUid>,
    /// Pods that begin when another one has ended: of the same name, if they are static, or of their own UID. A static
    /// pod whose file went and came back is the same pod.
    waiting: BTreeMap<PodUid, Pod>,
    /// Static pods that the runtime has, and whose mirrors are not known yet.
    held: BTreeMap<PodUid, Pod>,
    /// How long they are held; `None` before the first one.
    held_until: Option<Instant>,
    /// What the runtime had when it was last listed; nothing before the first time.
    listed: Option<BTreeMap<PodUid, RuntimePod>>,
    /// Counts pods that came and went.
    changes: watch::Sender<u64>,
    /// Whether every source has said all it has.
    heard: watch::Sender<bool>,
}

/// A pod's worker, from outside.
struct Slot {
    orders: watch::Sender<Order>,
    /// `None` for an orphan.
    source: Option<Source>,
    /// `namespace/name`.
    name: String,
}

impl Dispatcher {
    /// No pods yet. `expected` are the sources that will say all they have; `changes` is counted up when pods come or go;
    /// `heard` is told when all sources have.
    pub(crate) fn new(
        context: Context,
        gate: Gate,
        expected: impl IntoIterator<Item = Source>,
        changes: watch::Sender<u64>,
        heard: watch::Sender<bool>,
    ) -> Dispatcher {
        Dispatcher {
            context,
            gate,
            unheard: expected.into_iter().collect(),
            slots: BTreeMap::new(),
            workers: JoinSet::new(),
            waiting: BTreeMap::new(),
            held: BTreeMap::new(),
            held_until: None,
            listed: None,
            changes,
            heard,
        }
    }

    /// Dispatches until an input ends. All workers end with it; what they were doing to pods is left as it is.
    pub(crate) async fn run(mut self, mut inputs: Inputs) {
        let mut health = self.context.health.clone();
        let (mut well, mut answered) = (false, false);
        loop {
            // A pod that is begun before the runtime has told of its network would be told that there is none.
            answered |= health.borrow().status.is_some();
            let ready = answered && self.listed.is_some();
            tokio::select! {
                news = inputs.news.recv() => match news {
                    Some(news) => self.hear(news, &inputs.relist),
                    None => return,
                },
                update = inputs.updates.recv(), if ready => match update {
                    Some(update) => self.apply(update),
                    None => return,
                },
                () = until(self.held_until), if !self.held.is_empty() => self.begin_held(),
                uid = inputs.wakes.recv() => match uid {
                    Some(uid) => self.wake(&uid),
                    None => return,
                },
                Some(ended) = self.workers.join_next() => match ended {
                    Ok(uid) => self.ended(&uid),
                    Err(error) => tracing::error!(%error, "a pod's worker died"),
                },
                Ok(()) = health.changed() => {
                    let now_well = {
                        let health = health.borrow_and_update();
                        health.runtime_ready() && health.network_ready()
                    };
                    if now_well && !well {
                        self.slots.values().for_each(|slot| slot.orders.send_modify(|order| order.wakes += 1));
                    }
                    well = now_well;
                }
            }
        }
    }

    fn wake(&self, uid: &PodUid) {
        if let Some(slot) = self.slots.get(uid) {
            slot.orders.send_modify(|order| order.wakes += 1);
        }
    }

    fn hear(&mut self, news: News, relist: &Notify) {
        match news {
            News::Changed(uid) => {
                if let Some(slot) = self.slots.get(&uid) {
                    slot.orders.send_modify(|order| order.seen += 1);
                } else {
                    // A sandbox that took so long that its pod is gone.
                    relist.notify_one();
                }
            }
            News::All(pods) => {
                let listed: BTreeMap<_, _> = pods.into_iter().map(|pod| (pod.uid.clone(), pod)).collect();
                self.wake_changed(&listed);
                self.listed = Some(listed);
                self.end_orphans();
                self.remove_orphaned_mirrors();
            }
        }
    }

    /// Wakes the workers of pods that are not as they last saw them.
    fn wake_changed(&self, listed: &BTreeMap<PodUid, RuntimePod>) {
        let nothing = ObservedPod::default();
        for entry in self.context.table.list() {
            let uid = entry.pod.uid();
            let now = listed.get(uid).map_or(&nothing, |pod| &pod.observed);
            if let Some(slot) = self.slots.get(uid).filter(|_| *now != *entry.observed) {
                slot.orders.send_modify(|order| order.seen += 1);
            }
        }
    }

    fn apply(&mut self, update: Update) {
        match update {
            Update::Set { source, mut pods } => {
                let uids: BTreeSet<&PodUid> = pods.iter().map(Pod::uid).collect();
                let of_source = self.slots.iter().filter(|(_, slot)| slot.source == Some(source));
                let gone: Vec<PodUid> =
                    of_source.map(|(uid, _)| uid).filter(|uid| !uids.contains(uid)).cloned().collect();
                self.waiting.retain(|uid, pod| pod.source() != source || uids.contains(uid));
                self.held.retain(|uid, pod| pod.source() != source || uids.contains(uid));
                for uid in gone {
                    self.remove(&uid);
                }
                // Who came first is admitted first.
                pods.sort_by_key(age);
                for pod in pods {
                    self.upsert(pod);
                }
                self.unheard.remove(&source);
                if source == Source::Api {
                    self.begin_held();
                }
                self.heard.send_replace(self.unheard.is_empty());
                self.end_orphans();
                self.remove_orphaned_mirrors();
            }
            Update::Upsert(pod) => self.upsert(pod),
            Update::Remove { uid, .. } => self.remove(&uid),
        }
    }

    fn remove(&mut self, uid: &PodUid) {
        self.waiting.remove(uid);
        self.held.remove(uid);
        self.context.table.leave(uid);
        if let Some(slot) = self.slots.get(uid) {
            slot.orders.send_modify(Order::remove);
        }
    }

    fn upsert(&mut self, pod: Pod) {
        let Some(slot) = self.slots.get(pod.uid()) else { return self.begin(pod) };
        if slot.orders.borrow().gone {
            // What has begun to end goes on to its end, and this one begins after it.
            self.waiting.insert(pod.uid().clone(), pod);
            return;
        }
        slot.orders.send_if_modified(|order| {
            // The echo of our own status is no news, unless somebody else's conditions count.
            let gates = pod.spec().readiness_gates.as_ref().is_some_and(|gates| !gates.is_empty());
            let news = pod.is_static() || gates || !order.pod.wants_the_same(&pod);
            // Of a static pod it is said that its mirror changed.
            order.wakes += u64::from(pod.is_static());
            order.update(pod);
            news
        });
    }

    /// A pod is seen for the first time.
    fn begin(&mut self, pod: Pod) {
        let name = name(&pod);
        if pod.is_static() && self.slots.values().any(|slot| slot.source == Some(Source::File) && slot.name == name) {
            self.waiting.insert(pod.uid().clone(), pod);
            return;
        }
        let found = self.listed.as_ref().and_then(|listed| listed.get(pod.uid())).map(|found| found.observed.clone());
        let Some(pod) = self.as_told_before(pod, found.is_some()) else { return };
        let observed = found.unwrap_or_default();
        let lifecycle = self.admit(&pod, &observed);
        self.context.table.set(Entry {
            pod: pod.clone(),
            observed: Arc::new(observed.clone()),
            status: Arc::new(pod.object().status.clone().unwrap_or_default()),
            active: lifecycle == Lifecycle::Syncing,
        });
        let source = Some(pod.source());
        self.spawn(Order::new(pod), source, Beginning { lifecycle, observed, told: true });
    }

    /// A static pod that a kubelet before us ran, with what that told of it: only its mirror knows, so the pod is held for
    /// as long as the API server may take to say which mirrors there are. A phase that is final does not count: whether
    /// the pod may run is asked again.
    fn as_told_before(&mut self, pod: Pod, ran: bool) -> Option<Pod> {
        if !pod.is_static() || !ran {
            return Some(pod);
        }
        if self.unheard.contains(&Source::Api) {
            let until = *self.held_until.get_or_insert_with(|| Instant::now() + MIRROR_PATIENCE);
            if Instant::now() < until {
                self.held.insert(pod.uid().clone(), pod);
                return None;
            }
        }
        let told = self.context.mirrors.status(&pod).filter(|told| !status::is_final(told));
        Some(told.map(|told| pod.with_status(told)).unwrap_or(pod))
    }

    /// The mirrors are known by now, or won't be soon.
    fn begin_held(&mut self) {
        for pod in std::mem::take(&mut self.held).into_values() {
            self.begin(pod);
        }
    }

    /// Where a new pod stands. One that runs already, or is to end, is not asked again whether it may. One of which only
    /// dead things are left is made anew: the node's room for it was found before.
    fn admit(&self, pod: &Pod, observed: &ObservedPod) -> Lifecycle {
        let lifecycle = Lifecycle::of(pod, tokio::time::Instant::now());
        let ends = pod.object().metadata.deletion_timestamp.is_some();
        let known = !observed.sandboxes.is_empty() || !observed.containers.is_empty();
        if lifecycle != Lifecycle::Syncing || ends || orphan::is_alive(observed) {
            return lifecycle;
        }
        let admitted = if known {
            admission::unsupported(pod).map_or(Ok(()), Err)
        } else {
            (self.gate)(pod, &self.context.table.list())
        };
        match admitted {
            Ok(()) => Lifecycle::Syncing,
            Err(Rejection { reason, message }) => {
                tracing::warn!(%pod, reason, message, "rejected");
                self.context.metrics.admission_rejected(&reason);
                self.context.recorder.pod(pod, Kind::Warning, &reason, message.clone());
                Lifecycle::Terminated { why: Termination::Rejected { reason, message } }
            }
        }
    }

    /// Ends what the runtime has and nobody wants.
    fn end_orphans(&mut self) {
        if !self.unheard.is_empty() {
            return;
        }
        let listed = self.listed.iter().flat_map(BTreeMap::values);
        let orphans: Vec<RuntimePod> = listed
            .filter(|pod| {
                orphan::is_alive(&pod.observed)
                    && !self.slots.contains_key(&pod.uid)
                    && !self.waiting.contains_key(&pod.uid)
            })
            .cloned()
            .collect();
        for found in orphans {
            let pod = match orphan::object(&found) {
                Ok(pod) => pod,
                Err(error) => {
                    tracing::warn!(uid = %found.uid, %error, "an orphan without a name is left alone");
                    continue;
                }
            };
            tracing::info!(%pod, "nobody wants this pod: it is ended");
            self.context.metrics.orphaned_runtime_pod();
            let mut order = Order::new(pod);
            order.remove();
            let beginning = Beginning { lifecycle: Lifecycle::Syncing, observed: found.observed, told: false };
            self.spawn(order, None, beginning);
        }
    }

    /// Has mirrors removed whose static pods went while no kubelet ran.
    fn remove_orphaned_mirrors(&self) {
        if !self.unheard.is_empty() {
            return;
        }
        let of_workers = self.slots.values().map(|slot| slot.orders.borrow().pod.clone());
        let static_pods: Vec<Pod> = of_workers.chain(self.waiting.values().cloned()).filter(Pod::is_static).collect();
        for mirror in self.context.mirrors.orphans(&static_pods) {
            let mirrors = self.context.mirrors.clone();
            tokio::spawn(async move {
                if let Err(error) = mirrors.delete(&mirror).await {
                    // It is tried again after the next list.
                    let (namespace, name) = (&mirror.metadata.namespace, &mirror.metadata.name);
                    tracing::debug!(namespace, name, %error, "the mirror of a static pod that is gone is not removed");
                }
            });
        }
    }

    fn spawn(&mut self, order: Order, source: Option<Source>, beginning: Beginning) {
        let uid = order.pod.uid().clone();
        let name = name(&order.pod);
        let (orders, receiver) = watch::channel(order);
        let worker = Worker::new(self.context.clone(), receiver, beginning);
        self.workers.spawn(worker.run());
        self.slots.insert(uid, Slot { orders, source, name });
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Nothing is left of a pod.
    fn ended(&mut self, uid: &PodUid) {
        let Some(slot) = self.slots.remove(uid) else { return };
        self.context.table.remove(uid);
        self.context.probes.remove(uid);
        self.context.writer.forget(uid);
        if let Some(listed) = &mut self.listed {
            // What an older list says of it is past.
            listed.remove(uid);
        }
        self.changes.send_modify(|changes| *changes += 1);
        let (next, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(waits, pod)| waits == uid || name(pod) == slot.name);
        self.waiting = waiting;
        next.into_values().for_each(|pod| self.begin(pod));
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// `namespace/name`.
fn name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace(), pod.name())
}

/// When it was created; static pods of one start have no order.
fn age(pod: &Pod) -> Option<jiff::Timestamp> {
    pod.object().metadata.creation_timestamp.as_ref().map(|time| time.0)
}
