//! Owns the reading of an event stream (`text/event-stream`): bytes in, events out. Knows no connection and no event's
//! meaning.

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamEvent {
    /// Its own id; `None` if it came without one.
    pub id: Option<String>,
    /// Its name; empty if it came without one.
    pub name: String,
    /// Its data.
    pub data: String,
}

/// Reads events out of the pieces in which they come.
#[derive(Clone, Debug, Default)]
pub struct StreamReader {
    rest: Vec<u8>,
    event: StreamEvent,
    has_data: bool,
    last_id: Option<String>,
    comments: u64,
}

impl StreamReader {
    /// Before the first byte.
    #[must_use]
    pub fn new() -> StreamReader {
        StreamReader::default()
    }

    /// The events that are complete with this piece.
    pub fn read(&mut self, piece: &[u8]) -> Vec<StreamEvent> {
        let mut found = Vec::new();
        self.rest.extend_from_slice(piece);
        let mut from = 0;
        while let Some(len) = self.rest[from..].iter().position(|byte| *byte == b'\n') {
            let line = &self.rest[from..from + len];
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned();
            from += len + 1;
            found.extend(self.line(&line));
        }
        self.rest.drain(..from);
        found
    }

    /// Another connection: what was half read on the last one is forgotten, its last id is not.
    pub fn start_over(&mut self) {
        *self =
            StreamReader { last_id: self.last_id.take(), comments: self.comments, ..StreamReader::default() };
    }

    /// The id to come back with: that of the last event that had one.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// Comments so far, which say that the other side is there.
    #[must_use]
    pub fn comments(&self) -> u64 {
        self.comments
    }

    fn line(&mut self, line: &str) -> Option<StreamEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if let Some(id) = &event.id {
                self.last_id = Some(id.clone());
            }
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments += 1,
            "id" => self.event.id = Some(value.to_owned()),
            "event" => self.event.name = value.to_owned(),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}
