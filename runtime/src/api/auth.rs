//! Who may use which route of the API: one table from method and path to the least scope, asked before every route.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use tidegate_core::digest::Sha256;
use tidegate_core::refusal::Refusal;
use tidegate_core::row::Scope;

use super::ApiState;
use super::error::{Answer, refused};
use crate::grants::{Grants, Mint, bearer};

/// What the API knows of tokens, and what it asks for.
#[derive(Clone, Debug)]
pub struct Access {
    /// Tokens that are good.
    pub grants: Grants,
    /// Where fresh ones come from.
    pub mint: Mint,
    /// Whether the API asks for tokens.
    pub demanded: bool,
    /// Whether callbacks must carry the token of their task.
    pub callback_tokens: bool,
    /// Whether anybody may register a device.
    pub open_registration: bool,
}

/// The least scope for a request; `None` is open to everybody, because something else is asked for there or nothing
/// is told.
fn least(method: &Method, path: &str) -> Option<Scope> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let below =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if matches!(path, "/healthz" | "/readyz" | "/api/v1/devices/register")
        || ["/recorder", "/transfer", "/api/v1/callbacks"].into_iter().any(below)
    {
        return None;
    }
    let of_device = below("/api/v1/devices")
        && ["/token", "/disable", "/enable"].into_iter().any(|end| path.ends_with(end));
    let admin = below("/api/v1/tokens")
        || below("/api/v1/registration")
        || below("/api/v1/robots")
        || (of_device && !reads)
        || (below("/api/v1/policies") && matches!(*method, Method::PUT | Method::DELETE));
    Some(match () {
        () if admin => Scope::Admin,
        () if reads => Scope::Viewer,
        () => Scope::Operator,
    })
}

/// Lets a request pass whose token is good for it.
pub(super) async fn guard(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    let access = &state.0.access;
    let least = least(request.method(), request.uri().path()).filter(|_| access.demanded);
    let Some(least) = least else { return next.run(request).await };
    let token = sent(&request);
    match token.as_ref().and_then(|token| access.grants.of(token)) {
        None => refused(&Refusal::Unauthorized).into_response(),
        Some(scope) if scope < least => {
            let text = format!("this takes a token of scope {}, yours is {}", least.name(), scope.name());
            Answer::new(StatusCode::FORBIDDEN, "forbidden", text).with("scope", least.name()).into_response()
        }
        Some(_) => {
            if let Some(token) = token {
                // For answers that last longer than a token may.
                request.extensions_mut().insert(access.grants.shown(token));
            }
            next.run(request).await
        }
    }
}

/// The token of a request. Browsers cannot send a header with a stream of events: there it may stand in the query.
fn sent(request: &Request) -> Option<Sha256> {
    if let Some(token) = bearer(request.headers()) {
        return Some(token);
    }
    if request.uri().path() != "/api/v1/device-state/stream" {
        return None;
    }
    let mut pairs = request.uri().query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == "access_token").map(|(_, token)| Sha256::of(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::least;
    use http::Method;
    use tidegate_core::row::Scope;

    #[test]
    fn every_route_asks_for_as_much_as_it_gives_away() {
        let cases = [
            (Method::GET, "/healthz", None),
            (Method::GET, "/recorder/robot-1", None),
            (Method::GET, "/transfer/robot-1", None),
            (Method::POST, "/api/v1/callbacks/finish", None),
            (Method::POST, "/api/v1/devices/register", None),
            (Method::GET, "/metrics", Some(Scope::Viewer)),
            (Method::GET, "/api/v1/tasks", Some(Scope::Viewer)),
            (Method::GET, "/api/v1/recorder/robot-1/state", Some(Scope::Viewer)),
            (Method::GET, "/nonsense", Some(Scope::Viewer)),
            (Method::GET, "/recorders", Some(Scope::Viewer)),
            (Method::GET, "/api/v1/devices", Some(Scope::Viewer)),
            (Method::POST, "/api/v1/tasks", Some(Scope::Operator)),
            (Method::POST, "/api/v1/recorder/robot-1/quit", Some(Scope::Operator)),
            (Method::POST, "/api/v1/policies/rollback", Some(Scope::Operator)),
            (Method::PUT, "/api/v1/policies/retry", Some(Scope::Admin)),
            (Method::GET, "/api/v1/tokens", Some(Scope::Admin)),
            (Method::DELETE, "/api/v1/tokens/7", Some(Scope::Admin)),
            (Method::POST, "/api/v1/devices/robot-1/token", Some(Scope::Admin)),
            (Method::DELETE, "/api/v1/devices/robot-1/token", Some(Scope::Admin)),
            (Method::POST, "/api/v1/devices/robot-1/disable", Some(Scope::Admin)),
            (Method::POST, "/api/v1/robots/1/ws-client-auth-token/rotate", Some(Scope::Admin)),
            (Method::POST, "/api/v1/registration", Some(Scope::Admin)),
        ];
        for (method, path, scope) in cases {
            assert_eq!(least(&method, path), scope, "{method} {path}");
        }
    }
}
