//! What the figures depend on: machine, versions, commit, and how fast this disk makes a write durable, measured in the
//! same run. Names no path and no host.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::table::{Table, quantile};

/// What is printed above all figures.
pub fn table(dir: &Path) -> io::Result<Table> {
    let mut table = Table::new("Environment", &["what", "value"]);
    let mut say = |what: &str, value: String| table.row([what.into(), value.into()]);
    say("kernel", first_line("/proc/sys/kernel/osrelease"));
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    say("processor", format!("{cpu}, {cores} cores"));
    say("memory", field("/proc/meminfo", "MemTotal").unwrap_or_else(|| "unknown".to_owned()));
    say("load at the start", first_line("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "));
    say("commit", commit());
    say("compiler", line_of("rustc", &["--version"]).unwrap_or_else(|| "unknown".to_owned()));
    let profile = if cfg!(debug_assertions) { "debug assertions ON: do not quote" } else { "release" };
    say("profile", profile.to_owned());
    let syncs = syncs(dir)?;
    let rate = syncs.len() as f64 / SYNC_FOR.as_secs_f64();
    let at = |share| quantile(syncs.iter().copied(), share) * 1e3;
    say(
        "256 bytes appended, then fdatasync",
        format!("{rate:.0}/s, p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99)),
    );
    Ok(table)
}

/// Seconds that each of many small appends needs until it is durable.
fn syncs(dir: &Path) -> io::Result<Vec<f64>> {
    let mut file = File::create(dir.join("syncs"))?;
    let begun = Instant::now();
    let mut took = Vec::new();
    while begun.elapsed() < SYNC_FOR {
        let one = Instant::now();
        file.write_all(&[7; 256])?;
        file.sync_data()?;
        took.push(one.elapsed().as_secs_f64());
    }
    fs::remove_file(dir.join("syncs"))?;
    Ok(took)
}

fn commit() -> String {
    let here = env!("CARGO_MANIFEST_DIR");
    let head = line_of("git", &["-C", here, "rev-parse", "--short=12", "HEAD"]);
    let Some(head) = head else { return "unknown".to_owned() };
    match line_of("git", &["-C", here, "status", "--porcelain", "--untracked-files=no"]) {
        Some(_changed) => format!("{head} with changes"),
        None => head,
    }
}

/// The first line that a program prints; `None` if it prints none or is not there.
pub fn line_of(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Option<String> {
    let ran = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    let text = [ran.stdout, ran.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    Some(line.trim().to_owned())
}

/// A program by its name: what was installed under `target/` first, then the search path.
pub fn program(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    // Newer ones first: distributions carry old ones.
    let ours = ["peers/bin", "stock/bin"].map(|folder| target.join(folder));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = ours.into_iter().chain(std::env::split_paths(&path)).map(|folder| folder.join(name));
    found.into_iter().find(|file| file.is_file()).and_then(|file| std::path::absolute(file).ok())
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// How long the disk is asked.
const SYNC_FOR: Duration = Duration::from_secs(1);
