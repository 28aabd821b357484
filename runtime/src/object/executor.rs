//! Runs object operations against the two stores, each in a task of its own, and mails the outcomes. Retries nothing,
//! orders nothing: the core asks for one thing after the other where order matters.

use std::sync::Arc;

use tidegate_core::id::Ticket;
use tidegate_core::input::Input;
use tidegate_core::object::{ObjectOp, Store};
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
pub async fn execute(
    stores: Stores,
    mut operations: mpsc::UnboundedReceiver<(Ticket, ObjectOp)>,
    inbox: Inbox,
) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(ended) = running.join_next(), if !running.is_empty() => {
                if let Err(error) = ended
                    && let Ok(panic) = error.try_into_panic()
                {
                    std::panic::resume_unwind(panic);
                }
            }
            next = operations.recv() => {
                let Some((ticket, op)) = next else { break };
                running.spawn(one(stores.clone(), ticket, op, inbox.clone()));
            }
        }
    }
    running.shutdown().await;
}

async fn one(stores: Stores, ticket: Ticket, op: ObjectOp, inbox: Inbox) {
    let store = match op.store {
        Store::Edge => Some(&stores.edge),
        Store::Cloud => stores.cloud.as_ref(),
    };
    let outcome = match store {
        Some(store) => store.run(&op.key, &op.verb).await,
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
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]
mod tests {
    use super::*;
    use crate::inbox::Letter;
    use crate::object::Boxed;
    use tidegate_core::id::{Boot, ObjectKey};
    use tidegate_core::object::{ObjectReply, Verb};

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
}
