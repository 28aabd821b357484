//! Owns every refusal on the wire: one total table from reason to status and body. Decides nothing.
//!
//! The predecessor's texts and words are kept where it had them; what we add are further fields. Task and callback
//! routes called the text `error_msg`: there it stands beside `error`.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::{Map, Value};
use tidegate_core::refusal::{PolicyRefusal, Refusal};

use super::shapes;
use crate::timeouts::{Op, TimedOut};

/// A refusal on its way out: `{"error": text, "code": word, ...}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    status: StatusCode,
    body: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    timed_out: Option<TimedOut>,
}

impl Answer {
    /// A refusal with this status, word and text.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, error: impl Into<String>) -> Answer {
        let mut body = Map::new();
        body.insert("error".to_owned(), Value::String(error.into()));
        body.insert("code".to_owned(), Value::String(code.to_owned()));
        Answer { status, body, headers: Vec::new(), timed_out: None }
    }

    /// With one more field.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Answer {
        self.body.insert(field.to_owned(), value.into());
        self
    }

    /// With the fields of an object, those it has already excepted.
    #[must_use]
    pub fn with_all(mut self, fields: Map<String, Value>) -> Answer {
        for (field, value) in fields {
            self.body.entry(field).or_insert(value);
        }
        self
    }

    /// Asks the client to come back after so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Answer {
        self.headers.push((RETRY_AFTER, HeaderValue::from(seconds)));
        self
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &'static str) -> Answer {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }

    /// Of a wait that was given up: it is logged and counted with the route.
    pub(crate) fn timed_out(mut self, op: Op, budget: Duration, elapsed: Duration) -> Answer {
        self.timed_out = Some(TimedOut { op, budget, elapsed });
        self
    }

    /// A status without a body.
    #[must_use]
    pub fn bare(status: StatusCode) -> Answer {
        Answer { status, body: Map::new(), headers: Vec::new(), timed_out: None }
    }

    /// With the text also under the predecessor's name for it on task and callback routes.
    #[must_use]
    pub fn with_error_msg(mut self) -> Answer {
        let text = self.body.get("error").cloned().unwrap_or_default();
        self.body.entry("error_msg").or_insert(text);
        self
    }

    /// A field is not what it must be.
    #[must_use]
    pub fn bad_field(field: &str, must: &str) -> Answer {
        Answer::new(StatusCode::BAD_REQUEST, "bad_field", format!("{field} must be {must}"))
            .with("field", field)
    }

    /// The predecessor's answer to a body that is no JSON object.
    #[must_use]
    pub fn bad_body() -> Answer {
        Answer::new(StatusCode::BAD_REQUEST, "bad_body", "invalid request body")
    }

    /// Something inside broke; the log says what.
    #[must_use]
    pub fn internal(error: &'static str) -> Answer {
        Answer::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", error)
    }

    /// The site runs no modules.
    #[must_use]
    pub fn native() -> Answer {
        Answer::new(StatusCode::CONFLICT, "policies_native", PolicyRefusal::Native.to_string())
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Its body.
    #[must_use]
    pub fn body(&self) -> &Map<String, Value> {
        &self.body
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = if self.body.is_empty() {
            self.status.into_response()
        } else {
            json(self.status, Value::Object(self.body))
        };
        response.headers_mut().extend(self.headers);
        if let Some(timed_out) = self.timed_out {
            response.extensions_mut().insert(timed_out);
        }
        response
    }
}

