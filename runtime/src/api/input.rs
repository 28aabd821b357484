//! Owns what a request says: path segments, query parameters, JSON bodies, each with its bound. Knows no route.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use http::{StatusCode, Uri};
use serde_json::{Map, Value};
use tidegate_core::id::{DeviceId, EpisodeId};
use tokio::time::Instant;

use super::error::Answer;
use crate::timeouts::Op;

/// Bytes of a request body: sixteen times the largest configuration of a task.
pub const BODY_MAX: usize = 1 << 20;
/// How long a body may take to arrive.
const BODY_WAIT: Duration = Duration::from_secs(30);
/// The same where no token is asked for: a callback is a few hundred bytes, and comes in one piece.
const OPEN_BODY_WAIT: Duration = Duration::from_secs(10);
/// Items of a page, unless asked otherwise.
const LIMIT_DEFAULT: usize = 50;
/// Most items of a page; more are clamped silently, as the predecessor did.
const LIMIT_MAX: usize = 100;

/// The one variable segment of a path, percent-decoded.
pub(super) struct Segment(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Answer;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Segment, Answer> {
        let path: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        path.map(|Path(text)| Segment(text)).map_err(|_| Answer::bad_field("path", "UTF-8, percent-encoded"))
    }
}

impl Segment {
    /// A device id.
    pub(super) fn device(&self) -> Result<DeviceId, Answer> {
        device("device_id", &self.0)
    }

    /// An episode's number.
    pub(super) fn episode(&self) -> Result<EpisodeId, Answer> {
        episode(&self.0).ok_or_else(|| {
            Answer::new(StatusCode::BAD_REQUEST, "bad_field", "invalid episode id").with("field", "id")
        })
    }
}

/// A device id in a named field.
pub(super) fn device(field: &'static str, text: &str) -> Result<DeviceId, Answer> {
    DeviceId::new(text).map_err(|bad| bad_id(field, &bad))
}

/// An id that is none.
pub(super) fn bad_id(field: &'static str, bad: &tidegate_core::id::BadId) -> Answer {
    Answer::new(StatusCode::BAD_REQUEST, "bad_field", format!("{field}: {bad}")).with("field", field)
}

/// The number of an episode: a positive 64-bit integer.
pub(super) fn episode(text: &str) -> Option<EpisodeId> {
    text.trim().parse().ok().filter(|id: &i64| *id > 0).and_then(|id| u64::try_from(id).ok()).map(EpisodeId)
}

/// Query parameters; of a repeated one the first counts, unless all are asked for.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Of an address.
    pub(super) fn of(uri: &Uri) -> Result<Params, Answer> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
        pairs
            .map(|pairs| Params(pairs.0))
            .map_err(|_| Answer::bad_field("query", "pairs name=value, percent-encoded"))
    }

    /// A parameter, trimmed; blank is absent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        Some(value.trim()).filter(|value| !value.is_empty())
    }

    /// Every value of a repeated parameter, trimmed; blank ones are absent.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let values = self.0.iter().filter(move |(key, _)| key == name);
        values.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    /// Every item of a parameter that is a list with commas, and may be repeated.
    pub(super) fn listed(&self, name: &str) -> impl Iterator<Item = &str> {
        self.all(name).flat_map(|list| list.split(',')).map(str::trim).filter(|item| !item.is_empty())
    }

    /// A parameter that is one of some words.
    pub(super) fn word<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Option<T>,
        must: &str,
    ) -> Result<Option<T>, Answer> {
        self.get(name).map(|text| read(text).ok_or_else(|| Answer::bad_field(name, must))).transpose()
    }

    /// `limit` and `offset`.
    pub(super) fn page(&self) -> Result<Page, Answer> {
        let number = |name: &str| self.get(name).map(|text| text.parse::<i64>().ok());
        let bad = |name: &str, text: &str| {
            Answer::new(StatusCode::BAD_REQUEST, "bad_field", text).with("field", name)
        };
        let limit = match number("limit") {
            None => LIMIT_DEFAULT,
            Some(Some(limit)) if limit >= 1 => usize::try_from(limit).unwrap_or(LIMIT_MAX).min(LIMIT_MAX),
            Some(_) => return Err(bad("limit", "limit must be a positive integer")),
        };
        let offset = match number("offset") {
            None => 0,
            Some(Some(offset)) if offset >= 0 => usize::try_from(offset).unwrap_or(usize::MAX),
            Some(_) => return Err(bad("offset", "offset must be a non-negative integer")),
        };
        Ok(Page { limit, offset })
    }
}

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) limit: usize,
    pub(super) offset: usize,
}

