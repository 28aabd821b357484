//! Owns how the SDK reaches the network: over the [`Net`] seam, with TLS if the URL says so. Retries nothing; its
//! errors tell whether a request can have left.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tidegate_runtime::seam::{Net, Stream};
use tidegate_runtime::timeouts::{Op, Timeouts};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::config::SetupError;
use crate::silence::Silence;

/// How long an unused connection is kept. Stores close theirs after some 20 s; a request on one that is closing ends
/// as `Unknown`, which costs a question.
const POOL_IDLE: Duration = Duration::from_secs(15);

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Dial<N> {
    pub(crate) net: N,
    pub(crate) tls: Option<TlsConnector>,
    pub(crate) connect_timeout: Duration,
    pub(crate) silence: Duration,
    pub(crate) timeouts: Timeouts,
}

/// The error of a request that surely was not sent: there was no connection to send it on.
#[derive(Debug)]
pub(crate) struct Unsent(Box<dyn Error + Send + Sync>);

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no connection to the store")
    }
}

impl Error for Unsent {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

/// TLS with the roots of the system.
pub(crate) fn tls() -> Result<TlsConnector, SetupError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(SetupError::NoRoots);
    }
    tls_with(roots)
}

fn tls_with(roots: RootCertStore) -> Result<TlsConnector, SetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

impl<N: Net> Dial<N> {
    async fn connect(self, uri: Uri) -> io::Result<Wire<N::Stream>> {
        let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?;
        let encrypted = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let stream = Silence::new(self.net.connect(host, port).await?, self.silence);
        if !encrypted {
            return Ok(Wire::Plain(stream));
        }
        let tls = self.tls.ok_or(io::ErrorKind::Unsupported)?;
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name =
            ServerName::try_from(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = tls.connect(name, stream).await.inspect_err(|error| {
            // Nobody retries a wrong certificate into a right one: somebody should know.
            tracing::warn!(host, %error, "no TLS connection to the store");
        })?;
        Ok(Wire::Tls(Box::new(stream)))
    }
}

impl<N: Net> Service<Uri> for Dial<N> {
    type Response = TokioIo<Wire<N::Stream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move {
            let (timeouts, bound, begun) = (dial.timeouts.clone(), dial.connect_timeout, Instant::now());
            let host = uri.host().unwrap_or_default().to_owned();
            let wire = tokio::time::timeout(bound, dial.connect(uri)).await;
            let wire = wire.inspect_err(|_| timeouts.out(Op::StoreConnect, &host, bound, begun.elapsed()));
            Ok(TokioIo::new(wire.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??))
        })
    }
}

/// A connection, encrypted or not.
pub(crate) enum Wire<T> {
    Plain(Silence<T>),
    Tls(Box<TlsStream<Silence<T>>>),
}

impl<T: Stream> Connection for Wire<T> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl<T: Stream> AsyncRead for Wire<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<T: Stream> AsyncWrite for Wire<T> {
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

/// Whether a request ended because nothing moved any more.
pub(crate) fn is_silence(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The SDK's HTTP client: a pool of connections made by a [`Dial`].
#[derive(Clone)]
pub(crate) struct Http<N: Net> {
    client: Client<Dial<N>, SdkBody>,
    silence: Duration,
    timeouts: Timeouts,
}

impl<N: Net> Http<N> {
    pub(crate) fn new(dial: Dial<N>) -> Http<N> {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_idle_timeout(POOL_IDLE).pool_timer(TokioTimer::new());
        let (silence, timeouts) = (dial.silence, dial.timeouts.clone());
        Http { client: builder.build(dial), silence, timeouts }
    }
}

impl<N: Net> fmt::Debug for Http<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

impl<N: Net> HttpClient for Http<N> {
    // The settings hold the timeouts that the dial and the silence limit hold already.
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl<N: Net> HttpConnector for Http<N> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Http { client, silence, timeouts } = self.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let target = format!("{} {}", request.method(), request.uri().path());
            let begun = Instant::now();
            match client.request(request).await {
                Ok(response) => HttpResponse::try_from(response.map(SdkBody::from_body_1_x))
                    .map_err(|error| ConnectorError::other(error.into(), None)),
                Err(error) if error.is_connect() => Err(ConnectorError::io(Box::new(Unsent(error.into())))),
                Err(error) => {
                    if is_silence(&error) {
                        timeouts.out(Op::StoreSilence, &target, silence, begun.elapsed());
                    }
                    Err(ConnectorError::io(error.into()))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
