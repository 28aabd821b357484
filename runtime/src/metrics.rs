//! Owns the registry of metrics and its text form. Counts what the edges tell it; reads the rest when asked.

mod policies;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tidegate_core::effect::ConflictKind;
use tidegate_core::id::Role;
use tidegate_core::machine::Stats;
use tidegate_policies::Figures;

use crate::board::Board;
use crate::feed;
use crate::ingest::Gate;
use crate::policies::Clamps;
use crate::timeouts::Timeouts;

/// What the driver counts, at one moment.
#[derive(Clone, Debug, Default)]
pub struct DriverStats {
    /// The machine's own counters.
    pub machine: Stats,
    /// Batches of inputs taken.
    pub batches: u64,
    /// Batches committed to the store.
    pub commits: u64,
    /// Links closed because they did not take what was sent.
    pub links_stuck: u64,
    /// Frames that were not sent because their secret was lost.
    pub frames_dropped: u64,
    /// Seconds spent in commits, all together.
    pub commit_seconds: f64,
    /// Bytes of the journal now.
    pub journal_bytes: u64,
    /// Inputs that are quarantined, by their crashes before this boot.
    pub quarantined: u64,
    /// Tasks of whose recordings people were told that they do not come.
    pub overdue: u64,
    /// How often the core did otherwise than the active set of policies said.
    pub clamps: Clamps,
    /// Decisions that were too large to be recorded.
    pub unrecorded: u64,
    /// What is counted of policies where they are asked.
    pub policies: Figures,
    /// Links that there are descriptors for.
    pub links_capacity: u64,
    /// Connections that could not be accepted, by what was in the way.
    pub accept_errors: BTreeMap<&'static str, u64>,
    /// The stream of changes.
    pub stream: feed::Figures,
}

/// Where the driver's counters are read at every scrape.
pub type StatsSource = Arc<dyn Fn() -> DriverStats + Send + Sync>;

/// The metrics of a site. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<HttpLabels, Counter>,
    dropped: Family<RoleLabels, Counter>,
    throttled: Family<RoleLabels, Counter<f64, AtomicU64>>,
    timeouts: Timeouts,
    oversize: Family<RoleLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabels {
    role: &'static str,
}

impl Metrics {
    /// Metrics of a site with this board and these counters.
    #[must_use]
    pub fn new(board: Board, stats: StatsSource) -> Metrics {
        Metrics::with_timeouts(board, stats, Timeouts::default())
    }

    /// As [`Metrics::new`], with timeouts that others count as well.
    #[must_use]
    pub fn with_timeouts(board: Board, stats: StatsSource, timeouts: Timeouts) -> Metrics {
        let requests = Family::default();
        let dropped = Family::default();
        let throttled = Family::default();
        let oversize = Family::default();
        let mut registry = Registry::with_prefix("tidegate");
        registry.register("http_requests", "HTTP requests by route and status", requests.clone());
        registry.register("dropped_frames", "Frames of devices that were no JSON object", dropped.clone());
        let text = "Messages of devices beyond devices.max_message; each closed its link";
        registry.register("oversize_messages", text, oversize.clone());
        let text = "Time in which links were not read because they say more than devices.message_rate";
        registry.register("throttled_seconds", text, throttled.clone());
        let text = "Waits that were given up, by what was waited for";
        registry.register("timeouts", text, timeouts.family());
        registry.register_collector(Box::new(Site { board, stats }));
        Metrics { registry: Arc::new(registry), requests, dropped, throttled, oversize, timeouts }
    }

