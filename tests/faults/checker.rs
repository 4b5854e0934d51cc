//! Reads every topic and compares it with what was sent and answered.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::{
    event::{self, Event, Feed},
    load::{Attempt, Fate, Receipt, Reply},
    support::{bridge::Setup, kafka::Kafka, topics::Record},
    verdict::{Copies, Expect, Kind, Summary, Violation},
};

/// What is in a bridge's topics, by feed.
#[derive(Default)]
pub struct Content {
    topics: BTreeMap<Feed, (String, Vec<Record>)>,
    /// Up to which offset each partition was read.
    read_to: BTreeMap<Feed, Vec<i64>>,
}

impl Content {
    pub fn read(kafka: &Kafka, setup: &Setup) -> Self {
        let mut content = Self::default();
        content.go_on(kafka, setup);
        content
    }

    /// Instead of what was read before, what came since.
    pub fn go_on(&mut self, kafka: &Kafka, setup: &Setup) {
        for feed in Feed::ALL {
            let topic = setup.topic(feed.label());
            let records = kafka.read_on(&topic, self.read_to.entry(feed).or_default());
            self.topics.insert(feed, (topic, records));
        }
    }

    pub fn records(&self, feed: Feed) -> &[Record] {
        &self.topics[&feed].1
    }
}

/// One copy of an event.
#[derive(Clone, Copy, Debug)]
struct Place {
    partition: i32,
    offset: i64,
}

pub struct Checker<'a> {
    fates: &'a [Fate],
    content: &'a Content,
    expect: &'a Expect,
    /// By event, in the order of the partitions.
    copies: Vec<Vec<Place>>,
    pub violations: Vec<Violation>,
}

impl<'a> Checker<'a> {
    /// `failed`: the bridge says that records have failed, and were produced again or given up.
    pub fn check(
        fates: &'a [Fate],
        content: &'a Content,
        expect: &'a Expect,
        failed: bool,
    ) -> (Summary, Vec<Violation>) {
        let mut checker =
            Self { fates, content, expect, copies: vec![Vec::new(); fates.len()], violations: Vec::new() };
        checker.find_copies();
        checker.answers();
        checker.acked();
        checker.duplicates(failed);
        if expect.order {
            checker.order();
        }
        (checker.summary(), checker.violations)
    }

    fn violation(&mut self, kind: Kind, what: String) {
        self.violations.push(Violation { kind, what });
    }

    /// Which event each record is, and whether it is where and what it must be.
    fn find_copies(&mut self) {
        let known: HashMap<(Feed, &str), usize> =
            self.fates.iter().enumerate().map(|(at, fate)| ((fate.event.feed, fate.event.hash.as_str()), at)).collect();
        for (feed, (topic, records)) in &self.content.topics {
            for record in records {
                let (partition, offset) = (record.partition, record.offset);
                let at = format!("{topic} {partition}@{offset}");
                let hash = record.header("causeway_body").unwrap_or_default();
                let Some(number) = known.get(&(*feed, hash)).copied() else {
                    let id = record.header("ce_id").unwrap_or("without an id").to_owned();
                    self.violation(Kind::Unexpected, format!("{at}: event {id}, body {hash:?}"));
                    continue;
                };
                self.copies[number].push(Place { partition, offset });
                let event = &self.fates[number].event;
                if record.key.as_deref() != event.key.as_deref().map(str::as_bytes) {
                    let found = record.key.as_deref().map(String::from_utf8_lossy);
                    self.violation(Kind::WrongKey, format!("{at}: {found:?} instead of {:?}", event.key));
                }
                let right = |key: &String| {
                    self.expect.partitions.iter().any(|count| event::partition(key.as_bytes(), *count) == partition)
                };
                if !event.key.as_ref().is_none_or(right) {
                    self.violation(Kind::WrongPartition, format!("{at}: key {:?}", event.key));
                }
                if *feed == Feed::DeadLetter && record.value.as_deref() != Some(event.body.as_ref()) {
                    self.violation(Kind::WrongBody, format!("{at}: not what was posted"));
                }
            }
        }
    }

    fn answers(&mut self) {
        for fate in self.fates {
            for (number, attempt) in fate.attempts.iter().enumerate() {
                let fine = match &attempt.reply {
                    Reply::Acked(_) => true,
                    Reply::Refused(status, code) => {
                        self.expect.refusals.iter().any(|(allowed, why)| allowed == status && why == code)
                    }
                    Reply::TimedOut => self.expect.late,
                    Reply::Broken(_) => self.expect.broken,
                };
                if !fine {
                    let kind = if attempt.reply.is_late() { Kind::Late } else { Kind::WrongAnswer };
                    let elapsed = attempt.ended - attempt.sent;
                    let what =
                        format!("event {}, attempt {number}: {:?} after {elapsed:?}", fate.event.number, attempt.reply);
                    self.violation(kind, what);
                }
            }
        }
    }

