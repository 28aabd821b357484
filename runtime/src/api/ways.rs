//! Owns where devices are told to come: the addresses in what registration and rotation answer. Knows no token and opens
//! nothing.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Uri};
use tidegate_core::id::{DeviceId, Role};

/// A listener, as devices reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Its port.
    pub port: u16,
    /// Whether it speaks TLS.
    pub tls: bool,
}

impl Way {
    fn scheme(self) -> &'static str {
        if self.tls { "wss" } else { "ws" }
    }
}

/// What the configuration says of where devices come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ways {
    /// `devices.recorder_url`: what recorders are told, whatever the rest says.
    pub recorder_url: Option<String>,
    /// `devices.transfer_url`: the same for uploaders.
    pub transfer_url: Option<String>,
    /// `public_url`
    pub public_url: Option<String>,
    /// The listener of the API, which takes all links.
    pub api: Way,
    /// The listener that recorders have to themselves, if they have one.
    pub recorder: Option<Way>,
    /// The same of uploaders.
    pub transfer: Option<Way>,
}

/// Where one device is told to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    /// Host and port of callbacks, as recorders compare them.
    pub(super) callbacks: String,
    recorder: String,
    transfer: String,
}

impl Ways {
    /// For a device whose request has these headers. Without `public_url` it is told to come the way it came; `None` if
    /// that is not known either.
    pub(super) fn base(&self, headers: &HeaderMap) -> Option<Base> {
        let public = self.public_url.clone().or_else(|| self.asked_for(headers));
        let public: Option<Uri> = public.and_then(|url| url.parse().ok());
        let (recorder, transfer) = (
            self.of(self.recorder_url.as_deref(), self.recorder, public.as_ref())?,
            self.of(self.transfer_url.as_deref(), self.transfer, public.as_ref())?,
        );
        let told: Option<Uri> = recorder.parse().ok();
        let callbacks = public.as_ref().or(told.as_ref()).and_then(Uri::authority)?.to_string();
        Some(Base { callbacks, recorder, transfer })
    }

    /// The address that the request itself was sent to.
    fn asked_for(&self, headers: &HeaderMap) -> Option<String> {
        let host: Authority = headers.get(HOST)?.to_str().ok()?.parse().ok()?;
        if host.as_str().contains('@') {
            return None;
        }
        let scheme = if self.api.tls { "https" } else { "http" };
        Some(format!("{scheme}://{host}"))
    }

    fn of(&self, said: Option<&str>, own: Option<Way>, public: Option<&Uri>) -> Option<String> {
        if let Some(said) = said {
            return Some(said.to_owned());
        }
        let public = public?;
        let at = |way: Way| Some(format!("{}://{}:{}", way.scheme(), public.host()?, way.port));
        if let Some(own) = own {
            return at(own);
        }
        // A port that only the other program has, which recorders need for their callbacks, takes no link of this one.
        let others = [self.recorder, self.transfer].into_iter().flatten();
        if others.map(|way| Some(way.port)).any(|port| port == public.port_u16()) {
            return at(self.api);
        }
        let scheme = if public.scheme_str() == Some("https") { "wss" } else { "ws" };
        Some(format!("{scheme}://{}{}", public.authority()?, public.path().trim_end_matches('/')))
    }
}

impl Base {
    /// What the program of a device is told: a recorder dials it as it is, an uploader adds its device id to it. `token` is
    /// what an uploader has in its path.
    pub(super) fn url(&self, role: Role, device: &DeviceId, token: &str) -> String {
        match role {
            Role::Recorder => format!("{}/recorder/{device}", self.recorder),
            Role::Transfer => format!("{}/transfer/{token}", self.transfer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways() -> Ways {
        Ways {
            recorder_url: None,
            transfer_url: None,
            public_url: None,
            api: Way { port: 8080, tls: false },
            recorder: None,
            transfer: None,
        }
    }

    fn host(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HOST, value.parse().expect("a legal value"))])
    }

