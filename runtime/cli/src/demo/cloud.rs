//! The demo's cloud: a second embedded S3 endpoint with a log of what reached it. Can withhold the answers to
//! parts, so that a site can be killed at a moment when something is acknowledged and something is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_runtime::ingest::{AccessKey, Endpoint, EndpointConfig, Observer, Record, Spool};
use tidegate_runtime::object::Boxed;
use tidegate_runtime::real::RealSeams;
use tidegate_runtime::seam::{Listener, Net, Seams};
use tokio::sync::watch;

use crate::Failure;

/// The bucket that the site sends to.
pub(crate) const BUCKET: &str = "demo-cloud";

/// What reached the store, per key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Bytes of object content received, repeated and broken requests included.
    pub(crate) bytes: u64,
    /// Parts whose answer was given.
    pub(crate) acknowledged: BTreeSet<u16>,
}

#[derive(Debug, Default)]
struct Log {
    seen: BTreeMap<String, Seen>,
}

/// Watches the requests of the store.
#[derive(Debug)]
pub(crate) struct Watcher {
    log: Mutex<Log>,
    /// Withhold answers to parts once an upload has this many acknowledged; `None` lets all pass.
    hold_after: watch::Sender<Option<usize>>,
    /// An answer is being withheld for this key.
    held: watch::Sender<Option<String>>,
}

impl Watcher {
    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What reached the store for a key.
    pub(crate) fn seen(&self, key: &str) -> Seen {
        self.log().seen.get(key).cloned().unwrap_or_default()
    }

    /// Withholds the answers to parts from the moment an upload has `count` acknowledged.
    pub(crate) fn hold_after(&self, count: usize) {
        self.hold_after.send_replace(Some(count));
    }

    /// Lets every answer pass again.
    pub(crate) fn release(&self) {
        self.hold_after.send_replace(None);
        self.held.send_replace(None);
    }

    /// Waits until an answer is withheld; the key.
    pub(crate) async fn held(&self) -> String {
        let mut held = self.held.subscribe();
        loop {
            if let Some(key) = held.borrow_and_update().clone() {
                return key;
            }
            if held.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Observer for Watcher {
    fn record(&self, record: Record) {
        let Some(key) = record.key else { return };
        let mut log = self.log();
        let seen = log.seen.entry(key).or_default();
        if matches!(record.operation.as_str(), "UploadPart" | "PutObject") {
            seen.bytes += record.body_bytes;
        }
    }

    fn before_answer<'a>(&'a self, record: &'a Record) -> Boxed<'a, ()> {
        Box::pin(async move {
            let (Some(key), Some(part)) = (&record.key, record.part_number) else { return };
            if record.status >= 300 {
                return;
            }
            let mut hold_after = self.hold_after.subscribe();
            let hold = *hold_after.borrow_and_update();
            let mut holding = self.held.borrow().is_some();
            if let Some(count) = hold
                && !holding
                && self.seen(key).acknowledged.len() >= count
            {
                self.held.send_replace(Some(key.clone()));
                holding = true;
            }
            // Until released, or until the connection is gone and this future with it.
            while holding && hold_after.borrow_and_update().is_some() {
                if hold_after.changed().await.is_err() {
                    return;
                }
            }
            self.log().seen.entry(key.clone()).or_default().acknowledged.insert(part);
        })
    }
}

/// A running store.
pub(crate) struct Cloud {
    pub(crate) port: u16,
    pub(crate) watcher: Arc<Watcher>,
    pub(crate) spool: Spool<RealSeams>,
    stop: tokio::sync::oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
}

impl Cloud {
    /// Starts a store in `dir` on a free port of loopback.
    pub(crate) async fn start(dir: &Path, key: &AccessKey) -> Result<Cloud, Failure> {
        let trouble = |what: &str, error: &dyn std::fmt::Display| {
            Failure::failed(format!("the cloud's {what}: {error}"))
        };
        let seams = RealSeams::new();
        let (spool, _) = Spool::open(seams.clone(), dir.to_path_buf())
            .await
            .map_err(|error| trouble("storage", &error))?;
        spool.create_bucket(BUCKET).await.map_err(|error| trouble("bucket", &format!("{error:?}")))?;
        let watcher = Arc::new(Watcher {
            log: Mutex::default(),
            hold_after: watch::Sender::new(None),
            held: watch::Sender::new(None),
        });
        let config = EndpointConfig {
            keys: vec![key.clone()],
            shutdown_budget: std::time::Duration::from_secs(1),
            observer: Some(Arc::clone(&watcher) as Arc<dyn Observer>),
            ..EndpointConfig::default()
        };
        let endpoint = Endpoint::new(spool.clone(), config);
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = seams.net().bind(any).await.map_err(|error| trouble("socket", &error))?;
        let port = listener.local_addr().map_err(|error| trouble("socket", &error))?.port();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let served = tokio::spawn(async move {
            endpoint
                .serve(listener, async {
                    let _ = stopped.await;
                })
                .await;
        });
        Ok(Cloud { port, watcher, spool, stop, served })
    }

    /// Ends it, and returns when it no longer touches its directory.
    pub(crate) async fn end(self) {
        self.watcher.release();
        drop(self.stop);
        // A panic in it was printed, and there is nothing left to save.
        let _ = self.served.await;
    }
}
