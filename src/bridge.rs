//! The flow, put together: body -> event -> record -> Kafka. What it returns is waited on for the receipt.

mod held;
mod identity;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Once, PoisonError},
};

use prometheus::IntCounter;

use self::held::Held;
pub use self::{
    held::{InFlight, Overload},
    identity::Identity,
};
use crate::{
    config::Config,
    event::{Event, Parser},
    feed,
    kafka::{Accepted, Entered, Key, LaneSpec, Producers},
    metrics::Metrics,
    quota::{Quota, Share},
    record::{Made, Record, Refused, Route, attribute::string as as_stored, body_hash, coding},
    transcode::{Direct, NamePeek, Transcoder},
};

/// The feeds, their producers and their limits.
pub struct Bridge {
    lanes: Vec<FeedLane>,
    dead_letters: Held,
    by_name: Positions,
    name: NamePeek,
    by_path: Positions,
    other: usize,
    producers: Arc<Producers>,
    bytes: Arc<Quota>,
    #[allow(clippy::vec_box, reason = "each is taken out and put back for every event")]
    benches: Mutex<Vec<Box<Bench>>>,
    depth_max: usize,
    /// librdkafka takes none whose key and value are larger (`message.max.bytes`).
    record_bytes_max: usize,
    /// The limit of an encoded body, once it is decoded.
    body_bytes_max: usize,
    metrics: Arc<Metrics>,
}

/// Feeds by what is configured of them.
type Positions = HashMap<String, usize, foldhash::fast::RandomState>;

/// One feed: how its records are made, and what is counted of them.
struct FeedLane {
    route: Route,
    held: Held,
    unknown_members: IntCounter,
    null_keys: IntCounter,
    /// Events by major number, `other` last.
    majors: [Major; 11],
}

/// Events of one major number of `api_version`.
struct Major {
    counter: IntCounter,
    told: Once,
}

/// The buffers that one body needs on its way to a record.
struct Bench {
    parser: Parser,
    transcoder: Transcoder,
    direct: Direct,
    record: Record,
}

/// What a name or a path says about an event's feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Take it by the event's `name`.
    ByName,
    /// The path is bound to the feed at this position.
    Feed(usize),
}

/// A body on its way to Kafka, with what says which feed takes it.
pub struct Delivery {
    pub accepted: Accepted,
    pub binding: Binding,
}

/// A place for a request among those that wait for a feed's receipts.
struct Place<'a> {
    lane: usize,
    feed: &'a FeedLane,
    share: Share,
}

/// What came of the attempt to make a record without the tape.
enum Tried {
    Sent(Result<InFlight, Overload>),
    /// Nothing: this body has to go over the tape.
    NotThisWay(Delivery),
}

/// The majors of `api_version` that the built-in schemas were written for.
const KNOWN_MAJOR: usize = 1;

/// Where all others are counted.
const OTHER_MAJOR: usize = 10;

/// The label of what no feed is known of.
const UNKNOWN_FEED: &str = "unknown";

impl Bridge {
    /// The lanes that [`Producers::start`] needs for these routes: one a feed, the dead letters' last.
    pub fn lanes(routes: &[Route], config: &Config) -> Vec<LaneSpec> {
        let dead_letters =
            LaneSpec { label: feed::DEAD_LETTER.to_owned(), topics: vec![config.dead_letter.topic.clone()] };
        let lane = |route: &Route| LaneSpec {
            label: route.label.clone(),
            topics: route.topics.iter().map(|target| target.topic.clone()).collect(),
        };
        routes.iter().map(lane).chain([dead_letters]).collect()
    }

