//! Owns the promise that every admitted link is reported lost exactly once, whatever becomes of its task.

use tidegate_core::id::ConnId;
use tidegate_core::input::{Input, LostWhy};
use tokio::runtime::Handle;

use crate::inbox::Inbox;

/// Held by whoever holds an admitted link. Dropped without a word, it reports the link as broken.
#[derive(Debug)]
pub(super) struct Guard {
    inbox: Inbox,
    conn: ConnId,
    told: bool,
}

impl Guard {
    /// Takes the duty for a link.
    pub(super) fn new(inbox: Inbox, conn: ConnId) -> Guard {
        Guard { inbox, conn, told: false }
    }

    /// The link.
    pub(super) fn conn(&self) -> ConnId {
        self.conn
    }

    /// Reports the link lost. A site that is gone needs no report.
    pub(super) async fn lost(mut self, why: LostWhy) {
        let _ = self.inbox.input(Input::Lost { conn: self.conn, why }).await;
        self.told = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let (inbox, conn) = (self.inbox.clone(), self.conn);
        // Without a runtime there is no driver either that would want to know.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let _ = inbox.input(Input::Lost { conn, why: LostWhy::Broken }).await;
            });
        }
    }
}
