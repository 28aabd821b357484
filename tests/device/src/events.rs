//! Owns what a device did, in order, for tests to assert on. It decides nothing.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

/// One of the two links of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// The recorder's RPC link.
    Recorder,
    /// The uploader's link.
    Transfer,
}

/// One thing that happened to a device.
#[derive(Clone, Debug, PartialEq)]
pub enum DeviceEvent {
    /// A handshake ended with 101.
    Connected {
        /// Which link.
        link: Link,
    },
    /// A handshake ended with another status.
    Declined {
        /// Which link.
        link: Link,
        /// The HTTP status.
        status: u16,
    },
    /// No socket, or no HTTP answer.
    DialFailed {
        /// Which link.
        link: Link,
        /// Why, in words.
        error: String,
    },
    /// A text frame was written to the socket.
    Sent {
        /// Which link.
        link: Link,
        /// The frame; a string if it was sent garbled.
        frame: Value,
    },
    /// A text frame was read from the socket. A task's `user_token` is replaced by [`HIDDEN`].
    Received {
        /// Which link.
        link: Link,
        /// The frame; a string if it is not JSON.
        frame: Value,
    },
    /// A link ended.
    Closed {
        /// Which link.
        link: Link,
        /// The close code received, if any.
        code: Option<u16>,
        /// The reason received, or why there was none.
        reason: String,
    },
    /// The recorder changed its state.
    State {
        /// Before.
        previous: &'static str,
        /// After.
        current: &'static str,
    },
    /// A callback was answered, or failed.
    Callback {
        /// Where it went.
        url: String,
        /// What it said.
        body: Value,
        /// The HTTP status; `None` if no answer came.
        status: Option<u16>,
    },
    /// A file is complete on disk.
    FileWritten {
        /// Which file.
        path: PathBuf,
    },
    /// A file was deleted.
    FileDeleted {
        /// Which file.
        path: PathBuf,
    },
    /// An upload's row changed its status.
    Upload {
        /// Whose recording.
        task_id: String,
        /// The new status as the wire writes it.
        status: &'static str,
    },
    /// An attempt to upload failed.
    AttemptFailed {
        /// Whose recording.
        task_id: String,
        /// Why, in words.
        error: String,
    },
    /// Something local failed that the device survives.
    Trouble {
        /// What, in words.
        what: String,
    },
    /// The recorder ended for good: told to quit or stopped.
    RecorderExited,
}

/// The events of one device, shared by its parts. Keeps the latest [`EVENTS_MAX`].
#[derive(Clone, Debug)]
pub struct EventLog {
    events: Arc<Mutex<VecDeque<DeviceEvent>>>,
    written: watch::Sender<u64>,
}

impl EventLog {
    pub(crate) fn new() -> Self {
        Self { events: Arc::default(), written: watch::Sender::new(0) }
    }

    pub(crate) fn push(&self, event: DeviceEvent) {
        {
            let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
            if events.len() == EVENTS_MAX {
                events.pop_front();
            }
            events.push_back(event);
        }
        self.written.send_modify(|n| *n += 1);
    }

    /// All events so far, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<DeviceEvent> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Waits until `find` gives something for the events so far, asking again after every new event. The log is
    /// locked while `find` runs: it must not ask the log.
    ///
    /// # Errors
    /// After `deadline`: `what` and the last events, in words.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut find: impl FnMut(&[DeviceEvent]) -> Option<T>,
    ) -> Result<T, String> {
        let mut written = self.written.subscribe();
        let waiting = async {
            loop {
                written.borrow_and_update();
                let found = {
                    let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
                    find(events.make_contiguous())
                };
                if let Some(found) = found {
                    return found;
                }
                // The sender lives in `self`, so this ends with a change or not at all.
                let _ = written.changed().await;
            }
        };
        match tokio::time::timeout(deadline, waiting).await {
            Ok(found) => Ok(found),
            Err(_) => {
                let all = self.all();
                let tail = &all[all.len().saturating_sub(12)..];
                let tail: Vec<String> = tail.iter().map(|event| format!("  {event:?}")).collect();
                Err(format!("no {what} within {deadline:?}; the last events:\n{}", tail.join("\n")))
            }
        }
    }
}

/// What stands in the log where a frame had a secret.
pub const HIDDEN: &str = "(hidden)";

/// How many events are kept: a day of one busy device in a simulation is below a tenth of it.
pub const EVENTS_MAX: usize = 1 << 18;
