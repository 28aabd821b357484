//! Messages of recorders, and the one frame we send them.

use alloc::string::String;
use minicbor::{Decode, Encode};

/// What a recorder says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RecorderMessage {
    /// `state_update`
    #[n(0)]
    StateUpdate {
        /// Its clock, milliseconds since 1970.
        #[n(0)]
        timestamp_ms: Option<i64>,
        /// `data.previous`
        #[n(1)]
        previous: Option<String>,
        /// `data.current`; `None` if blank.
        #[n(2)]
        current: Option<String>,
        /// `data.task_id`
        #[n(3)]
        task: Option<String>,
    },
    /// `config_applied`
    #[n(1)]
    ConfigApplied {
        /// `data.task_id`
        #[n(0)]
        task: Option<String>,
    },
    /// `rpc_response`
    #[n(2)]
    Response {
        /// Which RPC it answers.
        #[n(0)]
        request_id: String,
        /// Its word; anything but `true` is no.
        #[n(1)]
        success: bool,
        /// Its message.
        #[n(2)]
        message: Option<String>,
        /// `data.state`, else `data.current`, else `data.current_state`: the first that is not blank.
        #[n(3)]
        state: Option<String>,
        /// `data.task_id`, else `data.task_config.task_id`.
        #[n(4)]
        task: Option<String>,
        /// `data` as a JSON object with sorted keys; one larger than the limit is replaced by its digest.
        #[n(5)]
        data: Option<String>,
    },
    /// Anything else; its type, shortened.
    #[n(3)]
    Other(#[n(0)] String),
}

/// The task a message names.
#[must_use]
pub fn names(message: &RecorderMessage) -> Option<&str> {
    match message {
        RecorderMessage::StateUpdate { task, .. }
        | RecorderMessage::ConfigApplied { task }
        | RecorderMessage::Response { task, .. } => task.as_deref(),
        RecorderMessage::Other(_) => None,
    }
}
