//! What a process costs, read from /proc: CPU seconds, memory, bytes written. Works on Linux and says nothing elsewhere.

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::environment::line_of;

/// What a piece of work cost a process.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// From its start to its end.
    pub wall: f64,
    /// User and system seconds of all threads.
    pub cpu: f64,
    /// Largest resident memory, bytes.
    pub peak: u64,
}

/// User and system seconds of all threads of a process, also of one that ended and was not waited for, and of the children
/// that it waited for itself: some commands are a script around the program.
pub fn cpu(pid: &str) -> Option<f64> {
    let (_, rest) = stat(pid)?;
    let ticks = rest.get(11..15)?.iter().map(|ticks| ticks.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(ticks as f64 / ticks_per_second())
}

/// The largest resident memory of a process or of one of its children, bytes.
fn peak(pid: &str) -> u64 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let largest = children.split_whitespace().map(peak).max().unwrap_or(0);
    largest.max(memory(pid, "VmHWM").unwrap_or(0))
}

/// Seconds that this thread ran.
pub fn thread_cpu() -> Option<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<u64>().ok()? as f64 / 1e9)
}

/// A line of a process's status in bytes, `VmRSS` or `VmHWM`.
pub fn memory(pid: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Bytes that a process handed to calls that write. Not what reaches the disk: there the page cache counts whole folios,
/// which says more of the kernel than of the program.
pub fn written(pid: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok())
}

/// From now on the largest resident memory of a process is counted anew.
pub fn forget_peak(pid: &str) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// Runs a program to its end and says what it cost.
///
/// # Errors
/// If it cannot be started or fails; the last line it complained with is in the error.
pub fn run(command: &mut Command) -> io::Result<Cost> {
    let begun = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let pid = child.id().to_string();
    let mut largest = 0;
    // A zombie still has its times; its memory is gone, so that is read all along.
    while stat(&pid).is_some_and(|(state, _)| state != 'Z') {
        largest = largest.max(peak(&pid));
        std::thread::sleep(LOOK);
    }
    let wall = begun.elapsed().as_secs_f64();
    let cpu = cpu(&pid).unwrap_or(f64::NAN);
    let ended = child.wait_with_output()?;
    if !ended.status.success() {
        let text = String::from_utf8_lossy(&ended.stderr);
        let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned();
        return Err(io::Error::other(format!("{}: {line}", ended.status)));
    }
    Ok(Cost { wall, cpu, peak: largest })
}

/// A child that is killed when it is dropped.
#[derive(Debug)]
pub struct Kept(Child);

impl Kept {
    /// Starts a program.
    pub fn start(command: &mut Command) -> io::Result<Kept> {
        Ok(Kept(command.stdin(Stdio::null()).spawn()?))
    }

    /// Its number, as /proc has it.
    pub fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// Kills it.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Whether it ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.kill();
    }
}

/// State and the fields after it.
fn stat(pid: &str) -> Option<(char, Vec<String>)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let rest = &text[text.rfind(')')? + 1..];
    let fields: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
    Some((fields.first()?.chars().next()?, fields))
}

fn ticks_per_second() -> f64 {
    static TICKS: OnceLock<f64> = OnceLock::new();
    *TICKS
        .get_or_init(|| line_of("getconf", &["CLK_TCK"]).and_then(|text| text.parse().ok()).unwrap_or(100.0))
}

const LOOK: Duration = Duration::from_millis(10);
