//! The findings of a command: how bad each one is, its subject, and its remedy.

use std::io::{ErrorKind, Write};

use console::{measure_text_width, style};
use serde::Serialize;

use super::{Exit, Failure};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// All is well.
    Ok,
    /// Worth knowing; nothing needs to be done.
    Note,
    /// It works, but leaves less room than it should.
    Warning,
    /// It breaks the promise, or keeps the bridge from starting.
    Error,
}

/// The result of looking at one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Its subject, such as `topic asapp.journey` or `certificate`.
    pub about: String,
    /// The finding, in words.
    pub what: String,
    /// The remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Findings in the order in which they were made.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Adds that all is well with `about`.
    pub fn ok(&mut self, about: &str, what: impl Into<String>) {
        self.push(Level::Ok, about, what.into(), None);
    }

    /// Adds a note, which needs no remedy.
    pub fn note(&mut self, about: &str, what: impl Into<String>) {
        self.push(Level::Note, about, what.into(), None);
    }

    /// Adds a finding with its remedy.
    pub fn add(&mut self, level: Level, about: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.push(level, about, what.into(), Some(remedy.into()));
    }

    fn push(&mut self, level: Level, about: &str, what: String, remedy: Option<String>) {
        self.0.push(Finding { level, about: about.to_owned(), what, remedy });
    }

    /// Adds the findings of another look, behind these.
    pub fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// All findings but those at [`Level::Ok`].
    pub fn notable(&self) -> Self {
        Self(self.0.iter().filter(|finding| finding.level > Level::Ok).cloned().collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The worst level; [`Level::Ok`] if there is no finding.
    pub fn worst(&self) -> Level {
        self.0.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }

    /// The number of findings at exactly this level.
    pub fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    /// The exit code: `Findings` if one of them is `intolerable` or worse.
    pub fn exit(&self, intolerable: Level) -> Exit {
        if self.worst() >= intolerable { Exit::Findings } else { Exit::Done }
    }

    /// The findings as text: one line each, and its remedy below.
    pub fn text(&self) -> String {
        let about_width = self.0.iter().map(|finding| measure_text_width(&finding.about)).max().unwrap_or(0);
        self.0.iter().map(|finding| finding.text(about_width)).collect()
    }

    /// The counts in words, such as `2 errors, 1 warning`.
    pub fn summary(&self) -> String {
        let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let (errors, warnings) = (self.count(Level::Error), self.count(Level::Warning));
        let text = format!("{}, {}", plural(errors, "error"), plural(warnings, "warning"));
        match self.worst() {
            Level::Error => style(text).red().bold().to_string(),
            Level::Warning => style(text).yellow().bold().to_string(),
            Level::Note | Level::Ok => style(text).green().to_string(),
        }
    }
}

impl Finding {
    fn text(&self, about_width: usize) -> String {
        let level = match self.level {
            Level::Ok => style("ok     ").green(),
            Level::Note => style("note   ").cyan(),
            Level::Warning => style("warning").yellow().bold(),
            Level::Error => style("error  ").red().bold(),
        };
        let mut text = format!("{level}  {:about_width$}  {}\n", self.about, self.what);
        if let Some(remedy) = &self.remedy {
            for (number, line) in remedy.lines().enumerate() {
                let arrow = if number == 0 { "->" } else { "  " };
                text.push_str(&format!("{:9}{:about_width$}  {} {line}\n", "", "", style(arrow).dim()));
            }
        }
        text
    }
}

/// Prints a line. Returns false once the reader has closed our output, which it may do at any time without failure.
///
/// # Errors
/// The output cannot be written, for example to a full disk.
pub fn say(line: impl std::fmt::Display) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(format!("standard output: {error}"))),
    }
}

/// Columns under a header line, two spaces apart. Cells may have colours.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|title| style(title).bold().to_string()).collect();
    let lines = || [&header].into_iter().chain(rows);
    let width = |column: usize| {
        lines().filter_map(|row| row.get(column)).map(|cell| measure_text_width(cell)).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for row in lines() {
        let cells =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell}{:1$}", "", width - measure_text_width(cell)));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_exit_code() {
        let mut findings = Findings::default();
        findings.ok("a", "fine");
        findings.note("a", "by the way");
        assert_eq!(findings.exit(Level::Warning), Exit::Done);
        findings.add(Level::Warning, "b", "thin", "thicken it");
        assert_eq!((findings.exit(Level::Error), findings.exit(Level::Warning)), (Exit::Done, Exit::Findings));
        findings.add(Level::Error, "long", "broken", "mend it\nor not");
        assert_eq!(findings.exit(Level::Error), Exit::Findings);
        let text = console::strip_ansi_codes(&findings.text()).into_owned();
        assert!(
            text.contains("error    long  broken\n               -> mend it\n                  or not\n"),
            "{text}"
        );
        assert_eq!(console::strip_ansi_codes(&findings.summary()), "1 error, 1 warning");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = table(
            &["a", "b"],
            &[vec!["long".to_owned(), style("x").red().to_string()], vec!["s".to_owned(), "y".to_owned()]],
        );
        assert_eq!(console::strip_ansi_codes(&text), "a     b\nlong  x\ns     y\n");
    }
}
