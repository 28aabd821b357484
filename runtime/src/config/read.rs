//! What each key means: its type, its range, and what keys say together. Every problem is reported, not the first.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::auth::read_auth;
use super::layers::{Found, Problem, Source, Value};
use super::policies::{read_policies, read_surroundings};
use super::tls::{read_tls, warn_of_tls};
use super::units::{parse_duration, parse_size};
use super::{Cloud, Config, Edge, LogFormat, Secret, Stream};

/// Every key there is.
pub(super) const KEYS: [&str; 75] = [
    "site",
    "data_dir",
    "public_url",
    "listen.api",
    "listen.s3",
    "listen.recorder",
    "listen.transfer",
    "listen.insecure",
    "listen.tls_cert",
    "listen.tls_key",
    "listen.tls",
    "auth.api",
    "auth.devices",
    "auth.transfer",
    "auth.bound_keep",
    "auth.callbacks",
    "auth.registration",
    "devices.recorder_url",
    "devices.transfer_url",
    "devices.rpc_timeout",
    "devices.contest_pause",
    "devices.ping_interval",
    "devices.ping_timeout",
    "devices.max_message",
    "devices.handshake_timeout",
    "devices.uploading_deadline",
    "devices.message_rate",
    "devices.busy_patience",
    "stream.events",
    "stream.bytes",
    "devices.link_grace",
    "devices.settle",
    "sync.part_size",
    "sync.parts_in_flight",
    "sync.uploads",
    "sync.attempts",
    "sync.retry_base",
    "sync.retry_cap",
    "sync.retry_jitter",
    "sync.auto_scan",
    "sync.scan_every",
    "sync.batch",
    "sync.bytes_per_second",
    "edge.keep",
    "edge.access_key",
    "edge.secret_key",
    "edge.max_clock_skew",
    "edge.reserve",
    "edge.abandoned_after",
    "qa.auto_approve",
    "policies.native",
    "policies.probation",
    "policies.patience",
    "policies.faults",
    "policies.fault_window",
    "policies.watch",
    "policies.max_bytes",
    "surroundings.link",
    "surroundings.metered",
    "surroundings.power",
    "surroundings.time_zone",
    "cloud.endpoint",
    "cloud.region",
    "cloud.bucket",
    "cloud.access_key",
    "cloud.secret_key",
    "cloud.session_token",
    "cloud.path_style",
    "cloud.attempt_timeout",
    "cloud.connect_timeout",
    "log.format",
    "log.level",
    "journal.limit",
    "limits.files",
    "shutdown.drain",
];

/// Reads a configuration out of what was found.
pub(super) fn read(found: Found, problems: &mut Vec<Problem>) -> Config {
    let sources = found.iter().map(|(key, (_, source))| (key.clone(), source.clone())).collect();
    let mut config = Config { sources, ..Config::default() };
    let mut r = Reader { found, problems };
    r.text("site", &mut config.site);
    if !s3s::path::check_bucket_name(&config.edge_bucket()) {
        r.problem(
            "site",
            "must be 1 to 58 lower-case letters, digits and hyphens, the last one no hyphen: devices upload to the \
             bucket edge-{site}",
        );
    }
    if let Some(dir) = r.opt_text("data_dir") {
        config.data_dir = PathBuf::from(dir);
    }
    read_public_url(&mut r, &mut config);
    read_listen(&mut r, &mut config);
    read_auth(&mut r, &mut config);
    read_devices(&mut r, &mut config);
    read_stream(&mut r, &mut config.stream);
    read_sync(&mut r, &mut config);
    read_quality(&mut r, &mut config);
    read_edge(&mut r, &mut config.edge);
    read_policies(&mut r, &mut config.policies);
    read_surroundings(&mut r, &mut config.surroundings);
    config.cloud = read_cloud(&mut r);
    if let Some(format) = r.opt_text("log.format") {
        match format.as_str() {
            "text" => config.log.format = LogFormat::Text,
            "json" => config.log.format = LogFormat::Json,
            _ => r.problem("log.format", "must be \"text\" or \"json\""),
        }
    }
    r.text("log.level", &mut config.log.level);
    if let Err(why) = crate::telemetry::check_level(&config.log.level) {
        r.problem("log.level", &why);
    }
    r.size("journal.limit", &mut config.journal.limit, 1 << 20, 64 << 30, "between 1MiB and 64GiB");
    match r.opt_word("limits.files").as_deref() {
        None => {}
        Some("max") => config.limits.files = None,
        Some(text) => match text.parse() {
            Ok(files) if (64..=1 << 20).contains(&files) => config.limits.files = Some(files),
            Ok(_) | Err(_) => r.problem("limits.files", "must be \"max\" or between 64 and 1048576"),
        },
    }
    r.duration("shutdown.drain", &mut config.shutdown.drain, 0, 600_000, "at most 10m");
    // What the core has to say of ranges. Only if nothing of its own was unreadable: it would complain of a default.
    if r.problems.is_empty()
        && let Err(bad) = config.knobs()
    {
        r.problem(bad.field, &format!("must be {}", bad.must));
    }
    config
}

