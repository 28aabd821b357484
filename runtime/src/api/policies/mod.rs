//! Owns the routes of policies: load, look at, activate, shadow, go back, quarantine. Bytes go to the disk under their hash
//! before the core hears of them; whether a module counts is the core's to say.

pub mod shapes;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tidegate_core::digest::Sha256;
use tidegate_core::effect;
use tidegate_core::input::{PolicyRequest, Request as Ask};
use tidegate_core::limits::{REASON_BYTES, SETTINGS_BYTES, SETTINGS_MAX};
use tidegate_core::policy::{Binding, PolicyView, SettingValue, Slot};
use tidegate_core::refusal::{PolicyRefusal, Refusal};
use tidegate_core::row::{Key, ModuleRow, ModuleState, Row, shorten};
use tidegate_policies::{FiguresReader, Histogram, SeatFigures, SettingDoc, ShadowFigures, json as words};

use super::ApiState;
use super::error::{Answer, json as answer, refused};
use super::input::{self, Fields, Params, Segment};
use super::reads::blocking;
use super::shapes::{Object, moment};
use crate::policies::intake::{self, Unstored};
use crate::policies::trial::{TRIED_MAX, Trial};
use crate::policies::{Loader, Unloaded, Watched};
use crate::store::DECISIONS_KEPT;

/// What the routes of policies stand on besides the driver.
#[derive(Clone, Debug)]
pub struct OnPolicies {
    /// Who has the modules.
    pub loader: Loader,
    /// What is counted of decisions.
    pub figures: FiguresReader,
    /// What was found in the watched folder.
    pub watched: Watched,
}

/// The signature that comes with a module: the signature file in base64, or as it is on one line.
const SIGNATURE: &str = "tidegate-signature";
/// Settings to try a module with: a JSON object.
const SETTINGS: &str = "tidegate-settings";
/// Bytes of a signature file, several times what one has.
const SIGNATURE_BYTES: usize = 4 << 10;

impl Segment {
    fn slot(&self) -> Result<Slot, Answer> {
        Slot::of(&self.0)
            .ok_or_else(|| Answer::bad_field("slot", "auto-scan, retry, concurrency, bandwidth or order"))
    }

    fn module(&self) -> Result<Sha256, Answer> {
        hash(&self.0)
    }
}

fn hash(text: &str) -> Result<Sha256, Answer> {
    Sha256::from_hex(text)
        .ok_or_else(|| Answer::bad_field("module", "the SHA-256 of a module: 64 hexadecimal digits"))
}

impl ApiState {
    async fn policy(&self, request: PolicyRequest) -> Result<Box<PolicyView>, Answer> {
        match self.asked(Ask::Policy(request)).await? {
            effect::Response::Policy(view) => Ok(view),
            _ => Err(Answer::internal("the answer is of another kind")),
        }
    }

    /// What is recorded of a module.
    async fn row(&self, module: Sha256) -> Result<Option<Box<ModuleRow>>, Answer> {
        let row = self.read(move |rows| Ok(rows.get(&Key::Module(module))?)).await?;
        Ok(if let Some(Row::Module(row)) = row { Some(row) } else { None })
    }

    /// The newest recorded decisions of a slot.
    async fn decided(&self, slot: Slot, most: usize) -> Result<Vec<Vec<u8>>, Answer> {
        self.read(move |rows| Ok(rows.decisions(slot, most)?)).await
    }

    /// Tries a module out on recorded decisions.
    async fn tried(
        &self,
        slot: Slot,
        binding: Binding,
        lines: Vec<Vec<u8>>,
    ) -> Result<Result<Trial, Unloaded>, Answer> {
        let (loader, clock) = (self.0.policies.loader.clone(), self.0.clock.clone());
        blocking(&self.0.runner, move || {
            loader.seat(slot, &binding).map(|sitting| Trial::run(&sitting, &lines, &clock))
        })
        .await
    }
}

/// `GET /policies`
pub(super) async fn show(State(state): State<ApiState>) -> Result<Response, Answer> {
    let parts = &state.0.policies;
    let Some(view) = state.0.board.policies() else {
        return Err(Answer::internal("the policies are not known yet"));
    };
    let figures = parts.figures.read();
    let counted: Vec<Value> = figures
        .seats
        .iter()
        .map(|((slot, module), seat)| {
            let object = Object::new()
                .put("slot", slot.name())
                .maybe("module", module.map(|module| module.to_string()));
            object.all(counts(seat)).into()
        })
        .collect();
    let mut body = shapes::view(&view).put("native", parts.loader.host().is_none()).fields();
    if let (Some(shadow), Some(seen)) = (body.get_mut("shadow"), &figures.shadow)
        && let Value::Object(shadow) = shadow
    {
        shadow.extend(beside(seen));
    }
    body.insert("figures".to_owned(), counted.into());
    if let Some(watched) = parts.watched.json() {
        body.insert("watch".to_owned(), watched);
    }
    Ok(answer(StatusCode::OK, Value::Object(body)))
}

