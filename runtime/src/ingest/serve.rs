//! Owns the connections of the endpoint: HTTP/1 on each, and a shutdown within a budget. Who gets a place is for
//! [`crate::server`].

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use s3s::Body;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Endpoint;
use super::drain::Lent;
use super::limits;
use super::observe::{Notes, Observer};
use crate::seam::{Listener, Seams, Stream};
use crate::server::{Held, Patience, Seat, admit, drain, ended_early};
use crate::timeouts::Op;
use crate::tls;

impl<S: Seams> Endpoint<S> {
    /// Serves connections of `listener` until `shutdown` resolves, then lets requests under way end within the
    /// budget and drops the rest. Without a place for one more, the connection that waits longest for a head goes.
    pub async fn serve<L: Listener>(&self, listener: L, shutdown: impl Future<Output = ()>) {
        let (closing, _) = watch::channel(false);
        let each = |stream, peer, seat| connection(self.clone(), stream, peer, closing.subscribe(), seat);
        let mut connections = admit(listener, self.shared.connections_max, shutdown, each).await;
        closing.send_replace(true);
        drain(&mut connections, self.shared.shutdown_budget, &self.shared.timeouts).await;
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let (notes, begun) = (Notes::default(), Instant::now());
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
        if let Some(idle) = notes.pause() {
            self.shared.timeouts.out(Op::Body, &notes.what(), idle, begun.elapsed());
        }
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
    peer: SocketAddr,
    mut closing: watch::Receiver<bool>,
    seat: Seat,
) {
    let (acceptor, timeouts) = (endpoint.shared.tls.clone(), endpoint.shared.timeouts.clone());
    let entered = tokio::select! {
        biased;
        () = closed(&mut closing) => None,
        entered = tls::entered(acceptor.as_ref(), stream, peer, limits::HEADER_READ, &timeouts) => entered,
    };
    let Some(stream) = entered else { return };
    let signs = seat.signs();
    let stream = Patience::new(stream, limits::ANSWER_IDLE, signs.clone());
    let service = service_fn(move |request| {
        let (endpoint, work) = (endpoint.clone(), seat.work());
        // An object may come as slowly as `limits::BODY_IDLE` allows: what is wrong with a request its head says.
        work.whole();
        async move {
            let response = endpoint.answer(request).await?;
            Ok::<_, Infallible>(response.map(|body| Held::new(body, work)))
        }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits::HEADER_READ)
            // The header would show the clock of the system, not that of the seam.
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service)
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
        let bounds = [limits::ANSWER_IDLE, limits::HEADER_READ];
        ended_early(&error, &signs, &format_args!("s3 {peer}"), bounds, &timeouts);
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
