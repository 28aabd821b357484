//! Owns the task that grows a recording while the recorder's link does whatever it does. The recording goes on
//! while the link is lost.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_runtime::seam::{Blocking, Clock, Seams};
use tokio::sync::{mpsc, oneshot};

use crate::device::Env;
use crate::events::DeviceEvent;
use crate::recording::{Closed, Progress, Recording};
use crate::task::TaskConfig;

enum Order {
    Pause,
    Resume,
    Finish(oneshot::Sender<Result<Closed, String>>),
    Cancel(oneshot::Sender<Vec<PathBuf>>),
}

/// A recording in progress.
pub(crate) struct Session {
    orders: mpsc::UnboundedSender<Order>,
    progress: Arc<Mutex<Progress>>,
    pub(crate) started_ms: i64,
}

impl Session {
    /// Creates the file and starts to write.
    pub(crate) async fn start<S: Seams>(env: &Env<S>, task: &TaskConfig, seed: u64) -> Result<Self, String> {
        let config = &env.config;
        let started_ms = env.seams.clock().now().wall.0;
        let (disk, dir) = (env.seams.disk().clone(), config.data_dir.clone());
        let (plan, for_file) = (config.record.clone(), task.clone());
        let rng = fastrand::Rng::with_seed(seed);
        let created =
            env.seams.blocking().run(move || Recording::create(disk, &dir, &for_file, plan, rng, started_ms));
        let recording = created.await.map_err(|error| format!("Failed to start recording: {error}"))?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let progress = Arc::new(Mutex::new(Progress::default()));
        env.life.spawn(record(env.clone(), recording, task.clone(), inbox, Arc::clone(&progress)));
        Ok(Self { orders, progress, started_ms })
    }

    pub(crate) fn progress(&self) -> Progress {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pause(&self) {
        let _ = self.orders.send(Order::Pause);
    }

    pub(crate) fn resume(&self) {
        let _ = self.orders.send(Order::Resume);
    }

    /// Writes what the plan still wants, closes the file, writes sidecar and marker.
    pub(crate) async fn finish(self) -> Result<Closed, String> {
        let (answer, closed) = oneshot::channel();
        let _ = self.orders.send(Order::Finish(answer));
        closed.await.unwrap_or_else(|_| Err("the recording had ended".to_owned()))
    }

    /// Deletes what was written; gives the names.
    pub(crate) async fn cancel(self) -> Vec<PathBuf> {
        let (answer, deleted) = oneshot::channel();
        let _ = self.orders.send(Order::Cancel(answer));
        deleted.await.unwrap_or_default()
    }
}

async fn record<S: Seams>(
    env: Env<S>,
    mut recording: Recording<S::Disk>,
    task: TaskConfig,
    mut orders: mpsc::UnboundedReceiver<Order>,
    progress: Arc<Mutex<Progress>>,
) {
    let mut paused = false;
    let mut broken: Option<String> = None;
    loop {
        let writes = !paused && broken.is_none() && !recording.is_full();
        let order = tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(order) => Some(order),
                // The recorder is gone without a word: as after a kill, nothing is completed.
                None => return,
            },
            () = tokio::time::sleep(env.config.record.step_every), if writes => None,
        };
        match order {
            Some(Order::Pause) => paused = true,
            Some(Order::Resume) => paused = false,
            Some(Order::Cancel(answer)) => {
                let deleted = env.seams.blocking().run(move || recording.cancel()).await;
                let _ = answer.send(deleted);
                return;
            }
            Some(Order::Finish(answer)) => {
                while !recording.is_full() && broken.is_none() {
                    (recording, broken) = step(&env, recording, &progress).await;
                    // Lets other tasks in where blocking work runs inline.
                    tokio::time::sleep(Duration::ZERO).await;
                }
                let _ = answer.send(match broken {
                    Some(error) => Err(error),
                    None => finish(&env, recording, task).await,
                });
                return;
            }
            None => (recording, broken) = step(&env, recording, &progress).await,
        }
    }
}

async fn step<S: Seams>(
    env: &Env<S>,
    mut recording: Recording<S::Disk>,
    progress: &Mutex<Progress>,
) -> (Recording<S::Disk>, Option<String>) {
    let stepped = env.seams.blocking().run(move || {
        let outcome = recording.step();
        (recording, outcome)
    });
    let (recording, outcome) = stepped.await;
    *progress.lock().unwrap_or_else(PoisonError::into_inner) = recording.progress();
    let broken = outcome.err().map(|error| format!("write failed: {error}"));
    if let Some(what) = &broken {
        env.log.push(DeviceEvent::Trouble { what: what.clone() });
    }
    (recording, broken)
}

async fn finish<S: Seams>(
    env: &Env<S>,
    recording: Recording<S::Disk>,
    task: TaskConfig,
) -> Result<Closed, String> {
    let device_id = env.config.device_id.clone();
    let finished_ms = env.seams.clock().now().wall.0;
    let closed = env.seams.blocking().run(move || recording.finish(&device_id, &task, finished_ms)).await;
    let closed = closed.map_err(|error| format!("Failed to close recording: {error}"))?;
    for path in [Some(&closed.mcap), closed.sidecar.as_ref(), Some(&closed.marker)].into_iter().flatten() {
        env.log.push(DeviceEvent::FileWritten { path: path.clone() });
    }
    Ok(closed)
}
