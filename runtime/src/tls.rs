//! Owns TLS of both sides: the certificate of a listener, the authorities a client trusts, and streams that are encrypted
//! or not. Opens no file and no socket, and knows nothing of what the streams carry.
//!
//! TLS 1.2 and 1.3 with ring, and HTTP/1.1 alone in ALPN; see docs/decisions/0015.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::seam::{Listener, Net, Stream};
use crate::timeouts::{Op, Timeouts};

/// Why a certificate and its key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPair {
    /// There is no certificate in the first file, or one that cannot be read.
    #[error("{0}")]
    Certificate(String),
    /// There is no private key in the second file, or one that cannot be used.
    #[error("{0}")]
    Key(String),
    /// Each is fine, but the key is not that of the certificate.
    #[error("the key is not that of the certificate")]
    Unfit,
}

/// The server side of a listener: its certificate and key. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Acceptor {
    /// Takes a chain of certificates, the site's own first, and the private key of that one, both PEM.
    ///
    /// # Errors
    /// [`BadPair`]; nothing of the key is in its words.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Acceptor, BadPair> {
        let chain = chain(certificates).map_err(BadPair::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            let encrypted = key.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED);
            BadPair::Key(if encrypted {
                "it is encrypted with a passphrase, which nobody could type at a start: store it without one, \
                 readable by its owner only"
                    .to_owned()
            } else {
                "it holds no private key: it must be PEM, PKCS#8, PKCS#1 or SEC1".to_owned()
            })
        })?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has suites of both versions")
            .with_no_client_auth()
            .with_single_cert(chain, key);
        let mut config = config.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => BadPair::Unfit,
            rustls::Error::InvalidCertificate(_) => {
                BadPair::Certificate(format!("its first certificate cannot be used: {error}"))
            }
            error => BadPair::Key(format!("the key cannot be used: {error}")),
        })?;
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        Ok(Acceptor(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands with a client. Takes as long as the client does: callers bound it.
    async fn accept<S: Stream>(&self, stream: S) -> io::Result<Wire<S>> {
        Ok(Wire::Tls(Box::new(TlsStream::from(self.0.accept(stream).await?))))
    }
}

/// A stream that a listener accepted, after the handshake if it speaks TLS. `None` if there was none within the bound:
/// then nothing more is to be said on it.
pub(crate) async fn entered<S: Stream>(
    acceptor: Option<&Acceptor>,
    stream: S,
    peer: SocketAddr,
    bound: Duration,
    timeouts: &Timeouts,
) -> Option<Wire<S>> {
    let Some(acceptor) = acceptor else { return Some(Wire::Plain(stream)) };
    let begun = Instant::now();
    match tokio::time::timeout(bound, acceptor.accept(stream)).await {
        Ok(Ok(wire)) => Some(wire),
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "a client did not shake hands");
            None
        }
        Err(_) => {
            timeouts.out(Op::Tls, &peer, bound, begun.elapsed());
            None
        }
    }
}

/// The authorities that a client trusts.
#[derive(Clone, Debug)]
pub struct Roots(RootCertStore);

impl Roots {
    /// Those of the system. May block for a moment.
    ///
    /// # Errors
    /// If there are none.
    pub fn of_system() -> Result<Roots, String> {
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if added == 0 {
            Err("this system has no certificates of authorities".to_owned())
        } else {
            Ok(Roots(roots))
        }
    }

    /// Those of a PEM file, and no others. A certificate that was signed by itself may stand for its own authority.
    ///
    /// # Errors
    /// Why the file cannot be used.
    pub fn from_pem(certificates: &[u8]) -> Result<Roots, String> {
        let mut roots = RootCertStore::empty();
        for certificate in chain(certificates)? {
            roots
                .add(certificate)
                .map_err(|error| format!("it holds a certificate that cannot be used: {error}"))?;
        }
        Ok(Roots(roots))
    }
}

/// A network that encrypts what it connects, if it was given authorities to trust.
#[derive(Clone)]
pub struct TlsNet<N> {
    net: N,
    connector: Option<TlsConnector>,
}

