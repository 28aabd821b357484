//! Puts a site together and takes it apart: the one way the binary, the tests and the simulator start a site. Owns
//! the order of things, no rule about them.

mod encrypt;
mod keys;
mod ports;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::FutureExt;
use tidegate_core::digest::Sha256;
use tidegate_core::id::{Boot, ObjectKey, Role};
use tidegate_core::input::Input;
use tidegate_policies::{Ceilings, Host, Shelf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};

use self::ports::{address_of, listen, own_port};
use crate::api;
use crate::board::Board;
use crate::capacity::{self, Capacity};
use crate::config::{Config, Door, Listen, Secret};
use crate::crash::Crash;
use crate::door::Complaints;
use crate::driver::{Driver, DriverError};
use crate::feed::{Feed, Window};
use crate::figures::Gauge;
use crate::grants::{Grants, Mint};
use crate::inbox::Inbox;
use crate::ingest::{self, AccessKey, Endpoint, EndpointConfig, Spool};
use crate::link::{self, Links};
use crate::metrics::{DriverStats, Metrics};
use crate::object::edge::EdgeStore;
use crate::object::executor::{Stores, execute};
use crate::object::{ObjectStore, SourceRead};
use crate::policies::{self, Loader, Watch, Watched};
use crate::release::Release;
use crate::seam::{Blocking, Clock, Listener, Seams};
use crate::server::{self, Bounds, Clocks};
use crate::space::{self, Measure};
use crate::store::{Blobs, OpenError, Store, StoreError, View};
use crate::surroundings::Look;
use crate::timeouts::Timeouts;
use crate::tls::Acceptor;

/// Why a site did not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A setting is out of range, or a destination cannot work.
    #[error("{0}")]
    Config(String),
    /// An address cannot be listened on.
    #[error(
        "{key} = {address} cannot be listened on: {error}; stop what uses it, or set {key} to another address"
    )]
    Listen {
        /// Name of the setting.
        key: &'static str,
        /// Its value.
        address: SocketAddr,
        /// The system's word.
        error: std::io::Error,
    },
    /// The data directory was refused.
    #[error(transparent)]
    DataDir(#[from] OpenError),
    /// The folder of recordings was refused.
    #[error(transparent)]
    Spool(#[from] ingest::OpenError),
    /// A file of the data directory could not be read or made.
    #[error("{path} cannot be used: {error}")]
    File {
        /// The file.
        path: String,
        /// What failed.
        error: std::io::Error,
    },
    /// The store failed right at the start.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The driver ended before it was ready.
    #[error(transparent)]
    Driver(DriverError),
    /// An input without which there is no site made the core panic too often: it was not tried again.
    #[error(
        "{crash}. The site in data directory {dir} is not started with it again. Run `tidegate replay --verify \
         --data-dir {dir}` and report what it says together with this; then install a release that mends it, or \
         restore the directory from a copy. `tidegate quarantine clear --data-dir {dir}` gives it another try", dir = dir.display()
    )]
    Hopeless {
        /// The directory.
        dir: PathBuf,
        /// What happened so far.
        crash: Box<Crash>,
    },
}

impl BootError {
    /// Exit code of the process: 3 configuration, 4 data directory refused, 1 anything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            BootError::Config(_) | BootError::Listen { .. } => 3,
            BootError::DataDir(_)
            | BootError::Spool(_)
            | BootError::File { .. }
            | BootError::Hopeless { .. } => 4,
            BootError::Store(_) | BootError::Driver(_) => 1,
        }
    }
}

/// Why a running site cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// Its driver ended.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// One of its tasks ended although nobody told it to.
    #[error("{name} ended while the site ran: {why}; the site stopped, and nothing durable is lost")]
    Task {
        /// Which.
        name: &'static str,
        /// What is known of it.
        why: String,
    },
}

/// How a task of the site ended.
#[derive(Debug)]
struct Ended {
    name: &'static str,
    /// The words of its panic.
    panic: Option<String>,
}

/// Keys that devices upload with.
#[derive(Clone, Debug)]
pub struct EdgeKeys {
    /// The public half.
    pub access_key: String,
    /// The secret half.
    pub secret_key: Secret,
    /// Whether they were made in this very start: the one time they are shown.
    pub first_time: bool,
}

