//! Owns one admitted link from the 101 to its end: frames in, frames out, pings, and the close. Hands on what devices
//! say in order; decides nothing about it.
//!
//! Three loops in one task. `read` decodes and puts messages into a short queue, `feed` carries them to the inbox,
//! `write` sends frames and pings. A full inbox so stops the reading of further messages, never the writing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tidegate_core::id::{ConnId, DeviceId, Role};
use tidegate_core::input::{Input, LostWhy};
use tidegate_core::row::shorten;
use tidegate_core::wire::{Unusable, recorder, transfer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_websockets::{CloseCode, Config, Error, Limits, Message, ServerBuilder, WebSocketStream};

use super::lenient::Lenient;
use super::{Link, Shared};
use crate::inbox::Outbound;
use crate::seam::Stream;

/// Messages read ahead of a full inbox, per link: enough that a burst after a reconnect does not stall its pongs.
const AHEAD: usize = 16;
/// Answers to pings that may wait for the writer. A peer that pings but does not read is stopped here.
const PONGS: usize = 8;
/// How long a closed link is read on, so that what it still sends does not destroy the Close on its way.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes of a close reason: the protocol's own bound.
const CLOSE_REASON: usize = 123;

type Socket<S> = WebSocketStream<Lenient<S>>;

/// Why the loops ended.
enum End {
    /// The device closed, and the echo is queued.
    Farewell,
    /// We close, with this code and reason.
    Close(u16, String, LostWhy),
    /// There is no use in another byte.
    Dead(LostWhy),
}

/// Runs a link until it is lost, and reports that.
pub(super) async fn run<S: Stream>(io: S, link: Link, shared: &Shared) {
    let Link { device, role, guard, mut outbound } = link;
    let conn = guard.conn();
    tracing::debug!(%device, role = role.name(), generation = conn.generation(), "link open");
    let limits = Limits::default().max_payload_len(Some(shared.bounds.max_message));
    // One frame per message, whatever its size: stock clients read fragments, older ones did not.
    let config = Config::default().frame_size(usize::MAX);
    let socket = ServerBuilder::new().config(config).limits(limits).serve(Lenient::new(io));
    let (mut sink, mut stream) = socket.split();
    let life = Life::new();
    let (messages, queue) = mpsc::channel(AHEAD);
    let (pongs, flushes) = mpsc::channel(PONGS);
    let (ended, why) = oneshot::channel();
    let scene = Scene { conn, device: &device, role, shared, life: &life };
    let sockets = async {
        let end = tokio::select! {
            biased;
            end = write(&scene, &mut sink, &mut outbound, flushes) => end,
            end = read(&scene, &mut stream, messages, pongs) => end,
        };
        // Said before the farewell: the core need not wait for a peer that is slow to close.
        let _ = ended.send(end.lost());
        farewell(sink, stream, end, shared.bounds.write).await;
    };
    let feed = async {
        if feed(shared, queue).await {
            let why = why.await.unwrap_or(LostWhy::Broken);
            tracing::debug!(%device, role = role.name(), generation = conn.generation(), ?why, "link lost");
            guard.lost(why).await;
        }
    };
    tokio::join!(sockets, feed);
}

/// What the loops of a link share.
struct Scene<'a> {
    conn: ConnId,
    device: &'a DeviceId,
    role: Role,
    shared: &'a Shared,
    life: &'a Life,
}

impl Scene<'_> {
    fn seen(&self) {
        self.life.touch();
        self.shared.board.seen(self.device, self.role, (self.shared.clock)().wall);
    }

    fn decoded(&self, bytes: &[u8]) -> Result<Input, Unusable> {
        let conn = self.conn;
        match self.role {
            Role::Recorder => recorder::decode(bytes).map(|message| Input::Recorder { conn, message }),
            Role::Transfer => transfer::decode(bytes).map(|message| Input::Transfer { conn, message }),
        }
    }
}

/// Carries messages to the inbox in order, until there are no more; `false` if the site is gone.
async fn feed(shared: &Shared, mut queue: mpsc::Receiver<Input>) -> bool {
    while let Some(input) = queue.recv().await {
        if shared.inbox.input(input).await.is_err() {
            return false;
        }
    }
    true
}

