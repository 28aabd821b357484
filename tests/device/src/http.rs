//! Owns plain HTTP/1.1 requests over the seam, one connection each. No redirects, no TLS, no retries.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tidegate_runtime::seam::{Net, Stream};

/// The body of a request.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body that is in memory already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Why a request has no answer.
#[derive(Debug)]
pub enum HttpError {
    /// No socket.
    Connect(io::Error),
    /// The exchange broke.
    Broken(String),
    /// Nothing came in time.
    TimedOut(Duration),
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "connect: {error}"),
            Self::Broken(what) => f.write_str(what),
            Self::TimedOut(after) => write!(f, "no answer within {after:?}"),
        }
    }
}

impl std::error::Error for HttpError {}

impl From<hyper::Error> for HttpError {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `Null` if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Http<N> {
    net: N,
    host: String,
    port: u16,
    timeout: Duration,
}

impl<N: Net> Http<N> {
    /// A client of `host:port`. Each step of an exchange (connecting, the head, each piece of the body) may take
    /// ten seconds.
    pub fn new(net: N, host: impl Into<String>, port: u16) -> Self {
        Self { net, host: host.into(), port, timeout: Duration::from_secs(10) }
    }

    /// The same client with another bound per step.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// GET, the answer's body as JSON (`Null` if it is none).
    ///
    /// # Errors
    /// If there is no answer; every status is an answer.
    pub async fn get(&self, path: &str) -> Result<(u16, HeaderMap, Value), HttpError> {
        let answer = self.send(Method::GET, path, &[], None).await?;
        let json = answer.json();
        Ok((answer.status.as_u16(), answer.headers, json))
    }

    /// POST of a JSON body, the answer's body as JSON (`Null` if it is none).
    ///
    /// # Errors
    /// If there is no answer; every status is an answer.
    pub async fn post(&self, path: &str, body: &Value) -> Result<(u16, HeaderMap, Value), HttpError> {
        let answer = self.send(Method::POST, path, &[], Some(body)).await?;
        let json = answer.json();
        Ok((answer.status.as_u16(), answer.headers, json))
    }

    /// Any method with any headers; `body` goes as JSON.
    ///
    /// # Errors
    /// If there is no answer, or the request cannot be written down.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, HttpError> {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header(HOST, format!("{}:{}", self.host, self.port));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bytes = body.map(Value::to_string).unwrap_or_default();
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json").header(CONTENT_LENGTH, bytes.len());
        }
        let request = request.body(full(bytes)).map_err(|error| HttpError::Broken(error.to_string()))?;
        self.exchange(request).await?.collect().await
    }

    /// Sends a prepared request (with its Host header) and waits for the head of the answer.
    ///
    /// # Errors
    /// If there is none.
    pub async fn exchange(&self, request: Request<Body>) -> Result<Exchange<N::Stream>, HttpError> {
        let stream = bounded(self.timeout, async {
            self.net.connect(&self.host, self.port).await.map_err(HttpError::Connect)
        })
        .await?;
        let (mut sender, connection) =
            http1::Builder::new().title_case_headers(true).handshake(TokioIo::new(stream)).await?;
        let mut connection = Some(Box::pin(connection));
        let answer = async { Ok(sender.send_request(request).await?) };
        let response = bounded(self.timeout, drive(&mut connection, answer)).await?;
        Ok(Exchange { connection, response, timeout: self.timeout })
    }
}

type Connection<T> = Pin<Box<http1::Connection<TokioIo<T>, Body>>>;

/// An answer whose body is still arriving. Dropping it closes the connection.
pub struct Exchange<T: Stream> {
    connection: Option<Connection<T>>,
    response: Response<Incoming>,
    timeout: Duration,
}

impl<T: Stream> Exchange<T> {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// If the rest does not come.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let body = self.response.body_mut();
            let frame = bounded(
                self.timeout,
                drive(&mut self.connection, async { Ok(body.frame().await.transpose()?) }),
            )
            .await?;
            match frame.map(hyper::body::Frame::into_data) {
                None => return Ok(None),
                Some(Ok(bytes)) => return Ok(Some(bytes)),
                // Trailers.
                Some(Err(_)) => {}
            }
        }
    }

    /// The whole answer.
    ///
    /// # Errors
    /// If the rest does not come, or is over 64 MiB.
    pub async fn collect(mut self) -> Result<Answer, HttpError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(HttpError::Broken(format!("the answer is over {ANSWER_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let (head, _) = self.response.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body: body.into() })
    }
}

/// Polls the connection along with `work`, so that no task outlives a dropped request.
async fn drive<T: Stream, R>(
    connection: &mut Option<Connection<T>>,
    work: impl Future<Output = Result<R, HttpError>>,
) -> Result<R, HttpError> {
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| {
        if let Some(running) = connection
            && let Poll::Ready(_outcome) = running.as_mut().poll(cx)
        {
            // How it ended reaches `work` too, through the channel between the two.
            *connection = None;
        }
        work.as_mut().poll(cx)
    })
    .await
}

async fn bounded<R>(
    timeout: Duration,
    work: impl Future<Output = Result<R, HttpError>>,
) -> Result<R, HttpError> {
    match tokio::time::timeout(timeout, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(HttpError::TimedOut(timeout)),
    }
}

/// Larger answers are read in pieces or not at all.
const ANSWER_MAX: usize = 64 << 20;
