//! Owns the commands to recorders: takes secrets out of their bodies, and passes the device's own answer on.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tidegate_core::effect;
use tidegate_core::id::DeviceId;
use tidegate_core::input::{Action, Command, Request as Ask};
use tidegate_core::limits;
use tidegate_core::refusal::Refusal;

use super::ApiState;
use super::error::{Answer, json as answer, refused};
use super::input::{Fields, Segment};
use super::shapes::{Object, parsed};
use crate::inbox::{Inbox, Secret};

/// The one field that is a secret.
const TOKEN: &str = "user_token";

macro_rules! routes {
    ($($name:ident => $action:ident),*) => {$(
        pub(super) async fn $name(
            State(state): State<ApiState>,
            id: Segment,
            body: Body,
        ) -> Result<Response, Answer> {
            command(&state, &id, Action::$action, body).await
        }
    )*};
}

routes!(
    config => Config, begin => Begin, finish => Finish, pause => Pause, resume => Resume, cancel => Cancel,
    clear => Clear, quit => Quit
);

async fn command(state: &ApiState, id: &Segment, action: Action, body: Body) -> Result<Response, Answer> {
    let ignored = matches!(action, Action::Pause | Action::Resume | Action::Quit);
    let fields = if ignored { None } else { Fields::maybe(body).await? };
    let device = id.device()?;
    let fields = fields.map(|fields| with_token(state, action, fields));
    let (command, secret) = written(&state.0.inbox, device, action, fields)?;
    match state.ask(Ask::Command(command), secret).await? {
        Ok(response) => rpc(response),
        Err(refusal) => Err(refused(&refusal)),
    }
}

/// What a recorder answered, whatever it was.
pub(super) fn rpc(response: effect::Response) -> Result<Response, Answer> {
    match response {
        effect::Response::Rpc { request_id, success, message, data } => {
            let body = Object::new()
                .put("type", "rpc_response")
                .put("request_id", request_id)
                .put("success", success)
                .maybe("message", message.filter(|text| !text.is_empty()))
                .maybe("data", data.as_deref().map(parsed));
            Ok(answer(StatusCode::OK, body.into()))
        }
        _ => Err(Answer::internal("the answer is of another kind")),
    }
}

/// Where callbacks must carry a token, a configuration without one gets one: the device sends it back.
fn with_token(state: &ApiState, action: Action, mut fields: Fields) -> Fields {
    if action == Action::Config
        && state.0.access.callback_tokens
        && let Some(Value::Object(config)) = fields.0.get_mut("task_config")
        && config.get(TOKEN).is_none_or(|own| own.is_null() || own.as_str() == Some(""))
    {
        let (secret, _) = state.0.access.mint.draw("");
        config.insert(TOKEN.to_owned(), Value::String(secret.reveal().to_owned()));
    }
    fields
}

/// Writes a command; the secret in it is named in the command and carried beside it.
fn written(
    inbox: &Inbox,
    device: DeviceId,
    action: Action,
    fields: Option<Fields>,
) -> Result<(Command, Option<Secret>), Answer> {
    let mut fields = fields.unwrap_or_default();
    let secret = if action == Action::Config { taken(inbox, &mut fields)? } else { None };
    refuse_tokens(&fields, secret.is_some(), "give it as task_config.user_token of config")?;
    let configured = fields.0.get("task_config").and_then(Value::as_object).cloned().map(Fields);
    let configured = configured.as_ref().and_then(|config| config.lenient("task_id"));
    let task = match action {
        Action::Config => configured,
        Action::GetState
        | Action::GetStats
        | Action::Begin
        | Action::Finish
        | Action::Pause
        | Action::Resume
        | Action::Cancel
        | Action::Clear
        | Action::Quit => fields.lenient("task_id").or(configured),
    };
    let task = task.map(str::to_owned);
    // `clear` tells the device nothing: its task is for us only.
    let params =
        (!fields.0.is_empty() && action != Action::Clear).then(|| Value::Object(fields.0).to_string());
    if params.as_ref().is_some_and(|params| params.len() > limits::CONFIG_BYTES) {
        let text = format!("the parameters of a command may have {} bytes of JSON", limits::CONFIG_BYTES);
        return Err(Answer::new(StatusCode::PAYLOAD_TOO_LARGE, "params_too_large", text));
    }
    let token = secret.as_ref().map(|secret| secret.name);
    Ok((Command { device, action, task, params, token, reply: None, task_state: None }, secret))
}

/// Takes `task_config.user_token` out of a body and leaves its name in its place.
fn taken(inbox: &Inbox, fields: &mut Fields) -> Result<Option<Secret>, Answer> {
    let config = fields.0.get_mut("task_config").and_then(Value::as_object_mut);
    let Some(token) = config.and_then(|config| config.get_mut(TOKEN)) else { return Ok(None) };
    match token {
        Value::String(value) if !value.is_empty() => {
            let secret = inbox.secret(std::mem::take(value));
            *token = Value::String(format!("tidegate-secret:{}", secret.name.handle));
            Ok(Some(secret))
        }
        Value::String(_) | Value::Null => Ok(None),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(Answer::bad_field("task_config.user_token", "a string"))
        }
    }
}

/// Refuses a body with a token where none belongs: there it would be stored and shown.
pub(super) fn refuse_tokens(fields: &Fields, taken: bool, instead: &str) -> Result<(), Answer> {
    if tokens(&fields.0) <= usize::from(taken) {
        return Ok(());
    }
    let text = format!("user_token is a secret and does not belong here: {instead}");
    Err(Answer::new(StatusCode::BAD_REQUEST, "misplaced_secret", text).with("field", TOKEN))
}

/// Counts the tokens in an object, at any depth and however they are capitalised; the parser bounds the depth. An empty
/// one is none.
fn tokens(map: &Map<String, Value>) -> usize {
    fn within(value: &Value) -> usize {
        match value {
            Value::Object(map) => tokens(map),
            Value::Array(list) => list.iter().map(within).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }
    let is_token = |(field, value): &(&String, &Value)| {
        field.eq_ignore_ascii_case(TOKEN) && !value.is_null() && **value != ""
    };
    map.iter().filter(is_token).count() + map.values().map(within).sum::<usize>()
}

pub(super) async fn stats(State(state): State<ApiState>, id: Segment) -> Result<Response, Answer> {
    let command = Command {
        device: id.device()?,
        action: Action::GetStats,
        task: None,
        params: None,
        token: None,
        reply: None,
        task_state: None,
    };
    match state.ask(Ask::Command(command), None).await? {
        Ok(effect::Response::Rpc { success, message, data, .. }) => {
            let error = message.filter(|text| !success && !text.is_empty());
            let body = Object::new()
                .put("connected", true)
                .put("data", data.as_deref().map_or(Value::Null, parsed))
                .maybe("error", error);
            Ok(answer(StatusCode::OK, body.into()))
        }
        Err(Refusal::RecorderOffline) => {
            Ok(answer(StatusCode::OK, json!({ "connected": false, "data": {} })))
        }
        // The predecessor's status for a read that a lost link cut short.
        Err(Refusal::LinkLost { .. }) => {
            let lost = Answer::new(StatusCode::INTERNAL_SERVER_ERROR, "link_lost", "recorder not connected");
            Ok(lost.into_response())
        }
        Ok(_) => Err(Answer::internal("the answer is of another kind")),
        Err(refusal) => Err(refused(&refusal)),
    }
}