    /// Every event that was answered 200 is there, at the place that its receipt names.
    fn acked(&mut self) {
        for (number, fate) in self.fates.iter().enumerate() {
            let Some((_, receipt)) = fate.acked() else { continue };
            if self.deleted(fate) {
                continue;
            }
            if self.copies[number].is_empty() {
                self.violation(Kind::Lost, format!("event {}: {receipt:?}", fate.event.number));
            } else if !self.stands_at(fate, &self.copies[number], receipt) {
                let copies = &self.copies[number];
                let what = format!("event {}: {receipt:?}, but it stands at {copies:?}", fate.event.number);
                self.violation(Kind::WrongReceipt, what);
            }
        }
    }

    fn deleted(&self, fate: &Fate) -> bool {
        let before = |until: Instant| fate.attempts.first().is_some_and(|it| it.sent <= until);
        self.expect.deleted.is_some_and(|(feed, until)| feed == fate.event.feed && before(until))
    }

    fn stands_at(&self, fate: &Fate, copies: &[Place], receipt: &Receipt) -> bool {
        let right = |place: &Place| {
            place.partition == receipt.partition && receipt.offset.is_none_or(|offset| offset == place.offset)
        };
        self.content.topics[&fate.event.feed].0 == receipt.topic && copies.iter().any(right)
    }

    fn duplicates(&mut self, failed: bool) {
        for (number, fate) in self.fates.iter().enumerate() {
            let copies = &self.copies[number];
            if copies.len() < 2 {
                continue;
            }
            let allowed = match self.expect.copies {
                Copies::One => false,
                Copies::Redelivered => failed,
                Copies::Restarted => failed || fate.attempts.len() > 1,
            };
            if !allowed {
                let replies: Vec<_> = fate.attempts.iter().map(|it| &it.reply).collect();
                let by = if fate.attempts.len() > 1 { "retried" } else { "sent once" };
                let what = format!("event {} ({by}): {copies:?} after {replies:?}", fate.event.number);
                self.violation(Kind::Duplicated, what);
            }
        }
    }

    /// If A was answered 200 before B of the same key was sent, A's first copy stands before B's.
    fn order(&mut self) {
        let mut keys = HashMap::<(Feed, &str), Vec<usize>>::new();
        for (number, fate) in self.fates.iter().enumerate() {
            if let Some(key) = &fate.event.key {
                keys.entry((fate.event.feed, key)).or_default().push(number);
            }
        }
        for ((feed, key), numbers) in keys {
            let there =
                || numbers.iter().filter_map(|number| Some((&self.fates[*number], self.copies[*number].first()?)));
            let mut acked: Vec<(Instant, i64)> = there()
                .filter(|(fate, _)| !self.deleted(fate))
                .filter_map(|(fate, first)| Some((fate.acked()?.0.ended, first.offset)))
                .collect();
            acked.sort();
            let mut sent: Vec<(Instant, i64)> =
                there().filter_map(|(fate, first)| Some((fate.attempts.first()?.sent, first.offset))).collect();
            sent.sort();
            let (mut before, mut highest) = (acked.into_iter().peekable(), None);
            let mut found = Vec::new();
            for (at, offset) in sent {
                while let Some((_, acked)) = before.next_if(|(ended, _)| *ended < at) {
                    highest = highest.max(Some(acked));
                }
                if highest.is_some_and(|highest| highest > offset) {
                    found.push(format!(
                        "{} {key}: offset {offset} was sent after {highest:?} was answered",
                        feed.label()
                    ));
                }
            }
            self.violations.extend(found.into_iter().map(|what| Violation::new(Kind::OutOfOrder, what)));
        }
    }

    fn recovery(&self, healed: Instant) -> Duration {
        let attempts = self.fates.iter().flat_map(|fate| &fate.attempts);
        let met = attempts.filter(|it| it.sent < healed || !matches!(it.reply, Reply::Acked(_)));
        met.map(|it| it.ended.saturating_duration_since(healed)).max().unwrap_or_default()
    }

