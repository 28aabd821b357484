//! Runs object operations against the two stores, each in a task of its own, and mails the outcomes. Retries nothing,
//! orders nothing: the core asks for one thing after the other where order matters.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tidegate_core::id::Ticket;
use tidegate_core::input::Input;
use tidegate_core::object::{ObjectOp, Store, Verb, Want};
use tidegate_core::outcome::{Fault, Outcome};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::inbox::Inbox;
use crate::object::ObjectStore;

/// The two stores.
#[derive(Clone)]
pub struct Stores {
    /// The site's own.
    pub edge: Arc<dyn ObjectStore>,
    /// The destination; without one, everything asked of it fails with [`Fault::NoDestination`].
    pub cloud: Option<Arc<dyn ObjectStore>>,
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores").field("cloud", &self.cloud.is_some()).finish_non_exhaustive()
    }
}

/// Executes what comes out of `operations` until the driver is gone. Operations that are still out then are dropped:
/// the next boot asks the store how they ended.
///
/// Operations of one [`Lane`] start in the order they came, as soon as there is room; lanes do not hold up each other.
pub async fn execute(
    stores: Stores,
    mut operations: mpsc::UnboundedReceiver<(Ticket, ObjectOp)>,
    inbox: Inbox,
) {
    let mut running = JoinSet::new();
    let mut reads = Room::new(READS_MAX);
    let mut checks = Room::new(CHECKS_MAX);
    let mut cloud = Room::new(CLOUD_MAX);
    loop {
        tokio::select! {
            biased;
            Some(ended) = running.join_next(), if !running.is_empty() => {
                // A panic was caught inside, and nothing cancels a task of this set: the lane is always told.
                let Ok(lane) = ended else { continue };
                let next = match lane {
                    Lane::Reads => reads.leave(),
                    Lane::Checks => checks.leave(),
                    Lane::Cloud => cloud.leave(),
                    Lane::Quick => None,
                };
                if let Some((ticket, op)) = next {
                    running.spawn(one(stores.clone(), lane, ticket, op, inbox.clone()));
                }
            }
            next = operations.recv() => {
                let Some((ticket, op)) = next else { break };
                let lane = lane_of(&op);
                let admitted = match lane {
                    Lane::Reads => reads.enter(ticket, op),
                    Lane::Checks => checks.enter(ticket, op),
                    Lane::Cloud => cloud.enter(ticket, op),
                    Lane::Quick => Some((ticket, op)),
                };
                if let Some((ticket, op)) = admitted {
                    running.spawn(one(stores.clone(), lane, ticket, op, inbox.clone()));
                }
            }
        }
    }
    running.shutdown().await;
}

/// What an operation competes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    /// The site's disk: whole recordings are read, and devices wait for what comes of it.
    Reads,
    /// The same, and nobody waits. A check of one long recording takes no place from a device's acknowledgement.
    Checks,
    /// Connections to the cloud.
    Cloud,
    /// Nothing worth a bound: a look at the index of the site's own store, or the removal of a file.
    Quick,
}

fn lane_of(op: &ObjectOp) -> Lane {
    match (op.store, &op.verb) {
        (Store::Cloud, _) => Lane::Cloud,
        (Store::Edge, Verb::Get { want: Want::Inspect, .. }) => Lane::Checks,
        (Store::Edge, Verb::Get { .. } | Verb::Put { .. }) => Lane::Reads,
        (
            Store::Edge,
            Verb::Head
            | Verb::Create { .. }
            | Verb::PutPart { .. }
            | Verb::Complete { .. }
            | Verb::Abort { .. }
            | Verb::ListParts { .. }
            | Verb::ListUploads
            | Verb::Find { .. }
            | Verb::Delete,
        ) => Lane::Quick,
    }
}

/// Room for so many operations at once, and who waits for it, the oldest first.
struct Room {
    free: usize,
    waiting: VecDeque<(Ticket, ObjectOp)>,
}

impl Room {
    fn new(free: usize) -> Room {
        Room { free, waiting: VecDeque::new() }
    }

    /// Takes a place, or waits for one.
    fn enter(&mut self, ticket: Ticket, op: ObjectOp) -> Option<(Ticket, ObjectOp)> {
        if self.free == 0 {
            self.waiting.push_back((ticket, op));
            return None;
        }
        self.free -= 1;
        Some((ticket, op))
    }

    /// Gives a place back; the oldest that waits takes it.
    fn leave(&mut self) -> Option<(Ticket, ObjectOp)> {
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.free += 1;
        }
        next
    }
}

