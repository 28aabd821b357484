//! Which listeners speak TLS, and with what: the keys, what they say together, and what they leave out. Reads no
//! certificate.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::read::Reader;
use super::{Config, Listen};

/// One of the site's listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// `listen.api`
    Api,
    /// `listen.s3`
    S3,
    /// `listen.recorder`
    Recorder,
    /// `listen.transfer`
    Transfer,
}

impl Door {
    /// All of them.
    pub const ALL: [Door; 4] = [Door::Api, Door::S3, Door::Recorder, Door::Transfer];

    /// Its name in lists of listeners, and after `listen.`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Door::Api => "api",
            Door::S3 => "s3",
            Door::Recorder => "recorder",
            Door::Transfer => "transfer",
        }
    }
}

/// TLS of listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// `listen.tls_cert`: PEM, the site's own certificate first. Read once, at the start.
    pub cert: PathBuf,
    /// `listen.tls_key`: PEM, its private key.
    pub key: PathBuf,
    /// `listen.tls`: the listeners that speak it, and nothing else.
    pub on: BTreeSet<Door>,
}

impl Listen {
    /// Whether a listener speaks TLS.
    #[must_use]
    pub fn encrypts(&self, door: Door) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.on.contains(&door))
    }
}

pub(super) fn read_tls(r: &mut Reader<'_>, listen: &Listen) -> Option<Tls> {
    let (cert, key) = (r.opt_text("listen.tls_cert"), r.opt_text("listen.tls_key"));
    let doors = r.opt_text("listen.tls");
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) if !cert.is_empty() && !key.is_empty() => (cert, key),
        (None, None) => {
            if doors.is_some() {
                let must = "names listeners that speak TLS: set listen.tls_cert and listen.tls_key as well";
                r.problem("listen.tls", must);
            }
            return None;
        }
        (cert, _) => {
            let empty = |text: Option<String>| text.is_none_or(|text| text.is_empty());
            let (half, other) = if empty(cert) { ("cert", "key") } else { ("key", "cert") };
            r.problem(
                &format!("listen.tls_{half}"),
                &format!("must be the path of a PEM file, set together with listen.tls_{other}"),
            );
            return None;
        }
    };
    let mut on = BTreeSet::new();
    for word in doors.as_deref().unwrap_or("api").split(',').map(str::trim) {
        let Some(door) = Door::ALL.into_iter().find(|door| door.name() == word) else {
            r.problem(
                "listen.tls",
                "must be a list of api, s3, recorder and transfer, with commas between them",
            );
            return None;
        };
        let closed = match door {
            Door::Api | Door::S3 => false,
            Door::Recorder => listen.recorder.is_none(),
            Door::Transfer => listen.transfer.is_none(),
        };
        if closed {
            r.problem(
                "listen.tls",
                &format!("names {word}, but listen.{word} is not set: set it, or leave {word} out"),
            );
        }
        on.insert(door);
    }
    Some(Tls { cert: cert.into(), key: key.into(), on })
}

/// What is legal of TLS and devices, but leaves some of them out.
pub(super) fn warn_of_tls(config: &mut Config) {
    let Some(tls) = &config.listen.tls else { return };
    let plain = |door: Door| !tls.on.contains(&door);
    let recorder = config.listen.recorder.is_some() && plain(Door::Recorder);
    if !recorder && !plain(Door::Api) {
        let text = "recorders as they are shipped do no TLS, and no listener without it takes them: set \
                    listen.recorder, or leave it out of listen.tls";
        config.warnings.push(text.to_owned());
    }
    let uri = config.public_url.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
    let (scheme, port) = uri.as_ref().map_or((None, None), |uri| (uri.scheme_str(), uri.port_u16()));
    if scheme == Some("http") && port == Some(config.listen.api.port()) && !plain(Door::Api) {
        let text = "public_url begins with http:// and has the port of listen.api, which speaks TLS: callbacks of \
                    recorders will not arrive; name the port of listen.recorder, which serves them too, or use https://";
        config.warnings.push(text.to_owned());
    }
}