    /// Counts an answered request. `route` is a pattern, never a path: paths are as many as strangers can think of.
    pub fn request(&self, method: &http::Method, route: &str, status: u16) {
        let labels = HttpLabels { method: known(method), route: route.to_owned(), status };
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts a frame of a device that was no JSON object.
    pub fn dropped_frame(&self, role: Role) {
        self.dropped.get_or_create(&RoleLabels { role: role.name() }).inc();
    }

    /// Where timeouts are told.
    #[must_use]
    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Counts a pause in reading a link that says too much.
    pub fn throttled(&self, role: Role, pause: Duration) {
        self.throttled.get_or_create(&RoleLabels { role: role.name() }).inc_by(pause.as_secs_f64());
    }

    /// Counts a message of a device that was beyond the bound and closed its link.
    pub fn oversize_message(&self, role: Role) {
        self.oversize.get_or_create(&RoleLabels { role: role.name() }).inc();
    }

    /// All of them, in the OpenMetrics text form.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }
}

fn known(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// What is read at every scrape.
struct Site {
    board: Board,
    stats: StatsSource,
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").finish_non_exhaustive()
    }
}

impl Collector for Site {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let out = &mut encoder;
        let stats = (self.stats)();
        let counted = self.board.counted();
        let queue = self.board.queue();
        let destination = self.board.destination();
        let (gate, space) = self.board.storage();
        gauge(
            out,
            "edge_gate_open",
            "Whether devices may upload: 0 while the disk is full or the site stops",
            u64::from(gate == Gate::Open),
        )?;
        if let Some(space) = space {
            gauge(out, "edge_free_bytes", "Free bytes of the disk, as last measured", space.free)?;
        }
        let links = [("recorder", counted.recorders), ("transfer", counted.transfers)];
        gauges(out, "links", "Links that are up", "role", links)?;
        let text = "Recorders whose link is up, by how far their state is believed";
        let known = counted.confidence.iter().map(|(word, recorders)| (*word, *recorders));
        gauges(out, "recorders", text, "confidence", known)?;
        let text = "Links of devices, of both roles together, that the limit of open files has room for";
        gauge(out, "links_capacity", text, stats.links_capacity)?;
        let text = "Connections that could not be accepted";
        counters(out, "accept_errors", text, "kind", &stats.accept_errors)?;
        let [recorders, transfers] = counted.contests;
        let contests = [("recorder", recorders), ("transfer", transfers)];
        gauges(out, "contests", "Links that two programs fight over", "role", contests)?;
        let jobs = [
            ("due", queue.due),
            ("waiting", queue.waiting),
            ("uploading", queue.uploading),
            ("parked", queue.parked),
        ];
        gauges(
            out,
            "jobs",
            "Sync jobs that are not finished",
            "state",
            jobs.map(|(k, n)| (k, u64::from(n))),
        )?;
        gauge(
            out,
            "destination_streak",
            "Failures of the way to the cloud in a row",
            u64::from(destination.streak),
        )?;
        gauge(out, "journal_bytes", "Bytes of the journal", stats.journal_bytes)?;
        gauge(
            out,
            "quarantined_inputs",
            "Different inputs that are not stepped any more because they made the core panic",
            stats.quarantined,
        )?;
        gauge(out, "tasks_overdue", "Tasks whose recording is overdue or nowhere", stats.overdue)?;
        counter(
            out,
            "quarantined",
            "Times that such an input came and was not stepped",
            stats.machine.inputs.get("quarantined").copied().unwrap_or(0),
        )?;
        let conflicts =
            |kind: ConflictKind| (kind.name(), counted.conflicts.get(kind.name()).copied().unwrap_or(0));
        gauges(
            out,
            "conflicts",
            "Devices that hold something against their records",
            "kind",
            ConflictKind::ALL.map(conflicts),
        )?;
        counters(out, "inputs", "Inputs stepped", "input", &stats.machine.inputs)?;
        counters(out, "facts", "Facts delivered between machines", "fact", &stats.machine.facts)?;
        counters(out, "changes", "Durable changes", "change", &stats.machine.changes)?;
        counters(out, "refused_messages", "Messages of devices that were refused", "code", &counted.refused)?;
        counters(
            out,
            "takeovers",
            "Links that took the place of an older one of the same program",
            "role",
            &counted.takeovers,
        )?;
        counters(out, "unknown_operations", "Commands whose end nobody knows", "action", &counted.unknown)?;
        counter(out, "superseded_inputs", "Inputs of superseded links, dropped", stats.machine.superseded)?;
        counter(out, "stale_outcomes", "Outcomes nobody waited for, dropped", stats.machine.stale_outcomes)?;
        counter(out, "batches", "Batches of inputs taken", stats.batches)?;
        counter(out, "commits", "Batches committed", stats.commits)?;
        let text = "Links that were closed because they did not take what was sent";
        counter(out, "links_stuck", text, stats.links_stuck)?;
        let text = "Frames that were not sent because their secret was lost";
        counter(out, "frames_dropped", text, stats.frames_dropped)?;
        let stream = &stats.stream;
        gauge(out, "streams", "Streams of changes that are open", stream.streams)?;
        gauge(out, "stream_window_events", "Events that a stream can be resumed from", stream.window_events)?;
        gauge(out, "stream_window_bytes", "Memory of these events", stream.window_bytes)?;
        counter(out, "stream_events", "Events of the stream of changes", stream.events)?;
        let text = "Times that a reader of the stream was too slow and began again";
        counter(out, "stream_resyncs", text, stream.resyncs)?;
        counter(out, "streams_refused", "Streams refused because there were too many", stream.turned_away)?;
        let text = "Decisions that were too large to be recorded";
        counter(out, "policy_unrecorded", text, stats.unrecorded)?;
        let view = self.board.policies();
        policies::encode(out, &stats.policies, &stats.clamps, view.as_deref())?;
        let seconds = ConstCounter::new(stats.commit_seconds);
        let descriptor = encoder.encode_descriptor(
            "commit_seconds",
            "Time spent in commits",
            None,
            seconds.metric_type(),
        )?;
        seconds.encode(descriptor)
    }
}

type Encoder<'a> = DescriptorEncoder<'a>;

fn counter(out: &mut Encoder<'_>, name: &str, text: &str, value: u64) -> fmt::Result {
    let metric = ConstCounter::new(value);
    metric.encode(out.encode_descriptor(name, text, None, metric.metric_type())?)
}

fn gauge(out: &mut Encoder<'_>, name: &str, text: &str, value: u64) -> fmt::Result {
    let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    metric.encode(out.encode_descriptor(name, text, None, metric.metric_type())?)
}

fn counters<'a>(
    out: &mut Encoder<'_>,
    name: &str,
    text: &str,
    label: &'static str,
    values: impl IntoIterator<Item = (&'a &'static str, &'a u64)>,
) -> fmt::Result {
    let mut family = out.encode_descriptor(name, text, None, ConstCounter::new(0_u64).metric_type())?;
    for (word, value) in values {
        let metric = ConstCounter::new(*value);
        metric.encode(family.encode_family(&[(label, *word)])?)?;
    }
    Ok(())
}

fn gauges(
    out: &mut Encoder<'_>,
    name: &str,
    text: &str,
    label: &'static str,
    values: impl IntoIterator<Item = (&'static str, u64)>,
) -> fmt::Result {
    let mut family = out.encode_descriptor(name, text, None, ConstGauge::new(0_i64).metric_type())?;
    for (word, value) in values {
        let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        metric.encode(family.encode_family(&[(label, word)])?)?;
    }
    Ok(())
}
