//! The way to a running site over HTTP, and `sync`. Decides nothing.

use std::path::Path;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderValue};
use http::{Method, Request};
use serde_json::Value;
use tidegate_device::{Answer, Exchange, Http, HttpError};
use tidegate_runtime::config::Secret;
use tidegate_runtime::real::{RealDisk, RealNet};
use tidegate_runtime::seam::{Disk, DiskFile, Net, Open};
use tidegate_runtime::tls::{NoTls, Roots, TlsNet};

use crate::args::{SiteAt, Sync};
use crate::watch::{unfinished, watch};
use crate::{Done, Exit, Failure, say};

/// How long a site may take to answer.
const ANSWER: Duration = Duration::from_secs(15);
/// How long a stream may be silent: it has a word every 15 s.
const SILENCE: Duration = Duration::from_secs(40);

pub(crate) struct Site {
    http: Http<TlsNet<RealNet>>,
    /// Host and port, as requests name them.
    host: String,
    url: String,
    /// What goes into `Authorization`. Marked as sensitive: its debug form shows nothing.
    bearer: Option<HeaderValue>,
}

impl Site {
    pub(crate) fn at(at: &SiteAt) -> Result<Site, Failure> {
        let url = &at.api;
        let bad = || {
            let text = format!("--api {url} is not an address: use http://host:port or https://host:port");
            Failure::new(Exit::Usage, text)
        };
        let (net, rest, port) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (TlsNet::encrypted(RealNet, roots(at.ca.as_deref())?), rest, 443),
            (None, Some(rest)) => (TlsNet::plain(RealNet), rest, 80),
            (None, None) => return Err(bad()),
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| bad())?),
            _ => (rest, port),
        };
        if host.is_empty() || host.contains(['/', '@']) {
            return Err(bad());
        }
        Ok(Site {
            http: Http::new(net, host, port).with_timeout(ANSWER),
            host: format!("{host}:{port}"),
            url: url.clone(),
            bearer: bearer(at)?,
        })
    }

    /// A site on this machine that was started without TLS and tokens.
    pub(crate) fn here(port: u16) -> Site {
        let host = format!("127.0.0.1:{port}");
        let http = Http::new(TlsNet::plain(RealNet), "127.0.0.1", port).with_timeout(ANSWER);
        Site { http, url: format!("http://{host}"), host, bearer: None }
    }

    /// Whether it answers that it is ready.
    pub(crate) async fn is_ready(&self) -> bool {
        matches!(self.exchange(Method::GET, "/readyz", &[], Vec::new()).await, Ok(answer) if answer.status == 200)
    }

    /// Whether it takes work; if not, why.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        match self.exchange(Method::GET, "/readyz", &[], Vec::new()).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => {
                let body = answer.json();
                let text = body.get("error").and_then(Value::as_str);
                Err(text.map_or_else(|| format!("HTTP {}", answer.status.as_u16()), str::to_owned))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Failure> {
        let got = self.send(Method::GET, path, &[], Vec::new()).await?;
        answer(got.status.as_u16(), got.json(), path)
    }

    pub(crate) async fn post(&self, path: &str) -> Result<Value, Failure> {
        self.post_with(path, &Value::Object(serde_json::Map::new())).await
    }

    pub(crate) async fn post_with(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let (status, body) = self.post_raw(path, body).await?;
        answer(status, body, path)
    }

    /// The answer whatever it is.
    async fn post_raw(&self, path: &str, body: &Value) -> Result<(u16, Value), Failure> {
        let json = [("Content-Type", "application/json")];
        let got = self.send(Method::POST, path, &json, body.to_string().into_bytes()).await?;
        Ok((got.status.as_u16(), got.json()))
    }

    /// Any request with any body; the answer whatever it is.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, Failure> {
        let got =
            self.exchange(method, path, headers, body).await.map_err(|error| self.unreachable(&error))?;
        if got.status == http::StatusCode::UNAUTHORIZED {
            return Err(self.unauthorized());
        }
        Ok(got)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, HttpError> {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(HOST, &self.host).header(CONTENT_LENGTH, body.len());
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(tidegate_device::full(body))
            .map_err(|error| HttpError::Broken(format!("{path} is no request: {error}")))?;
        self.http.exchange(request).await?.collect().await
    }

    fn unauthorized(&self) -> Failure {
        Failure::failed(match &self.bearer {
            None => format!(
                "the site at {} asks for a token\nGive one with --token-file FILE or TIDEGATE_TOKEN.",
                self.url
            ),
            Some(_) => format!(
                "the site at {} does not take this token\nIt may be revoked, or one of another site; \
                 `tidegate status --help` says where the token is taken from.",
                self.url
            ),
        })
    }

    /// A request whose answer goes on and on.
    pub(crate) async fn stream(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Exchange<<TlsNet<RealNet> as Net>::Stream>, Failure> {
        let mut request = Request::builder().method(Method::GET).uri(path).header(HOST, &self.host);
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(tidegate_device::full(Vec::new()))
            .map_err(|error| Failure::failed(format!("{path} is no request: {error}")))?;
        let http = self.http.clone().with_timeout(SILENCE);
        let answer = http.exchange(request).await.map_err(|error| self.unreachable(&error))?;
        if answer.status() == http::StatusCode::UNAUTHORIZED {
            return Err(self.unauthorized());
        }
        Ok(answer)
    }

    fn unreachable(&self, error: &HttpError) -> Failure {
        let url = &self.url;
        let refused = match error {
            HttpError::Connect(error) => error.get_ref().and_then(|error| error.downcast_ref()),
            HttpError::Broken(_) | HttpError::TimedOut(_) => None,
        };
        Failure::failed(match (refused, error) {
            (Some(why @ NoTls::Untrusted(_)), _) => format!(
                "the site at {url} cannot prove who it is: {why}\nIf this is the right site, name its certificate, or \
                 that of the authority which signed it, with --ca FILE, and use the name that the certificate is for."
            ),
            (Some(why @ NoTls::NotSpoken), _) => {
                format!(
                    "{url}: {why}\nUse http:// instead, or the port of a listener in the site's listen.tls."
                )
            }
            (None, HttpError::Broken(_)) if url.starts_with("http://") => format!(
                "no site answers at {url}: {error}\nIf its API speaks TLS (listen.tls_cert), use https://."
            ),
            (Some(NoTls::Other(_)) | None, error) => format!(
                "no site answers at {url}: {error}\nIs it running? Start one with `tidegate run`, or name another \
                 with --api."
            ),
        })
    }
}

