//! `tidegate demo`, as a user runs it: to its end, and interrupted.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::rig::{STEP, Site, run, signal, until};

/// How long the small demo may take on a busy machine.
const DEMO: Duration = Duration::from_secs(150);

fn demo(temp: &Path, arguments: &[&str]) -> Command {
    let mut command = Site::program();
    // Whatever it leaves behind it leaves here.
    command.arg("demo").args(arguments).env("TMPDIR", temp).current_dir(temp);
    command
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            // In an orderly way, so that its own child ends as well.
            signal(self.0.id(), "TERM");
            let end = Instant::now() + Duration::from_secs(10);
            while self.0.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < end {
                std::thread::yield_now();
            }
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

fn left_behind(temp: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(temp).expect("the directory for temporary files");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn the_demo_runs_the_main_job_through_a_kill_and_leaves_nothing() {
    run(async {
        let temp = tempfile::tempdir().expect("a directory");
        let logs = tempfile::tempdir().expect("a directory");
        let log = logs.path().join("out");
        let file = File::create(&log).expect("a log");
        let mut command = demo(temp.path(), &["--devices", "1", "--size", "32MiB"]);
        let child = command.stdout(file.try_clone().expect("a log")).stderr(file).spawn();
        let mut running = Running(child.expect("the demo starts"));
        let status = until("the demo to end", DEMO, async || running.0.try_wait().expect("its status")).await;
        let text = std::fs::read_to_string(&log).expect("a log");
        assert_eq!(status.code(), Some(0), "{text}");
        for word in ["robot-01", "killed (SIGKILL)", "sha256", "verified", "device", "episode"] {
            assert!(text.contains(word), "{word} is missing:\n{text}");
        }
        assert_eq!(left_behind(temp.path()), Vec::<String>::new(), "nothing stays behind");
    });
}

#[test]
fn an_interrupted_demo_leaves_no_process_and_no_file() {
    run(async {
        let temp = tempfile::tempdir().expect("a directory");
        let logs = tempfile::tempdir().expect("a directory");
        let log = logs.path().join("out");
        let file = File::create(&log).expect("a log");
        let mut command = demo(temp.path(), &["--devices", "2", "--size", "40MiB"]);
        let child = command.stdout(file.try_clone().expect("a log")).stderr(file).spawn();
        let mut running = Running(child.expect("the demo starts"));
        let id = running.0.id();
        let children = until("the demo to be under way", STEP, async || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let children = children_of(id);
            (text.contains("recording") && !children.is_empty()).then_some(children)
        })
        .await;
        signal(id, "INT");
        let status = until("the demo to end", STEP, async || running.0.try_wait().expect("its status")).await;
        let text = std::fs::read_to_string(&log).expect("a log");
        assert!(status.code().is_some(), "it ends by itself, not by the signal: {status:?} {text}");
        for child in children {
            until(&format!("child {child} to be gone"), STEP, async || (!is_running(child)).then_some(()))
                .await;
        }
        assert_eq!(left_behind(temp.path()), Vec::<String>::new(), "{text}");
    });
}

/// Processes whose parent is `parent`, by /proc.
fn children_of(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_string_lossy().parse::<u32>().ok());
    ids.filter(|id| stat(*id).is_some_and(|(state, of)| of == parent && state != 'Z')).collect()
}

fn is_running(id: u32) -> bool {
    stat(id).is_some_and(|(state, _)| state != 'Z')
}

/// State and parent of a process.
fn stat(id: u32) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
