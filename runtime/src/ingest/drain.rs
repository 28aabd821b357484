//! Owns the body of a request while the protocol crate reads it, so that what a refusal left unread can be read off:
//! closing a connection with unread bytes resets it, and the uploader would never see why it was refused.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::limits;
use super::spool::locked;

/// A body that its connection keeps hold of.
#[derive(Clone)]
pub(super) struct Lent(Arc<Mutex<Incoming>>);

impl Lent {
    pub(super) fn new(body: Incoming) -> Lent {
        Lent(Arc::new(Mutex::new(body)))
    }

    /// Reads and drops what is left, within bounds. The caller no longer reads.
    pub(super) async fn drain(mut self) {
        let rest = async {
            let mut len = 0;
            while let Some(Ok(frame)) = self.frame().await {
                len += frame.data_ref().map_or(0, Bytes::len);
                if len > limits::DRAIN_MAX {
                    break;
                }
            }
        };
        // Whether it ended or not, the answer is sent next.
        let _ = tokio::time::timeout(limits::DRAIN_TIME, rest).await;
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut *locked(&self.0)).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        locked(&self.0).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        locked(&self.0).size_hint()
    }
}
