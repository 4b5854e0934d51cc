//! What a case must show, what it did show, and every way in which the two may differ.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};

use crate::{
    event::Feed,
    load::{Fate, Reply},
};

/// A case that held, or everything that did not hold.
pub type Outcome = Result<Summary, Vec<Violation>>;

/// How many records an event may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    One,
    /// A second one where the bridge says that a record failed: it was produced again, or it was given up and librdkafka
    /// began a new epoch with those after it.
    Redelivered,
    /// A second one of events that were tried more than once, too: their attempts reached different processes.
    Restarted,
}

/// What is allowed in a case beside answers of 200, each one record, in order.
#[derive(Clone, Debug)]
pub struct Expect {
    /// Status and code of each refusal that may be seen.
    pub refusals: Vec<(u16, &'static str)>,
    /// Attempts may end with a broken connection.
    pub broken: bool,
    /// Attempts may have no answer in time. The bridge leaves a sender 250 ms for what its machine needs; this one may be busy.
    pub late: bool,
    pub copies: Copies,
    /// Records may be given up; none of them was answered 200.
    pub undelivered: bool,
    /// A topic whose records were taken away: those of events that were first sent until then.
    pub deleted: Option<(Feed, Instant)>,
    /// How many partitions the topics have, or have had.
    pub partitions: Vec<usize>,
    /// Where a key's partition changes, its records have no common order.
    pub order: bool,
    /// When the fault was over, if there was one.
    pub healed: Option<Instant>,
    /// A producer's records stand still for no fault of Kafka's.
    pub own_fault: bool,
    /// How much memory the process may ever have had, in MiB.
    pub memory_mb_max: u64,
}

pub const NO_COMMIT_IN_TIME: (u16, &str) = (503, "no_commit_in_time");
pub const OVERLOAD: (u16, &str) = (503, "overload");
pub const STOPPING: (u16, &str) = (503, "stopping");

/// By when all must be answered 200 again.
pub const RECOVERY_MAX: Duration = Duration::from_secs(15);

impl Default for Expect {
    fn default() -> Self {
        Self {
            refusals: Vec::new(),
            broken: false,
            late: false,
            copies: Copies::One,
            undelivered: false,
            deleted: None,
            partitions: vec![3],
            order: true,
            healed: None,
            own_fault: false,
            memory_mb_max: 160,
        }
    }
}

impl Expect {
    /// Everything is answered 200 at the first attempt, once.
    pub fn all_200() -> Self {
        Self::default()
    }

    /// Answered 200 if the fault heals before the deadline, else 503 at it; and given up when the sender has long done so.
    pub fn held() -> Self {
        Self {
            refusals: vec![NO_COMMIT_IN_TIME],
            late: true,
            undelivered: true,
            copies: Copies::Redelivered,
            ..Self::default()
        }
    }

    pub fn healed(self, at: Instant) -> Self {
        Self { healed: Some(at), ..self }
    }

    pub fn refusal(mut self, refusal: (u16, &'static str)) -> Self {
        self.refusals.push(refusal);
        self
    }

    pub fn copies(self, copies: Copies) -> Self {
        Self { copies, ..self }
    }
}

/// The line of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub sent: usize,
    pub acked: usize,
    /// Given up by the sender after its last attempt.
    pub dropped: usize,
    /// Answered 200 and not in Kafka.
    pub lost: usize,
    /// Events that have more than one record.
    pub duplicated: usize,
    /// Never answered 200 and in Kafka all the same.
    pub unacked_there: usize,
    /// The longest attempt that was answered 200 in the end.
    pub longest_hold: Duration,
    /// From the fault's end to the last answer of an attempt that it met: one from before, or one not answered 200.
    pub recovery: Option<Duration>,
    /// Attempts by what came back.
    pub replies: BTreeMap<String, usize>,
    /// The most memory that the bridge ever had.
    pub memory_mb: u64,
}

impl Summary {
    pub fn json(&self, name: &str) -> Json {
        json!({
            "case": name,
            "sent": self.sent,
            "acked": self.acked,
            "dropped": self.dropped,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "unacked_there": self.unacked_there,
            "longest_hold_ms": self.longest_hold.as_millis() as u64,
            "recovery_ms": self.recovery.map(|it| it.as_millis() as u64),
            "replies": self.replies,
            "memory_mb": self.memory_mb,
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, acked, dropped, lost, duplicated, unacked_there, memory_mb, .. } = self;
        write!(out, "sent {sent}, acked {acked}, dropped {dropped}, lost {lost}, duplicated {duplicated}, ")?;
        write!(out, "unacked but there {unacked_there}, longest hold {} ms, ", self.longest_hold.as_millis())?;
        match self.recovery {
            Some(recovery) => write!(out, "recovery {} ms, ", recovery.as_millis())?,
            None => write!(out, "recovery -, ")?,
        }
        write!(out, "memory {memory_mb} MiB, replies {:?}", self.replies)
    }
}

/// What may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Answered 200, and no record of it.
    Lost,
    /// The receipt names a place where something else stands.
    WrongReceipt,
    Duplicated,
    /// A record of no event that was sent.
    Unexpected,
    OutOfOrder,
    WrongKey,
    WrongPartition,
    /// A dead letter that is not the body that was sent.
    WrongBody,
    /// An answer that this fault does not excuse.
    WrongAnswer,
    /// A check of time: an answer, a recovery or an end that came, but not as soon as it should.
    Late,
    /// Records or requests that neither end nor are given up.
    Stuck,
    /// A metric that does not say what happened.
    WrongMetric,
    WrongExit,
    TooMuchMemory,
    /// What the case itself looks at.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub kind: Kind,
    pub what: String,
}

impl Violation {
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into() }
    }

    /// Of an event whose attempts did not all end in 200.
    pub fn of_fate(fate: &Fate, what: &str) -> Self {
        let failed = || fate.attempts.iter().map(|it| &it.reply).filter(|reply| !matches!(reply, Reply::Acked(_)));
        let kind = if failed().all(Reply::is_late) { Kind::Late } else { Kind::WrongAnswer };
        Self::new(kind, format!("event {} of {:?}, {what}: {:?}", fate.event.number, fate.event.feed, fate.attempts))
    }
}

/// What a slow machine can bring about by itself. All else is a check of safety: a single one is a finding, however slow the
/// machine was.
pub fn only_late(violations: &[Violation]) -> bool {
    violations.iter().all(|violation| violation.kind == Kind::Late)
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}: {}", self.kind, self.what)
    }
}

/// So many of a kind are shown.
const SHOWN: usize = 3;

/// A few of each kind and how many there are.
pub fn describe(violations: &[Violation]) -> String {
    let mut kinds = BTreeMap::<Kind, Vec<&Violation>>::new();
    for violation in violations {
        kinds.entry(violation.kind).or_default().push(violation);
    }
    let mut text = String::new();
    for (kind, violations) in kinds {
        text.push_str(&format!("{kind:?}: {}\n", violations.len()));
        for violation in violations.iter().take(SHOWN) {
            text.push_str(&format!("  {}\n", violation.what));
        }
    }
    text
}
