//! The way into the driver: one bounded queue of letters. Decides nothing; numbers requests and sockets.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_core::digest::Sha256;
use tidegate_core::effect::Response;
use tidegate_core::id::{ConnId, DeviceId, RequestId, Role, SecretRef, SocketId};
use tidegate_core::input::{Demand, Input, Request};
use tidegate_core::refusal::Refusal;
use tokio::sync::{mpsc, oneshot};

use crate::policies::Ready;

/// Letters that may wait for the driver. A full queue slows its senders down: overload is felt at the edges first.
pub const LETTERS: usize = 1024;
/// Frames that may wait for one link; a link that does not take them is closed.
pub const OUTBOUND: usize = 64;

/// Something for the driver.
#[derive(Debug)]
pub enum Letter {
    /// An input as it is.
    Input(Input),
    /// A device's program asks for a link.
    Knock {
        /// The input: [`Input::Knock`].
        input: Input,
        /// Its socket, as in the input.
        socket: SocketId,
        /// Where the answer goes.
        admission: oneshot::Sender<Result<Admitted, Refusal>>,
    },
    /// An operation on policies ended.
    Policy {
        /// The input: [`Input::Policy`].
        input: Input,
        /// What it made ready: on the shelf before the input is stepped.
        ready: Ready,
    },
    /// Somebody asks over HTTP.
    Request {
        /// Its number.
        id: RequestId,
        /// What.
        request: Request,
        /// A secret that stands in it, to be written into a frame.
        secret: Option<Secret>,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<Response, Refusal>>,
    },
}

/// A link that was admitted.
#[derive(Debug)]
pub struct Admitted {
    /// Its number.
    pub conn: ConnId,
    /// What to send on it. When the sender is gone without a `Close`, the link is closed for being stuck.
    pub outbound: mpsc::Receiver<Outbound>,
}

/// Something to send on a link.
#[derive(Debug, PartialEq, Eq)]
pub enum Outbound {
    /// A text frame, secrets written in.
    Text(String),
    /// Close the link.
    Close {
        /// WebSocket close code.
        code: u16,
        /// Reason.
        reason: &'static str,
    },
}

/// A secret on its way from a request into a frame. Never printed.
pub struct Secret {
    /// How the core names it.
    pub name: SecretRef,
    /// The value.
    pub value: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.name.handle)
    }
}

/// The driver is gone: the site is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the site is stopping")]
pub struct Gone;

/// A sender of letters.
#[derive(Clone, Debug)]
pub struct Inbox {
    letters: mpsc::Sender<Letter>,
    numbers: Arc<AtomicU64>,
}

/// A device's program that asks for a link.
#[derive(Clone, Debug)]
pub struct Stranger {
    /// Who it says it is.
    pub device: DeviceId,
    /// Which of the device's programs.
    pub role: Role,
    /// Address it comes from, for people.
    pub remote: String,
    /// Port it comes from.
    pub port: Option<u16>,
    /// SHA-256 of its token, if it sent one.
    pub credential: Option<Sha256>,
    /// What it must prove.
    pub demand: Demand,
}

impl Stranger {
    /// One that has nothing to prove and proves nothing.
    #[must_use]
    pub fn unproven(device: DeviceId, role: Role, remote: &str) -> Stranger {
        let remote = remote.to_owned();
        Stranger { device, role, remote, port: None, credential: None, demand: Demand::Nothing }
    }
}

impl Inbox {
    /// An inbox and its other end.
    #[must_use]
    pub fn new() -> (Inbox, mpsc::Receiver<Letter>) {
        let (letters, receiver) = mpsc::channel(LETTERS);
        (Inbox { letters, numbers: Arc::new(AtomicU64::new(1)) }, receiver)
    }

    /// Whether the driver still takes letters.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.letters.is_closed()
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Names a secret that a request carries: the request holds the name, the letter holds the value.
    #[must_use]
    pub fn secret(&self, value: String) -> Secret {
        let name = SecretRef { handle: self.number(), sha256: Sha256::of(value.as_bytes()) };
        Secret { name, value }
    }

    /// Hands over an input; waits while the queue is full.
    pub async fn input(&self, input: Input) -> Result<(), Gone> {
        self.letter(Letter::Input(input)).await
    }

    pub(crate) async fn letter(&self, letter: Letter) -> Result<(), Gone> {
        self.letters.send(letter).await.map_err(|_| Gone)
    }

    /// Asks for a link.
    pub async fn knock(&self, stranger: Stranger) -> Result<Result<Admitted, Refusal>, Gone> {
        let Stranger { device, role, remote, port, credential, demand } = stranger;
        let socket = SocketId(self.number());
        let (admission, answer) = oneshot::channel();
        let input = Input::Knock { socket, device, role, remote, credential, port, demand };
        self.letters.send(Letter::Knock { input, socket, admission }).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// Asks for something, and waits for the answer. Every request gets exactly one: a site that stopped before it
    /// took the request refuses it. [`Gone`] if the driver took it and ended without an answer: then nobody knows
    /// whether it became durable.
    pub async fn request(
        &self,
        request: Request,
        secret: Option<Secret>,
    ) -> Result<Result<Response, Refusal>, Gone> {
        let id = RequestId(self.number());
        let (answer, response) = oneshot::channel();
        match self.letters.send(Letter::Request { id, request, secret, answer }).await {
            Ok(()) => response.await.map_err(|_| Gone),
            Err(_) => Ok(Err(Refusal::Stopping)),
        }
    }
}
