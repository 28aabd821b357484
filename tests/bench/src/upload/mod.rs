//! `upload`: one large file to one store, by a running site and by the commands that people use for it, by turns. Owns the
//! turns and the table.

mod clients;
pub mod ports;
pub mod process;
mod site;
mod store;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use tidegate_core::chance::Chance;

use crate::Bench;
use crate::table::{Cell, Table, median, number, spread};
use clients::Client;
use process::Cost;
use site::Site;
use store::{Kind, Store};

/// What `upload` can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// MiB of the file.
    #[arg(long, default_value_t = MIB, value_parser = clap::value_parser!(u64).range(16..=4096))]
    mib: u64,
    /// The store; SeaweedFS if it is installed.
    #[arg(long, value_enum)]
    store: Option<Kind>,
}

const MIB: u64 = 1024;

impl Default for Options {
    fn default() -> Options {
        Options { mib: MIB, store: None }
    }
}

/// Bytes of a part, and parts at once, for everybody: the site's defaults.
const PART: u64 = 8 << 20;
const PARTS_AT_ONCE: usize = 3;

/// Measures and tells.
pub fn run(bench: &Bench, options: &Options, tell: &mut dyn FnMut(Table)) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for kind in options.store.map_or_else(|| vec![Kind::best()], |kind| vec![kind]) {
        tell(runtime.block_on(measure(bench, options, kind))?);
    }
    Ok(())
}

async fn measure(bench: &Bench, options: &Options, kind: Kind) -> io::Result<Table> {
    let dir = bench.dir.path();
    let file = dir.join("recording.mcap");
    make(&file, options.mib)?;
    // The same for every store of the run: the site is told of it once.
    let port = ports::free_row()?;
    let endpoint = kind.start(dir, port).await?.endpoint();
    let site = Site::start(dir, &endpoint).await?;
    let mut ours: Vec<Cost> = Vec::new();
    let mut theirs: Vec<(Client, String, Result<Vec<Cost>, String>)> = Vec::new();
    for client in Client::ALL {
        match client.installed() {
            Some(version) => theirs.push((client, version, Ok(Vec::new()))),
            None => theirs.push((client, client.name().to_owned(), Err(NOT_INSTALLED.to_owned()))),
        }
    }
    for round in 0..bench.rounds {
        let episode = site.deliver(&file, &format!("recording-{round}")).await?;
        let store = kind.start(dir, port).await?;
        let (cost, key) = site.upload(episode).await?;
        check(&store, &key, options.mib).await?;
        ours.push(cost);
        drop(store);
        for (client, _, costs) in &mut theirs {
            let Ok(list) = costs else { continue };
            let store = kind.start(dir, port).await?;
            let mut command = client.command(dir, &store.endpoint(), &file, "peer.mcap")?;
            match process::run(&mut command) {
                Ok(cost) => {
                    check(&store, "peer.mcap", options.mib).await?;
                    list.push(cost);
                }
                Err(why) => *costs = Err(format!("failed: {why}")),
            }
        }
    }
    Ok(table(options, kind, &ours, &theirs))
}

fn table(
    options: &Options,
    kind: Kind,
    ours: &[Cost],
    theirs: &[(Client, String, Result<Vec<Cost>, String>)],
) -> Table {
    let columns = [
        "who",
        "wall s",
        "all rounds",
        "MiB/s",
        "CPU s per GiB",
        "all rounds ",
        "peak MiB",
        "ours to it: wall",
        "CPU",
        "peak",
    ];
    let mut table =
        Table::new(format!("Upload: one file of {} MiB to {}", options.mib, kind.name()), &columns);
    table.row(row("tidegate, a running site", options.mib, ours, ours));
    for (_, name, costs) in theirs {
        match costs {
            Ok(costs) => table.row(row(name, options.mib, costs, ours)),
            Err(why) => table.skipped(name, why),
        }
    }
    table.note(format!(
        "Parts of {} MiB, {PARTS_AT_ONCE} at once, for everybody. The store is a process of its own on the same cores and \
         starts empty for every upload; its CPU is not counted, but it takes its share of the wall time. \"Ours to it\" is \
         the median of the ratios of rounds, below 1 is less.",
        PART >> 20
    ));
    table.note(
        "Tidegate: from the trigger until the site says `completed`: it reads every part, sends it with a SHA-256 of its \
         own, reads the whole recording once more before it seals the object, asks the store what it has, and writes every \
         acknowledged part down durably. It runs already; its peak is that of the whole site during the upload. The others \
         are measured from start to exit; they read the file once, except that rclone reads it a second time for its MD5 \
         beforehand; they keep nothing over a crash.",
    );
    table
}

fn row(name: &str, mib: u64, costs: &[Cost], ours: &[Cost]) -> Vec<Cell> {
    let gib = mib as f64 / 1024.0;
    let middle = |value: fn(&Cost) -> f64| median(costs.iter().map(value));
    let all = |value: fn(&Cost) -> f64| costs.iter().map(value).collect::<Vec<f64>>();
    let ratio = |value: fn(&Cost) -> f64| {
        number(median(ours.iter().zip(costs).map(|(ours, theirs)| value(ours) / value(theirs))), 2)
    };
    let cpu: Vec<f64> = all(|c| c.cpu).into_iter().map(|cpu| cpu / gib).collect();
    vec![
        name.into(),
        number(middle(|c| c.wall), 2),
        spread(&all(|c| c.wall), 2),
        number(mib as f64 / middle(|c| c.wall), 0),
        number(median(cpu.iter().copied()), 2),
        spread(&cpu, 2),
        number(middle(|c| c.peak as f64) / f64::from(1 << 20), 0),
        ratio(|c| c.wall),
        ratio(|c| c.cpu),
        ratio(|c| c.peak as f64),
    ]
}

async fn check(store: &Store, key: &str, mib: u64) -> io::Result<()> {
    match store.len(key).await? {
        Some(len) if len == mib << 20 => Ok(()),
        found => Err(io::Error::other(format!("{key} should have {mib} MiB in the store and is {found:?}"))),
    }
}

/// A file that no store can compress, on disk and in the page cache.
fn make(path: &Path, mib: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut luck = Chance::new(7);
    let mut block = vec![0; 1 << 20];
    for _ in 0..mib {
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&luck.next_u64().to_le_bytes());
        }
        file.write_all(&block)?;
    }
    file.sync_all()
}

/// The shipped binary, built beside this one, with nothing of the environment that could configure it.
pub fn measured() -> io::Result<Command> {
    let beside = std::env::current_exe()?.with_file_name("tidegate-measured");
    if !beside.is_file() {
        return Err(io::Error::other(
            "tidegate-measured is not built: build the package, not one binary of it",
        ));
    }
    let mut command = Command::new(beside);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TIDEGATE_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

const NOT_INSTALLED: &str = "not installed (tests/stock/install.sh)";
