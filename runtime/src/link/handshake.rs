//! Owns the WebSocket handshake: which requests may become a link, and how the others are answered. Knows no core.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    ALLOW, CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, StatusCode, Uri};
use tidegate_core::digest::Sha256;
use tidegate_core::id::{DeviceId, Role};

use crate::api::error::Answer;

/// RFC 6455, 1.3: what every server appends to the key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// How tokens of devices begin.
const TOKEN: &str = "kws_v1_";
/// What follows: 32 bytes in base64 for addresses, unpadded.
const TOKEN_REST: usize = 43;

/// The digest of a token that stood in the path of a request. In its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PathToken(pub(crate) Sha256);

/// Takes the token out of `/transfer/{token}/{device_id}`: uploaders as they are shipped cannot send a header. Called
/// before anything else looks at a request, so that no route, log or metric ever sees it.
pub(crate) fn take_token<B>(request: &mut http::Request<B>) {
    let Some((token, device)) = transfer_path(request.uri().path()) else { return };
    let uri = Uri::try_from(format!("/{}/{device}", Role::Transfer.name()));
    let digest = Sha256::of(token.as_bytes());
    *request.uri_mut() = uri.expect("a part of a legal path is one");
    request.extensions_mut().insert(PathToken(digest));
}

fn transfer_path(path: &str) -> Option<(String, &str)> {
    let rest = path.strip_prefix('/')?.strip_prefix(Role::Transfer.name())?.strip_prefix('/')?;
    let (token, device) = rest.split_once('/')?;
    let token = percent_decoded(token);
    token.starts_with(TOKEN).then_some((token, device))
}

/// A path as it may be logged: without anything that looks like a token of a device or an operator.
pub(crate) fn shown(path: &str) -> String {
    let hidden = |segment: &str| {
        let text = percent_decoded(segment);
        [TOKEN, "tgo_v1_"].iter().any(|prefix| text.len() > prefix.len() && text.contains(prefix))
    };
    let segments: Vec<&str> = path.split('/').map(|s| if hidden(s) { "***" } else { s }).collect();
    segments.join("/")
}

/// The device that a path names: everything after the prefix, percent-decoded.
pub(super) fn device(role: Role, path: &str) -> Result<DeviceId, Answer> {
    let prefix = role.name().len() + 2;
    let text = percent_decoded(path.get(prefix..).unwrap_or_default());
    if text.is_empty() {
        // The predecessor's answer, without a body.
        return Err(Answer::bare(StatusCode::BAD_REQUEST));
    }
    let base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if text.strip_prefix(TOKEN).is_some_and(|rest| rest.len() == TOKEN_REST && rest.bytes().all(base64)) {
        // As an id it would be shown to everybody.
        let text = "device_id: a token stands in its place; uploaders use /transfer/{token}/{device_id}";
        return Err(Answer::new(StatusCode::BAD_REQUEST, "bad_field", text).with("field", "device_id"));
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
    use tidegate_core::digest::Sha256;

    use super::{PathToken, accept, percent_decoded, shown, take_token};

    #[test]
    fn a_token_is_taken_out_of_the_path_of_an_uploader_and_of_no_other() {
        let taken = |path: &str| {
            let mut request = http::Request::builder().uri(path).body(()).expect("a request");
            take_token(&mut request);
            let token = request.extensions().get::<PathToken>().map(|token| token.0);
            (request.uri().to_string(), token)
        };
        let token = Some(Sha256::of(b"kws_v1_abc"));
        for (path, left) in [
            ("/transfer/kws_v1_abc/r1", "/transfer/r1"),
            ("http://site:8090/transfer/kws_v1_abc/r1?x=1", "/transfer/r1"),
            ("/transfer/%6bws_v1_abc/r%31", "/transfer/r%31"),
            ("/transfer/kws_v1_abc/", "/transfer/"),
            ("/transfer/kws_v1_abc/kws_v1_abc/r", "/transfer/kws_v1_abc/r"),
        ] {
            assert_eq!(taken(path), (left.to_owned(), token), "{path}");
        }
        for path in
            ["/transfer/r1", "/transfer/kws_v1_abc", "/recorder/kws_v1_abc/r1", "/transfers/kws_v1_a/b", "/"]
        {
            assert_eq!(taken(path), (path.to_owned(), None));
        }
    }

    #[test]
    fn what_looks_like_a_token_is_not_shown() {
        assert_eq!(shown("/recorder/kws_v1_abc/r1"), "/recorder/***/r1");
        assert_eq!(shown("/api/v1/x/%74go_v1_abc"), "/api/v1/x/***");
        assert_eq!(shown("/transfer/a=kws_v1_abc"), "/transfer/***");
        assert_eq!(shown("/recorder/r1"), "/recorder/r1");
    }

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
