//! Owns the end of a device: every task of it runs under one [`Life`], so that a kill takes all of them.

use std::future::Future;

use tokio::sync::watch;

/// How a device is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// As it is.
    Run,
    /// End as after SIGTERM: files complete, links closed with 1000.
    Stop,
    /// End as after SIGKILL: at once, wherever it is.
    Kill,
}

/// The common fate of the tasks of one device.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    fate: watch::Sender<Fate>,
    tasks: watch::Sender<usize>,
}

impl Life {
    pub(crate) fn new() -> Self {
        Self { fate: watch::Sender::new(Fate::Run), tasks: watch::Sender::new(0) }
    }

    /// Runs `work` until it ends or the device is killed; a kill drops it between two polls.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let fate = self.fate.subscribe();
        let alive = Alive(self.tasks.clone());
        alive.0.send_modify(|n| *n += 1);
        tokio::spawn(async move {
            let _alive = alive;
            tokio::select! {
                biased;
                () = until(fate, |fate| fate == Fate::Kill) => {}
                () = work => {}
            }
        });
    }

    /// Ends when the device is told to stop or is killed.
    pub(crate) async fn stopping(&self) {
        until(self.fate.subscribe(), |fate| fate != Fate::Run).await;
    }

    pub(crate) fn set(&self, fate: Fate) {
        self.fate.send_modify(|now| {
            if *now != Fate::Kill {
                *now = fate;
            }
        });
    }

    /// Ends when no task is left.
    pub(crate) async fn ended(&self) {
        let mut tasks = self.tasks.subscribe();
        // The sender lives in `self`: waiting cannot fail.
        let _ = tasks.wait_for(|n| *n == 0).await;
    }
}

/// Counts a task down however it ends.
struct Alive(watch::Sender<usize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

async fn until(mut fate: watch::Receiver<Fate>, wanted: impl Fn(Fate) -> bool) {
    if fate.wait_for(|now| wanted(*now)).await.is_err() {
        // Nobody is left to decide: go on as it is.
        std::future::pending::<()>().await;
    }
}