async fn read<S: Stream>(
    scene: &Scene<'_>,
    stream: &mut SplitStream<Socket<S>>,
    messages: mpsc::Sender<Input>,
    pongs: mpsc::Sender<()>,
) -> End {
    let max = scene.shared.bounds.max_message;
    loop {
        let message = match stream.next().await {
            Some(Ok(message)) => message,
            Some(Err(Error::PayloadTooLong { .. })) => {
                return End::Close(1009, format!("a message may have {max} bytes"), LostWhy::Protocol);
            }
            // The library has queued a Close that names the violation.
            Some(Err(Error::Protocol(violation))) => {
                return End::Close(1002, violation.to_string(), LostWhy::Protocol);
            }
            Some(Err(_)) | None => return End::Dead(LostWhy::Broken),
        };
        scene.seen();
        if message.is_close() {
            return End::Farewell;
        }
        if message.is_ping() {
            // The library queued the pong; the writer sends it. Waiting here is waiting for a peer that does not read.
            if pongs.send(()).await.is_err() {
                return End::Dead(LostWhy::Broken);
            }
            continue;
        }
        if message.is_pong() {
            continue;
        }
        let input = match scene.decoded(message.as_payload()) {
            Ok(input) => input,
            Err(Unusable) => {
                scene.shared.metrics.dropped_frame(scene.role);
                tracing::debug!(device = %scene.device, bytes = message.as_payload().len(), "a frame is no JSON object");
                continue;
            }
        };
        scene.life.hold(true);
        let taken = messages.send(input).await;
        scene.life.hold(false);
        if taken.is_err() {
            return End::Close(1001, "the site is stopping".to_owned(), LostWhy::Closed);
        }
    }
}

async fn write<S: Stream>(
    scene: &Scene<'_>,
    sink: &mut SplitSink<Socket<S>, Message>,
    outbound: &mut mpsc::Receiver<Outbound>,
    mut flushes: mpsc::Receiver<()>,
) -> End {
    let bounds = &scene.shared.bounds;
    let (interval, patience) = (bounds.ping(scene.role), bounds.silence(scene.role));
    let mut pings: u64 = 0;
    let mut next_ping = Instant::now() + interval;
    loop {
        let silent = scene.life.heard() + patience;
        let sent = tokio::select! {
            biased;
            out = outbound.recv() => match out {
                Some(Outbound::Text(text)) => timeout(bounds.write, sink.send(Message::text(text))).await,
                Some(Outbound::Close { code, reason }) => {
                    return End::Close(code, reason.to_owned(), LostWhy::Closed);
                }
                // The driver let go of a link that does not take its frames.
                None => return End::Close(1013, "too many frames wait for this link".to_owned(), LostWhy::Stuck),
            },
            Some(()) = flushes.recv() => timeout(bounds.write, sink.flush()).await,
            () = sleep_until(next_ping.min(silent)) => {
                let now = Instant::now();
                if now >= scene.life.heard() + patience {
                    return End::Dead(LostWhy::Silent);
                }
                if now < next_ping {
                    continue;
                }
                pings += 1;
                next_ping = now + interval;
                timeout(bounds.write, sink.send(Message::ping(pings.to_string()))).await
            }
        };
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Dead(LostWhy::Broken),
            Err(_) => return End::Dead(LostWhy::Stuck),
        }
    }
}

impl End {
    fn lost(&self) -> LostWhy {
        match self {
            End::Farewell => LostWhy::Closed,
            End::Close(_, _, why) | End::Dead(why) => *why,
        }
    }
}

/// Says goodbye, within bounds: the Close leaves, then what the peer still sends is read and forgotten.
async fn farewell<S: Stream>(
    sink: SplitSink<Socket<S>, Message>,
    stream: SplitStream<Socket<S>>,
    end: End,
    bound: Duration,
) {
    let goodbye = match end {
        End::Dead(_) => return,
        End::Farewell => None,
        End::Close(code, reason, _) => {
            let code = CloseCode::try_from(code).ok().filter(|code| !code.is_reserved());
            code.map(|code| Message::close(Some(code), &shorten(&reason, CLOSE_REASON)))
        }
    };
    let Ok(mut socket) = stream.reunite(sink) else { return };
    let leave = async {
        if let Some(close) = goodbye {
            // An error here says that the library has queued a Close of its own: that one leaves then.
            let _ = socket.feed(close).await;
        }
        socket.flush().await
    };
    if !matches!(timeout(bound, leave).await, Ok(Ok(()))) {
        return;
    }
    let mut io = socket.into_inner();
    let mut rest = [0; 4096];
    let drain = async {
        if io.shutdown().await.is_ok() {
            while matches!(io.read(&mut rest).await, Ok(1..)) {}
        }
    };
    let _ = timeout(LINGER, drain).await;
}

/// When the peer was last heard. While we keep it waiting, it counts as heard: its pongs may be behind what waits.
struct Life(Mutex<Heard>);

#[derive(Clone, Copy)]
struct Heard {
    at: Instant,
    held: bool,
}

impl Life {
    fn new() -> Life {
        Life(Mutex::new(Heard { at: Instant::now(), held: false }))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Heard) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn touch(&self) {
        self.with(|heard| heard.at = Instant::now());
    }

    fn hold(&self, held: bool) {
        self.with(|heard| *heard = Heard { at: Instant::now(), held });
    }

    fn heard(&self) -> Instant {
        self.with(|heard| if heard.held { Instant::now() } else { heard.at })
    }
}