fn sum(of: &Histogram) -> Value {
    json!({ "count": of.count(), "sum": of.sum })
}

fn counts(seat: &SeatFigures) -> serde_json::Map<String, Value> {
    let last = seat.last_fault.as_ref();
    Object::new()
        .put("decisions", seat.decisions)
        .put("reasons", json!(seat.reasons))
        .put("faults", json!(seat.faults))
        .maybe("last_fault", last.map(|(fault, detail)| json!({ "fault": fault.code(), "detail": detail })))
        .put("fuel", sum(&seat.fuel))
        .put("micros", sum(&seat.micros))
        .fields()
}

fn beside(seen: &ShadowFigures) -> serde_json::Map<String, Value> {
    let samples = seen.samples.iter().map(|sample| {
        let object = Object::new()
            .put("question", words::question(&sample.question))
            .put("decided", words::verdict(&sample.active));
        let object = match &sample.candidate {
            Ok(verdict) => object.put("would", words::verdict(verdict)),
            Err(trouble) => object.put("fault", trouble.to_string()),
        };
        Value::from(object)
    });
    Object::new()
        .put("compared", seen.decisions)
        .put("differed", seen.different)
        .put("muted", seen.muted)
        .put("faults", json!(seen.faults))
        .put("fuel", sum(&seen.fuel))
        .put("micros", sum(&seen.micros))
        .put("samples", samples.collect::<Vec<_>>())
        .fields()
}

/// `GET /policies/history`
pub(super) async fn history(State(state): State<ApiState>) -> Result<Response, Answer> {
    let row = state.read(|rows| Ok(rows.get(&Key::Policy)?)).await?;
    let turns = match row {
        // The newest first: what somebody who looks wants to undo.
        Some(Row::Policy(row)) => row.history.iter().rev().map(shapes::turn).collect(),
        _ => Vec::new(),
    };
    Ok(answer(StatusCode::OK, json!({ "items": turns })))
}

/// `GET /policies/modules/{sha256}`
pub(super) async fn module(State(state): State<ApiState>, hash: Segment) -> Result<Response, Answer> {
    let hash = hash.module()?;
    let unknown = || refused(&Refusal::Policy(PolicyRefusal::UnknownModule(hash)));
    let row = state.row(hash).await?;
    let object = match &row {
        Some(row) => shapes::module(hash, row),
        None => Object::new().put("module", hash.to_string()),
    };
    // Others may cost the site more than a look at them is worth: whoever asks has none of them compiled.
    let is_sound = row.as_ref().is_some_and(|row| row.state == ModuleState::Admitted);
    if !is_sound && hash != crate::policies::default_module() {
        return if row.is_some() { Ok(answer(StatusCode::OK, object.into())) } else { Err(unknown()) };
    }
    let loader = state.0.policies.loader.clone();
    let loaded = blocking(&state.0.runner, move || loader.module(hash)).await?;
    let object = match (&loaded, &row) {
        (Ok(module), _) => {
            let about = module.about();
            let doc = |doc: &SettingDoc| json!({ "key": doc.key, "help": doc.help, "default": words::setting(&doc.default) });
            object
                .all(shapes::facts(module.facts()))
                .put("reasons", about.reasons.to_vec())
                .put("settings", about.settings.iter().map(doc).collect::<Vec<_>>())
        }
        (Err(_), Some(_)) => object,
        (Err(_), None) => return Err(unknown()),
    };
    Ok(answer(StatusCode::OK, object.into()))
}