fn read_public_url(r: &mut Reader<'_>, config: &mut Config) {
    let example = "must be a base URL such as \"http://site.example:8080\", without credentials";
    config.public_url = base_url(r, "public_url", ["http", "https"], example);
}

/// An address that others add a path to. Devices are told of it, and the journal keeps some: no credentials in it.
fn base_url(r: &mut Reader<'_>, key: &str, schemes: [&str; 2], must: &str) -> Option<String> {
    let url = r.opt_text(key)?.trim_end_matches('/').to_owned();
    let bare = |uri: &http::Uri| uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    let legal = url.parse::<http::Uri>().is_ok_and(|uri| {
        uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme))
            && uri.host().is_some_and(|host| !host.is_empty())
            && bare(&uri)
            && uri.query().is_none()
    });
    if !legal || url.contains('#') {
        r.problem(key, must);
        return None;
    }
    Some(url)
}

fn read_listen(r: &mut Reader<'_>, config: &mut Config) {
    r.address("listen.api", &mut config.listen.api);
    r.address("listen.s3", &mut config.listen.s3);
    config.listen.recorder = r.opt_address("listen.recorder");
    config.listen.transfer = r.opt_address("listen.transfer");
    r.flag("listen.insecure", &mut config.listen.insecure);
    let all = [
        ("listen.api", Some(config.listen.api)),
        ("listen.s3", Some(config.listen.s3)),
        ("listen.recorder", config.listen.recorder),
        ("listen.transfer", config.listen.transfer),
    ];
    let mut taken: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    let mut beyond = false;
    for (key, address) in all {
        let Some(address) = address else { continue };
        beyond |= !address.ip().is_loopback() && key != "listen.s3";
        if address.port() != 0
            && let Some(other) = taken.insert(address, key)
        {
            r.problem(key, &format!("must not be the address of {other}"));
        }
    }
    config.listen.tls = read_tls(r, &config.listen);
    let host = config.public_url.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
    let host = host.as_ref().and_then(http::Uri::host).unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if beyond && loopback {
        config.warnings.push(
            "public_url names this machine only, but listen.api is reachable from others: devices there cannot call \
             back"
                .to_owned(),
        );
    }
    warn_of_tls(config);
}