/// Runs one operation and mails its outcome. Returns its lane.
async fn one(stores: Stores, lane: Lane, ticket: Ticket, op: ObjectOp, inbox: Inbox) -> Lane {
    let store = match op.store {
        Store::Edge => Some(&stores.edge),
        Store::Cloud => stores.cloud.as_ref(),
    };
    let outcome = match store {
        Some(store) => {
            let run = async { store.run(&op.key, &op.verb).await };
            // What a store keeps behind its own locks may be poisoned; then every later operation panics as well, and
            // each is answered. The executor itself shares nothing with it.
            match AssertUnwindSafe(run).catch_unwind().await {
                Ok(outcome) => outcome,
                Err(panic) => {
                    tracing::error!(
                        ticket = ticket.n, verb = op.verb.name(), key = op.key.as_str(), store = ?op.store,
                        panic = crate::boot::panic_text(&*panic), "an object operation panicked"
                    );
                    Outcome::Unknown
                }
            }
        }
        None => Outcome::Failed(Fault::NoDestination),
    };
    let (verb, key) = (op.verb.name(), op.key.as_str());
    match &outcome {
        Outcome::Done(_) => {
            tracing::debug!(ticket = ticket.n, verb, key, store = ?op.store, "object operation done")
        }
        Outcome::Failed(fault) => {
            tracing::info!(ticket = ticket.n, verb, key, store = ?op.store, fault = fault.code(), "object operation failed");
        }
        Outcome::Unknown => {
            tracing::info!(ticket = ticket.n, verb, key, store = ?op.store, "nobody knows how an object operation ended");
        }
    }
    // Gone: the site stopped, and the next boot asks again.
    let _ = inbox.input(Input::Object { ticket, outcome }).await;
    lane
}

/// Recordings that are read from the site's disk at once, to be verified: a disk reads four files about as fast as
/// one, and more would only take it away from devices that upload and from uploads to the cloud.
const READS_MAX: usize = 4;
/// Recordings that are checked at once. The core asks for no more; this keeps a mistake there from taking the memory that
/// each check may need ([`crate::object::inspect::RECORD_BYTES_MAX`]).
const CHECKS_MAX: usize = tidegate_core::limits::INSPECTIONS_AT_ONCE;
/// Operations against the cloud at once. The core asks for less: uploads times parts in flight, and a few questions.
/// This only keeps a mistake there from taking every socket of the process.
const CLOUD_MAX: usize = 256;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]
mod tests {
    use super::*;
    use crate::inbox::Letter;
    use crate::object::Boxed;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tidegate_core::digest::Sha256;
    use tidegate_core::id::{Boot, ObjectKey};
    use tidegate_core::object::{Got, ObjectReply};

    /// Answers `Delete` at once and never answers `Head`.
    struct Half;