impl<N: fmt::Debug> fmt::Debug for TlsNet<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encrypts = self.connector.is_some();
        f.debug_struct("TlsNet").field("net", &self.net).field("encrypts", &encrypts).finish()
    }
}

impl<N: Net> TlsNet<N> {
    /// Connects as `net` does.
    pub fn plain(net: N) -> TlsNet<N> {
        TlsNet { net, connector: None }
    }

    /// Connects with TLS to servers that prove by one of these authorities that they have the name that is dialled.
    pub fn encrypted(net: N, roots: Roots) -> TlsNet<N> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has suites of both versions")
            .with_root_certificates(roots.0)
            .with_no_client_auth();
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        TlsNet { net, connector: Some(TlsConnector::from(Arc::new(config))) }
    }
}

/// Why a server that answered is not spoken to. Inside the [`io::Error`] of [`Net::connect`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTls {
    /// It does not prove who it is.
    #[error("its certificate is not trusted: {0}")]
    Untrusted(String),
    /// What it says is no TLS.
    #[error("what listens there does not speak TLS")]
    NotSpoken,
    /// Anything else, in the words of the library.
    #[error("no TLS connection: {0}")]
    Other(String),
}

impl NoTls {
    fn of(error: &io::Error) -> Option<NoTls> {
        Some(match error.get_ref()?.downcast_ref::<rustls::Error>()? {
            error @ rustls::Error::InvalidCertificate(why) => {
                // What `openssl req -x509` makes unless told otherwise.
                if format!("{why:?}").contains("CaUsedAsEndEntity") {
                    NoTls::Untrusted(
                        "it is the certificate of an authority (CA:TRUE), not that of a server; make one with \
                         basicConstraints=CA:FALSE"
                            .to_owned(),
                    )
                } else {
                    NoTls::Untrusted(error.to_string())
                }
            }
            rustls::Error::InvalidMessage(_) => NoTls::NotSpoken,
            error => NoTls::Other(error.to_string()),
        })
    }
}

impl<N: Net> Net for TlsNet<N> {
    type Stream = Wire<N::Stream>;
    type Listener = PlainListener<N::Listener>;

    /// Listens without TLS: who listens with it has an [`Acceptor`].
    async fn bind(&self, addr: SocketAddr) -> io::Result<Self::Listener> {
        Ok(PlainListener(self.net.bind(addr).await?))
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<Self::Stream> {
        let stream = self.net.connect(host, port).await?;
        let Some(connector) = &self.connector else { return Ok(Wire::Plain(stream)) };
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name =
            ServerName::try_from(bare).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        match connector.connect(name, stream).await {
            Ok(stream) => Ok(Wire::Tls(Box::new(TlsStream::from(stream)))),
            Err(error) => Err(match NoTls::of(&error) {
                Some(why) => io::Error::new(error.kind(), why),
                None => error,
            }),
        }
    }
}

/// A listener of a [`TlsNet`].
#[derive(Debug)]
pub struct PlainListener<L>(L);

impl<L: Listener> Listener for PlainListener<L> {
    type Stream = Wire<L::Stream>;

    async fn accept(&mut self) -> io::Result<(Self::Stream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Wire::Plain(stream), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A stream, encrypted or not.
#[derive(Debug)]
pub enum Wire<S> {
    /// As it is.
    Plain(S),
    /// Within TLS; the state of a connection is a few kilobytes.
    Tls(Box<TlsStream<S>>),
}

impl<S> Wire<S> {
    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Wire::Tls(_))
    }
}

impl<S: Stream> AsyncRead for Wire<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<S: Stream> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Wire::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The certificates of a PEM file, at least one.
fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| format!("it is no PEM file: {error}"))?;
    if chain.is_empty() {
        return Err("it holds no certificate: it must be PEM, the server's own certificate first".to_owned());
    }
    Ok(chain)
}

/// Said each time: a process may have another default, or none.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The one protocol that listeners here speak.
const HTTP_1: &[u8] = b"http/1.1";
/// How PEM names a key behind a passphrase.
const ENCRYPTED: &[u8] = b"ENCRYPTED";

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
pub(crate) mod tests;