fn read_devices(r: &mut Reader<'_>, config: &mut Config) {
    let d = &mut config.devices;
    d.recorder_url = base_url(
        r,
        "devices.recorder_url",
        ["ws", "wss"],
        "must be a base URL such as \"ws://site.example:8091\", without credentials and query: /recorder/{device_id} \
         is added to it",
    );
    d.transfer_url = base_url(
        r,
        "devices.transfer_url",
        ["ws", "wss"],
        "must be a base URL such as \"ws://site.example:8090\", without credentials and query: /transfer/{token} is \
         added to it",
    );
    r.duration("devices.rpc_timeout", &mut d.rpc_timeout, 100, 120_000, "between 100ms and 2m");
    r.duration("devices.contest_pause", &mut d.contest_pause, 1_000, 60_000, "between 1s and 1m");
    let mut ping = Duration::ZERO;
    r.duration("devices.ping_interval", &mut ping, 100, 3_600_000, "between 100ms and 1h");
    d.ping_interval = (!ping.is_zero()).then_some(ping);
    r.duration("devices.ping_timeout", &mut d.ping_timeout, 100, 3_600_000, "between 100ms and 1h");
    r.size("devices.max_message", &mut d.max_message, 1 << 10, 64 << 20, "between 1KiB and 64MiB");
    r.duration("devices.busy_patience", &mut d.busy_patience, 0, 3_600_000, "at most 1h");
    r.number("devices.message_rate", &mut d.message_rate);
    if !(1..=100_000).contains(&d.message_rate) {
        r.problem("devices.message_rate", "must be between 1 and 100000");
    }
    r.duration("devices.handshake_timeout", &mut d.handshake_timeout, 100, 120_000, "between 100ms and 2m");
    r.duration("devices.link_grace", &mut d.link_grace, 0, 86_400_000, "between 0s and 1d");
    r.duration("devices.settle", &mut d.settle, 100, 600_000, "between 100ms and 10m");
    let key = "devices.uploading_deadline";
    let most = Duration::from_secs(366 * 86_400);
    match r.opt_text(key).as_deref() {
        None => {}
        Some("never") => d.uploading_deadline = None,
        Some(text) => match parse_duration(text) {
            Ok(age) if (Duration::from_secs(60)..=most).contains(&age) => d.uploading_deadline = Some(age),
            Ok(_) => r.problem(key, "must be between 1m and 366d, or \"never\""),
            Err(why) => r.problem(key, &format!("{why}, or \"never\"")),
        },
    }
}

fn read_stream(r: &mut Reader<'_>, stream: &mut Stream) {
    r.number("stream.events", &mut stream.events);
    if !(16..=1 << 20).contains(&stream.events) {
        r.problem("stream.events", "must be between 16 and 1048576");
    }
    r.size("stream.bytes", &mut stream.bytes, 64 << 10, 4 << 30, "between 64KiB and 4GiB");
}

fn read_quality(r: &mut Reader<'_>, config: &mut Config) {
    r.flag("qa.auto_approve", &mut config.qa.auto_approve);
}

fn read_sync(r: &mut Reader<'_>, config: &mut Config) {
    let s = &mut config.sync;
    r.size("sync.part_size", &mut s.part_size, 0, u64::MAX, "");
    r.number("sync.parts_in_flight", &mut s.parts_in_flight);
    r.number("sync.uploads", &mut s.uploads);
    r.number("sync.attempts", &mut s.attempts);
    r.duration("sync.retry_base", &mut s.retry_base, 1, LONGEST_MS, "between 1ms and 1d");
    r.duration("sync.retry_cap", &mut s.retry_cap, 1, LONGEST_MS, "between 1ms and 1d");
    r.duration("sync.retry_jitter", &mut s.retry_jitter, 0, LONGEST_MS, "at most 1d");
    r.flag("sync.auto_scan", &mut s.auto_scan);
    r.duration("sync.scan_every", &mut s.scan_every, 0, u64::MAX, "");
    r.number("sync.batch", &mut s.batch);
    let mut rate = 0;
    r.size("sync.bytes_per_second", &mut rate, 1 << 10, u64::MAX, "at least 1KiB");
    s.bytes_per_second = (rate > 0).then_some(rate);
}

