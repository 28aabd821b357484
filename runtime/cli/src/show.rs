//! What progress looks like: a bar per recording on a terminal, plain lines without one, and tables. Asks nobody anything.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::ask::bytes;
use crate::say;

/// Shows the way of all recordings.
#[derive(Clone, Debug)]
pub(crate) struct Show {
    bars: MultiProgress,
    terminal: bool,
}

impl Show {
    pub(crate) fn new() -> Show {
        let terminal = std::io::stdout().is_terminal();
        let target = if terminal { ProgressDrawTarget::stdout() } else { ProgressDrawTarget::hidden() };
        Show { bars: MultiProgress::with_draw_target(target), terminal }
    }

    /// A line above the bars.
    pub(crate) fn line(&self, text: &str) {
        // A hidden target swallows lines, so they are printed without it.
        if !self.terminal || self.bars.println(text).is_err() {
            say(text);
        }
    }

    /// The way of one recording of `total` bytes.
    pub(crate) fn recording(&self, name: &str, total: u64) -> Way {
        let bar = self.bars.add(ProgressBar::new(total));
        let style = ProgressStyle::with_template("{prefix:<22} {bar:28} {bytes:>10}/{total_bytes:<10} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_prefix(name.to_string());
        bar.enable_steady_tick(Duration::from_millis(200));
        Way { name: name.to_string(), show: self.clone(), bar, said: Mutex::default() }
    }
}

/// The way of one recording, as it is shown.
#[derive(Debug)]
pub(crate) struct Way {
    name: String,
    show: Show,
    bar: ProgressBar,
    said: Mutex<(String, u64)>,
}

impl Way {
    /// Where the recording is now.
    pub(crate) fn stage(&self, stage: &str) {
        self.bar.set_message(stage.to_string());
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.0 != stage {
            said.0 = stage.to_string();
            if !self.show.terminal {
                say(&format!("{:<22} {stage}", self.name));
            }
        }
    }

    /// Bytes the cloud acknowledged. Lines are printed at every quarter.
    pub(crate) fn uploaded(&self, uploaded: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(uploaded);
        let quarter = (uploaded * 4).checked_div(total).unwrap_or(0);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if quarter > said.1 {
            said.1 = quarter;
            if !self.show.terminal {
                say(&format!("{:<22} to the cloud: {} of {}", self.name, bytes(uploaded), bytes(total)));
            }
        }
    }

    /// It goes no further by itself.
    pub(crate) fn stop(&self, why: &str) {
        self.stage(why);
        self.bar.abandon();
    }

    /// It arrived.
    pub(crate) fn done(&self, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(total);
        self.stage("in the cloud");
        self.bar.finish();
    }
}

/// Prints rows under a header, columns as wide as their widest cell.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) {
    let mut lines = columns(header, rows).into_iter();
    if let Some(line) = lines.next() {
        say(&line);
    }
    let widths = widths(header, rows);
    say(&row(
        &mut widths.iter().map(|w| "-".repeat(*w)).collect::<Vec<_>>().iter().map(String::as_str),
        &widths,
    ));
    for line in lines {
        say(&line);
    }
}

/// Rows under a header, columns as wide as their widest cell.
pub(crate) fn columns(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let widths = widths(header, rows);
    let mut lines = vec![row(&mut header.iter().copied(), &widths)];
    lines.extend(rows.iter().map(|cells| row(&mut cells.iter().map(String::as_str), &widths)));
    lines
}

fn widths(header: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

fn row(cells: &mut dyn Iterator<Item = &str>, widths: &[usize]) -> String {
    let cells: Vec<String> = cells.zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    cells.join("  ").trim_end().to_string()
}
