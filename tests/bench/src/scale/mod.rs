//! `scale`: one site with thousands of links and a few viewers of the state stream. How long an update takes to the viewers,
//! what a link costs in memory and CPU, and how a fleet comes back that lost all its links at once. Owns the order of the
//! measurement and its tables; devices and viewers are processes of their own.

pub mod clients;
mod histogram;
mod site;
pub mod viewers;
mod wire;

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_runtime::config::{duration_text, parse_duration};

use crate::Bench;
use crate::table::{Cell, Table, number};
use crate::upload::process;
use histogram::Histogram;
use site::{Metrics, Site};

/// What `scale` can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Links in all.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=32_768))]
    links: u64,
    /// Which links each device has; with both it is half as many devices.
    #[arg(long, value_enum, default_value_t = Roles::Recorder)]
    roles: Roles,
    /// Processes that hold them, each with an address of its own: 127.0.0.2, 127.0.0.3, …
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    clients: u64,
    /// How often each recorder tells its state.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    every: Duration,
    /// Viewers of the state stream.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=64))]
    subscribers: u64,
    /// How long the updates are measured.
    #[arg(long = "for", value_name = "TIME", default_value = "120s", value_parser = parse_duration)]
    lasts: Duration,
    /// How all links end at once, after the updates.
    #[arg(long, value_enum)]
    storm: Option<Storm>,
}

/// Which links a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Roles {
    /// The recorder's.
    Recorder,
    /// The uploader's.
    Transfer,
    /// One of each.
    Both,
}

/// How all links end at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Storm {
    /// Every device drops its links.
    Drop,
    /// The site is killed, and started again.
    Kill,
}

/// Measures and tells.
pub fn run(bench: &Bench, options: &Options, tell: &mut dyn FnMut(Table)) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(bench, options, tell))
}

async fn measure(bench: &Bench, options: &Options, tell: &mut dyn FnMut(Table)) -> io::Result<()> {
    let mut site = Site::start(bench.dir.path()).await?;
    let fleet = options.fleet();
    let capacity = site.metrics().await?.get("tidegate_links_capacity").copied().unwrap_or(f64::INFINITY);
    if capacity < fleet.links() as f64 {
        let why = format!("{capacity} links have room in its descriptors; raise the hard limit (ulimit -Hn)");
        return Err(site.fault(&why));
    }
    let alone = site.memory();
    let begun = Instant::now();
    let mut clients = start_devices(options, site.api())?;
    fleet.wait(&site, Instant::now() + STEP).await?;
    let (dialled_in, linked) = (begun.elapsed(), site.memory());
    let mut viewers = match options.subscribers {
        0 => None,
        count => Some(open_viewers(site.api(), count)?),
    };

    say_to_all(&mut clients, "talk")?;
    // The first round of states is no longer a start.
    tokio::time::sleep(options.every).await;
    let begin = Look::take(&site, &clients, viewers.as_ref()).await?;
    if let Some(viewers) = &mut viewers {
        viewers.say("begin")?;
    }
    tokio::time::sleep(options.lasts).await;
    let end = Look::take(&site, &clients, viewers.as_ref()).await?;
    let seen = viewers.as_mut().map(|viewers| viewers.ask("report")).transpose()?;
    say_to_all(&mut clients, "hush")?;
    tell(holding(&fleet, alone, linked, &end, dialled_in));
    tell(updates(options, &fleet, &begin, &end));
    if let Some(seen) = &seen {
        tell(delivery(options, seen)?);
    }
    if let Some(storm) = options.storm {
        tell(weather(storm, &fleet, &mut site, &mut clients, viewers.as_mut()).await?);
    }
    let counts: Vec<Value> =
        clients.iter_mut().map(|client| client.ask("stop")).collect::<io::Result<_>>()?;
    tell(devices(&counts));
    Ok(())
}

/// How many links of each role there are to be.
#[derive(Clone, Copy, Debug)]
struct Fleet {
    recorders: u64,
    uploaders: u64,
}

