//! Owns the accept loop of the endpoint: bounded connections, HTTP/1 on each, and a shutdown within a budget. One
//! connection's failure never ends the loop.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::Body;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Endpoint;
use super::drain::Lent;
use super::limits;
use super::observe::{Notes, Observer};
use crate::seam::{Listener, Seams, Stream};
use crate::server::Patience;

/// Rest before accepting again after an error: a full descriptor table does not empty faster.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl<S: Seams> Endpoint<S> {
    /// Serves connections of `listener` until `shutdown` resolves, then lets requests under way end within the
    /// budget and drops the rest.
    pub async fn serve<L: Listener>(&self, mut listener: L, shutdown: impl Future<Output = ()>) {
        let mut shutdown = std::pin::pin!(shutdown);
        let (closing, _) = watch::channel(false);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = listener.accept(), if connections.len() < self.shared.connections_max => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(connection(self.clone(), stream, closing.subscribe()));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "accepting a connection failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        closing.send_replace(true);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.shared.shutdown_budget, all).await.is_err() {
            connections.shutdown().await;
        }
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let notes = Notes::default();
        request.extensions_mut().insert(notes.clone());
        let mut unanswered = Unanswered { observer: self.shared.observer.clone(), notes: notes.clone() };
        // Who asks before sending has not sent; reading would invite it to.
        let asks_first = request.headers().contains_key(http::header::EXPECT);
        let (head, body) = request.into_parts();
        let lent = Lent::new(body);
        let request = Request::from_parts(head, Body::http_body_unsync(lent.clone()));
        let response = match self.s3.call(request).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(error = ?error, "a request could not be answered in the protocol");
                let mut response = Response::new(Body::empty());
                *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        };
        if response.status().as_u16() >= 400 && !asks_first {
            lent.drain().await;
        }
        let Some(observer) = unanswered.observer.take() else { return Ok(response) };
        let response = read_error(response, &notes).await;
        let record = notes.finish(response.status().as_u16());
        observer.record(record.clone());
        observer.before_answer(&record).await;
        Ok(response)
    }
}

/// A request that has no answer yet. If its connection goes first, the observer still hears of it, with status 0.
struct Unanswered {
    observer: Option<Arc<dyn Observer>>,
    notes: Notes,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(observer) = self.observer.take() {
            let mut record = self.notes.finish(0);
            record.error = Some("ConnectionBroken".to_owned());
            observer.record(record);
        }
    }
}

async fn connection<S: Seams>(
    endpoint: Endpoint<S>,
    stream: impl Stream,
    mut closing: watch::Receiver<bool>,
) {
    let service = service_fn(move |request| {
        let endpoint = endpoint.clone();
        async move { endpoint.answer(request).await }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits::HEADER_READ)
            // The header would show the clock of the system, not that of the seam.
            .auto_date_header(false)
            .serve_connection(TokioIo::new(Patience::new(stream, limits::ANSWER_IDLE)), service)
    );
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = closed(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    // The sender outlives its connections; were it gone, the endpoint would be going as well.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Notes the error word of an answer. Error answers are short and in memory.
async fn read_error(response: Response<Body>, notes: &Notes) -> Response<Body> {
    if response.status().as_u16() < 400 {
        return response;
    }
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    if let Some((code, _)) = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")) {
        notes.note(|record| record.error = Some(code.to_owned()));
    }
    Response::from_parts(parts, Body::from(bytes))
}
