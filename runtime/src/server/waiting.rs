//! Owns which connections of a listener wait for a request, its head or its body, and since when. A connection that waits
//! does no work, and is the first to go when there is no place for another one.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

/// How long a connection waits in peace. A client on a bad network needs one round trip; more than the accept loop needs
/// to be ahead of connections whose heads have come already.
const PEACE: Duration = Duration::from_secs(1);
/// The same on a listener with few places: with all of [`PEACE`] a hundred silent connections would keep the next one
/// waiting for half a minute. Clients send a head with the last packet of their connection's begin, so this is enough.
const PEACE_LEAST: Duration = Duration::from_millis(100);
/// From so many places on, connections have all of [`PEACE`].
const MANY: u32 = 256;

/// The connections of one listener. Cheap to clone.
#[derive(Clone)]
pub(super) struct Waiting(Arc<Shared>);

struct Shared {
    peace: Duration,
    places: Mutex<Places>,
    /// Somebody began to wait.
    begun: Notify,
}

#[derive(Default)]
struct Places {
    /// Numbers are never given twice: a task that ends late must not take the place of another with it.
    next: u64,
    taken: BTreeMap<u64, Place>,
}

/// One connection.
struct Place {
    /// Ends its task; `None` until that was started.
    end: Option<AbortHandle>,
    /// Since when it waits; `None` while it works.
    since: Option<Instant>,
    signs: Signs,
}

impl Place {
    fn is_writing(&self) -> bool {
        self.signs.writes.load(Ordering::Relaxed)
    }
}

/// What the stream of a connection tells of it. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signs {
    /// Whether its last answer has not left: its client is slow, and has its time.
    writes: Arc<AtomicBool>,
    /// Whether something came since the last request ended.
    heard: Arc<AtomicBool>,
}

impl Signs {
    /// Whether a write waits for the client.
    pub(super) fn writing(&self, waits: bool) {
        self.writes.store(waits, Ordering::Relaxed);
    }

    /// Bytes came.
    pub(super) fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether a request has begun to come.
    pub(super) fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }
}

impl Waiting {
    /// A listener with so many places.
    pub(super) fn new(most: usize) -> Waiting {
        let part = u32::try_from(most).unwrap_or(MANY).min(MANY);
        let peace = (PEACE * part / MANY).max(PEACE_LEAST);
        Waiting(Arc::new(Shared { peace, places: Mutex::default(), begun: Notify::new() }))
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<u64, Place>) -> T) -> T {
        work(&mut self.0.places.lock().unwrap_or_else(PoisonError::into_inner).taken)
    }

    /// A new connection, which waits. It is forgotten when the place is dropped, with its task.
    pub(super) fn place(&self) -> Seat {
        let mut places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.next += 1;
        let number = places.next;
        let signs = Signs::default();
        let place = Place { end: None, since: Some(Instant::now()), signs: signs.clone() };
        places.taken.insert(number, place);
        drop(places);
        self.0.begun.notify_one();
        Seat { of: self.clone(), number, signs }
    }

    /// How the connection in a place is ended.
    pub(super) fn set_end(&self, number: u64, end: AbortHandle) {
        self.with(|places| {
            if let Some(place) = places.get_mut(&number) {
                place.end = Some(end);
            }
        });
    }

    /// Ends the connection that waits longest, once it had its peace. Pends while all of them work.
    pub(super) async fn end_oldest(&self) {
        let peace = self.0.peace;
        loop {
            let (oldest, slow) = self.with(|places| {
                let waits = |(number, place): (&u64, &Place)| Some((place.since?, *number));
                let oldest = places.iter().filter(|(_, place)| !place.is_writing()).filter_map(waits).min();
                (oldest, places.values().any(Place::is_writing))
            });
            let now = Instant::now();
            match oldest {
                // Nobody says when an answer has left.
                None if slow => sleep_until(now + peace).await,
                None => self.0.begun.notified().await,
                // It may go on meanwhile: then another one is the oldest.
                Some((since, _)) if now < since + peace => sleep_until(since + peace).await,
                Some((_, number)) => {
                    // Gone from the list at once: its task needs a moment to end.
                    if let Some(end) = self.with(|places| places.remove(&number)).and_then(|place| place.end)
                    {
                        end.abort();
                    }
                    return;
                }
            }
        }
    }
}

/// The place of one connection among those of its listener.
pub(crate) struct Seat {
    of: Waiting,
    number: u64,
    signs: Signs,
}

impl Seat {
    /// Where its stream tells what it sees.
    pub(crate) fn signs(&self) -> Signs {
        self.signs.clone()
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The head of a request has come. The connection waits anew, for the rest of it.
    pub(crate) fn work(&self) -> Work {
        set(&self.of, self.number, Some(Instant::now()));
        let ends = AtomicBool::new(true);
        Work(Arc::new(Under { of: self.of.clone(), number: self.number, signs: self.signs.clone(), ends }))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.of.with(|places| places.remove(&self.number));
    }
}

fn set(of: &Waiting, number: u64, since: Option<Instant>) {
    of.with(|places| {
        if let Some(place) = places.get_mut(&number) {
            place.since = since;
        }
    });
    if since.is_some() {
        of.0.begun.notify_one();
    }
}

/// A request under way, from its head to the last byte of its answer.
pub(crate) struct Work(Arc<Under>);

struct Under {
    of: Waiting,
    number: u64,
    signs: Signs,
    ends: AtomicBool,
}

impl Work {
    /// All of the request has come: the connection works until this is dropped.
    pub(crate) fn whole(&self) {
        self.0.whole();
    }

    /// The body of the request: once it has come, or nobody wants it any more, the connection works.
    pub(super) fn arriving<B: Body>(&self, body: B) -> Arriving<B> {
        let mut arriving = Arriving { body, work: Some(Arc::downgrade(&self.0)) };
        if arriving.body.is_end_stream() {
            arriving.arrived();
        }
        arriving
    }

    /// The connection never waits again: it becomes a link.
    pub(super) fn for_ever(self) {
        self.0.ends.store(false, Ordering::Relaxed);
        self.0.whole();
    }
}

impl Under {
    fn whole(&self) {
        set(&self.of, self.number, None);
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        if *self.ends.get_mut() {
            // What was heard belonged to this request.
            self.signs.heard.store(false, Ordering::Relaxed);
            set(&self.of, self.number, Some(Instant::now()));
        }
    }
}

/// The body of a request on its way, see [`Work::arriving`].
pub(super) struct Arriving<B> {
    body: B,
    /// `None` once it arrived. Weak: a body that outlives its answer says nothing any more.
    work: Option<Weak<Under>>,
}

impl<B> Arriving<B> {
    fn arrived(&mut self) {
        if let Some(work) = self.work.take().and_then(|work| work.upgrade()) {
            work.whole();
        }
    }
}

impl<B> Drop for Arriving<B> {
    fn drop(&mut self) {
        self.arrived();
    }
}

impl<B: Body + Unpin> Body for Arriving<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(_))) if !self.body.is_end_stream() => {}
            Poll::Ready(_) => self.arrived(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