/// `PUT /policies/{slot}`: stores, admits, and says what would have been decided otherwise. Changes nobody's seat.
pub(super) async fn load(
    State(state): State<ApiState>,
    slot: Segment,
    request: Request,
) -> Result<Response, Answer> {
    let slot = slot.slot()?;
    let (parts, body) = request.into_parts();
    let settings = settings_beside(&parts.headers, &Params::of(&parts.uri)?)?;
    let signature = signature(&parts.headers)?;
    let loader = state.0.policies.loader.clone();
    let Some(blobs) = loader.blobs().cloned() else { return Err(Answer::native()) };
    let most = state.0.summary.policy_bytes_max;
    let bytes = input::bytes_up_to(body, usize::try_from(most).unwrap_or(usize::MAX)).await?;
    if bytes.is_empty() {
        return Err(Answer::bad_field("body", "the bytes of a module: a WebAssembly component"));
    }
    let size = bytes.len() as u64;
    let module = Sha256::of(&bytes);
    let row = state.row(module).await?;
    let stored = blocking(&state.0.runner, move || {
        intake::store(&loader, row.as_deref(), &bytes, signature.as_deref())
    });
    stored.await?.map_err(|why| unstored(module, &why))?;
    let view = match state.policy(PolicyRequest::Admit { module, size }).await {
        Ok(view) => view,
        Err(error) => {
            // Bytes that no record is about are nobody's. Where one is, the core may still come back to them.
            if state.row(module).await?.is_none() && module != crate::policies::default_module() {
                let removed = blocking(&state.0.runner, move || blobs.remove(module)).await?;
                removed.unwrap_or_else(|error| tracing::warn!(%error, "a module that nobody knows stays"));
            }
            return Err(error);
        }
    };
    let Some(row) = known(&view, module) else {
        return Err(Answer::internal("the module is not among those of the site"));
    };
    let mut warnings = Vec::new();
    let serves = row.facts.as_ref().is_some_and(|facts| facts.slots.contains(&slot));
    if !serves {
        warnings.push(format!("it does not serve {}", slot.name()));
    }
    if row.quarantined.is_some() {
        warnings.push("it is quarantined: it cannot be activated until it is unquarantined".to_owned());
    }
    let mut object = shapes::module(module, row);
    if serves {
        let lines = state.decided(slot, TRIED_MAX).await?;
        match state.tried(slot, Binding { module, settings }, lines).await? {
            Ok(trial) => object = object.put("diff", trial.json()),
            Err(Unloaded::Rejected(why)) => {
                let (code, why) = (why.code.to_owned(), why.why);
                return Err(refused(&Refusal::Policy(PolicyRefusal::Rejected { module, code, why })));
            }
            Err(Unloaded::Disk(why) | Unloaded::Late(why)) => {
                warnings.push(format!("it could not be tried out: {why}"))
            }
        }
    }
    Ok(answer(StatusCode::CREATED, object.put("warnings", warnings).into()))
}

fn unstored(module: Sha256, why: &Unstored) -> Answer {
    match why {
        Unstored::Native => Answer::native(),
        Unstored::Signature(_) => Answer::new(StatusCode::CONFLICT, "policy_signature", why.to_string())
            .with("module", module.to_string()),
        Unstored::Busy => refused(&Refusal::Policy(PolicyRefusal::Busy)),
        Unstored::Disk(error) => {
            tracing::error!(%error, "a module could not be stored");
            Answer::internal("the module could not be stored; see the log")
        }
    }
}

fn known(view: &PolicyView, module: Sha256) -> Option<&ModuleRow> {
    view.modules.iter().find(|(hash, _)| *hash == module).map(|(_, row)| row)
}

/// Settings that stand beside a body of bytes: in a header, or in the query.
fn settings_beside(headers: &HeaderMap, params: &Params) -> Result<Vec<(String, SettingValue)>, Answer> {
    let bad = || Answer::bad_field("settings", "a JSON object of settings");
    let text = match headers.get(SETTINGS) {
        Some(value) => Some(value.to_str().map_err(|_| bad())?),
        None => params.get("settings"),
    };
    let Some(text) = text else { return Ok(Vec::new()) };
    settings(&serde_json::from_str(text).map_err(|_| bad())?)
}

fn settings(said: &Value) -> Result<Vec<(String, SettingValue)>, Answer> {
    let settings = words::read_settings(said).map_err(|error| {
        let text = format!("settings must be an object of truths, whole numbers and texts: {error}");
        Answer::new(StatusCode::BAD_REQUEST, "bad_field", text).with("field", "settings")
    })?;
    let bytes = settings
        .iter()
        .map(|(key, value)| key.len() + if let SettingValue::Text(text) = value { text.len() } else { 0 });
    if settings.len() > SETTINGS_MAX || bytes.sum::<usize>() > SETTINGS_BYTES {
        let must = format!("at most {SETTINGS_MAX} settings and {SETTINGS_BYTES} bytes of keys and texts");
        return Err(Answer::bad_field("settings", &must));
    }
    Ok(settings)
}

