//! Owns the WebSocket handshake: which requests may become a link, and how the others are answered. Knows no core.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    ALLOW, CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, StatusCode};
use tidegate_core::id::{DeviceId, Role};

use crate::api::error::Answer;

/// RFC 6455, 1.3: what every server appends to the key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The device that a path names: everything after the prefix, percent-decoded.
pub(super) fn device(role: Role, path: &str) -> Result<DeviceId, Answer> {
    let prefix = role.name().len() + 2;
    let text = percent_decoded(path.get(prefix..).unwrap_or_default());
    if text.is_empty() {
        // The predecessor's answer, without a body.
        return Err(Answer::bare(StatusCode::BAD_REQUEST));
    }
    DeviceId::new(&text).map_err(|bad| {
        Answer::new(StatusCode::BAD_REQUEST, "bad_field", format!("device_id: {bad}"))
            .with("field", "device_id")
    })
}

/// Checks a handshake. The answer's `Sec-WebSocket-Accept`, or the refusal.
pub(super) fn check(request: &Request) -> Result<HeaderValue, Answer> {
    let headers = request.headers();
    if request.method() != Method::GET {
        let text = "links are opened with GET";
        let answer = Answer::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text);
        return Err(answer.header(ALLOW, "GET"));
    }
    for (header, token) in [(CONNECTION, "Upgrade"), (UPGRADE, "websocket")] {
        if !lists(headers, &header, token) {
            let text = format!("WebSocket protocol violation: the {header} header does not contain {token}");
            let answer = Answer::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", text);
            return Err(answer.header(CONNECTION, "Upgrade").header(UPGRADE, "websocket"));
        }
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let text = "WebSocket protocol violation: Sec-WebSocket-Version must be 13";
        let answer = Answer::new(StatusCode::BAD_REQUEST, "bad_websocket_version", text);
        return Err(answer.header(SEC_WEBSOCKET_VERSION, "13"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) {
        return Ok(accept(key));
    }
    let text = "WebSocket protocol violation: Sec-WebSocket-Key must be 16 bytes in base64";
    Err(Answer::new(StatusCode::BAD_REQUEST, "bad_websocket_key", text))
}

/// The answer that turns the connection into a link. No subprotocol and no extension is ever taken up.
pub(super) fn switching(accept: HeaderValue) -> Response {
    let response = with(StatusCode::SWITCHING_PROTOCOLS.into_response(), CONNECTION, "Upgrade");
    let mut response = with(response, UPGRADE, "websocket");
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

fn accept(key: &[u8]) -> HeaderValue {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(GUID);
    HeaderValue::from_str(&STANDARD.encode(hash.digest().bytes())).expect("base64 is visible ASCII")
}

fn with(mut response: Response, name: HeaderName, value: &'static str) -> Response {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(token))
}

/// Decodes `%41`; what is no such escape stays as it is, and bytes that are no UTF-8 become a mark no id contains.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = if bytes[at] == b'%' { digit(at + 1).zip(digit(at + 2)) } else { None };
        match escape.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{accept, percent_decoded};

    #[test]
    fn the_accept_header_is_the_one_of_the_rfc() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn escapes_are_decoded_and_other_percents_stay() {
        assert_eq!(percent_decoded("a%2Eb%2"), "a.b%2");
        assert_eq!(percent_decoded("%zz%41"), "%zzA");
        assert_eq!(percent_decoded("a%ff"), "a\u{fffd}");
    }
}
