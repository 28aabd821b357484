//! Owns a link over its whole life: dialling, backoff, the queue that outlives connections, pings, closing.
//! What the frames mean is the business of the [`Program`] on it.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tidegate_runtime::seam::{Net, Seams};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::device::Env;
use crate::events::{DeviceEvent, HIDDEN, Link};
use crate::ws::{FRAGMENT_BYTES, Incoming, Opcode, Ws, WsError, WsUrl};

/// What runs on a link. Called one frame at a time: while a call runs, nothing is read and no ping is answered,
/// as with real devices.
pub(crate) trait Program: Send {
    /// Which link this is.
    const LINK: Link;
    /// The frame that follows every handshake, after those left over from the connection before.
    fn snapshot(&mut self) -> impl Future<Output = String> + Send;
    /// One text frame. Says whether the program goes on.
    fn on_text(&mut self, text: &str) -> impl Future<Output = Next> + Send;
    /// The program is about to exit: complete what is begun.
    fn leave(&mut self) -> impl Future<Output = ()> + Send;
}

/// Whether a program goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Stay,
    Exit,
}

/// Frames waiting for a connection, shared by all who send.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    queue: Arc<Mutex<VecDeque<String>>>,
    filled: Arc<Notify>,
}

impl Outbox {
    pub(crate) fn push(&self, frame: &Value) {
        self.push_text(frame.to_string());
    }

    fn push_text(&self, text: String) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(text);
        self.filled.notify_one();
    }

    fn pop(&self) -> Option<String> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// Where and how a link is dialled.
pub(crate) struct Dial {
    pub url: WsUrl,
    /// The Host header.
    pub host: String,
    pub token: Option<String>,
    /// Jitter of the delays; the masks of connections come from it too.
    pub rng: fastrand::Rng,
}

/// Why a connection is over.
enum Over {
    Lost { code: Option<u16>, reason: String },
    Left,
}

/// Keeps the link up until the program exits or the device stops.
pub(crate) async fn run<S: Seams, P: Program>(env: Env<S>, mut dial: Dial, outbox: Outbox, mut program: P) {
    let mut failures = 0u32;
    loop {
        let dialled = tokio::select! {
            biased;
            () = env.life.stopping() => return program.leave().await,
            dialled = connect(&env, &mut dial) => dialled,
        };
        match dialled {
            Ok(mut ws) => {
                failures = 0;
                env.log.push(DeviceEvent::Connected { link: P::LINK });
                outbox.push_text(program.snapshot().await);
                let over = converse(&env, &mut ws, &outbox, &mut program, &mut dial.rng).await;
                let (code, reason, left) = match over {
                    Over::Lost { code, reason } => (code, reason, false),
                    Over::Left => (Some(1000), "left".to_owned(), true),
                };
                env.log.push(DeviceEvent::Closed { link: P::LINK, code, reason });
                if left {
                    return;
                }
            }
            Err(error) => {
                failures += 1;
                env.log.push(match error {
                    WsError::Declined { status, .. } => DeviceEvent::Declined { link: P::LINK, status },
                    other => DeviceEvent::DialFailed { link: P::LINK, error: other.to_string() },
                });
            }
        }
        let delay = env.config.reconnect.delay(failures.saturating_sub(1), &mut dial.rng);
        tokio::select! {
            biased;
            () = env.life.stopping() => return program.leave().await,
            () = sleep(delay) => {}
        }
    }
}

type Socket<S> = Ws<<<S as Seams>::Net as Net>::Stream>;

async fn connect<S: Seams>(env: &Env<S>, dial: &mut Dial) -> Result<Socket<S>, WsError> {
    let rng = dial.rng.fork();
    let connecting = env.seams.net().connect(&dial.url.host, dial.url.port);
    let stream = timeout(env.config.connect_timeout, connecting).await;
    let stream = stream.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
    let bearer = dial.token.as_ref().map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|value| ("Authorization", value.as_str())).collect();
    let handshake = Ws::dial(stream, &dial.host, &dial.url.path, &headers, rng);
    match env.config.handshake_timeout {
        None => handshake.await,
        Some(limit) => timeout(limit, handshake).await.unwrap_or(Err(WsError::Protocol("no HTTP answer"))),
    }
}

