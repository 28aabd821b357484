//! A viewer who follows the stream of changes through the whole life and comes back after each death of the site. Checks
//! what it is told: no gap, no number twice, and nothing that a death takes back.

use std::time::Duration;

use http::Request;
use serde_json::Value;
use tidegate_device::{Http, StreamEvent, StreamReader, full};

use super::operator::rank_of;
use super::{API, Notes, SITE, TASK};
use crate::socket_world::SimNet;

/// Before coming back.
const PAUSE: Duration = Duration::from_millis(200);

/// What the viewer was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Viewed {
    /// Events, snapshots not counted.
    pub events: u64,
    /// Starts of the site that told something.
    pub boots: Vec<u64>,
    /// Why each snapshot was sent.
    pub snapshots: Vec<String>,
    /// Whether the verified recording was told.
    pub recorded: bool,
}

/// The viewer, for ever; ends with what must not be.
pub(super) async fn run(notes: Notes) -> Result<(), Box<dyn std::error::Error>> {
    let mut viewer = Viewer { reader: StreamReader::new(), last: None, attempt: 0, rank: 0, notes };
    loop {
        viewer.follow().await?;
        tokio::time::sleep(PAUSE).await;
    }
}

struct Viewer {
    reader: StreamReader,
    /// Boot and number of the last event.
    last: Option<(u64, u64)>,
    /// The latest attempt of the task that was shown, and the furthest state it was shown in.
    attempt: u64,
    rank: usize,
    notes: Notes,
}

impl Viewer {
    /// One connection, to its end, whatever ends it.
    async fn follow(&mut self) -> Result<(), String> {
        let mut request = Request::get("/api/v1/device-state/stream").header("host", SITE);
        if let Some(id) = self.reader.last_id() {
            request = request.header("last-event-id", id);
        }
        let request = request.body(full(Vec::new())).map_err(|error| error.to_string())?;
        let http = Http::new(SimNet, SITE, API).with_timeout(Duration::from_secs(20));
        let Ok(mut stream) = http.exchange(request).await else { return Ok(()) };
        match stream.status().as_u16() {
            200 => self.reader.start_over(),
            503 => return Ok(()),
            status => return Err(format!("the stream is {status}")),
        }
        while let Ok(Some(piece)) = stream.chunk().await {
            for event in self.reader.read(&piece) {
                self.told(&event)?;
            }
        }
        Ok(())
    }

    fn told(&mut self, event: &StreamEvent) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("the stream: {why}: {event:?}"));
        let data: Value = serde_json::from_str(&event.data).map_err(|error| format!("{error}: {event:?}"))?;
        let id = event.id.as_deref().and_then(|id| {
            let (boot, seq) = id.split_once('-')?;
            Some((boot.parse::<u64>().ok()?, seq.parse::<u64>().ok()?))
        });
        match (event.name.as_str(), id) {
            ("snapshot_begin", None) => {
                let reason = data["reason"].as_str().unwrap_or_default().to_owned();
                self.notes.get().viewed.snapshots.push(reason);
            }
            ("site_snapshot" | "device_snapshot" | "task_snapshot", None) => {}
            ("snapshot_end", Some(id)) => {
                if self.last.is_some_and(|last| last > id) {
                    return wrong("a snapshot goes back");
                }
                self.last = Some(id);
            }
            (_, Some((boot, seq))) => {
                if self.last != Some((boot, seq - 1)) {
                    return wrong(&format!("not the one after {:?}", self.last));
                }
                self.last = Some((boot, seq));
                let mut notes = self.notes.get();
                let viewed = &mut notes.viewed;
                viewed.events += 1;
                viewed.recorded |= event.name == "recording";
                if viewed.boots.last() != Some(&boot) {
                    viewed.boots.push(boot);
                }
            }
            (_, None) => return wrong("an event without an id"),
        }
        if matches!(event.name.as_str(), "task_state" | "task_snapshot") && data["task_id"] == TASK {
            let rank = rank_of(data["status"].as_str().unwrap_or_default());
            let attempt = data["attempt"].as_u64().unwrap_or_default();
            if attempt > self.attempt {
                (self.attempt, self.rank) = (attempt, 0);
            }
            if attempt < self.attempt || rank < self.rank {
                return wrong(&format!("the task was told further before ({})", self.rank));
            }
            self.rank = rank;
        }
        Ok(())
    }
}