/// A running site. [`Site::shutdown`] ends it in order; dropping it ends it too, but nobody waits for the driver then.
pub struct Site {
    /// Where the HTTP API listens.
    pub api_addr: SocketAddr,
    /// Where the embedded S3 endpoint listens.
    pub s3_addr: SocketAddr,
    /// Where recorders may connect besides the API.
    pub recorder_addr: Option<SocketAddr>,
    /// Where uploaders may connect besides the API.
    pub transfer_addr: Option<SocketAddr>,
    /// Keys that devices upload with.
    pub edge_keys: EdgeKeys,
    /// A token for the API that was made in this very start: the one time it is shown.
    pub admin_token: Option<Secret>,
    /// Number of this start.
    pub boot: Boot,
    /// Committed records.
    pub view: View,
    /// What viewers were told last.
    pub board: Board,
    /// What viewers are told.
    pub feed: Feed,
    /// The way to the driver.
    pub inbox: Inbox,
    /// Figures of the driver.
    pub gauge: Gauge,
    listen: Listen,
    timeouts: Timeouts,
    links: Option<Links>,
    capacity: Capacity,
    drain: Duration,
    stage: watch::Sender<api::Stage>,
    stop: watch::Sender<bool>,
    close: watch::Sender<bool>,
    driver: Option<JoinHandle<Result<(), DriverError>>>,
    tasks: JoinSet<Ended>,
    /// The first task that ended before it was told to.
    early: Option<Ended>,
}