    /// `routes` are those of `config.feeds`, in their order.
    pub fn new(config: &Config, routes: Vec<Route>, producers: Arc<Producers>, metrics: Arc<Metrics>) -> Self {
        let held = |label: &str| Held::new(label, config.ingress.in_flight_max, &metrics);
        let bytes = Quota::new(config.ingress.queue_bytes_max);
        metrics.show(metrics.queue_bytes.clone(), &bytes, Quota::taken);
        for code in Held::REFUSALS {
            metrics.refused.with_label_values(&[UNKNOWN_FEED, code]);
        }
        for feed in routes.iter().map(|route| route.label.as_str()).chain([UNKNOWN_FEED]) {
            for stage in Refused::STAGES {
                metrics.dead_letters.with_label_values(&[feed, stage]);
            }
        }
        let position = |key: fn(&feed::Feed) -> Option<&String>| {
            let named = config.feeds.iter().enumerate().filter_map(|(at, feed)| Some((key(feed)?.clone(), at)));
            named.collect::<Positions>()
        };
        Self {
            by_name: position(|feed| feed.name.as_ref()),
            name: NamePeek::default(),
            by_path: position(|feed| feed.path.as_ref()),
            other: config.feeds.iter().position(|feed| feed.name.is_none()).unwrap_or(0),
            dead_letters: held(feed::DEAD_LETTER),
            lanes: routes
                .into_iter()
                .map(|route| FeedLane {
                    held: held(&route.label),
                    unknown_members: metrics.unknown_members.with_label_values(&[&route.label]),
                    null_keys: metrics.null_keys.with_label_values(&[&route.label]),
                    majors: std::array::from_fn(|number| Major::new(number, &route.label, &metrics)),
                    route,
                })
                .collect(),
            producers,
            bytes,
            benches: Mutex::new(Vec::new()),
            depth_max: config.ingress.depth_max,
            record_bytes_max: usize::try_from(config.kafka.message_bytes_max()).unwrap_or(usize::MAX),
            body_bytes_max: config.ingress.body_bytes_max,
            metrics,
        }
    }

    /// What a request path is bound to; `None` for a path that is not ours.
    pub fn binding(&self, path: &str) -> Option<Binding> {
        match path {
            "/" | "/events" => Some(Binding::ByName),
            other => self.by_path.get(other).copied().map(Binding::Feed),
        }
    }

    /// Takes room for `bytes` of a body, before any of it is read.
    ///
    /// # Errors
    /// [`Overload::Bytes`].
    pub fn admit(&self, bytes: usize) -> Result<Share, Overload> {
        self.bytes.take(bytes).ok_or_else(|| self.no_room())
    }

    /// There is none for a body that was not read, or not to its end.
    pub fn no_room(&self) -> Overload {
        self.count_unread(Overload::CODE);
        Overload::Bytes
    }

    /// Counts a 503 of an event that was not read, or not to its end, with this code.
    pub fn count_unread(&self, code: &str) {
        self.metrics.refused.with_label_values(&[UNKNOWN_FEED, code]).inc();
    }

    /// The whole path of a body: read it, make its record, hand it to Kafka. A body that is no event becomes a dead letter.
    ///
    /// # Errors
    /// [`Overload`]: nothing was handed over.
    pub fn deliver(&self, delivery: Delivery) -> Result<InFlight, Overload> {
        let mut bench = self.bench();
        let sent = self.deliver_on(&mut bench, delivery);
        self.benches.lock().unwrap_or_else(PoisonError::into_inner).push(bench);
        sent
    }

    fn deliver_on(&self, bench: &mut Bench, delivery: Delivery) -> Result<InFlight, Overload> {
        let Bench { parser, transcoder, direct, record } = bench;
        let Accepted { body, origin, .. } = &delivery.accepted;
        let body = Arc::clone(body);
        let text = match coding::decode(&body, origin.content_encoding.as_deref(), self.body_bytes_max) {
            Ok(text) => text,
            Err(why) => return self.dead_letter(Refused::Undecodable(&why), None, delivery, record),
        };
        match self.deliver_directly(&text, delivery, direct, record) {
            Tried::Sent(sent) => sent,
            Tried::NotThisWay(delivery) => parser.read(&text, |event| match event {
                Ok(event) => self.deliver_event(&event, delivery, transcoder, record),
                Err(why) => self.dead_letter(Refused::Unreadable(&why), None, delivery, record),
            }),
        }
    }