impl Page {
    /// Whether the item at this place of the whole list is wanted.
    pub(super) fn holds(self, at: usize) -> bool {
        at >= self.offset && at - self.offset < self.limit
    }

    /// The envelope of a list.
    pub(super) fn envelope(self, items: Vec<Value>, total: usize) -> Value {
        let mut body = Map::new();
        body.insert("items".to_owned(), Value::Array(items));
        body.insert("total".to_owned(), total.into());
        body.insert("limit".to_owned(), self.limit.into());
        body.insert("offset".to_owned(), self.offset.into());
        if self.offset.saturating_add(self.limit) < total {
            body.insert("hasNext".to_owned(), true.into());
        }
        if self.offset > 0 {
            body.insert("hasPrev".to_owned(), true.into());
        }
        Value::Object(body)
    }
}

/// The bytes of a body of another size.
pub(super) async fn bytes_up_to(body: Body, most: usize) -> Result<Bytes, Answer> {
    bytes_within(body, most, BODY_WAIT).await
}

/// The bytes of a body on a route that asks for no token.
pub(super) async fn open_bytes(body: Body) -> Result<Bytes, Answer> {
    bytes_within(body, BODY_MAX, OPEN_BODY_WAIT).await
}

async fn bytes_within(body: Body, most: usize, wait: Duration) -> Result<Bytes, Answer> {
    let begun = Instant::now();
    match tokio::time::timeout(wait, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_long(&error) => Err(Answer::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the request body may have {most} bytes"),
        )),
        Ok(Err(_)) => Err(Answer::bad_body()),
        Err(_) => {
            let text = "the request body did not arrive";
            let answer = Answer::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", text);
            Err(answer.timed_out(Op::Body, wait, begun.elapsed()))
        }
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A JSON object with named fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields(pub(super) Map<String, Value>);

impl Fields {
    /// Reads a body. `None` if it is empty or `null`; anything else that is no object is refused.
    pub(super) async fn maybe(body: Body) -> Result<Option<Fields>, Answer> {
        Fields::of(&bytes_up_to(body, BODY_MAX).await?)
    }

    /// The same of a body that was read.
    fn of(bytes: &[u8]) -> Result<Option<Fields>, Answer> {
        if bytes.is_empty() {
            return Ok(None);
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Some(Fields(map))),
            Ok(Value::Null) => Ok(None),
            // The parser's words quote the place, never the text: there may be a token in it.
            Ok(_) => Err(Answer::bad_body().with("detail", "not a JSON object")),
            Err(error) => {
                let place = format!("not JSON at line {} column {}", error.line(), error.column());
                Err(Answer::bad_body().with("detail", place))
            }
        }
    }

    /// Reads a body; an empty one is an object without fields.
    pub(super) async fn read(body: Body) -> Result<Fields, Answer> {
        Ok(Fields::maybe(body).await?.unwrap_or_default())
    }

    /// The same on a route that asks for no token.
    pub(super) async fn read_open(body: Body) -> Result<Fields, Answer> {
        Fields::parsed(&open_bytes(body).await?)
    }

    /// The same of a body that was read.
    pub(super) fn parsed(bytes: &[u8]) -> Result<Fields, Answer> {
        Ok(Fields::of(bytes)?.unwrap_or_default())
    }

    /// A text field; `null` and absent are `None`.
    pub(super) fn text(&self, field: &'static str) -> Result<Option<&str>, Answer> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Answer::bad_field(field, "a string")),
        }
    }

    /// A text field that is neither blank nor of another type, as the predecessor read them.
    pub(super) fn lenient(&self, field: &str) -> Option<&str> {
        self.0.get(field)?.as_str().map(str::trim).filter(|text| !text.is_empty())
    }
}