/// Starts a site: lock, store, recordings, listeners, keys, driver; then it serves. `cloud` makes the destination
/// out of a reader of the recordings, if one is configured; its timeouts are told with those of the site, and its error is one
/// of the configuration.
///
/// # Errors
/// [`BootError`]; nothing of the site is left running.
pub async fn start<S: Seams>(
    seams: S,
    config: Config,
    cloud: impl FnOnce(Arc<dyn SourceRead>, Timeouts) -> Result<Option<Arc<dyn ObjectStore>>, String>,
) -> Result<Site, BootError> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let mut knobs = crate::bug::in_core(config.knobs().map_err(|bad| BootError::Config(bad.to_string()))?);
    let capacity = capacity::arrange(&seams, &config);
    knobs.links_max = u32::try_from(capacity.links).unwrap_or(u32::MAX).max(1);
    let acceptor = encrypt::acceptor(&seams, &config).await?;
    let tls = |door: Door| acceptor.clone().filter(|_| config.listen.encrypts(door));
    let (store, boot) = open_store(&seams, &config).await?;
    let loader = loader(&seams, &config, store.view()).await?;
    if loader.host().is_none() {
        knobs.native = true;
    }
    let (spool, found) = Spool::open(seams.clone(), config.data_dir.join(SPOOL)).await?;
    for damaged in &found.damaged {
        tracing::warn!(record = %damaged.display(), "a record of a recording cannot be read; it is left alone");
    }
    let bucket = config.edge_bucket();
    spool.create_bucket(&bucket).await.map_err(|refusal| match refusal {
        ingest::Refusal::InvalidArgument(why) => BootError::Config(format!("site: {why}")),
        refusal => BootError::File {
            path: config.data_dir.join(SPOOL).display().to_string(),
            error: std::io::Error::other(refusal),
        },
    })?;
    let edge = EdgeStore::new(spool.clone(), bucket.clone());
    let rooms = knobs.clone();
    let timeouts = Timeouts::default();
    let cloud = cloud(Arc::new(edge.clone()), timeouts.clone()).map_err(BootError::Config)?;

    let (board, gauge) = (Board::new(), Gauge::default());
    gauge.update(|figures| figures.links_capacity = capacity.links);
    let complaints = Complaints::new(gauge.clone());
    let listen = |key, address| listen(&seams, key, address, &complaints);
    let api_socket = listen("listen.api", Some(config.listen.api)).await?;
    let s3_socket = listen("listen.s3", Some(config.listen.s3)).await?;
    let recorder_socket = listen("listen.recorder", config.listen.recorder).await?;
    let transfer_socket = listen("listen.transfer", config.listen.transfer).await?;
    // After everything that an operator may have to mend first: keys that are made are shown once.
    let edge_keys = keys::edge_keys(&seams, &config).await?;

    let (inbox, letters) = Inbox::new();
    let (feed, grants) = (Feed::new(boot, board.clone(), window(&config)), Grants::default());
    let (gate, gate_watch) = watch::channel(ingest::Gate::Open);
    let frozen = ingest::Frozen::new(&bucket);
    let (operations, operations_out) = mpsc::unbounded_channel();
    let (on_policies, on_policies_out) = mpsc::unbounded_channel();
    let (stop, stop_watch) = watch::channel(false);
    let (close, close_watch) = watch::channel(false);
    let (stage, stage_watch) = watch::channel(api::Stage::Booting);
    let (ready, is_ready) = oneshot::channel();
    let view = store.view();
    let mut seed = [0; 8];
    seams.blocking().entropy(&mut seed);
    let shelf = Shelf::with_builtin(knobs.builtin.clone());
    let decided = shelf.figures();
    let driver = Driver {
        clock: seams.clock().clone(),
        blocking: seams.blocking().clone(),
        store,
        boot,
        seed: u64::from_le_bytes(seed),
        knobs,
        drain: config.shutdown.drain,
        letters,
        release: Release::new(operations, on_policies, feed.clone(), gate, frozen.clone(), gauge.clone())
            .granting(grants.clone())
            .timing(timeouts.clone()),
        loader: loader.clone(),
        shelf,
        gauge: gauge.clone(),
        stop: stop_watch,
        ready,
    };
    let on_policy = api::OnPolicies { loader: loader.clone(), figures: decided, watched: Watched::default() };
    let blocking = seams.blocking().clone();
    let driver =
        tokio::spawn(async move { blocking.dedicate("tidegate-driver", move || driver.run()).await });

    let objects = execute(Stores { edge: Arc::new(edge), cloud }, operations_out, inbox.clone());
    let mut site = Site {
        api_addr: address_of(&api_socket, config.listen.api),
        s3_addr: address_of(&s3_socket, config.listen.s3),
        recorder_addr: config.listen.recorder.map(|wanted| address_of(&recorder_socket, wanted)),
        transfer_addr: config.listen.transfer.map(|wanted| address_of(&transfer_socket, wanted)),
        edge_keys,
        admin_token: None,
        boot,
        view,
        feed,
        board,
        inbox,
        gauge,
        listen: config.listen.clone(),
        timeouts: timeouts.clone(),
        links: None,
        capacity,
        drain: config.shutdown.drain,
        stage,
        stop,
        close,
        driver: Some(driver),
        tasks: JoinSet::new(),
        early: None,
    };
    site.spawn("the executor of object operations", objects);
    let performed = policies::perform(seams.clone(), loader.clone(), on_policies_out, site.inbox.clone());
    site.spawn("the executor of operations on policies", performed);
    // Before the first module is asked anything, which is when the driver gets its set ready.
    site.spawn("the clock of policies", policies::keep_ticking(seams.clone(), loader, close_watch.clone()));
    if is_ready.await.is_err() {
        let silent = || DriverError::Panicked("it ended before it was ready".to_owned());
        return Err(match site.driver_ended().await.err().unwrap_or_else(silent) {
            DriverError::Hopeless(crash) => BootError::Hopeless { dir: config.data_dir.clone(), crash },
            error @ (DriverError::Store(_) | DriverError::Panicked(_)) => BootError::Driver(error),
        });
    }

    let measured = Measure { seams: seams.clone(), dir: config.data_dir.clone(), knobs: rooms };
    let measured = measured.keep_telling(site.board.clone(), site.inbox.clone(), until(close_watch.clone()));
    site.spawn("the measurement of free space", measured);
    let look = Look { seams: seams.clone(), dir: config.data_dir.clone(), said: config.surroundings.clone() };
    let looked = look.keep_telling(site.inbox.clone(), until(close_watch.clone()));
    site.spawn("the look at the surroundings", looked);
    site.spawn(
        "the bearer of what policies say",
        policies::keep_logging(seams.clone(), on_policy.figures.clone(), until(close_watch.clone())),
    );
    if let Some(dir) = &config.policies.watch {
        let watch = Watch {
            seams: seams.clone(),
            dir: dir.clone(),
            max_bytes: config.policies.max_bytes,
            loader: on_policy.loader.clone(),
            view: site.view.clone(),
            inbox: site.inbox.clone(),
            watched: on_policy.watched.clone(),
        };
        site.spawn("the watch over the folder of policies", watch.keep_watching(until(close_watch.clone())));
    }
    if let Some(after) = config.edge.abandoned_after {
        let expired = space::keep_expiring(
            seams.clone(),
            spool.clone(),
            bucket.clone(),
            after,
            until(close_watch.clone()),
        );
        site.spawn("the removal of abandoned uploads", expired);
    }
    let (stored, stored_out) = mpsc::channel(STORED_HINTS);
    let hints = tell_stored(stored_out, bucket, site.inbox.clone());
    site.spawn("the bearer of hints from the S3 endpoint", hints);
    let endpoint = Endpoint::new(
        spool,
        EndpointConfig {
            keys: vec![AccessKey {
                id: site.edge_keys.access_key.clone(),
                secret: site.edge_keys.secret_key.reveal().to_owned(),
            }],
            max_skew: config.edge.max_clock_skew,
            gate: Some(gate_watch),
            // The boot is released: what must stay is in it before the first request is served.
            frozen: Some(frozen),
            stored: Some(stored),
            shutdown_budget: config.shutdown.drain,
            connections_max: capacity.uploads,
            tls: tls(Door::S3),
            timeouts: timeouts.clone(),
            ..EndpointConfig::default()
        },
    );
    if let Some(socket) = s3_socket {
        let closed = until(close_watch.clone());
        site.spawn("the S3 endpoint", async move { endpoint.serve(socket, closed).await });
    }
    let access = keys::access(&config, grants, Mint::new(seams.blocking().clone()));
    site.admin_token = keys::admin_token(&config, &site.inbox, &access).await?;
    let (state, links) = routes(&seams, &config, &site, on_policy, access, stage_watch, &timeouts);
    let api = api::router(state.clone(), links.router(|role| config.demand(role, config.listen.api)));
    let recorders =
        api::device_router(state.clone(), own_port(&links, Role::Recorder, &config, config.listen.recorder));
    let uploaders =
        api::device_router(state, own_port(&links, Role::Transfer, &config, config.listen.transfer));
    let bounds = Bounds {
        connections: site.capacity.connections,
        shutdown: config.shutdown.drain,
        ..Bounds::default()
    };
    site.serve("the HTTP API", api_socket, api, bounds, &close_watch, tls(Door::Api));
    site.serve(
        "the listener of recorders",
        recorder_socket,
        recorders,
        bounds,
        &close_watch,
        tls(Door::Recorder),
    );
    site.serve(
        "the listener of uploaders",
        transfer_socket,
        uploaders,
        bounds,
        &close_watch,
        tls(Door::Transfer),
    );
    site.links = Some(links);
    site.stage.send_replace(api::Stage::Serving);
    tracing::info!(site = config.site, boot = boot.0, api = %site.api_addr, s3 = %site.s3_addr, "serving");
    Ok(site)
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site")
            .field("boot", &self.boot)
            .field("api_addr", &self.api_addr)
            .field("s3_addr", &self.s3_addr)
            .field("edge_keys", &self.edge_keys)
            .finish_non_exhaustive()
    }
}