fn read_edge(r: &mut Reader<'_>, edge: &mut Edge) {
    match r.opt_text("edge.keep").as_deref() {
        None => {}
        Some("forever") => edge.keep = None,
        Some(text) => match parse_duration(text) {
            Ok(keep) => edge.keep = Some(keep),
            Err(why) => r.problem("edge.keep", &format!("{why}, or \"forever\"")),
        },
    }
    match r.opt_text("edge.max_clock_skew").as_deref() {
        None | Some("any") => {}
        Some(text) => match parse_duration(text) {
            Ok(skew) => edge.max_clock_skew = Some(skew),
            Err(why) => r.problem("edge.max_clock_skew", &format!("{why}, or \"any\"")),
        },
    }
    r.size("edge.reserve", &mut edge.reserve, 0, 1 << 50, "at most 1PiB");
    match r.opt_text("edge.abandoned_after").as_deref() {
        None => {}
        Some("never") => edge.abandoned_after = None,
        Some(text) => match parse_duration(text) {
            Ok(age) if age >= Duration::from_secs(3_600) => edge.abandoned_after = Some(age),
            Ok(_) => r.problem("edge.abandoned_after", "must be at least 1h, or \"never\""),
            Err(why) => r.problem("edge.abandoned_after", &format!("{why}, or \"never\"")),
        },
    }
    match (r.opt_text("edge.access_key"), r.opt_text("edge.secret_key")) {
        (Some(id), Some(secret)) if !id.is_empty() && secret.len() >= 8 => {
            edge.keys = Some((id, Secret::new(secret)));
        }
        (None, None) => {}
        (Some(_), None) => r.problem("edge.secret_key", "must be set together with edge.access_key"),
        (None, Some(_)) => r.problem("edge.access_key", "must be set together with edge.secret_key"),
        (Some(_), Some(_)) => {
            r.problem("edge.secret_key", "must be at least 8 characters, edge.access_key at least 1")
        }
    }
}

fn read_cloud(r: &mut Reader<'_>) -> Option<Cloud> {
    if !r.found.keys().any(|key| key.starts_with("cloud.")) {
        return None;
    }
    let mut cloud = Cloud {
        endpoint: r.opt_text("cloud.endpoint").map(|url| url.trim_end_matches('/').to_owned()),
        region: "us-east-1".to_owned(),
        bucket: r.need("cloud.bucket"),
        access_key: r.need("cloud.access_key"),
        secret_key: Secret::new(r.need("cloud.secret_key")),
        session_token: r.opt_text("cloud.session_token").map(Secret::new),
        path_style: false,
        attempt_timeout: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(10),
    };
    r.text("cloud.region", &mut cloud.region);
    // A store of one's own seldom has a host name for each bucket.
    cloud.path_style = cloud.endpoint.is_some();
    r.flag("cloud.path_style", &mut cloud.path_style);
    r.duration("cloud.attempt_timeout", &mut cloud.attempt_timeout, 1_000, 3_600_000, "between 1s and 1h");
    r.duration("cloud.connect_timeout", &mut cloud.connect_timeout, 100, 600_000, "between 100ms and 10m");
    if let Some(url) = &cloud.endpoint
        && !url
            .parse::<http::Uri>()
            .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
    {
        r.problem("cloud.endpoint", "must be a URL such as \"https://s3.example.com\"");
    }
    Some(cloud)
}

/// The core waits no longer than this for another attempt, whatever it is told.
const LONGEST_MS: u64 = 86_400_000;

