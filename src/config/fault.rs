//! The faults of a configuration: where each one is, and how to mend it.

use std::fmt;

use super::source::Origin;

/// Every mistake in a configuration, those of the file first, by line.
///
/// `Display` writes one fault after another: place, key and mistake in one line, the remedy in the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where the value comes from.
    pub origin: Origin,
    /// The dotted key; empty if the fault does not belong to one key.
    pub key: String,
    /// The mistake, in words that follow the key: "is 5, less than 500".
    pub what: String,
    /// How to mend it.
    pub remedy: String,
}

/// A fault without its place and key, which the caller of the check knows.
pub(super) struct Wrong {
    pub what: String,
    pub remedy: String,
}

impl Wrong {
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl Faults {
    pub(super) fn new(mut faults: Vec<Fault>) -> Self {
        faults.sort();
        Self(faults)
    }

    /// The faults in the order in which `Display` writes them.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                out.write_str("\n")?;
            }
            fault.fmt(out)?;
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(out, "{} ", self.key)?;
        }
        write!(out, "{}\n    {}", self.what, self.remedy)
    }
}