impl Site {
    /// Whether a listener speaks TLS.
    #[must_use]
    pub fn encrypts(&self, door: Door) -> bool {
        self.listen.encrypts(door)
    }

    /// Waits until the driver or any task of the site ends by itself, which they do only if the site cannot go on.
    /// Call [`Site::shutdown`] afterwards all the same. May be dropped and called again.
    ///
    /// # Errors
    /// Why the site cannot go on.
    pub async fn wait(&mut self) -> Result<(), SiteError> {
        while self.early.is_none() {
            let Some(driver) = &mut self.driver else { return Ok(()) };
            tokio::select! {
                biased;
                ended = driver => {
                    self.driver = None;
                    return Ok(of_driver(ended)?);
                }
                Some(Ok(ended)) = self.tasks.join_next() => self.early = Some(ended),
            }
        }
        // Tasks that serve the driver end by themselves when it does, a moment earlier: then its word counts.
        if let Ok(ended) = tokio::time::timeout(DRIVER_LAST_WORD, self.driver_ended()).await {
            ended?;
        }
        let Some(Ended { name, panic }) = self.early.take() else { return Ok(()) };
        let why = panic.map_or_else(|| "it returned".to_owned(), |panic| format!("it panicked: {panic}"));
        Err(SiteError::Task { name, why })
    }