pub(super) struct Reader<'a> {
    found: Found,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    pub(super) fn problem(&mut self, key: &str, must: &str) {
        let source: Option<Source> = self.found.get(key).map(|(_, source)| source.clone());
        self.problems.push(Problem { source, what: format!("{key} {must}") });
    }

    /// Every name that begins so.
    pub(super) fn below(&self, prefix: &str) -> Vec<String> {
        self.found.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.found.get(key).map(|(value, _)| value)
    }

    /// A text, a truth or a number, as it would be written in quotes.
    pub(super) fn opt_word(&mut self, key: &str) -> Option<String> {
        match self.value(key)? {
            Value::Bool(yes) => Some(yes.to_string()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Text(_) | Value::Pairs(_) | Value::Other => self.opt_text(key),
        }
    }

    pub(super) fn opt_text(&mut self, key: &str) -> Option<String> {
        match self.found.get(key) {
            None => None,
            Some((Value::Text(text), _)) => Some(text.clone()),
            Some((Value::Integer(_) | Value::Bool(_) | Value::Pairs(_) | Value::Other, _)) => {
                self.problem(key, "must be a text in quotes");
                None
            }
        }
    }

    fn text(&mut self, key: &str, into: &mut String) {
        if let Some(text) = self.opt_text(key) {
            *into = text;
        }
    }

    fn need(&mut self, key: &str) -> String {
        match self.opt_text(key) {
            Some(text) if !text.is_empty() => text,
            _ => {
                self.problem(key, "must be set, because another key of [cloud] is");
                String::new()
            }
        }
    }

    pub(super) fn flag(&mut self, key: &str, into: &mut bool) {
        match self.found.get(key) {
            None => {}
            Some((Value::Bool(yes), _)) => *into = *yes,
            Some((Value::Text(text), _)) if text == "true" || text == "1" => *into = true,
            Some((Value::Text(text), _)) if text == "false" || text == "0" => *into = false,
            Some((Value::Text(_) | Value::Integer(_) | Value::Pairs(_) | Value::Other, _)) => {
                self.problem(key, "must be true or false");
            }
        }
    }

    pub(super) fn number<T: TryFrom<i64>>(&mut self, key: &str, into: &mut T) {
        let number = match self.found.get(key) {
            None => return,
            Some((Value::Integer(number), _)) => Some(*number),
            Some((Value::Text(text), _)) => text.trim().parse().ok(),
            Some((Value::Bool(_) | Value::Pairs(_) | Value::Other, _)) => None,
        };
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(number) => *into = number,
            None => self.problem(key, "must be a small whole number"),
        }
    }

    pub(super) fn size(&mut self, key: &str, into: &mut u64, least: u64, most: u64, must: &str) {
        let size = match self.found.get(key) {
            None => return,
            Some((Value::Integer(number), _)) => {
                u64::try_from(*number).map_err(|_| "must be a size such as 1048576, \"8MiB\" or \"50MB\"")
            }
            Some((Value::Text(text), _)) => parse_size(text),
            Some((Value::Bool(_) | Value::Pairs(_) | Value::Other, _)) => parse_size(""),
        };
        match size {
            Ok(size) if (least..=most).contains(&size) => *into = size,
            Ok(_) => self.problem(key, &format!("must be {must}")),
            Err(why) => self.problem(key, why),
        }
    }

    pub(super) fn duration(
        &mut self,
        key: &str,
        into: &mut Duration,
        least_ms: u64,
        most_ms: u64,
        must: &str,
    ) {
        let duration = match self.found.get(key) {
            None => return,
            Some((Value::Text(text), _)) => parse_duration(text),
            Some((Value::Integer(_) | Value::Bool(_) | Value::Pairs(_) | Value::Other, _)) => {
                parse_duration("")
            }
        };
        match duration {
            Ok(d) if (u128::from(least_ms)..=u128::from(most_ms)).contains(&d.as_millis()) => *into = d,
            Ok(_) => self.problem(key, &format!("must be {must}")),
            Err(why) => self.problem(key, why),
        }
    }

    fn opt_address(&mut self, key: &str) -> Option<SocketAddr> {
        let port = match self.found.get(key) {
            None => return None,
            Some((Value::Integer(port), _)) => u16::try_from(*port).ok(),
            Some((Value::Text(text), _)) => {
                if let Ok(address) = text.replace("localhost:", "127.0.0.1:").parse() {
                    return Some(address);
                }
                text.parse().ok()
            }
            Some((Value::Bool(_) | Value::Pairs(_) | Value::Other, _)) => None,
        };
        // A port alone is one of this machine.
        let address = port.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        if address.is_none() {
            self.problem(key, "must be an address such as \"127.0.0.1:8080\", or a port");
        }
        address
    }

    fn address(&mut self, key: &str, into: &mut SocketAddr) {
        if let Some(address) = self.opt_address(key) {
            *into = address;
        }
    }
}
