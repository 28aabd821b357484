//! The way to a running site over HTTP, and `sync`. Decides nothing.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST};
use http::{Method, Request};
use serde_json::Value;
use tidegate_device::{Answer, Http};
use tidegate_runtime::real::RealNet;

use crate::args::Sync;
use crate::watch::{unfinished, watch};
use crate::{Done, Failure, say};

/// How long a site may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

pub(crate) struct Site {
    http: Http<RealNet>,
    /// Host and port, as requests name them.
    host: String,
    url: String,
}

impl Site {
    pub(crate) fn at(url: &str) -> Result<Site, Failure> {
        let bad = || {
            Failure::new(crate::Exit::Usage, format!("--api {url} is not an address: use http://host:port"))
        };
        let rest = url.strip_prefix("http://").ok_or_else(bad)?.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
            None => (rest, 80),
        };
        if host.is_empty() || host.contains('/') {
            return Err(bad());
        }
        Ok(Site {
            http: Http::new(RealNet, host, port).with_timeout(ANSWER),
            host: format!("{host}:{port}"),
            url: url.to_string(),
        })
    }

    /// Whether it answers that it is ready.
    pub(crate) async fn is_ready(&self) -> bool {
        matches!(self.http.get("/readyz").await, Ok((200, _, _)))
    }

    /// Whether it takes work; if not, why.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        match self.http.get("/readyz").await {
            Ok((200, _, _)) => Ok(()),
            Ok((status, _, body)) => {
                let text = body.get("error").and_then(Value::as_str);
                Err(text.map_or_else(|| format!("HTTP {status}"), str::to_owned))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        let (status, _, body) =
            self.http.get(path).await.map_err(|error| self.unreachable(&error.to_string()))?;
        answer(status, body, path)
    }

    pub(crate) async fn post(&self, path: &str) -> Result<Value, Failure> {
        self.post_with(path, &Value::Object(serde_json::Map::new())).await
    }

    pub(crate) async fn post_with(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let sent = self.http.post(path, body).await;
        let (status, _, body) = sent.map_err(|error| self.unreachable(&error.to_string()))?;
        answer(status, body, path)
    }

    /// The answer whatever it is.
    async fn post_raw(&self, path: &str) -> Result<(u16, Value), Failure> {
        let sent = self.http.post(path, &Value::Object(serde_json::Map::new())).await;
        let (status, _, body) = sent.map_err(|error| self.unreachable(&error.to_string()))?;
        Ok((status, body))
    }

    /// Any request with any body; the answer whatever it is.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(HOST, &self.host).header(CONTENT_LENGTH, body.len());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(tidegate_device::full(body))
            .map_err(|error| Failure::failed(format!("{path} is no request: {error}")))?;
        let exchanged = async { self.http.exchange(request).await?.collect().await };
        exchanged.await.map_err(|error| self.unreachable(&error.to_string()))
    }

    fn unreachable(&self, error: &str) -> Failure {
        Failure::failed(format!(
            "no site answers at {}: {error}\nIs it running? Start one with `tidegate run`, or name another with --api.",
            self.url
        ))
    }
}

fn answer(status: u16, body: Value, path: &str) -> Result<Value, Failure> {
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let text = body.get("error").and_then(Value::as_str).unwrap_or("no explanation");
    Err(Failure::failed(format!("{path}: {text} (HTTP {status})")))
}

pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

pub(crate) fn number(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or(0)
}

pub(crate) fn items(value: &Value) -> &[Value] {
    value.get("items").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(crate) async fn sync(args: Sync) -> Done {
    let site = Site::at(&args.api)?;
    if let Some(episode) = args.episode {
        queue_one(&site, episode, args.watch).await?;
        return if args.watch { watch(&site, &[episode]).await } else { Ok(()) };
    }
    if args.all {
        queue_all(&site).await?;
    }
    if !args.watch {
        return Ok(());
    }
    let episodes = unfinished(&site).await?;
    if episodes.is_empty() {
        say("nothing is on its way");
        return Ok(());
    }
    watch(&site, &episodes).await
}

/// Who only wants to watch does not mind that it is queued, or in the cloud, already.
async fn queue_one(site: &Site, episode: u64, watching: bool) -> Done {
    let path = format!("/api/v1/sync/episodes/{episode}");
    let (status, body) = site.post_raw(&path).await?;
    if watching && matches!(text(&body, "code"), "already_queued" | "already_synced") {
        return Ok(());
    }
    answer(status, body, &path)?;
    say(&format!("episode {episode} is queued"));
    Ok(())
}

async fn queue_all(site: &Site) -> Done {
    let mut queued = 0;
    loop {
        let count = number(&site.post("/api/v1/sync/episodes").await?, "enqueued_count");
        queued += count;
        if count == 0 {
            break;
        }
    }
    match queued {
        0 => say("nothing to queue: no approved episode is without a job"),
        1 => say("1 episode is queued"),
        n => say(&format!("{n} episodes are queued")),
    }
    Ok(())
}

/// Bytes for people, in binary units.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, size) in UNITS {
        if n >= size {
            return format!("{}.{} {unit}", n / size, n % size * 10 / size);
        }
    }
    format!("{n} B")
}
