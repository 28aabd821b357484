//! Owns where the objects go and with which keys, and the check that it can work. Reads no file and no environment.

use std::fmt;
use std::time::Duration;

use http::Uri;

/// A destination: a bucket of an S3 store, and how to reach it.
#[derive(Clone)]
pub struct CloudConfig {
    /// `http://` or `https://`, host and port. `None`: AWS, by region.
    pub endpoint: Option<String>,
    /// Region that requests are signed for.
    pub region: String,
    /// Bucket.
    pub bucket: String,
    /// Public half of the keys.
    pub access_key: String,
    /// Secret half of the keys. Never printed.
    pub secret_key: String,
    /// Session token of temporary keys. Never printed.
    pub session_token: Option<String>,
    /// Whether the bucket stands in the path instead of the host name. Most stores that are not AWS want it.
    pub path_style: bool,
    /// How long an answer may take, and how long a connection in use may be silent. Requests with a body get time on
    /// top, by its length.
    pub attempt_timeout: Duration,
    /// How long a connection may take, name lookup and TLS included. Shorter than `attempt_timeout`: a connection
    /// that was not made proves that nothing was sent.
    pub connect_timeout: Duration,
}

impl fmt::Debug for CloudConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudConfig")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("bucket", &self.bucket)
            .field("path_style", &self.path_style)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

/// Why a destination cannot work. Names the field and the fix.
#[derive(Debug, PartialEq, Eq)]
pub enum SetupError {
    /// A field that must not be empty is.
    Empty(&'static str),
    /// The endpoint is no URL of a store.
    Endpoint(&'static str),
    /// `connect_timeout` is zero or not shorter than `attempt_timeout`.
    Timeouts,
    /// The system has no root certificates.
    NoRoots,
    /// TLS cannot be set up.
    Tls(String),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetupError::Empty(field) => write!(f, "{field} is empty; set it"),
            SetupError::Endpoint(why) => {
                write!(f, "endpoint {why}; write it as http://host:port or https://host:port")
            }
            SetupError::Timeouts => {
                f.write_str("connect_timeout must be longer than zero and shorter than attempt_timeout")
            }
            SetupError::NoRoots => f.write_str(
                "the system has no root certificates for https; install them (often the package ca-certificates)",
            ),
            SetupError::Tls(why) => write!(f, "TLS cannot be set up: {why}"),
        }
    }
}

impl std::error::Error for SetupError {}

impl CloudConfig {
    /// Whether connections are encrypted.
    ///
    /// # Errors
    /// [`SetupError`] for the first field that cannot work.
    pub(crate) fn check(&self) -> Result<bool, SetupError> {
        for (field, value) in [
            ("region", &self.region),
            ("bucket", &self.bucket),
            ("access_key", &self.access_key),
            ("secret_key", &self.secret_key),
        ] {
            if value.trim().is_empty() {
                return Err(SetupError::Empty(field));
            }
        }
        if self.connect_timeout.is_zero() || self.connect_timeout >= self.attempt_timeout {
            return Err(SetupError::Timeouts);
        }
        let Some(endpoint) = &self.endpoint else { return Ok(true) };
        let uri: Uri = endpoint.parse().map_err(|_| SetupError::Endpoint("is no URL"))?;
        let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
            return Err(SetupError::Endpoint("has no host"));
        };
        if authority.as_str().contains('@') {
            return Err(SetupError::Endpoint(
                "contains a user name; keys belong into access_key and secret_key",
            ));
        }
        match uri.scheme_str() {
            Some("http") => Ok(false),
            Some("https") => Ok(true),
            Some(_) | None => Err(SetupError::Endpoint("is neither http nor https")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> CloudConfig {
        CloudConfig {
            endpoint: Some("http://127.0.0.1:9000".to_owned()),
            region: "us-east-1".to_owned(),
            bucket: "fleet".to_owned(),
            access_key: "the-id".to_owned(),
            secret_key: "the-secret".to_owned(),
            session_token: Some("the-token".to_owned()),
            path_style: true,
            attempt_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
        }
    }

    #[test]
    fn debug_output_holds_no_key() {
        let text = format!("{:?}", sample());
        assert!(text.contains("fleet"));
        for hidden in ["the-id", "the-secret", "the-token"] {
            assert!(!text.contains(hidden), "{text}");
        }
    }

    #[test]
    fn the_scheme_of_the_endpoint_says_whether_to_encrypt() {
        for (endpoint, encrypted) in
            [(Some("http://host:1"), false), (Some("https://host"), true), (None, true)]
        {
            let config = CloudConfig { endpoint: endpoint.map(str::to_owned), ..sample() };
            assert_eq!(config.check(), Ok(encrypted), "{endpoint:?}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_field() {
        for endpoint in ["", "host:9000", "ftp://host", "/path", "http://me:word@host", "http://"] {
            let config = CloudConfig { endpoint: Some(endpoint.to_owned()), ..sample() };
            assert!(matches!(config.check(), Err(SetupError::Endpoint(_))), "{endpoint}");
        }
        let config = CloudConfig { bucket: " ".to_owned(), ..sample() };
        assert_eq!(config.check(), Err(SetupError::Empty("bucket")));
        let config = CloudConfig { connect_timeout: Duration::from_secs(30), ..sample() };
        assert_eq!(config.check(), Err(SetupError::Timeouts));
    }
}
