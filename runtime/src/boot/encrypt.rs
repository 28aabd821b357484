//! Reads the certificate of the site's listeners, once, before anything is opened. Knows no listener.

use std::path::Path;

use super::BootError;
use crate::config::{Config, read_text};
use crate::seam::{Blocking, Seams};
use crate::tls::{Acceptor, BadPair};

/// The server side of TLS, if it is configured. What is wrong is said by the name of the setting.
pub(super) async fn acceptor<S: Seams>(seams: &S, config: &Config) -> Result<Option<Acceptor>, BootError> {
    let Some(tls) = config.listen.tls.clone() else { return Ok(None) };
    let disk = seams.disk().clone();
    let made = seams.blocking().run(move || {
        let read = |key: &str, path: &Path| {
            read_text(&disk, path)
                .map_err(|error| format!("{key}: {} cannot be read as a PEM file: {error}", path.display()))
        };
        let certificates = read("listen.tls_cert", &tls.cert)?;
        let key = read("listen.tls_key", &tls.key)?;
        Acceptor::from_pem(certificates.as_bytes(), key.as_bytes()).map_err(|bad| match bad {
            BadPair::Certificate(why) => format!("listen.tls_cert: {}: {why}", tls.cert.display()),
            BadPair::Key(why) => format!("listen.tls_key: {}: {why}", tls.key.display()),
            BadPair::Unfit => format!(
                "listen.tls_key: {} is not the key of the certificate in listen.tls_cert ({}); its own certificate must \
                 be the first one in there",
                tls.key.display(),
                tls.cert.display()
            ),
        })
    });
    made.await.map(Some).map_err(BootError::Config)
}