    /// Waits for the driver alone.
    async fn driver_ended(&mut self) -> Result<(), DriverError> {
        let Some(driver) = &mut self.driver else { return Ok(()) };
        let ended = driver.await;
        self.driver = None;
        of_driver(ended)
    }

    /// Stops in order: begin nothing, let what is in flight end within `shutdown.drain`, make the rest durable,
    /// close the store, then the listeners.
    ///
    /// # Errors
    /// Why the last of it could not be made durable.
    pub async fn shutdown(mut self) -> Result<(), DriverError> {
        self.stage.send_replace(api::Stage::Stopping);
        self.stop.send_replace(true);
        let ended = self.driver_ended().await;
        if let Some(links) = &self.links {
            // Devices that were told to go hear it before the process does.
            links.drained(self.drain).await;
        }
        self.close.send_replace(true);
        while let Some(task) = self.tasks.join_next().await {
            if let Ok(Ended { name, panic: Some(panic) }) = task {
                tracing::error!(name, panic, "a task of the site panicked");
            }
        }
        ended
    }

    fn serve<L: Listener>(
        &mut self,
        name: &'static str,
        socket: Option<L>,
        routes: Router,
        bounds: Bounds,
        close: &watch::Receiver<bool>,
        tls: Option<Acceptor>,
    ) {
        let Some(socket) = socket else { return };
        self.spawn(name, server::serve(socket, routes, bounds, close.clone(), tls, self.timeouts.clone()));
    }

    /// Starts a task that must not end before the site is told to stop.
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            // Nothing of the task is used again after a panic: the site ends with it.
            let panic = AssertUnwindSafe(task).catch_unwind().await.err();
            Ended { name, panic: panic.map(|panic| panic_text(&*panic)) }
        });
    }
}

async fn open_store<S: Seams>(seams: &S, config: &Config) -> Result<(Store, Boot), BootError> {
    let (disk, dir, limit) = (seams.disk().clone(), config.data_dir.clone(), config.journal.limit);
    seams
        .blocking()
        .run(move || {
            let mut store = Store::open(&disk, &dir, limit)?;
            let boot = store.begin_boot()?;
            Ok((store, boot))
        })
        .await
}

/// Who has the site's modules. A site whose machine cannot run any starts all the same, on the built-in rules.
async fn loader<S: Seams>(seams: &S, config: &Config, rows: View) -> Result<Loader, BootError> {
    if config.policies.native {
        return Ok(Loader::native());
    }
    let bytes = usize::try_from(config.policies.max_bytes).unwrap_or(usize::MAX);
    let host = match Host::new(Ceilings { bytes, ..Ceilings::default() }) {
        Ok(host) => host,
        Err(error) => {
            tracing::error!(%error, "this machine cannot run policies: the built-in rules decide alone");
            return Ok(Loader::native());
        }
    };
    let (disk, dir) = (seams.disk().clone(), config.data_dir.clone());
    let path = dir.join("policies").display().to_string();
    let opened = seams.blocking().run(move || {
        let blobs = Blobs::open(&disk, &dir)?;
        // A later program comes with another one, and a replay then still needs this.
        blobs.put(policies::DEFAULT)?;
        Ok(blobs)
    });
    let blobs = opened.await.map_err(|error| BootError::File { path, error })?;
    let loader = Loader::new(host, blobs, &config.policies.keys);
    let swept = loader.clone();
    if let Err(error) = seams.blocking().run(move || swept.sweep(&rows)).await {
        tracing::warn!(%error, "modules that nobody knows may stay until the next start");
    }
    Ok(loader)
}

fn window(config: &Config) -> Window {
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Window { events: size(config.stream.events), bytes: size(config.stream.bytes) }
}