async fn converse<S: Seams, P: Program>(
    env: &Env<S>,
    ws: &mut Socket<S>,
    outbox: &Outbox,
    program: &mut P,
    rng: &mut fastrand::Rng,
) -> Over {
    let keepalive = &env.config.keepalive;
    let mut ping_at = Some(Instant::now() + keepalive.ping_interval);
    let mut pong_by: Option<Instant> = None;
    loop {
        if let Err(error) = flush::<S, P>(env, ws, outbox, rng).await {
            return lost(&error);
        }
        let timer = pong_by.or(ping_at);
        let incoming = tokio::select! {
            biased;
            () = env.life.stopping() => return depart(env, ws, outbox, program, rng).await,
            incoming = ws.next() => incoming,
            () = outbox.filled.notified() => continue,
            () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {
                if pong_by.is_some() {
                    // A real device now blocks in its closing handshake until the path heals.
                    let linger = async { while ws.next().await.is_ok() {} };
                    let _ = timeout(keepalive.silence_linger, linger).await;
                    return Over::Lost { code: None, reason: "no pong".to_owned() };
                }
                if let Err(error) = ws.send_frame(true, Opcode::Ping, b"").await {
                    return lost(&error);
                }
                ping_at = None;
                let waits = !keepalive.ping_timeout.is_zero();
                pong_by = waits.then(|| Instant::now() + keepalive.ping_timeout);
                continue;
            }
        };
        match incoming {
            Ok(Incoming::Text(text)) => {
                let mut frame = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.clone()));
                if let Some(token) = frame.pointer_mut("/params/task_config/user_token") {
                    *token = Value::from(HIDDEN);
                }
                env.log.push(DeviceEvent::Received { link: P::LINK, frame });
                if program.on_text(&text).await == Next::Exit {
                    return depart(env, ws, outbox, program, rng).await;
                }
            }
            Ok(Incoming::Binary(_)) => {}
            Ok(Incoming::Ping(payload)) => {
                if let Err(error) = ws.send_frame(true, Opcode::Pong, &payload).await {
                    return lost(&error);
                }
            }
            Ok(Incoming::Pong(_)) => {
                pong_by = None;
                ping_at = Some(Instant::now() + keepalive.ping_interval);
            }
            Ok(Incoming::Close(code, reason)) => {
                // The echo is a courtesy; the peer may be gone already.
                let _ = ws.send_close(code, "").await;
                return Over::Lost { code, reason };
            }
            Err(error) => return lost(&error),
        }
    }
}

/// Sends what waits. A frame is taken off the queue before it is written: what a cut interrupts is lost.
async fn flush<S: Seams, P: Program>(
    env: &Env<S>,
    ws: &mut Socket<S>,
    outbox: &Outbox,
    rng: &mut fastrand::Rng,
) -> Result<(), WsError> {
    while let Some(text) = outbox.pop() {
        let percent = u32::from(env.config.garbled_frames_percent);
        let text = if text.len() > FRAGMENT_BYTES && percent > 0 && rng.u32(..100) < percent {
            garbled(&text, rng)
        } else {
            text
        };
        ws.send_text(text.as_bytes()).await?;
        let frame = serde_json::from_str(&text).unwrap_or(Value::String(text));
        env.log.push(DeviceEvent::Sent { link: P::LINK, frame });
    }
    Ok(())
}

/// What a stock uploader sends of a text whose memory it has freed: the first fragment, then noise.
fn garbled(text: &str, rng: &mut fastrand::Rng) -> String {
    let mut border = FRAGMENT_BYTES;
    while !text.is_char_boundary(border) {
        border -= 1;
    }
    let noise = (border..text.len()).map(|_| char::from(rng.u8(b' '..=b'~')));
    text[..border].chars().chain(noise).collect()
}

async fn depart<S: Seams, P: Program>(
    env: &Env<S>,
    ws: &mut Socket<S>,
    outbox: &Outbox,
    program: &mut P,
    rng: &mut fastrand::Rng,
) -> Over {
    // An answer to `quit` leaves before the program winds down.
    let answered = flush::<S, P>(env, ws, outbox, rng).await;
    program.leave().await;
    if answered.is_ok()
        && flush::<S, P>(env, ws, outbox, rng).await.is_ok()
        && ws.send_close(Some(1000), "").await.is_ok()
    {
        let closing = async { while !matches!(ws.next().await, Ok(Incoming::Close(..)) | Err(_)) {} };
        let _ = timeout(CLOSE_WAIT, closing).await;
    }
    Over::Left
}

fn lost(error: &WsError) -> Over {
    Over::Lost { code: None, reason: error.to_string() }
}

/// How long a leaving device waits for the echo of its close.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