    /// Without the tape, where the decoded body looks as it mostly does.
    fn deliver_directly(&self, text: &[u8], delivery: Delivery, direct: &mut Direct, record: &mut Record) -> Tried {
        let named = |name| self.by_name.get(name).copied();
        let lane = match delivery.binding {
            Binding::Feed(lane) => Some(lane),
            Binding::ByName => self.name.peek(text).and_then(named),
        };
        let Some((lane, feed)) = lane.and_then(|lane| Some((lane, self.lanes.get(lane)?))) else {
            return Tried::NotThisWay(delivery);
        };
        // Without a place the tape has the last word: a body that is no event needs none, and is answered 200.
        let Some(share) = feed.held.quota.take(1) else { return Tried::NotThisWay(delivery) };
        let Accepted { body, origin, .. } = &delivery.accepted;
        match feed.route.fill_directly(record, text, body, self.depth_max, origin, direct) {
            // What looked like its name may have stood elsewhere.
            Some(made) if delivery.binding != Binding::ByName || named(made.facts.name) == Some(lane) => {
                Tried::Sent(self.send(Place { lane, feed, share }, delivery.accepted, &made, record))
            }
            _ => Tried::NotThisWay(delivery),
        }
    }

    fn deliver_event(
        &self,
        event: &Event<'_>,
        delivery: Delivery,
        transcoder: &mut Transcoder,
        record: &mut Record,
    ) -> Result<InFlight, Overload> {
        let lane = match delivery.binding {
            Binding::Feed(lane) => lane,
            Binding::ByName => self.by_name.get(event.name).copied().unwrap_or(self.other),
        };
        let Some(feed) = self.lanes.get(lane) else { return Err(Overload::InFlight) };
        // Before its record is made: a refusal must cost as little as can be.
        let share = feed.held.take().map_err(|full| feed.held.refuse(full))?;
        let Accepted { body, origin, .. } = &delivery.accepted;
        match feed.route.fill(record, event, body, origin, transcoder) {
            Ok(made) => self.send(Place { lane, feed, share }, delivery.accepted, &made, record),
            Err(why) => self.dead_letter(Refused::Unreadable(&why), None, delivery, record),
        }
    }

    fn send(
        &self,
        place: Place<'_>,
        mut accepted: Accepted,
        made: &Made<'_>,
        record: &Record,
    ) -> Result<InFlight, Overload> {
        let Place { lane, feed, share } = place;
        if record.key().map_or(0, <[u8]>::len) + record.value().len() > self.record_bytes_max {
            let (refused, key) = (Refused::Unstorable("MessageSizeTooLarge"), record.key());
            let delivery = Delivery { accepted, binding: Binding::Feed(lane) };
            return self.dead_letter(refused, key, delivery, &mut Record::default());
        }
        let (ticket, pending) =
            match self.producers.enter(Key::event(lane, &as_stored(made.facts.event_id), made.body_hash)) {
                Entered::First(ticket, pending) => (ticket, pending),
                Entered::Again(pending) => return Ok(feed.held.join(share, pending)),
            };
        feed.held.make_room(&mut accepted, record).map_err(|full| feed.held.refuse(full))?;
        self.producers.send_event(lane, made.target, record, accepted, ticket);
        feed.count(made);
        Ok(feed.held.hold(share, pending))
    }

    /// Puts the first bytes of a body over the limit into the dead letters.
    ///
    /// # Errors
    /// [`Overload`]: nothing was handed over.
    pub fn deliver_stub(&self, refused: Refused<'_>, first: Delivery) -> Result<InFlight, Overload> {
        self.dead_letter(refused, None, first, &mut Record::default())
    }

