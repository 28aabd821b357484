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
use tidegate_core::wire::{RecorderMessage, TransferMessage, Unusable, recorder, transfer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_websockets::{CloseCode, Config, Error, Limits, Message, ServerBuilder, WebSocketStream};

use super::lenient::Lenient;
use super::{Link, Shared};
use crate::brake::Bucket;
use crate::bug::{self, Bug};
use crate::inbox::Outbound;
use crate::seam::Stream;
use crate::timeouts::Op;

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
    let max = if bug::has(Bug::R01) { 32 << 10 } else { shared.bounds.max_message };
    let limits = Limits::default().max_payload_len(Some(max));
    // One frame per message, whatever its size: stock clients read fragments, older ones did not.
    let config = Config::default().frame_size(usize::MAX);
    let socket = ServerBuilder::new().config(config).limits(limits).serve(Lenient::new(io));
    let (mut sink, mut stream) = socket.split();
    let life = Life::new();
    // Boxed: a channel makes room for 32 messages at its start, and ten thousand links wait most of the time.
    let (messages, queue) = mpsc::channel::<Box<Input>>(AHEAD);
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
        let begun = Instant::now();
        if !farewell(sink, stream, end, shared.bounds.write).await {
            shared.timed_out(Op::Write, role, &device, shared.bounds.write, begun.elapsed());
        }
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
    fn timed_out(&self, op: Op, budget: Duration, elapsed: Duration) {
        self.shared.timed_out(op, self.role, self.device, budget, elapsed);
    }

    fn seen(&self) {
        self.life.touch();
        self.shared.board.seen(self.device, self.role, (self.shared.clock)().wall);
    }

    /// Decodes what the device says, and settles what that answers.
    fn decoded(&self, bytes: &[u8]) -> Result<Input, Unusable> {
        let conn = self.conn;
        let (answers, input) = match self.role {
            Role::Recorder => {
                let said = recorder::decode(bytes);
                let answers =
                    said.as_ref().is_ok_and(|said| matches!(said, RecorderMessage::Response { .. }));
                (answers, said.map(|message| Input::Recorder { conn, message }))
            }
            Role::Transfer => {
                let said = transfer::decode(bytes);
                (answers(&said), said.map(|message| Input::Transfer { conn, message }))
            }
        };
        if answers {
            self.life.settle();
        }
        input
    }
}

/// Carries messages to the inbox in order, until there are no more; `false` if the site is gone.
async fn feed(shared: &Shared, mut queue: mpsc::Receiver<Box<Input>>) -> bool {
    while let Some(input) = queue.recv().await {
        if shared.inbox.input(*input).await.is_err() {
            return false;
        }
    }
    true
}

