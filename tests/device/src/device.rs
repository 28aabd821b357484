//! Owns the two programs of a device as one thing that is spawned, stopped and killed.

use std::sync::Arc;
use std::time::Duration;

use tidegate_runtime::seam::Seams;

use crate::config::DeviceConfig;
use crate::events::{DeviceEvent, EventLog, Link};
use crate::life::{Fate, Life};
use crate::link::{self, Dial, Outbox};
use crate::recorder::Recorder;
use crate::uploader::Uploader;
use crate::ws::WsUrl;

/// What all parts of a device share.
pub(crate) struct Env<S> {
    pub seams: S,
    pub config: Arc<DeviceConfig>,
    pub log: EventLog,
    pub life: Life,
}

impl<S: Clone> Clone for Env<S> {
    fn clone(&self) -> Self {
        Self {
            seams: self.seams.clone(),
            config: Arc::clone(&self.config),
            log: self.log.clone(),
            life: self.life.clone(),
        }
    }
}

/// A running recorder with its uploader. Dropping it kills it.
#[derive(Debug)]
pub struct Device {
    log: EventLog,
    life: Life,
    config: Arc<DeviceConfig>,
}

impl Device {
    /// Starts both programs on the current tokio runtime. What an earlier run left in `data_dir` and `state_dir`
    /// is picked up as a real uploader would: unfinished uploads are queued again, unfinished recordings stay
    /// as they are.
    ///
    /// # Errors
    /// If an address cannot be read; the text names it.
    pub fn spawn<S: Seams>(seams: S, config: DeviceConfig) -> Result<Self, String> {
        let recorder_url = WsUrl::parse(&config.recorder_url)?;
        let mut transfer_url = WsUrl::parse(&config.transfer_url)?;
        transfer_url.path = format!("{}/{}", transfer_url.path.trim_end_matches('/'), config.device_id);
        let mut rng = fastrand::Rng::with_seed(config.seed);
        let recorder_dial = Dial {
            host: recorder_url.host.clone(),
            url: recorder_url,
            token: config.recorder_token.clone().filter(|token| !token.is_empty()),
            rng: rng.fork(),
        };
        let transfer_dial = Dial {
            host: format!("{}:{}", transfer_url.host, transfer_url.port),
            url: transfer_url,
            token: None,
            // Not from the seed: real uploaders never seed their jitter, so a fleet dials in step.
            rng: fastrand::Rng::with_seed(1),
        };
        let env = Env { seams, config: Arc::new(config), log: EventLog::new(), life: Life::new() };
        let device = Self { log: env.log.clone(), life: env.life.clone(), config: Arc::clone(&env.config) };

        let outbox = Outbox::default();
        let recorder = Recorder::new(env.clone(), outbox.clone(), rng.fork());
        env.life.spawn(link::run(env.clone(), recorder_dial, outbox, recorder));
        let uploader_rng = rng.fork();
        env.life.spawn({
            let env = env.clone();
            async move {
                let outbox = Outbox::default();
                let uploader = Uploader::start(env.clone(), outbox.clone(), uploader_rng).await;
                link::run(env, transfer_dial, outbox, uploader).await;
            }
        });
        Ok(device)
    }

    /// What it was told at its start.
    #[must_use]
    pub fn config(&self) -> &DeviceConfig {
        &self.config
    }

    /// What it did so far.
    #[must_use]
    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// See [`EventLog::wait_for`].
    ///
    /// # Errors
    /// After `deadline`: `what` and the last events, in words.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        deadline: Duration,
        find: impl FnMut(&[DeviceEvent]) -> Option<T>,
    ) -> Result<T, String> {
        self.log.wait_for(what, deadline, find).await
    }

    /// Waits until both links have been connected at least once.
    ///
    /// # Errors
    /// After `deadline`, with the last events.
    pub async fn connected(&self, deadline: Duration) -> Result<(), String> {
        self.wait_for("connection of both links", deadline, |events| {
            let up = |link| events.contains(&DeviceEvent::Connected { link });
            (up(Link::Recorder) && up(Link::Transfer)).then_some(())
        })
        .await
    }

    /// Ends both programs as SIGTERM does: a recording is completed without a callback, links close with 1000.
    /// What has not ended after `grace` is killed.
    pub async fn stop(self, grace: Duration) {
        self.life.set(Fate::Stop);
        if tokio::time::timeout(grace, self.life.ended()).await.is_err() {
            self.life.set(Fate::Kill);
            self.life.ended().await;
        }
    }

    /// Ends both programs as SIGKILL does: sockets drop, files and rows stay as they are on disk.
    pub async fn kill(self) {
        self.life.set(Fate::Kill);
        self.life.ended().await;
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.life.set(Fate::Kill);
    }
}