fn signature(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Answer> {
    let bad = || Answer::bad_field(SIGNATURE, "a signature file, as it is on one line or in base64");
    let Some(value) = headers.get(SIGNATURE) else { return Ok(None) };
    let text = value.to_str().map_err(|_| bad())?.trim();
    if text.len() > SIGNATURE_BYTES {
        return Err(bad());
    }
    if text.starts_with('{') {
        return Ok(Some(text.as_bytes().to_vec()));
    }
    STANDARD.decode(text).map(Some).map_err(|_| bad())
}

/// A module and its settings, of a body.
async fn binding(body: Body) -> Result<Binding, Answer> {
    let fields = Fields::read(body).await?;
    let Some(module) = fields.text("module")? else {
        return Err(Answer::bad_field("module", "the SHA-256 of a module that was loaded"));
    };
    let settings = match fields.0.get("settings") {
        None | Some(Value::Null) => Vec::new(),
        Some(said) => settings(said)?,
    };
    Ok(Binding { module: hash(module)?, settings })
}

/// `POST /policies/{slot}/activate`
pub(super) async fn activate(
    State(state): State<ApiState>,
    slot: Segment,
    body: Body,
) -> Result<Response, Answer> {
    let slot = slot.slot()?;
    state.runs_modules()?;
    let binding = binding(body).await?;
    // As they were before this module decides itself.
    let lines = state.decided(slot, TRIED_MAX).await?;
    let request = PolicyRequest::Activate { slot, binding: binding.clone() };
    let view = state.policy(request).await?;
    let trial = state.tried(slot, binding, lines).await?.ok();
    let seat = view.seats.iter().find(|seat| seat.slot == slot);
    let body = Object::new()
        .put("generation", view.generation)
        .put("set", super::shapes::set_id(view.set))
        .maybe("slot", seat.map(|seat| Value::from(shapes::slot(seat))))
        .maybe("probation_until", view.probation.as_ref().map(|trial| moment(trial.until)))
        .maybe("would_differ", trial.map(|trial| trial.json()));
    Ok(answer(StatusCode::OK, body.into()))
}

/// `POST /policies/{slot}/reset`
pub(super) async fn reset(State(state): State<ApiState>, slot: Segment) -> Result<Response, Answer> {
    let slot = slot.slot()?;
    changed(&state, PolicyRequest::Reset { slot }).await
}

/// `POST /policies/{slot}/shadow`
pub(super) async fn shadow(
    State(state): State<ApiState>,
    slot: Segment,
    body: Body,
) -> Result<Response, Answer> {
    let slot = slot.slot()?;
    state.runs_modules()?;
    let binding = binding(body).await?;
    changed(&state, PolicyRequest::Shadow { slot, binding }).await
}

/// `DELETE /policies/shadow`
pub(super) async fn end_shadow(State(state): State<ApiState>) -> Result<Response, Answer> {
    changed(&state, PolicyRequest::ShadowEnd).await
}

/// `POST /policies/rollback`
pub(super) async fn rollback(State(state): State<ApiState>, body: Body) -> Result<Response, Answer> {
    let fields = Fields::read(body).await?;
    let to = match fields.0.get("generation") {
        None | Some(Value::Null) => None,
        Some(said) => Some(said.as_u64().ok_or_else(|| {
            Answer::bad_field("generation", "the number of a generation; see GET /policies/history")
        })?),
    };
    changed(&state, PolicyRequest::Rollback { to }).await
}

/// `POST /policies/modules/{sha256}/quarantine`
pub(super) async fn quarantine(
    State(state): State<ApiState>,
    hash: Segment,
    body: Body,
) -> Result<Response, Answer> {
    let module = hash.module()?;
    let fields = Fields::read(body).await?;
    let reason = shorten(fields.text("reason")?.unwrap_or("an operator said so"), REASON_BYTES);
    changed(&state, PolicyRequest::Quarantine { module, reason }).await
}

/// `POST /policies/modules/{sha256}/unquarantine`
pub(super) async fn unquarantine(State(state): State<ApiState>, hash: Segment) -> Result<Response, Answer> {
    let module = hash.module()?;
    changed(&state, PolicyRequest::Unquarantine { module }).await
}

/// `DELETE /policies/modules/{sha256}`
pub(super) async fn remove(State(state): State<ApiState>, hash: Segment) -> Result<Response, Answer> {
    let module = hash.module()?;
    changed(&state, PolicyRequest::Remove { module }).await
}

async fn changed(state: &ApiState, request: PolicyRequest) -> Result<Response, Answer> {
    let view = state.policy(request).await?;
    Ok(answer(StatusCode::OK, shapes::view(&view).into()))
}

impl ApiState {
    fn runs_modules(&self) -> Result<(), Answer> {
        if self.0.policies.loader.host().is_none() { Err(Answer::native()) } else { Ok(()) }
    }
}

/// `GET /policies/{slot}/decisions`: one JSON object a line, the newest last.
pub(super) async fn decisions(
    State(state): State<ApiState>,
    slot: Segment,
    request: Request,
) -> Result<Response, Answer> {
    let slot = slot.slot()?;
    let params = Params::of(request.uri())?;
    let most = match params.get("limit") {
        None => DECISIONS_KEPT,
        Some(text) => match text.parse::<usize>() {
            Ok(most) if most > 0 => most.min(DECISIONS_KEPT),
            Ok(_) | Err(_) => return Err(Answer::bad_field("limit", "a positive integer")),
        },
    };
    let mut text = Vec::new();
    for line in state.decided(slot, most).await? {
        text.extend(line);
        text.push(b'\n');
    }
    let mut response = text.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}
