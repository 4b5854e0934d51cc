//! Files that keep the posted bodies and their outcomes, for checkers that share no code with us.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{generate::Event, outcome::Outcome};
use crate::cli::Failure;

/// What to keep.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Results")]
pub struct LogArgs {
    /// Write a line per event: event_id (- if it has none), last status (200, 503, timeout, connect, tls, closed), attempts.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Write every posted body, one a line.
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
}

/// The open files.
pub struct Log {
    record: Option<Out>,
    save: Option<Out>,
}

struct Out {
    path: PathBuf,
    file: Mutex<BufWriter<File>>,
}

impl LogArgs {
    /// Creates the files.
    ///
    /// # Errors
    /// A file cannot be created.
    pub fn create(&self) -> Result<Log, Failure> {
        let create = |path: &Option<PathBuf>| path.as_deref().map(Out::create).transpose();
        Ok(Log { record: create(&self.record)?, save: create(&self.save)? })
    }
}

impl Log {
    /// Writes an event's body, before its first attempt.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn posted(&self, event: &Event) -> Result<(), Failure> {
        let Some(save) = &self.save else { return Ok(()) };
        save.write(|file| file.write_all(&event.body).and_then(|()| file.write_all(b"\n")))
    }

    /// Writes an event's outcome, after its last attempt.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn ended(&self, event: &Event, last: Outcome, attempts: u32) -> Result<(), Failure> {
        let Some(record) = &self.record else { return Ok(()) };
        record.write(|file| {
            write_word(file, event.id())?;
            writeln!(file, " {last} {attempts}")
        })
    }

    /// Writes the buffered lines, at the end of the run.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn flush(&self) -> Result<(), Failure> {
        self.record.iter().chain(&self.save).try_for_each(|out| out.write(Write::flush))
    }
}

impl Out {
    fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| failure(path, &error))?;
        Ok(Self { path: path.to_owned(), file: Mutex::new(BufWriter::with_capacity(1 << 18, file)) })
    }

    fn write(&self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), Failure> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        write(&mut file).map_err(|error| failure(&self.path, &error))
    }
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{}: {error}; give a file that can be written", path.display()))
}

/// Writes an id as the body spells it, but as one word: a space becomes JSON's escape for it.
fn write_word(out: &mut impl Write, id: &[u8]) -> io::Result<()> {
    if id.is_empty() {
        return out.write_all(b"-");
    }
    let mut words = id.split(u8::is_ascii_whitespace);
    out.write_all(words.next().unwrap_or_default())?;
    words.try_for_each(|word| out.write_all(b"\\u0020").and_then(|()| out.write_all(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let dir = temp_dir::TempDir::new().unwrap();
        let (record, save) = (dir.path().join("record"), dir.path().join("save"));
        let log = LogArgs { record: Some(record.clone()), save: Some(save.clone()) }.create().unwrap();
        for (body, id) in [("{\"event_id\":\"a b\"}", 13..16), ("none", 0..0)] {
            let event = Event { body: body.into(), id };
            log.posted(&event).unwrap();
            log.ended(&event, Outcome::Timeout, 4).unwrap();
        }
        log.flush().unwrap();
        assert_eq!(std::fs::read_to_string(record).unwrap(), "a\\u0020b timeout 4\n- timeout 4\n");
        assert_eq!(std::fs::read_to_string(save).unwrap(), "{\"event_id\":\"a b\"}\nnone\n");
    }
}