    /// What the recorder, the uploader and the callbacks are told.
    fn told(ways: &Ways, headers: &HeaderMap) -> Option<[String; 3]> {
        let base = ways.base(headers)?;
        let device = DeviceId::new("d").expect("legal");
        let of = |role| base.url(role, &device, "t");
        Some([of(Role::Recorder), of(Role::Transfer), base.callbacks.clone()])
    }

    fn texts(texts: [&str; 3]) -> Option<[String; 3]> {
        Some(texts.map(str::to_owned))
    }

    #[test]
    fn a_device_is_told_to_come_where_the_site_is_known() {
        let public_url = Some("http://edge:8080/site".to_owned());
        let known = Ways { public_url, ..ways() };
        let expected = ["ws://edge:8080/site/recorder/d", "ws://edge:8080/site/transfer/t", "edge:8080"];
        assert_eq!(told(&known, &host("other:1")), texts(expected), "whatever the request says");
        // Behind a port of its own a listener has nothing of the path.
        let own = Ways { recorder: Some(Way { port: 8091, tls: false }), ..known };
        let expected = ["ws://edge:8091/recorder/d", "ws://edge:8080/site/transfer/t", "edge:8080"];
        assert_eq!(told(&own, &HeaderMap::new()), texts(expected));
    }

    #[test]
    fn each_listener_is_named_with_what_it_speaks() {
        let two = Ways {
            public_url: Some("https://[fd00::5]:8443".to_owned()),
            api: Way { port: 8443, tls: true },
            recorder: Some(Way { port: 8091, tls: false }),
            transfer: Some(Way { port: 8090, tls: true }),
            ..ways()
        };
        let expected =
            ["ws://[fd00::5]:8091/recorder/d", "wss://[fd00::5]:8090/transfer/t", "[fd00::5]:8443"];
        assert_eq!(told(&two, &HeaderMap::new()), texts(expected));
        // Callbacks go to the port of recorders, which takes no uploader.
        let mixed = Ways { public_url: Some("http://edge:8091".to_owned()), transfer: None, ..two };
        let expected = ["ws://edge:8091/recorder/d", "wss://edge:8443/transfer/t", "edge:8091"];
        assert_eq!(told(&mixed, &HeaderMap::new()), texts(expected));
    }

    #[test]
    fn without_a_public_address_a_device_is_told_to_come_the_way_it_came() {
        let expected = ["ws://10.0.0.5:9999/recorder/d", "ws://10.0.0.5:9999/transfer/t", "10.0.0.5:9999"];
        assert_eq!(told(&ways(), &host("10.0.0.5:9999")), texts(expected));
        let own = Ways { recorder: Some(Way { port: 8091, tls: false }), ..ways() };
        let expected = ["ws://10.0.0.5:8091/recorder/d", "ws://10.0.0.5:8080/transfer/t", "10.0.0.5:8091"];
        assert_eq!(told(&own, &host("10.0.0.5:8091")), texts(expected));
        assert_eq!(told(&ways(), &HeaderMap::new()), None);
        assert_eq!(told(&ways(), &host("me:secret@10.0.0.5")), None);
    }

    #[test]
    fn what_was_said_for_a_program_counts_before_everything_else() {
        let said = Ways {
            recorder_url: Some("ws://plain.example:81/r".to_owned()),
            public_url: Some("https://edge".to_owned()),
            recorder: Some(Way { port: 8091, tls: false }),
            ..ways()
        };
        let expected = ["ws://plain.example:81/r/recorder/d", "wss://edge/transfer/t", "edge"];
        assert_eq!(told(&said, &HeaderMap::new()), texts(expected));
        let both = Ways { transfer_url: Some("wss://edge.example".to_owned()), public_url: None, ..said };
        let expected =
            ["ws://plain.example:81/r/recorder/d", "wss://edge.example/transfer/t", "plain.example:81"];
        assert_eq!(told(&both, &HeaderMap::new()), texts(expected));
    }
}
