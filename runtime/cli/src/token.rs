//! `tidegate token`: tokens of a running site, over its API. Shows a token once and keeps none.

use http::Method;
use serde_json::{Value, json};
use tidegate_core::id::DeviceId;

use crate::args::{Token, TokenAction};
use crate::ask::{Site, items, number, text};
use crate::{Done, Exit, Failure, say};

pub(crate) async fn token(args: Token) -> Done {
    let site = Site::at(&args.site)?;
    if let TokenAction::Device { device, .. } = &args.action
        && let Err(bad) = DeviceId::new(device)
    {
        return Err(Failure::new(Exit::Usage, bad.to_string()));
    }
    match args.action {
        TokenAction::List => {
            let body = site.get("/api/v1/tokens").await?;
            if items(&body).is_empty() {
                say("there are no tokens");
            }
            for row in items(&body) {
                say(&line(row));
            }
        }
        TokenAction::Add { scope, name } => {
            let body = json!({ "scope": scope, "name": name });
            made(&site.post_with("/api/v1/tokens", &body).await?);
        }
        TokenAction::Revoke { id } => {
            remove(&site, &format!("/api/v1/tokens/{id}")).await?;
            say(&format!("token {id} counts no more"));
        }
        TokenAction::Device { device, revoke: true, .. } => {
            remove(&site, &format!("/api/v1/devices/{device}/token")).await?;
            say(&format!("no token of {device} counts any more, and its links are closed"));
        }
        TokenAction::Device { device, rotate: true, .. } => rotate(&site, &device).await?,
        TokenAction::Device { device, transfer, .. } => {
            let body = json!({ "scope": if transfer { "transfer" } else { "recorder" } });
            made(&site.post_with(&format!("/api/v1/devices/{device}/token"), &body).await?);
        }
        TokenAction::Registration { open_for } => {
            let body = json!({ "open_for": open_for });
            let body = site.post_with("/api/v1/registration", &body).await?;
            match number(&body, "open_for_ms") {
                0 => say("registration is closed"),
                _ => say(&format!("devices may register themselves for {open_for}")),
            }
        }
    }
    Ok(())
}

async fn rotate(site: &Site, device: &str) -> Done {
    let known = site.get("/api/v1/devices").await?;
    let Some(row) = items(&known).iter().find(|row| text(row, "device_id") == device) else {
        let why = format!(
            "no device {device} is known here: `tidegate token device {device}` makes its first token"
        );
        return Err(Failure::failed(why));
    };
    let path = format!("/api/v1/robots/{}/ws-client-auth-token/rotate", text(row, "robot_id"));
    let body = site.post_with(&path, &json!({})).await?;
    say(&format!(
        "new tokens of {device}, shown only now; no older one counts any more, links that are up stay:"
    ));
    say(&format!("  recorder  {}", text(&body, "ws_client_auth_token")));
    say(&format!("  uploader  {}", text(&body, "transfer_token")));
    let address = text(&body, "transfer_ws_url");
    if !address.is_empty() {
        say(&format!("  uploader's address  {address}"));
    }
    Ok(())
}

fn made(body: &Value) {
    say(&format!("token {} for {} was made; it is shown only now:", number(body, "id"), text(body, "scope")));
    say(&format!("  {}", text(body, "token")));
}

fn line(row: &Value) -> String {
    let whose = match (text(row, "device_id"), text(row, "name")) {
        ("", "") => "-",
        ("", name) => name,
        (device, _) => device,
    };
    let used = match text(row, "used_at") {
        "" => String::new(),
        at => format!(", used {at}"),
    };
    let (id, scope) = (number(row, "id"), text(row, "scope"));
    format!("{id:>6}  {scope:<8}  {whose}  made {}{used}", text(row, "created_at"))
}

async fn remove(site: &Site, path: &str) -> Done {
    let answer = site.send(Method::DELETE, path, &[], Vec::new()).await?;
    if answer.status == 200 {
        return Ok(());
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let why = text(&body, "error");
    Err(Failure::failed(format!("{path}: {why} (HTTP {})", answer.status)))
}
