//! The two tasks that modules need: one performs the core's operations where blocking is allowed, in their order, and one
//! moves the clock that ends what fuel did not.

use tidegate_core::effect::PolicyOp;
use tidegate_core::id::Ticket;
use tidegate_core::input::Input;
use tidegate_policies::TICK;
use tokio::sync::{mpsc, watch};

use super::Loader;
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
