//! Viewers of the state stream in one process: each reads `GET /api/v1/device-state/stream` from end to end, checks that no
//! event is missing, and notes how old each state is when it arrives. Started by `scale`, told what to do on standard input.

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::clients::now_us;
use super::histogram::Histogram;
use super::wire::{find, text_of};

/// What a process of viewers is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Port of the site.
    #[arg(long)]
    api: u16,
    /// How many.
    #[arg(long)]
    count: usize,
}

/// What one viewer saw.
#[derive(Clone, Debug)]
struct Seen {
    delivery: Histogram,
    events: u64,
    snapshots: u64,
    resyncs: u64,
    /// Events that are missing although nobody said so.
    gaps: u64,
    trouble: BTreeMap<String, u64>,
    at: Place,
}

/// How far a viewer is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// It waits for the end of a snapshot.
    Lost,
    /// The id of the last event: of which boot, and its number.
    At(String, u64),
}

impl Seen {
    fn new() -> Seen {
        Seen {
            delivery: Histogram::new(),
            events: 0,
            snapshots: 0,
            resyncs: 0,
            gaps: 0,
            trouble: BTreeMap::new(),
            at: Place::Lost,
        }
    }

    /// One event: the lines between two blank ones.
    fn take(&mut self, event: &str, now_us: u64) {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let Some((boot, number)) = field("id:").and_then(|id| id.split_once('-')) else { return };
        let Ok(number) = number.parse::<u64>() else { return };
        let kind = field("event:").unwrap_or_default();
        match kind {
            "snapshot_end" => self.snapshots += 1,
            "resync" => self.resyncs += 1,
            _ => {
                self.events += 1;
                match &self.at {
                    Place::At(known, last) if known == boot && *last + 1 == number => {}
                    Place::At(known, last) if known == boot => {
                        self.gaps += number.saturating_sub(last + 1).max(1)
                    }
                    Place::At(..) | Place::Lost => self.gaps += 1,
                }
            }
        }
        self.at = Place::At(boot.to_owned(), number);
        let told = field("data:")
            .filter(|_| kind == "recorder_state")
            .and_then(|data| text_of(data, "\"current_state\"")?.strip_prefix('t')?.parse::<u64>().ok());
        if let Some(told) = told {
            self.delivery.add(now_us.saturating_sub(told));
        }
    }
}