async fn read<S: Stream>(
    scene: &Scene<'_>,
    stream: &mut SplitStream<Socket<S>>,
    messages: mpsc::Sender<Box<Input>>,
    pongs: mpsc::Sender<()>,
) -> End {
    let max = scene.shared.bounds.max_message;
    let mut pace = Pace { used: Bucket::full(), told: false };
    loop {
        let message = match stream.next().await {
            Some(Ok(message)) => message,
            Some(Err(Error::PayloadTooLong { .. })) => {
                // Said aloud: a device whose greeting is too large comes back with it for ever, and only a person can help.
                scene.shared.metrics.oversize_message(scene.role);
                tracing::warn!(
                    device = %scene.device,
                    role = scene.role.name(),
                    max,
                    "a message is larger than devices.max_message; the link is closed"
                );
                // The library has queued a Close of its own, which names the bound and not the setting: that one leaves.
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
        pace.keep(scene).await;
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
        let stops = bug::stops_reading(&input);
        let taken = messages.send(Box::new(input)).await;
        if stops {
            Box::pin(bug::until_answered()).await;
        }
        scene.life.hold(false);
        if taken.is_err() {
            return End::Close(1001, "the site is stopping".to_owned(), LostWhy::Closed);
        }
    }
}

/// How fast a link may speak.
struct Pace {
    used: Bucket,
    /// Whether the log knows that it spoke faster.
    told: bool,
}

impl Pace {
    /// Waits until one more message may be read. Meanwhile nothing is: what the device sends next waits in its own memory.
    async fn keep(&mut self, scene: &Scene<'_>) {
        while let Err(wait) = self.used.take(scene.shared.bounds.messages) {
            if !std::mem::replace(&mut self.told, true) {
                tracing::info!(
                    device = %scene.device, role = scene.role.name(), generation = scene.conn.generation(),
                    "a link says more than devices.message_rate and is read more slowly"
                );
            }
            // Its pongs may be behind what we do not read.
            scene.life.hold(true);
            sleep(wait).await;
            scene.life.hold(false);
            scene.shared.metrics.throttled(scene.role, wait);
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
    let mut next_ping = Instant::now() + first_ping(scene.conn, interval);
    loop {
        let silent = scene.life.heard() + patience + scene.life.busy(bounds.busy);
        let sent = tokio::select! {
            biased;
            out = outbound.recv() => match out {
                Some(Outbound::Text(text)) => {
                    let owed = is_answered(scene.role, &text);
                    let sent = within(bounds.write, sink.send(Message::text(text))).await;
                    if scene.role == Role::Transfer && bug::has(Bug::R02) {
                        bug::answered();
                    }
                    if owed {
                        scene.life.owe();
                    }
                    sent
                }
                Some(Outbound::Close { code, reason }) => {
                    return End::Close(code, reason.to_owned(), LostWhy::Closed);
                }
                // The driver let go of a link that does not take its frames.
                None => return End::Close(1013, "too many frames wait for this link".to_owned(), LostWhy::Stuck),
            },
            Some(()) = flushes.recv() => within(bounds.write, sink.flush()).await,
            () = sleep_until(next_ping.min(silent)) => {
                let now = Instant::now();
                let heard = scene.life.heard();
                let patience = patience + scene.life.busy(bounds.busy);
                if now >= heard + patience {
                    scene.timed_out(Op::Ping, patience, now - heard);
                    return End::Dead(LostWhy::Silent);
                }
                if now < next_ping {
                    continue;
                }
                pings += 1;
                next_ping = now + interval;
                within(bounds.write, sink.send(Message::ping(pings.to_string()))).await
            }
        };
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Dead(LostWhy::Broken),
            Err(elapsed) => {
                scene.timed_out(Op::Write, bounds.write, elapsed);
                return End::Dead(LostWhy::Stuck);
            }
        }
    }
}

/// When a link is pinged first. Links that came up in one moment, as all do after a restart, would be pinged in one moment
/// for ever: they begin within half an interval, each in a place of its own.
fn first_ping(conn: ConnId, interval: Duration) -> Duration {
    // Fractions of the multiples of the golden ratio lie evenly, whatever numbers follow each other.
    let part = f64::from(conn.n.wrapping_mul(0x9e37_79b9)) / 2f64.powi(32);
    interval.mul_f64(0.5 + part / 2.0)
}

/// Waits for what is written, and says how long if that was too long.
async fn within<T>(bound: Duration, written: impl Future<Output = T>) -> Result<T, Duration> {
    let begun = Instant::now();
    timeout(bound, written).await.map_err(|_| begun.elapsed())
}

/// Whether a device says something when it gets this. Recorders get nothing but requests and answer each; of what uploaders
/// get, acknowledgements and cancels have no answer.
fn is_answered(role: Role, frame: &str) -> bool {
    let is = |kind: &str| frame.contains(&format!("\"type\":\"{kind}\""));
    match role {
        Role::Recorder => true,
        Role::Transfer => !is("upload_ack") && !is("cancel"),
    }
}

/// Whether an uploader says this when it was asked, and not by itself. A failed upload is both: one that cannot even begin
/// is told in these words.
fn answers(said: &Result<TransferMessage, Unusable>) -> bool {
    match said {
        Ok(TransferMessage::Status(status)) => !status.connected,
        Ok(
            TransferMessage::UploadStarted(_)
            | TransferMessage::UploadFailed { .. }
            | TransferMessage::UploadNotFound { .. },
        ) => true,
        Ok(TransferMessage::UploadComplete(_) | TransferMessage::Other(_)) => false,
        // Of known uploaders only what is large can be garbage: a status, which is not said again.
        Err(Unusable) => true,
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

/// Says goodbye, within bounds: the Close leaves, then what the peer still sends is read and forgotten. `false` if the
/// Close was not taken in time.
async fn farewell<S: Stream>(
    sink: SplitSink<Socket<S>, Message>,
    stream: SplitStream<Socket<S>>,
    end: End,
    bound: Duration,
) -> bool {
    let goodbye = match end {
        End::Dead(_) => return true,
        End::Farewell => None,
        End::Close(code, reason, _) => {
            let code = CloseCode::try_from(code).ok().filter(|code| !code.is_reserved());
            code.map(|code| Message::close(Some(code), &shorten(&reason, CLOSE_REASON)))
        }
    };
    let Ok(mut socket) = stream.reunite(sink) else { return true };
    let leave = async {
        if let Some(close) = goodbye {
            // An error here says that the library has queued a Close of its own: that one leaves then.
            let _ = socket.feed(close).await;
        }
        socket.flush().await
    };
    match timeout(bound, leave).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return true,
        Err(_) => return false,
    }
    let mut io = socket.into_inner();
    let mut rest = vec![0; 4096];
    let drain = async {
        if io.shutdown().await.is_ok() {
            while matches!(io.read(&mut rest).await, Ok(1..)) {}
        }
    };
    let _ = timeout(LINGER, drain).await;
    true
}

/// When the peer was last heard. While we keep it waiting, it counts as heard: its pongs may be behind what waits.
struct Life(Mutex<Heard>);

#[derive(Clone, Copy)]
struct Heard {
    at: Instant,
    held: bool,
    /// How many answers are outstanding. Programs that never give one make this too high: it is only asked whether it is
    /// zero, so whatever it says, silence is borne for [`super::Bounds::busy`] longer and then ends the link.
    owed: u32,
}

impl Life {
    fn new() -> Life {
        Life(Mutex::new(Heard { at: Instant::now(), held: false, owed: 0 }))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Heard) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn touch(&self) {
        self.with(|heard| heard.at = Instant::now());
    }

    fn hold(&self, held: bool) {
        self.with(|heard| *heard = Heard { at: Instant::now(), held, ..*heard });
    }

    fn owe(&self) {
        self.with(|heard| heard.owed = heard.owed.saturating_add(1));
    }

    fn settle(&self) {
        self.with(|heard| heard.owed = heard.owed.saturating_sub(1));
    }

    /// What is added to the patience with a peer that owes an answer.
    fn busy(&self, more: Duration) -> Duration {
        if self.with(|heard| heard.owed > 0) { more } else { Duration::ZERO }
    }

    fn heard(&self) -> Instant {
        self.with(|heard| if heard.held { Instant::now() } else { heard.at })
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::id::Boot;

    use super::*;

    #[test]
    fn links_that_come_up_together_are_pinged_evenly_in_the_second_half_of_an_interval() {
        let mut tenths = [0; 10];
        for n in 5_000..15_000 {
            let first = first_ping(ConnId { boot: Boot(1), n }, Duration::from_secs(30));
            let after_half = first.checked_sub(Duration::from_secs(15)).expect("not too soon");
            tenths[usize::try_from(after_half.as_millis() / 1500).expect("small")] += 1;
        }
        assert!(tenths.iter().all(|count| (990..=1010).contains(count)), "{tenths:?}");
    }
}