    fn dead_letter(
        &self,
        refused: Refused<'_>,
        key: Option<&[u8]>,
        delivery: Delivery,
        record: &mut Record,
    ) -> Result<InFlight, Overload> {
        let Delivery { mut accepted, binding } = delivery;
        let feed = match binding {
            Binding::Feed(lane) => self.lanes.get(lane).map(|feed| &feed.route),
            Binding::ByName => None,
        };
        let known = feed.and_then(|route| Some((route.label.as_str(), route.topics.first()?.topic.as_str())));
        // Without its stub a body over the limit is answered 413 all the same.
        let stub = matches!(refused, Refused::TooLarge { .. });
        let full = |full| if stub { full } else { self.dead_letters.refuse(full) };
        let share = self.dead_letters.take().map_err(full)?;
        let entered = match refused {
            // Two bodies may begin alike.
            Refused::TooLarge { .. } => self.producers.enter_alone(),
            _ => self.producers.enter_dead_letter(body_hash(&accepted.body)),
        };
        let (ticket, pending) = match entered {
            Entered::First(ticket, pending) => (ticket, pending),
            Entered::Again(pending) => return Ok(self.dead_letters.join(share, pending)),
        };
        record.fill_dead_letter(&accepted.body, refused, known, key, &accepted.origin);
        self.dead_letters.make_room(&mut accepted, record).map_err(full)?;
        let label = known.map(|(label, _)| label);
        self.producers.send_dead_letter(record, &refused, label, accepted, ticket);
        Ok(self.dead_letters.hold(share, pending))
    }

    /// Reads a body once more for a log line.
    pub fn identify(&self, body: &[u8]) -> Option<Identity> {
        let mut bench = self.bench();
        bench.parser.read(body, |event| event.ok().map(|event| Identity::of(&event)))
    }

    fn bench(&self) -> Box<Bench> {
        let bench = self.benches.lock().unwrap_or_else(PoisonError::into_inner).pop();
        bench.unwrap_or_else(|| {
            Box::new(Bench {
                parser: Parser::new(self.depth_max),
                transcoder: Transcoder::up_to(self.record_bytes_max),
                direct: Direct::default(),
                record: Record::default(),
            })
        })
    }

    pub fn producers(&self) -> &Arc<Producers> {
        &self.producers
    }
}

impl FeedLane {
    fn count(&self, made: &Made<'_>) {
        if made.extras > 0 {
            self.unknown_members.inc_by(made.extras as u64);
        }
        if made.has_null_key() {
            self.null_keys.inc();
        }
        let major = major(made.facts.api_version);
        let Some(counted) = self.majors.get(major.unwrap_or(OTHER_MAJOR)) else { return };
        counted.counter.inc();
        if major != Some(KNOWN_MAJOR) {
            counted.told.call_once(|| {
                tracing::warn!(
                    feed = self.route.label,
                    major = major_label(major.unwrap_or(OTHER_MAJOR)),
                    "first event of another major api_version: `extras` keeps what its schema does not name"
                );
            });
        }
    }
}

impl Major {
    fn new(number: usize, feed: &str, metrics: &Metrics) -> Self {
        let label = major_label(number);
        Self { counter: metrics.events_by_major.with_label_values(&[feed, label.as_str()]), told: Once::new() }
    }
}

/// How a major is counted, and told: a sender's own text of it goes into no log.
fn major_label(number: usize) -> String {
    if number == OTHER_MAJOR { "other".to_owned() } else { number.to_string() }
}

/// 0 to 9, from `v1.3.0` or `1.3.0`; `None` for any other text.
fn major(api_version: &str) -> Option<usize> {
    let text = api_version.strip_prefix(['v', 'V']).unwrap_or(api_version);
    let (major, _) = text.split_once('.').unwrap_or((text, ""));
    major.parse().ok().filter(|major| *major <= 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majors() {
        for (text, expected) in
            [("v1.3.0", Some(1)), ("2", Some(2)), ("v10.0", None), ("string", None), ("", None), ("v-1.0", None)]
        {
            assert_eq!(major(text), expected, "{text}");
        }
    }
}