/// Runs until standard input ends. Says `open` once everybody has a snapshot; `begin` counts anew, `report` prints.
pub fn run(options: &Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let viewers: Vec<Arc<Mutex<Seen>>> =
        (0..options.count).map(|_| Arc::new(Mutex::new(Seen::new()))).collect();
    let (words, mut heard) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if words.send(line).is_err() {
                return;
            }
        }
    });
    runtime.block_on(async {
        for viewer in &viewers {
            tokio::spawn(watch(options.api, viewer.clone()));
        }
        while !viewers.iter().all(|viewer| locked(viewer).snapshots > 0) {
            if let Some(trouble) =
                viewers.iter().find_map(|viewer| locked(viewer).trouble.keys().next().cloned())
            {
                println!("{}", json!({"error": trouble}));
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
        println!("{}", json!({"open": options.count}));
        while let Some(word) = heard.recv().await {
            match word.trim() {
                "begin" => {
                    for viewer in &viewers {
                        let mut seen = locked(viewer);
                        *seen = Seen { at: seen.at.clone(), ..Seen::new() };
                    }
                }
                _ => println!("{}", report(&viewers)),
            }
        }
    });
    Ok(())
}

fn locked(viewer: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    viewer.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report(viewers: &[Arc<Mutex<Seen>>]) -> Value {
    let mut delivery = Histogram::new();
    let (mut events, mut snapshots, mut resyncs, mut gaps) = (0, 0, 0, 0);
    let mut trouble: BTreeMap<String, u64> = BTreeMap::new();
    for viewer in viewers {
        let seen = locked(viewer);
        delivery.merge(&seen.delivery);
        events += seen.events;
        snapshots += seen.snapshots;
        resyncs += seen.resyncs;
        gaps += seen.gaps;
        for (what, times) in &seen.trouble {
            *trouble.entry(what.clone()).or_default() += times;
        }
    }
    json!({
        "delivery": delivery.json(),
        "events": events,
        "snapshots": snapshots,
        "resyncs": resyncs,
        "gaps": gaps,
        "trouble": trouble,
    })
}

/// Reads streams, one after the other: where one ends the next goes on.
async fn watch(api: u16, viewer: Arc<Mutex<Seen>>) {
    loop {
        if let Err(error) = stream(api, &viewer).await {
            *locked(&viewer).trouble.entry(error.to_string()).or_default() += 1;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn stream(api: u16, viewer: &Mutex<Seen>) -> io::Result<()> {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, api)).await?;
    let last = match &locked(viewer).at {
        Place::At(boot, number) => format!("last-event-id: {boot}-{number}\r\n"),
        Place::Lost => String::new(),
    };
    let head = format!("GET {STREAM} HTTP/1.1\r\nhost: site\r\naccept: text/event-stream\r\n{last}\r\n");
    socket.write_all(head.as_bytes()).await?;
    let mut inbox = Vec::with_capacity(READ);
    let end = loop {
        if let Some(at) = find(&inbox, b"\r\n\r\n") {
            break at + 4;
        }
        if socket.read_buf(&mut inbox).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&inbox[..end]).to_lowercase();
    if !head.starts_with("http/1.1 200") {
        return Err(io::Error::other(format!("{STREAM}: {}", head.lines().next().unwrap_or_default())));
    }
    let mut body =
        Body { chunked: head.contains("transfer-encoding: chunked"), left: 0, raw: inbox.split_off(end) };
    let mut text = Vec::with_capacity(READ);
    loop {
        let over = body.take(&mut text)?;
        let mut begun = 0;
        while let Some(len) = find(&text[begun..], b"\n\n") {
            let event = String::from_utf8_lossy(&text[begun..begun + len]);
            locked(viewer).take(&event, now_us());
            begun += len + 2;
        }
        text.drain(..begun);
        if over {
            return Ok(());
        }
        body.raw.reserve(READ);
        if socket.read_buf(&mut body.raw).await? == 0 {
            return Ok(());
        }
    }
}

/// The body of an answer whose length nobody knows.
struct Body {
    chunked: bool,
    /// Bytes of the chunk that are still to come, its line end included.
    left: usize,
    raw: Vec<u8>,
}

impl Body {
    /// Moves what is there to `text`; true at the last chunk.
    fn take(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        if !self.chunked {
            text.append(&mut self.raw);
            return Ok(false);
        }
        let mut at = 0;
        let over = loop {
            if self.left > 0 {
                let here = self.left.min(self.raw.len() - at);
                // The last two bytes of a chunk are its line end.
                let content = here.min(self.left.saturating_sub(2));
                text.extend_from_slice(&self.raw[at..at + content]);
                (at, self.left) = (at + here, self.left - here);
                if self.left > 0 {
                    break false;
                }
            }
            let Some(len) = find(&self.raw[at..], b"\r\n") else { break false };
            let digits = std::str::from_utf8(&self.raw[at..at + len]).unwrap_or_default();
            let size = usize::from_str_radix(digits.split(';').next().unwrap_or_default().trim(), 16);
            let size = size.map_err(|_| io::Error::other("a chunk without a length"))?;
            if size == 0 {
                break true;
            }
            (at, self.left) = (at + len + 2, size + 2);
        };
        self.raw.drain(..at);
        Ok(over)
    }
}

const STREAM: &str = "/api/v1/device-state/stream";
const READ: usize = 64 << 10;
/// How often it is looked whether everybody has a snapshot.
const LOOK: Duration = Duration::from_millis(20);
/// Before a viewer whose stream ended asks for the rest.
const AGAIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_is_the_same_wherever_it_is_cut() {
        let raw = b"6\r\nid: 7-\r\n5;x=y\r\n1\n\nid\r\n3\r\n: 2\r\n0\r\n\r\n";
        for cut in 0..raw.len() {
            let mut body = Body { chunked: true, left: 0, raw: raw[..cut].to_vec() };
            let mut text = Vec::new();
            let early = body.take(&mut text).expect("lengths are there");
            body.raw.extend(&raw[cut..]);
            assert!(body.take(&mut text).expect("lengths are there") || early, "cut at {cut}");
            assert_eq!(text, b"id: 7-1\n\nid: 2", "cut at {cut}");
        }
    }

    #[test]
    fn a_missing_event_is_counted_unless_it_was_told() {
        let mut seen = Seen::new();
        for event in [
            "event: snapshot_begin\ndata: {}",
            "event: device_snapshot\ndata: {\"device_id\":\"a\"}",
            "event: snapshot_end\nid: 7-10\ndata: {}",
            "id: 7-11\nevent: recorder_state\ndata: {\"current_state\":\"t400\",\"type\":\"recorder_state\"}",
            ": keepalive",
            "id: 7-12\nevent: recorder_state\ndata: {\"current_state\":\"idle\"}",
        ] {
            seen.take(event, 1_000);
        }
        assert_eq!((seen.events, seen.snapshots, seen.gaps), (2, 1, 0));
        assert_eq!((seen.delivery.count(), seen.delivery.max()), (1, 600));
        seen.take("id: 7-15\nevent: recorder_state\ndata: {}", 1_000);
        assert_eq!(seen.gaps, 2);
        seen.take("id: 7-90\nevent: resync\ndata: {}", 1_000);
        seen.take("id: 7-95\nevent: snapshot_end\ndata: {}", 1_000);
        seen.take("id: 7-96\nevent: device_connection\ndata: {}", 1_000);
        assert_eq!((seen.gaps, seen.resyncs, seen.snapshots), (2, 1, 2));
        seen.take("id: 8-1\nevent: device_connection\ndata: {}", 1_000);
        assert_eq!(seen.gaps, 3, "another boot begins with a snapshot");
    }
}