    fn summary(&self) -> Summary {
        let mut summary = Summary { sent: self.fates.len(), ..Summary::default() };
        for (fate, copies) in self.fates.iter().zip(&self.copies) {
            match fate.acked() {
                Some((attempt, _)) => {
                    summary.acked += 1;
                    summary.longest_hold = summary.longest_hold.max(attempt.ended - attempt.sent);
                }
                None => {
                    summary.dropped += 1;
                    summary.unacked_there += usize::from(!copies.is_empty());
                }
            }
            summary.duplicated += usize::from(copies.len() > 1);
            for attempt in &fate.attempts {
                *summary.replies.entry(word(&attempt.reply)).or_default() += 1;
            }
        }
        summary.recovery = self.expect.healed.map(|healed| self.recovery(healed));
        summary.lost = self.violations.iter().filter(|it| it.kind == Kind::Lost).count();
        summary
    }
}

fn word(reply: &Reply) -> String {
    match reply {
        Reply::Acked(_) => "200".to_owned(),
        Reply::Refused(status, code) => format!("{status} {code}"),
        Reply::TimedOut => "none in time".to_owned(),
        Reply::Broken(_) => "connection broken".to_owned(),
    }
}

/// Each kind of violation is found in what was made up to have it, and none in what has none.
pub fn each_kind_is_found() {
    let start = Instant::now();
    let at = |millis: u64| start + Duration::from_millis(millis);
    let event = |number: usize| Event::new(0, number, Feed::Journey, 1, 10);
    let partition = event::partition(b"key-0", 3);
    let record = |number: usize, offset: i64| Record {
        partition,
        offset,
        timestamp: 0,
        key: Some(b"key-0".to_vec()),
        headers: vec![("causeway_body".to_owned(), event(number).hash.into_bytes())],
        value: None,
    };
    let acked = |number: usize, offset: i64| {
        let receipt = Receipt { topic: "t".to_owned(), partition, offset: Some(offset) };
        let (sent, ended) = (at(number as u64 * 10), at(number as u64 * 10 + 5));
        Fate {
            event: event(number),
            attempts: vec![Attempt { sent, ended, reply: Reply::Acked(receipt), retry_after: None }],
        }
    };
    let kinds = |fates: &[Fate], records: Vec<Record>| {
        let topics = [(Feed::Journey, ("t".to_owned(), records))].into();
        let content = Content { topics, ..Content::default() };
        let (_, found) = Checker::check(fates, &content, &Expect::all_200(), false);
        found.into_iter().map(|it| it.kind).collect::<Vec<_>>()
    };
    let two = [acked(0, 0), acked(1, 1)];
    assert_eq!(kinds(&two, vec![record(0, 0), record(1, 1)]), []);
    assert_eq!(kinds(&two, vec![record(0, 0)]), [Kind::Lost]);
    assert_eq!(kinds(&two, vec![record(0, 0), record(1, 1), record(1, 2)]), [Kind::Duplicated]);
    assert_eq!(kinds(&two, vec![record(0, 0), record(1, 1), record(2, 2)]), [Kind::Unexpected]);
    assert_eq!(kinds(&two, vec![record(0, 0), record(1, 7)]), [Kind::WrongReceipt]);
    assert_eq!(kinds(&[acked(0, 1), acked(1, 0)], vec![record(1, 0), record(0, 1)]), [Kind::OutOfOrder]);
    let another = |change: fn(&mut Record)| {
        let mut record = record(0, 0);
        change(&mut record);
        kinds(&[acked(0, 0)], vec![record])
    };
    assert_eq!(another(|it| it.key = None), [Kind::WrongKey]);
    assert_eq!(another(|it| it.partition = (it.partition + 1) % 3), [Kind::WrongPartition, Kind::WrongReceipt]);
    let refused = Reply::Refused(503, "overload".to_owned());
    let mut fate = acked(0, 0);
    fate.attempts[0].reply = refused;
    assert_eq!(kinds(&[fate], Vec::new()), [Kind::WrongAnswer]);
    for late in [Reply::TimedOut, Reply::Refused(503, "no_commit_in_time".to_owned())] {
        let mut fate = acked(0, 0);
        fate.attempts[0].reply = late;
        assert_eq!(kinds(&[fate], Vec::new()), [Kind::Late]);
    }
    let letter = Event::new(0, 0, Feed::DeadLetter, 1, 10);
    let headers = vec![("causeway_body".to_owned(), letter.hash.clone().into_bytes())];
    let stored = Record { key: None, headers, value: Some(b"another".to_vec()), ..record(0, 0) };
    let content = Content { topics: [(Feed::DeadLetter, ("d".to_owned(), vec![stored]))].into(), ..Content::default() };
    let fates = [Fate { event: letter, attempts: Vec::new() }];
    let (_, found) = Checker::check(&fates, &content, &Expect::all_200(), false);
    assert_eq!(found.into_iter().map(|it| it.kind).collect::<Vec<_>>(), [Kind::WrongBody]);
}