impl Options {
    fn fleet(&self) -> Fleet {
        match self.roles {
            Roles::Recorder => Fleet { recorders: self.links, uploaders: 0 },
            Roles::Transfer => Fleet { recorders: 0, uploaders: self.links },
            Roles::Both => Fleet { recorders: self.links / 2, uploaders: self.links / 2 },
        }
    }
}

impl Fleet {
    fn links(&self) -> u64 {
        self.recorders + self.uploaders
    }

    fn is_whole(&self, metrics: &Metrics) -> bool {
        let has = |name: &str, wanted: u64| metrics.get(name).copied().unwrap_or(0.0) as u64 >= wanted;
        has("tidegate_links{role=\"recorder\"}", self.recorders)
            && has("tidegate_links{role=\"transfer\"}", self.uploaders)
            && has("tidegate_recorders{confidence=\"confirmed\"}", self.recorders)
    }

    /// Waits until all links are up and the state of each recorder is confirmed.
    async fn wait(&self, site: &Site, by: Instant) -> io::Result<()> {
        while !self.is_whole(&site.metrics().await?) {
            if Instant::now() > by {
                return Err(site.fault("not all links are up"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

/// What is read at the begin and the end of a time.
struct Look {
    at: Instant,
    site_cpu: f64,
    clients_cpu: f64,
    viewers_cpu: f64,
    memory: u64,
    metrics: Metrics,
}

impl Look {
    async fn take(site: &Site, clients: &[Program], viewers: Option<&Program>) -> io::Result<Look> {
        let metrics = site.metrics().await?;
        Ok(Look {
            at: Instant::now(),
            site_cpu: site.cpu(),
            clients_cpu: clients.iter().map(|client| client.cpu()).sum(),
            viewers_cpu: viewers.map_or(0.0, |viewers| viewers.cpu()),
            memory: site.memory(),
            metrics,
        })
    }

    /// By how much a counter rose since an earlier look.
    fn since(&self, earlier: &Look, name: &str) -> f64 {
        let at = |look: &Look| look.metrics.get(name).copied().unwrap_or(0.0);
        at(self) - at(earlier)
    }
}

fn holding(fleet: &Fleet, alone: u64, linked: u64, end: &Look, dialled_in: Duration) -> Table {
    let mut table =
        Table::new(format!("Scale: {} links held", fleet.links()), &["when", "site MiB", "KiB per link"]);
    let each = |memory: u64| memory.saturating_sub(alone) as f64 / 1024.0 / fleet.links() as f64;
    table.row(["before the first link".into(), mib(alone)]);
    table.row(["all links up".into(), mib(linked), number(each(linked), 1)]);
    table.row(["after the updates".into(), mib(end.memory), number(each(end.memory), 1)]);
    table.note(format!(
        "{} recorders and {} uploaders, all links up and all states confirmed {:.1} s after the first dial. Resident \
         memory of the site's process; what the kernel keeps for its sockets is not in it.",
        fleet.recorders,
        fleet.uploaders,
        dialled_in.as_secs_f64()
    ));
    table
}

fn updates(options: &Options, fleet: &Fleet, begin: &Look, end: &Look) -> Table {
    let columns = [
        "updates/s",
        "site CPU s per s",
        "CPU µs per update",
        "devices' CPU",
        "viewers' CPU",
        "commits/s",
        "ms per commit",
    ];
    let mut table = Table::new("Scale: updates", &columns);
    let seconds = (end.at - begin.at).as_secs_f64();
    let told = end.since(begin, "tidegate_inputs_total{input=\"recorder\"}");
    let commits = end.since(begin, "tidegate_commits_total");
    let cpu = end.site_cpu - begin.site_cpu;
    table.row([
        number(told / seconds, 0),
        number(cpu / seconds, 3),
        number(cpu / told * 1e6, 1),
        number((end.clients_cpu - begin.clients_cpu) / seconds, 3),
        number((end.viewers_cpu - begin.viewers_cpu) / seconds, 3),
        number(commits / seconds, 2),
        number(end.since(begin, "tidegate_commit_seconds_total") / commits * 1e3, 2),
    ]);
    table.note(format!(
        "Each of {} recorders tells a new state every {}, spread evenly, for {}. The CPU of the site holds its pings, its \
         journal and the streams of {} viewers. Devices and viewers run on the same cores.",
        fleet.recorders,
        duration_text(options.every),
        duration_text(options.lasts),
        options.subscribers
    ));
    table
}

fn delivery(options: &Options, seen: &Value) -> io::Result<Table> {
    let times =
        Histogram::from_json(&seen["delivery"]).ok_or_else(|| io::Error::other("viewers said nothing"))?;
    let columns = ["viewers", "states seen", "p50 ms", "p99 ms", "max ms", "events", "missing", "resyncs"];
    let mut table = Table::new("Scale: from a device to the viewers", &columns);
    let count = |key: &str| number(seen[key].as_u64().unwrap_or(0) as f64, 0);
    table.row([
        number(options.subscribers as f64, 0),
        number(times.count() as f64, 0),
        number(times.quantile(0.5) / 1e3, 2),
        number(times.quantile(0.99) / 1e3, 2),
        number(times.max() as f64 / 1e3, 2),
        count("events"),
        count("gaps"),
        count("resyncs"),
    ]);
    table.note(
        "From the moment at which a device wrote its state to the one at which a viewer had read the event, all viewers \
         together, on one clock. \"Missing\" are ids that no viewer was told of: there must be none.",
    );
    if let Some(trouble) = seen["trouble"].as_object().filter(|trouble| !trouble.is_empty()) {
        table.note(format!("Streams that failed and were opened again: {}", json!(trouble)));
    }
    Ok(table)
}

/// Ends all links at once and waits until everything is as before.
async fn weather(
    storm: Storm,
    fleet: &Fleet,
    site: &mut Site,
    clients: &mut [Program],
    viewers: Option<&mut Program>,
) -> io::Result<Table> {
    let knocks = "tidegate_inputs_total{input=\"knock\"}";
    let before = site.metrics().await?.get(knocks).copied().unwrap_or(0.0);
    let cpu = site.cpu();
    let begun = Instant::now();
    let (up_after, least) = match storm {
        Storm::Drop => {
            say_to_all(clients, "drop")?;
            (Duration::ZERO, before + fleet.links() as f64)
        }
        Storm::Kill => {
            site.kill_and_start().await?;
            (begun.elapsed(), fleet.links() as f64)
        }
    };
    let (mut links_at, by) = (None, begun + STEP);
    let settled = loop {
        let metrics = site.metrics().await?;
        let knocked = metrics.get(knocks).copied().unwrap_or(0.0) >= least;
        let up: f64 = ["recorder", "transfer"]
            .iter()
            .filter_map(|role| metrics.get(&format!("tidegate_links{{role=\"{role}\"}}")))
            .sum();
        if knocked && up as u64 >= fleet.links() {
            links_at.get_or_insert(begun.elapsed());
            if fleet.is_whole(&metrics) {
                break begun.elapsed();
            }
        }
        if Instant::now() > by {
            return Err(site.fault("the fleet did not come back"));
        }
        tokio::time::sleep(LOOK).await;
    };
    let cpu = match storm {
        Storm::Drop => site.cpu() - cpu,
        Storm::Kill => site.cpu(),
    };
    let columns = [
        "storm",
        "site ready s",
        "all links s",
        "all confirmed s",
        "site CPU s",
        "site MiB",
        "resyncs",
        "missing",
    ];
    let mut table = Table::new(format!("Scale: {} links end at once", fleet.links()), &columns);
    let seen = viewers.map(|viewers| viewers.ask("report")).transpose()?;
    let of = |key: &str| {
        seen.as_ref().map_or(Cell::Blank, |seen| number(seen[key].as_u64().unwrap_or(0) as f64, 0))
    };
    table.row([
        match storm {
            Storm::Drop => "every device drops its links".into(),
            Storm::Kill => "SIGKILL of the site, and a start".into(),
        },
        number(up_after.as_secs_f64(), 2),
        number(links_at.unwrap_or(settled).as_secs_f64(), 2),
        number(settled.as_secs_f64(), 2),
        number(cpu, 2),
        mib(site.memory()),
        of("resyncs"),
        of("gaps"),
    ]);
    table.note(
        "From the first moment of the storm. Programs come back as stock recorders do: after a second, a fifth more or less, \
         and twice as long after every dial that failed.",
    );
    Ok(table)
}

fn devices(counts: &[Value]) -> Table {
    let columns =
        ["dials", "declined (503)", "broken", "links that ended", "states told", "questions answered"];
    let mut table = Table::new("Scale: what the devices say, from start to end", &columns);
    let sum =
        |key: &str| number(counts.iter().filter_map(|count| count[key].as_u64()).sum::<u64>() as f64, 0);
    table.row(["dials", "declined", "broken", "ended", "told", "asked"].map(sum));
    table
}

fn mib(bytes: u64) -> Cell {
    number(bytes as f64 / f64::from(1 << 20), 1)
}

/// This program once more, with another task, and a way to talk to it. Killed when it is dropped.
#[derive(Debug)]
struct Program {
    child: Child,
    words: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Program {
    fn start(arguments: &[String]) -> io::Result<Program> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let piped = || io::Error::other("a pipe that was asked for is not there");
        let words = child.stdin.take().ok_or_else(piped)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(piped)?);
        Ok(Program { child, words, answers })
    }

    fn say(&mut self, word: &str) -> io::Result<()> {
        writeln!(self.words, "{word}")?;
        self.words.flush()
    }

    /// The next line that it prints, as JSON.
    fn answer(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line)
            .map_err(|_| io::Error::other("a part of the measurement ended early"))?;
        match answer["error"].as_str() {
            Some(why) => Err(io::Error::other(why.to_owned())),
            None => Ok(answer),
        }
    }

    fn ask(&mut self, word: &str) -> io::Result<Value> {
        self.say(word)?;
        self.answer()
    }

    fn cpu(&self) -> f64 {
        process::cpu(&self.child.id().to_string()).unwrap_or(f64::NAN)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start_devices(options: &Options, api: u16) -> io::Result<Vec<Program>> {
    let fleet = options.fleet();
    let devices = fleet.recorders.max(fleet.uploaders);
    let roles = match options.roles {
        Roles::Recorder => "recorder",
        Roles::Transfer => "transfer",
        Roles::Both => "both",
    };
    (0..options.clients)
        .map(|n| {
            let (first, next) = (devices * n / options.clients, devices * (n + 1) / options.clients);
            Program::start(&[
                "scale-clients".to_owned(),
                format!("--api={api}"),
                // The first address of this machine is the site's own.
                format!("--source=127.0.0.{}", n + 2),
                format!("--first={first}"),
                format!("--count={}", next - first),
                format!("--roles={roles}"),
                format!("--every-ms={}", options.every.as_millis()),
            ])
        })
        .collect()
}

/// Starts the viewers and waits until each has a snapshot.
fn open_viewers(api: u16, count: u64) -> io::Result<Program> {
    let mut viewers =
        Program::start(&["scale-viewers".to_owned(), format!("--api={api}"), format!("--count={count}")])?;
    viewers.answer()?;
    Ok(viewers)
}

fn say_to_all(programs: &mut [Program], word: &str) -> io::Result<()> {
    programs.iter_mut().try_for_each(|program| program.say(word))
}

/// How long the fleet may take to be whole.
const STEP: Duration = Duration::from_secs(300);
/// How often the site is asked whether it is: each time costs it a walk over all devices.
const LOOK: Duration = Duration::from_millis(100);