fn roots(file: Option<&Path>) -> Result<Roots, Failure> {
    let bad = |why: String| Failure::new(Exit::Usage, why);
    let Some(file) = file else {
        return Roots::of_system().map_err(|why| {
            bad(format!("{why}: name the one that signed the site's certificate with --ca FILE"))
        });
    };
    let pem =
        small_file(file).map_err(|error| bad(format!("--ca {} cannot be read: {error}", file.display())))?;
    Roots::from_pem(&pem).map_err(|why| bad(format!("--ca {}: {why}", file.display())))
}

/// The header of the token, if there is one. Says nothing of the token in its errors.
fn bearer(at: &SiteAt) -> Result<Option<HeaderValue>, Failure> {
    let (token, from) = match (&at.token_file, &at.token) {
        (Some(file), _) => {
            let from = format!("--token-file {}", file.display());
            let unreadable = |why: &dyn std::fmt::Display| {
                Failure::new(Exit::Usage, format!("{from} cannot be read: {why}"))
            };
            let bytes = small_file(file).map_err(|error| unreadable(&error))?;
            let text = String::from_utf8(bytes).map_err(|_| unreadable(&"it is no text"))?;
            (Secret::new(text.trim()), from)
        }
        (None, Some(token)) => (token.clone(), "--token (or TIDEGATE_TOKEN)".to_owned()),
        (None, None) => return Ok(None),
    };
    let legal = !token.reveal().is_empty() && token.reveal().bytes().all(|byte| byte.is_ascii_graphic());
    let value = HeaderValue::from_str(&format!("Bearer {}", token.reveal())).ok().filter(|_| legal);
    let Some(mut value) = value else {
        let text = format!(
            "{from} holds no token: one is a single word, such as tgo_v1_ and 43 characters after it"
        );
        return Err(Failure::new(Exit::Usage, text));
    };
    value.set_sensitive(true);
    Ok(Some(value))
}

/// A certificate or a token; anything larger is another file.
fn small_file(path: &Path) -> std::io::Result<Vec<u8>> {
    const BYTES_MAX: u64 = 1 << 20;
    let file = RealDisk.open(path, Open::Read)?;
    let len = file.len()?;
    if len > BYTES_MAX {
        return Err(std::io::Error::other("it is too large to be meant"));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
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
    let site = Site::at(&args.site)?;
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
    let (status, body) = site.post_raw(&path, &Value::Object(serde_json::Map::new())).await?;
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
