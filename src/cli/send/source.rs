//! The source of the posted events: files, lines of files, or the generator.

use std::{
    io::Read,
    ops::Range,
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};

use super::generate::{Dice, Event, Feed, Generator, Scratch};
use crate::{cli::Failure, kafka::millis_now};

/// Which events are posted.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Events")]
pub struct SourceArgs {
    /// Files, one event each; of a file ending in .ndjson each line; - is standard input, line by line.
    #[arg(value_name = "FILE", required_unless_present = "generate", conflicts_with = "generate")]
    files: Vec<PathBuf>,
    /// Post the files so often; from the second time on every event gets a fresh event_id.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "generate")]
    repeat: Option<u64>,
    /// Keep the event_id when files are posted again: identical duplicates.
    #[arg(long, conflicts_with = "generate")]
    same_id: bool,
    /// Make events as ASAPP does: activity, journey and queue state, with ids that repeat as keys.
    #[arg(long)]
    pub generate: bool,
    /// Generate events of these feeds only.
    #[arg(long, value_name = "FEED", requires = "generate")]
    feed: Vec<Feed>,
    /// So many issues, whose ids are the keys of generated journey events.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1 << 32), conflicts_with = "files")]
    issues: u64,
    /// The same seed makes the same events and ids, but for the times in them.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Gives event number `n` of the run to any sender.
pub struct Source {
    kind: Kind,
    /// The number of events; `None` if there is no end.
    pub total: Option<u64>,
}

enum Kind {
    Generated(Generator),
    Read { events: Vec<Event>, seed: u64, same_id: bool },
}

impl SourceArgs {
    /// Reads the files. With `endless` they are repeated until something else ends the run. With `one_line` line breaks
    /// in a body become spaces, because `--save` writes one body per line.
    ///
    /// # Errors
    /// A file cannot be read, or no file holds an event.
    pub fn open(&self, endless: bool, one_line: bool) -> Result<Source, Failure> {
        if self.generate {
            return Ok(Source {
                kind: Kind::Generated(Generator::new(self.seed, &self.feed, self.issues)),
                total: None,
            });
        }
        let mut bodies = Vec::new();
        for file in &self.files {
            bodies.extend(read(file)?);
        }
        if bodies.is_empty() {
            return Err(Failure::new("the input has no event"));
        }
        let events: Vec<Event> =
            bodies.into_iter().map(|body| event(if one_line { on_one_line(body) } else { body })).collect();
        let rounds = self.repeat.or((!endless).then_some(1));
        let total = rounds.map(|rounds| rounds.saturating_mul(events.len() as u64));
        Ok(Source { kind: Kind::Read { events, seed: self.seed, same_id: self.same_id }, total })
    }
}

impl Source {
    /// Event number `index`, from 0.
    pub fn event(&self, index: u64, scratch: &mut Scratch) -> Event {
        match &self.kind {
            Kind::Generated(generator) => generator.event(index, millis_now(), scratch),
            Kind::Read { events, seed, same_id } => {
                let count = events.len().max(1) as u64;
                let event =
                    events.get((index % count) as usize).cloned().unwrap_or(Event { body: Bytes::new(), id: 0..0 });
                if index < count || *same_id { event } else { with_fresh_id(&event, &Dice::new(*seed, index).uuid()) }
            }
        }
    }
}

fn read(file: &Path) -> Result<Vec<Bytes>, Failure> {
    let stdin = file == Path::new("-");
    let whole = if stdin {
        let mut whole = Vec::new();
        std::io::stdin().lock().read_to_end(&mut whole).map(|_| whole)
    } else {
        std::fs::read(file)
    };
    let whole =
        Bytes::from(whole.map_err(|error| {
            Failure::new(format!("{}: {error}; give a file with an event as JSON", file.display()))
        })?);
    if !stdin && file.extension().is_none_or(|extension| extension != "ndjson") {
        return Ok(vec![whole]);
    }
    let lines = whole.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    Ok(lines.filter(|line| !line.is_empty()).map(|line| whole.slice_ref(line)).collect())
}

/// Replaces line breaks by spaces. A JSON string contains no raw line break, so the document stays the same.
fn on_one_line(body: Bytes) -> Bytes {
    let breaks = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if !body.iter().any(breaks) {
        return body;
    }
    body.iter().map(|byte| if breaks(byte) { b' ' } else { *byte }).collect()
}

fn event(body: Bytes) -> Event {
    let id = id_of(&body).unwrap_or(0..0);
    Event { body, id }
}

fn with_fresh_id(event: &Event, id: &[u8]) -> Event {
    let (Some(before), Some(behind)) = (event.body.get(..event.id.start), event.body.get(event.id.end..)) else {
        return event.clone();
    };
    if event.id.is_empty() {
        return event.clone();
    }
    let mut body = BytesMut::with_capacity(event.body.len() + id.len());
    body.extend_from_slice(before);
    body.extend_from_slice(id);
    body.extend_from_slice(behind);
    Event { body: body.freeze(), id: event.id.start..event.id.start + id.len() }
}

/// The position of the value of the document's own `event_id`, between its quotes.
///
/// The search works on bytes, so that a body that is no event, or not even JSON, can be posted as it is.
fn id_of(body: &[u8]) -> Option<Range<usize>> {
    let (mut at, mut depth, mut is_id) = (0, 0, false);
    while let Some(byte) = body.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b'"' => {
                let start = at + 1;
                at = end_of_string(body, start)?;
                if is_id && depth == 1 {
                    return Some(start..at);
                }
                let is_key = body.get(at + 1..)?.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
                is_id = depth == 1 && is_key && body.get(start..at)? == b"event_id";
            }
            b',' => is_id = false,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The position of the quote that ends a string.
fn end_of_string(body: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match body.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_documents_own() {
        for (body, expected) in [
            (r#"{"event_id":"a"}"#, Some("a")),
            (r#"{"x":{"event_id":"inner"}, "event_id" : "a\"b" }"#, Some(r#"a\"b"#)),
            (r#"{"x":"event_id","y":"z","event_id":"b"}"#, Some("b")),
            (r#"{"event_id":5,"name":"n"}"#, None),
            (r#"{"event_id":["x"]}"#, None),
            (r#"["event_id","a"]"#, None),
            (r#"{"event_id":"cut"#, None),
            ("not JSON", None),
        ] {
            assert_eq!(id_of(body.as_bytes()).map(|range| &body[range]), expected, "{body}");
        }
    }

    #[test]
    fn files_are_repeated_with_fresh_ids_unless_told_otherwise() {
        let dir = temp_dir::TempDir::new().unwrap();
        let (one, lines) = (dir.path().join("one.json"), dir.path().join("lines.ndjson"));
        std::fs::write(&one, "{\n\"event_id\":\"a\"\n}").unwrap();
        std::fs::write(&lines, "{\"event_id\":\"b\"}\r\n\nno event\n").unwrap();
        let mut args = SourceArgs {
            files: vec![one, lines],
            repeat: Some(2),
            same_id: false,
            generate: false,
            feed: Vec::new(),
            issues: 1,
            seed: 1,
        };
        let posted =
            |source: &Source| (0..6).map(|index| source.event(index, &mut Scratch::default())).collect::<Vec<_>>();
        let source = args.open(false, true).unwrap();
        assert_eq!(source.total, Some(6));
        let events = posted(&source);
        assert_eq!(events[0].body, "{ \"event_id\":\"a\" }");
        assert_eq!((events[1].id(), events[2].id()), (b"b".as_slice(), b"".as_slice()));
        assert_eq!((events[3].id().len(), events[5].body.as_ref()), (36, b"no event".as_slice()));
        assert_eq!(id_of(&events[3].body), Some(events[3].id.clone()));
        assert_ne!(events[3].id(), events[4].id());
        args.same_id = true;
        assert_eq!(posted(&args.open(true, false).unwrap())[3].id(), b"a");
    }
}
