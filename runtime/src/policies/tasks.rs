//! The tasks that modules need: one performs the core's operations where blocking is allowed, in their order, one moves the
//! clock that ends what fuel did not, and one carries what modules say to the log.

use std::time::Duration;

use tidegate_core::effect::PolicyOp;
use tidegate_core::id::Ticket;
use tidegate_core::input::Input;
use tidegate_policies::{FiguresReader, Level, TICK};
use tokio::sync::{mpsc, watch};

use super::Loader;
use crate::api::shapes::short;
use crate::inbox::{Inbox, Letter};
use crate::seam::{Blocking, Clock, Seams};

/// Performs operations one after the other, and tells the driver of each together with what it made ready. Ends with the
/// site.
pub(crate) async fn perform<S: Seams>(
    seams: S,
    loader: Loader,
    mut operations: mpsc::UnboundedReceiver<(Ticket, PolicyOp)>,
    inbox: Inbox,
) {
    while let Some((ticket, op)) = operations.recv().await {
        let (name, loader) = (op.name(), loader.clone());
        let (outcome, ready) = seams.blocking().run(move || loader.perform(op)).await;
        tracing::debug!(op = name, ?outcome, "an operation on policies ended");
        let input = Input::Policy { ticket, outcome };
        if inbox.letter(Letter::Policy { input, ready }).await.is_err() {
            return;
        }
    }
}

/// Moves the host's clock as soon as there is a module, on a thread that no module can hold up.
pub(crate) async fn keep_ticking<S: Seams>(seams: S, loader: Loader, mut closed: watch::Receiver<bool>) {
    let Some(host) = loader.host().cloned() else {
        // A sender that is gone is a site that is being dropped.
        let _ = closed.wait_for(|yes| *yes).await;
        return;
    };
    let mut running = loader.running();
    let clock = seams.clock().clone();
    let ticking = seams.blocking().dedicate("tidegate-epoch", move || async move {
        let tick = async {
            // The sender lives in the loader, which outlives this.
            let _ = running.wait_for(|yes| *yes).await;
            loop {
                clock.sleep(TICK).await;
                host.tick();
            }
        };
        tokio::select! {
            biased;
            _ = closed.wait_for(|yes| *yes) => {}
            () = tick => {}
        }
    });
    ticking.await;
}

/// How often what modules wrote to their logs is fetched. Between two times at most a few hundred lines are kept.
const FETCH_EVERY: Duration = Duration::from_secs(2);

/// Writes what modules say to the log of the site.
pub(crate) async fn keep_logging<S: Seams>(
    seams: S,
    figures: FiguresReader,
    closed: impl Future<Output = ()>,
) {
    let fetch = async {
        loop {
            seams.clock().sleep(FETCH_EVERY).await;
            for line in figures.said() {
                let (slot, module, text) = (line.slot.name(), short(line.module), line.text);
                match line.level {
                    Level::Debug => tracing::debug!(slot, module, text, "a policy says"),
                    Level::Info => tracing::info!(slot, module, text, "a policy says"),
                    Level::Warn | Level::Panic => tracing::warn!(slot, module, text, "a policy says"),
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = closed => {}
        () = fetch => {}
    }
}
