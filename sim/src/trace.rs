//! What happened, as one hash over all of it, and as lines for people if somebody wants to read them. Changes nothing.

use std::collections::VecDeque;
use std::fmt::Write;

use sha2::{Digest, Sha256};
use tidegate_core::effect::Output;
use tidegate_core::input::Input;
use tidegate_core::time::Now;

use crate::time::SimTime;

/// Lines kept when only the last ones are wanted.
const TAIL: usize = 400;

/// The hash chain over inputs, rulings, changes and effects, with checkpoints, and the log.
#[derive(Debug)]
pub struct Trace {
    chain: Sha256,
    buffer: Vec<u8>,
    text: String,
    every: u64,
    checkpoints: Vec<(u64, u64, String)>,
    log: Option<VecDeque<String>>,
    whole: bool,
    last: [&'static str; 3],
}

impl Trace {
    /// An empty trace. `log`: none, the last lines, or all; `every`: a checkpoint every so many steps, 0 is none.
    #[must_use]
    pub fn new(log: Option<bool>, every: u64) -> Trace {
        Trace {
            chain: Sha256::new(),
            buffer: Vec::new(),
            text: String::new(),
            every,
            checkpoints: Vec::new(),
            log: log.map(|_| VecDeque::new()),
            whole: log == Some(true),
            last: [""; 3],
        }
    }

    /// Takes one step into the chain.
    pub fn step(&mut self, number: u64, site: usize, now: Now, input: &Input, out: &Output) {
        self.last = [self.last[1], self.last[2], input.name()];
        self.buffer.clear();
        self.text.clear();
        let infallible = "writing to a vector cannot fail";
        minicbor::encode((number, site as u64, now.wall.0, now.mono.0), &mut self.buffer).expect(infallible);
        minicbor::encode(input, &mut self.buffer).expect(infallible);
        for ruling in &out.rulings {
            minicbor::encode(ruling, &mut self.buffer).expect(infallible);
        }
        for change in &out.changes {
            minicbor::encode(change, &mut self.buffer).expect(infallible);
        }
        for (key, row) in &out.rows {
            minicbor::encode(key, &mut self.buffer).expect(infallible);
            minicbor::encode(row, &mut self.buffer).expect(infallible);
        }
        for effect in &out.effects {
            write!(self.text, "{effect:?}").expect("writing to a string cannot fail");
        }
        self.buffer.extend_from_slice(self.text.as_bytes());
        self.chain.update(&self.buffer);
        if self.every > 0 && number.is_multiple_of(self.every) {
            let so_far = self.chain.clone().finalize();
            let short = u64::from_be_bytes(so_far[..8].try_into().expect("eight of 32 bytes"));
            self.checkpoints.push((number, short, format!("{} at {} ns", input.name(), now.mono.0)));
        }
    }

    /// Something else that happened: part of the chain as well.
    pub fn note(&mut self, at: SimTime, word: &str) {
        self.chain.update(at.0.to_be_bytes());
        self.chain.update(word.as_bytes());
    }

    /// Adds a line to the log, if there is one.
    pub fn say(&mut self, at: SimTime, event: u64, who: &str, glyph: &str, text: impl FnOnce() -> String) {
        let Some(log) = &mut self.log else { return };
        // As text first: only text is padded to its column.
        let at = at.to_string();
        log.push_back(format!("{at:>14} {event:>7} {who:<10} {glyph:<2} {}", text()));
        if !self.whole && log.len() > TAIL {
            log.pop_front();
        }
    }

    /// Whether anybody wants lines.
    #[must_use]
    pub fn talks(&self) -> bool {
        self.log.is_some()
    }

    /// Names of the last three inputs, the last one last.
    #[must_use]
    pub fn last(&self) -> Vec<String> {
        self.last.iter().filter(|name| !name.is_empty()).map(|name| (*name).to_string()).collect()
    }

    /// The end of the chain in hex, the checkpoints, and the log.
    #[must_use]
    pub fn finish(self) -> (String, Vec<(u64, u64, String)>, Vec<String>) {
        let mut hex = String::with_capacity(64);
        for byte in self.chain.finalize() {
            write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
        }
        (hex, self.checkpoints, self.log.unwrap_or_default().into())
    }
}