fn routes<S: Seams>(
    seams: &S,
    config: &Config,
    site: &Site,
    policies: api::OnPolicies,
    access: api::Access,
    stage: watch::Receiver<api::Stage>,
    timeouts: &Timeouts,
) -> (api::ApiState, Links) {
    let clock = seams.clock().clone();
    let clocks: Clocks = Arc::new(move || clock.now());
    let (gauge, decided, feed) = (site.gauge.clone(), policies.figures.clone(), site.feed.clone());
    let metrics = Metrics::with_timeouts(
        site.board.clone(),
        Arc::new(move || {
            let figures = gauge.read();
            DriverStats {
                machine: figures.machine,
                batches: figures.batches,
                commits: figures.commits,
                commit_seconds: figures.commit_ns as f64 / 1e9,
                journal_bytes: figures.journal_bytes,
                quarantined: figures.quarantined,
                overdue: figures.overdue,
                clamps: figures.clamps,
                unrecorded: figures.unrecorded,
                links_stuck: figures.links_stuck,
                frames_dropped: figures.frames_dropped,
                policies: decided.read(),
                links_capacity: figures.links_capacity,
                accept_errors: figures.accept_errors,
                stream: feed.figures(),
            }
        }),
        timeouts.clone(),
    );
    let defaults = link::Bounds::default();
    let bounds = link::Bounds {
        max_message: usize::try_from(config.devices.max_message).unwrap_or(usize::MAX),
        knock: config.devices.handshake_timeout,
        upgrade: config.devices.handshake_timeout,
        recorder_ping: config.devices.ping_interval.unwrap_or(defaults.recorder_ping),
        transfer_ping: config.devices.ping_interval.unwrap_or(defaults.transfer_ping),
        pong: config.devices.ping_timeout,
        busy: config.devices.busy_patience,
        bound_keep: config.auth.bound_keep,
        messages: link::message_rate(config.devices.message_rate),
        ..defaults
    };
    let (reads, runner) = (Arc::new(site.view.clone()), api::runner(seams.blocking().clone()));
    let rows = link::Rows { reads: reads.clone(), runner: runner.clone() };
    let links =
        Links::new(site.inbox.clone(), site.board.clone(), metrics.clone(), clocks.clone(), bounds, rows);
    let state = api::ApiState::new(api::Parts {
        inbox: site.inbox.clone(),
        reads,
        runner,
        board: site.board.clone(),
        feed: site.feed.clone(),
        summary: api::Summary {
            site: config.site.clone(),
            public_url: config.public_url.clone(),
            worker_running: config.cloud.is_some(),
            auto_scan_enabled: config.sync.auto_scan,
            max_retries: config.sync.attempts,
            rpc_timeout: config.devices.rpc_timeout,
            uploading_deadline: config.devices.uploading_deadline,
            policy_bytes_max: config.policies.max_bytes,
            ways: ports::ways(config, site),
        },
        metrics,
        access,
        policies,
        clock: clocks,
        stage,
        callers: api::callers(),
        newcomers: api::newcomers(),
    });
    (state, links)
}

/// Passes the endpoint's hints on to the driver.
async fn tell_stored(mut stored: mpsc::Receiver<ingest::Stored>, bucket: String, inbox: Inbox) {
    while let Some(object) = stored.recv().await {
        if object.bucket != bucket {
            continue;
        }
        match ObjectKey::new(&object.key) {
            Ok(key) => {
                let input = Input::Stored { key, len: object.len, sha256: Sha256(object.sha256) };
                if inbox.input(input).await.is_err() {
                    return;
                }
            }
            Err(bad) => tracing::warn!(%bad, "an object was stored under a key that no task can have"),
        }
    }
}

async fn until(mut watch: watch::Receiver<bool>) {
    // An error is a sender that is gone: the site is being dropped.
    let _ = watch.wait_for(|yes| *yes).await;
}

fn of_driver(ended: Result<Result<(), DriverError>, JoinError>) -> Result<(), DriverError> {
    match ended {
        Ok(result) => result,
        Err(error) => Err(DriverError::Panicked(match error.try_into_panic() {
            Ok(panic) => panic_text(&*panic),
            Err(_cancelled) => "it was cancelled".to_owned(),
        })),
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

/// How long a driver whose tasks ended may take to say why it ended itself: it closes the store first.
const DRIVER_LAST_WORD: Duration = Duration::from_secs(1);
const SPOOL: &str = "objects";
/// Hints that may wait for the driver; a hint that finds no room is dropped, and the uploader's own word or the next
/// look at the object makes up for it.
const STORED_HINTS: usize = 256;