    impl ObjectStore for Half {
        fn run<'a>(&'a self, _: &'a ObjectKey, verb: &'a Verb) -> Boxed<'a, Outcome<ObjectReply>> {
            let hangs = matches!(verb, Verb::Head);
            Box::pin(async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Outcome::Done(ObjectReply::Deleted)
            })
        }
    }

    fn op(store: Store, verb: Verb) -> ObjectOp {
        ObjectOp { store, key: ObjectKey::new("k").unwrap(), verb }
    }

    #[tokio::test]
    async fn outcomes_come_back_under_their_tickets_and_one_that_hangs_holds_up_nobody() {
        let (inbox, mut letters) = Inbox::new();
        let (send, operations) = mpsc::unbounded_channel();
        let stores = Stores { edge: Arc::new(Half), cloud: None };
        let task = tokio::spawn(execute(stores, operations, inbox));
        let ticket = |n| Ticket { boot: Boot(1), n };
        send.send((ticket(1), op(Store::Edge, Verb::Head))).unwrap();
        send.send((ticket(2), op(Store::Edge, Verb::Delete))).unwrap();
        let Some(Letter::Input(first)) = letters.recv().await else { panic!("an input") };
        let done = Outcome::Done(ObjectReply::Deleted);
        assert_eq!(first, Input::Object { ticket: ticket(2), outcome: done });
        send.send((ticket(3), op(Store::Cloud, Verb::Head))).unwrap();
        let Some(Letter::Input(second)) = letters.recv().await else { panic!("an input") };
        let failed = Outcome::Failed(Fault::NoDestination);
        assert_eq!(second, Input::Object { ticket: ticket(3), outcome: failed });
        drop(send);
        task.await.unwrap();
    }

    /// Panics at `Head`.
    struct Fragile;

    impl ObjectStore for Fragile {
        fn run<'a>(&'a self, _: &'a ObjectKey, verb: &'a Verb) -> Boxed<'a, Outcome<ObjectReply>> {
            assert!(!matches!(verb, Verb::ListUploads), "before there is a future");
            let panics = matches!(verb, Verb::Head);
            Box::pin(async move {
                assert!(!panics, "a bug in the store");
                Outcome::Done(ObjectReply::Deleted)
            })
        }
    }

    #[tokio::test]
    async fn an_operation_that_panics_is_answered_as_unknown_and_the_next_ones_run() {
        let (inbox, mut letters) = Inbox::new();
        let (send, operations) = mpsc::unbounded_channel();
        let stores = Stores { edge: Arc::new(Fragile), cloud: None };
        let task = tokio::spawn(execute(stores, operations, inbox));
        let cases = [
            (Verb::Head, Outcome::Unknown),
            (Verb::ListUploads, Outcome::Unknown),
            (Verb::Delete, Outcome::Done(ObjectReply::Deleted)),
        ];
        for (n, (verb, outcome)) in cases.into_iter().enumerate() {
            let ticket = Ticket { boot: Boot(1), n: n as u64 };
            send.send((ticket, op(Store::Edge, verb))).unwrap();
            let Some(Letter::Input(seen)) = letters.recv().await else { panic!("an input") };
            assert_eq!(seen, Input::Object { ticket, outcome });
        }
        drop(send);
        task.await.unwrap();
    }

    /// Tells when an operation starts, and counts how many run at once.
    struct Counting {
        started: mpsc::UnboundedSender<String>,
        go_on: tokio::sync::Semaphore,
        running: AtomicUsize,
        most: AtomicUsize,
    }

    impl ObjectStore for Arc<Counting> {
        fn run<'a>(&'a self, key: &'a ObjectKey, verb: &'a Verb) -> Boxed<'a, Outcome<ObjectReply>> {
            Box::pin(async move {
                if matches!(verb, Verb::Head) {
                    return Outcome::Done(ObjectReply::Head(None));
                }
                let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(running, Ordering::SeqCst);
                self.started.send(key.as_str().to_owned()).unwrap();
                self.go_on.acquire().await.unwrap().forget();
                self.running.fetch_sub(1, Ordering::SeqCst);
                Outcome::Done(ObjectReply::Got(Got::Digest { len: 0, sha256: Sha256([0; 32]) }))
            })
        }
    }

    #[tokio::test]
    async fn whole_recordings_are_read_a_few_at_a_time_in_their_order_and_hold_up_nothing_else() {
        let (inbox, mut letters) = Inbox::new();
        let (send, operations) = mpsc::unbounded_channel();
        let (started, mut starts) = mpsc::unbounded_channel();
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let store = Arc::new(Counting { started, go_on: tokio::sync::Semaphore::new(0), running, most });
        let stores = Stores { edge: Arc::new(store.clone()), cloud: None };
        let task = tokio::spawn(execute(stores, operations, inbox));
        let count = 3 * READS_MAX;
        let names: Vec<String> = (0..count).map(|n| format!("k{n:02}")).collect();
        for (n, name) in names.iter().enumerate() {
            let verb = Verb::Get { span: None, want: Want::Digest };
            let op = ObjectOp { store: Store::Edge, key: ObjectKey::new(name).unwrap(), verb };
            send.send((Ticket { boot: Boot(1), n: n as u64 }, op)).unwrap();
        }
        let quick = Ticket { boot: Boot(1), n: 99 };
        send.send((quick, op(Store::Edge, Verb::Head))).unwrap();
        let Some(Letter::Input(first)) = letters.recv().await else { panic!("an input") };
        let nothing = Outcome::Done(ObjectReply::Head(None));
        assert_eq!(
            first,
            Input::Object { ticket: quick, outcome: nothing },
            "a look does not wait for reads"
        );
        let mut order = Vec::new();
        for _ in 0..count {
            order.push(starts.recv().await.unwrap());
            if order.len() >= READS_MAX {
                assert!(starts.try_recv().is_err(), "there is room for {READS_MAX} only");
                store.go_on.add_permits(1);
                assert!(letters.recv().await.is_some());
            }
        }
        assert_eq!(order, names);
        assert_eq!(store.most.load(Ordering::SeqCst), READS_MAX);
        store.go_on.add_permits(count);
        drop(send);
        task.await.unwrap();
    }
}