/// An answer with a JSON body.
#[must_use]
pub fn json(status: StatusCode, body: Value) -> Response {
    let mut response = (status, body.to_string()).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Seconds a device waits after it was turned away: below a stock client's second try, above a reconnect storm.
const TURNED_AWAY: u32 = 5;

/// The one table: what each refusal of the core is on the wire.
#[must_use]
pub fn refused(refusal: &Refusal) -> Answer {
    use StatusCode as S;
    match refusal {
        Refusal::RecorderOffline => {
            Answer::new(S::NOT_FOUND, "recorder_not_connected", "recorder not connected")
        }
        Refusal::LinkLost { action } => Answer::new(S::NOT_FOUND, "link_lost", "recorder not connected")
            .with("action", action.name())
            .with("result_unknown", true),
        Refusal::TransferOffline => Answer::new(
            S::CONFLICT,
            "transfer_not_connected",
            "transfer is not connected; config is rejected",
        ),
        Refusal::NoUploader(device) => {
            Answer::new(S::NOT_FOUND, "transfer_not_connected", format!("device {device} not connected"))
        }
        Refusal::StateSyncing => Answer::new(
            S::CONFLICT,
            "recorder_state_syncing",
            "recorder state is syncing; retry after initial state snapshot",
        ),
        Refusal::RefreshFailed { timeout, view, command } => {
            let status = if *timeout { S::GATEWAY_TIMEOUT } else { S::CONFLICT };
            let reason = view.error.as_deref().filter(|text| !text.is_empty());
            let fallback = if *timeout { "recorder rpc timeout" } else { "recorder state refresh failed" };
            let mut fields = shapes::recorder_state(view, view.age_ms);
            // The view's own error is the text of the answer; only one of them can be called `error`.
            fields.remove("error");
            let answer = Answer::new(status, "recorder_state_refresh_failed", reason.unwrap_or(fallback));
            let answer = answer.with_all(fields);
            if *timeout && !*command { answer.with("result_unknown", true) } else { answer }
        }
        Refusal::RecorderBusy { state, task } => {
            Answer::new(S::CONFLICT, "recorder_busy", "recorder is not idle; config is rejected")
                .with("current_state", state.as_str())
                .with("task_id", task.as_str())
        }
        Refusal::HoldsAnother { state, task } => {
            let error = "recorder holds another task and would drop it; name that one, or none";
            Answer::new(S::CONFLICT, "recorder_busy", error)
                .with("current_state", state.as_str())
                .with("task_id", task.as_str())
        }
        Refusal::TaskIdRequired(field) => {
            Answer::new(S::BAD_REQUEST, "task_id_required", format!("{field} is required"))
                .with("field", *field)
        }
        Refusal::NotConfigurable(state) => {
            Answer::new(S::CONFLICT, "task_not_configurable", "task is not configurable")
                .with("current_status", state.map_or("not_found", |state| state.name()))
        }
        Refusal::NotBeginable(state) => {
            Answer::new(S::CONFLICT, "task_not_beginable", "task is not beginable")
                .with("current_status", state.map_or("not_found", |state| state.name()))
        }
        Refusal::NotReadyForTask { state, recorder_state, recorder_task } => {
            Answer::new(S::CONFLICT, "task_not_beginable", "recorder is not ready for task")
                .with("current_status", state.name())
                .with("recorder_state", recorder_state.as_str())
                .with("recorder_task_id", recorder_task.as_str())
        }
        Refusal::NotOwned => Answer::new(S::CONFLICT, "task_not_owned", "task is not owned by device"),
        Refusal::CommandInFlight(action) => Answer::new(
            S::CONFLICT,
            "command_in_flight",
            format!("{} is in flight on this device; retry when it has ended", action.name()),
        )
        .with("action", action.name()),
        Refusal::TooManyCalls => Answer::new(
            S::TOO_MANY_REQUESTS,
            "too_many_calls",
            "too many commands wait for this recorder; retry later",
        )
        .retry_after(1),
        Refusal::RpcTimeout(action) => Answer::new(S::GATEWAY_TIMEOUT, "rpc_timeout", "recorder rpc timeout")
            .with("action", action.name())
            .with("result_unknown", true),
        Refusal::TooManyLinks => {
            Answer::new(S::SERVICE_UNAVAILABLE, "too_many_links", "no link is free; retry later")
                .retry_after(TURNED_AWAY)
        }
        Refusal::Contested { retry_after_ms } => {
            let text = "programs fight over this device id; the one that has the link keeps it for a while";
            let seconds = u32::try_from(retry_after_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
            Answer::new(S::SERVICE_UNAVAILABLE, "contested_id", text).retry_after(seconds.max(1))
        }
        Refusal::Stopping => {
            Answer::new(S::SERVICE_UNAVAILABLE, "stopping", "the site is stopping").retry_after(TURNED_AWAY)
        }
        Refusal::NoConflict(device) => {
            Answer::new(S::NOT_FOUND, "no_conflict", format!("{device} holds nothing against its records"))
                .with("device_id", device.as_str())
        }
        Refusal::ConflictChanged(view) => Answer::new(
            S::CONFLICT,
            "conflict_changed",
            "the device holds something else than device_task_id says; look at the conflict and ask again",
        )
        .with("conflict", shapes::conflict(view)),
        Refusal::ConflictNeedsCommand(view) => Answer::new(
            S::CONFLICT,
            "conflict_needs_command",
            "the records cannot follow the device: finish what it records, or drop what it holds",
        )
        .with("conflict", shapes::conflict(view)),
        Refusal::TaskNotFound(task) => {
            Answer::new(S::NOT_FOUND, "task_not_found", format!("Task not found: {task}")).with_error_msg()
        }
        Refusal::TaskExists(task) => Answer::new(
            S::CONFLICT,
            "task_exists",
            format!("a task or an attempt of the id {task} exists; choose another task_id"),
        ),
        Refusal::NotCancellable(state) => Answer::new(
            S::CONFLICT,
            "task_not_cancellable",
            format!("task is {}; only pending, ready and in_progress tasks can be cancelled", state.name()),
        )
        .with("current_status", state.name()),
        Refusal::NotResolvable(state) => Answer::new(
            S::CONFLICT,
            "task_not_resolvable",
            format!("task is {}; only a task that is uploading waits for its recording", state.name()),
        )
        .with("current_status", state.name()),
        Refusal::NotUploadable { owned } => {
            let text = if *owned {
                "task is not uploadable"
            } else {
                "task is not owned by device or is not uploadable"
            };
            Answer::new(S::CONFLICT, "task_not_uploadable", text).with_error_msg()
        }
        Refusal::BadField { field, must } => Answer::bad_field(field, must),
        Refusal::EpisodeNotFound(episode) => {
            Answer::new(S::NOT_FOUND, "episode_not_found", "episode not found").with("episode_id", episode.0)
        }
        Refusal::NotApproved(qa) => Answer::new(
            S::BAD_REQUEST,
            "qa_not_approved",
            format!("episode qa_status is \"{}\", must be approved or inspector_approved", qa.name()),
        )
        .with("qa_status", qa.name()),
        Refusal::AlreadySynced(episode) => {
            Answer::new(S::CONFLICT, "already_synced", "episode already synced to cloud")
                .with("episode_id", episode.0)
        }
        Refusal::SyncActive(episode) => Answer::new(
            S::CONFLICT,
            "already_queued",
            format!("sync already in progress for episode {episode}"),
        )
        .with("episode_id", episode.0)
        .with("status", "already_queued"),
        Refusal::NotJudgeable(episode) => Answer::new(
            S::CONFLICT,
            "episode_not_judgeable",
            "episode is queued for the cloud or synced; its verdict is final",
        )
        .with("episode_id", episode.0),
        Refusal::Quarantined(reason) => Answer::new(
            S::INTERNAL_SERVER_ERROR,
            "quarantined",
            format!(
                "this request {reason}; it is not carried out any more and changed nothing: report it, and install \
                 a release that mends it, or stop the site and run `tidegate quarantine clear` to try again"
            ),
        ),
        Refusal::Internal(what) => Answer::internal(what),
        Refusal::Unauthorized => Answer::new(S::UNAUTHORIZED, "unauthorized", "unauthorized")
            .header(http::header::WWW_AUTHENTICATE, "Bearer"),
        Refusal::RegistrationClosed => Answer::new(
            S::FORBIDDEN,
            "registration_closed",
            "registration is closed; an operator opens it for a while with `tidegate token registration`",
        ),
        Refusal::DeviceNotFound(device) => {
            Answer::new(S::NOT_FOUND, "device_not_found", "no such device is registered")
                .with("device_id", device.as_str())
        }
        Refusal::DeviceDisabled(device) => {
            Answer::new(S::CONFLICT, "device_disabled", "the device is disabled; enable it first")
                .with("device_id", device.as_str())
        }
        Refusal::TokenNotFound(id) => {
            Answer::new(S::NOT_FOUND, "token_not_found", format!("there is no token {id}")).with("id", *id)
        }
        Refusal::RosterFull => Answer::new(
            S::CONFLICT,
            "roster_full",
            "the site keeps no more devices or tokens: revoke tokens that nobody needs",
        ),
        Refusal::Policy(refusal) => refused_policy(refusal),
    }
}

/// The part of the table that is about policies. Nothing was changed by any of these.
fn refused_policy(refusal: &PolicyRefusal) -> Answer {
    use StatusCode as S;
    let text = refusal.to_string();
    match refusal {
        PolicyRefusal::UnknownModule(module) => {
            Answer::new(S::NOT_FOUND, "policy_unknown_module", text).with("module", module.to_string())
        }
        PolicyRefusal::NotAdmitted(module) => {
            Answer::new(S::CONFLICT, "policy_not_admitted", text).with("module", module.to_string())
        }
        PolicyRefusal::Rejected { module, code, why } => {
            Answer::new(S::UNPROCESSABLE_ENTITY, "policy_rejected", text)
                .with("module", module.to_string())
                .with("rejection", code.as_str())
                .with("why", why.as_str())
        }
        PolicyRefusal::Quarantined { module, code } => Answer::new(S::CONFLICT, "policy_quarantined", text)
            .with("module", module.to_string())
            .with("reason", code.as_str()),
        PolicyRefusal::HookMissing { module, slot } => {
            Answer::new(S::UNPROCESSABLE_ENTITY, "policy_hook_missing", text)
                .with("module", module.to_string())
                .with("slot", slot.name())
        }
        PolicyRefusal::BadSettings(_) => {
            Answer::new(S::BAD_REQUEST, "policy_bad_settings", text).with("field", "settings")
        }
        PolicyRefusal::Busy => Answer::new(S::CONFLICT, "policy_busy", text).retry_after(1),
        PolicyRefusal::Overtaken => Answer::new(S::CONFLICT, "policy_overtaken", text),
        PolicyRefusal::Full => Answer::new(S::CONFLICT, "policy_full", text),
        PolicyRefusal::UnknownGeneration(generation) => {
            Answer::new(S::NOT_FOUND, "policy_unknown_generation", text).with("generation", *generation)
        }
        PolicyRefusal::InUse { module, by } => {
            Answer::new(S::CONFLICT, "policy_in_use", text).with("module", module.to_string()).with("by", *by)
        }
        PolicyRefusal::Native => Answer::native(),
        PolicyRefusal::Unanswered(_) => {
            Answer::new(S::SERVICE_UNAVAILABLE, "policy_unanswered", text).retry_after(1)
        }
    }
}
