//! The flow, put together: body -> event -> record -> Kafka. The result is a held request, which waits for its receipt.

mod feed_lane;
mod held;
mod identity;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use self::{feed_lane::FeedLane, held::Held};
pub use self::{
    held::{InFlight, Overload},
    identity::Identity,
};
use crate::{
    config::Config,
    event::{Event, Parser},
    feed,
    kafka::{Accepted, Entered, Key, LaneSpec, LaneSpecs, Producers, WhenRefused},
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
    /// The largest key and value together that librdkafka takes, in bytes (`message.max.bytes`).
    record_bytes_max: usize,
    /// The largest decoded body, in bytes.
    body_bytes_max: usize,
    metrics: Arc<Metrics>,
}

/// The positions of feeds in `config.feeds`, by `name` or by path.
type Positions = HashMap<String, usize, foldhash::fast::RandomState>;

/// The buffers that one body needs on its way to a record; reused from body to body.
struct Bench {
    parser: Parser,
    transcoder: Transcoder,
    direct: Direct,
    record: Record,
}

/// How a request's path chooses the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// The event's `name` chooses the feed.
    ByName,
    /// The path is bound to the feed at this position in `config.feeds`.
    Feed(usize),
}

/// A body on its way to Kafka, and how its feed is chosen.
pub struct Delivery {
    /// The body, its share of the queue and its origin.
    pub accepted: Accepted,
    /// How the feed is chosen.
    pub binding: Binding,
}

/// A request's place among the held requests of its feed.
struct Place<'a> {
    lane: usize,
    feed: &'a FeedLane,
    share: Share,
}

/// The outcome of the direct path.
enum Tried {
    Sent(Result<InFlight, Overload>),
    /// The direct path does not handle this body: the tape must read it.
    NotThisWay(Delivery),
}

/// The label in metrics for a body whose feed is not known.
const UNKNOWN_FEED: &str = "unknown";

impl Bridge {
    /// The lanes that [`Producers::start`] needs: one for each feed, and the dead letters'.
    pub fn lanes(config: &Config) -> LaneSpecs {
        let feed = |feed: &feed::Feed| LaneSpec {
            label: feed.label.clone(),
            topic: feed.topic.clone(),
            more_topics: feed.topics().into_iter().skip(1).map(ToOwned::to_owned).collect(),
            when_refused: WhenRefused::DeadLetter,
        };
        LaneSpecs {
            feeds: config.feeds.iter().map(feed).collect(),
            dead_letters: LaneSpec {
                label: feed::DEAD_LETTER.to_owned(),
                topic: config.dead_letter.topic.clone(),
                more_topics: Vec::new(),
                when_refused: WhenRefused::TryAgain,
            },
        }
    }

    /// Puts the stages together. `routes` and the lanes of `producers` ([`Self::lanes`]) are in the order of
    /// `config.feeds`.
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
        #[allow(
            clippy::expect_used,
            reason = "the configuration has such a feed built in, and refuses to give it a name"
        )]
        let other = config.feeds.iter().position(|feed| feed.name.is_none()).expect("a feed for every other name");
        Self {
            by_name: position(|feed| feed.name.as_ref()),
            name: NamePeek::default(),
            by_path: position(|feed| feed.path.as_ref()),
            other,
            dead_letters: held(feed::DEAD_LETTER),
            lanes: routes
                .into_iter()
                .zip(producers.feeds())
                .map(|(route, (lane, topics))| {
                    let held = held(&route.label);
                    FeedLane::new(route, lane, topics, held, &metrics)
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

    #[allow(clippy::indexing_slicing, reason = "a position in `config.feeds`, and each of these feeds has a lane here")]
    fn feed(&self, position: usize) -> &FeedLane {
        &self.lanes[position]
    }

    /// The binding of a request path; `None` for a path that is not ours.
    pub fn binding(&self, path: &str) -> Option<Binding> {
        match path {
            "/" | "/events" => Some(Binding::ByName),
            other => self.by_path.get(other).copied().map(Binding::Feed),
        }
    }

    /// Takes room in the queue for `bytes` of a body, before any of it is read.
    ///
    /// # Errors
    /// [`Overload::Bytes`]: so much room is not left.
    pub fn admit(&self, bytes: usize) -> Result<Share, Overload> {
        self.bytes.take(bytes).ok_or_else(|| self.no_room())
    }

    /// Counts a body that was refused for lack of room before it was read to its end, and returns that refusal.
    pub fn no_room(&self) -> Overload {
        self.count_unread(Overload::CODE);
        Overload::Bytes
    }

    /// Counts an answer of 503, with this code, to a body that was not read to its end.
    pub fn count_unread(&self, code: &str) {
        self.metrics.refused.with_label_values(&[UNKNOWN_FEED, code]).inc();
    }

    /// Takes a body all the way: reads it, makes its record, hands that to Kafka. A body that is no event becomes a
    /// dead letter.
    ///
    /// # Errors
    /// [`Overload`]: a limit is reached, and nothing was handed over.
    pub fn deliver(&self, delivery: Delivery) -> Result<InFlight, Overload> {
        let mut bench = self.bench();
        let sent = self.deliver_on(&mut bench, delivery);
        self.benches.lock().unwrap_or_else(PoisonError::into_inner).push(bench);
        sent
    }

    #[inline]
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

    /// The direct path, for a decoded body of the usual form.
    #[inline]
    fn deliver_directly(&self, text: &[u8], delivery: Delivery, direct: &mut Direct, record: &mut Record) -> Tried {
        let named = |name| self.by_name.get(name).copied();
        let lane = match delivery.binding {
            Binding::Feed(lane) => Some(lane),
            Binding::ByName => self.name.peek(text).and_then(named),
        };
        let Some(lane) = lane else { return Tried::NotThisWay(delivery) };
        let feed = self.feed(lane);
        // If no place is left the tape decides: a body that is no event needs none, and is answered 200 as a dead
        // letter.
        let Some(share) = feed.held.quota.take(1) else { return Tried::NotThisWay(delivery) };
        let Accepted { body, origin, .. } = &delivery.accepted;
        match feed.route.fill_directly(record, text, body, self.depth_max, origin, direct) {
            // The peeked `name` may have stood elsewhere in the document: compare it with the event's own.
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
        let feed = self.feed(lane);
        // The place is taken before the record is made: a refusal must cost as little as possible.
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
            match self.producers.enter(Key::event(feed.lane, &as_stored(made.facts.event_id), made.body_hash)) {
                Entered::First(ticket, pending) => (ticket, pending),
                Entered::Again(pending) => return Ok(feed.held.join(share, pending)),
            };
        feed.held.make_room(&mut accepted, record).map_err(|full| feed.held.refuse(full))?;
        self.producers.send_event(feed.topic(made), record, accepted, ticket);
        feed.count(made);
        Ok(feed.held.hold(share, pending))
    }

    /// Puts a stub, the first bytes of a body over the limit, into the dead letters.
    ///
    /// # Errors
    /// [`Overload`]: a limit is reached, and nothing was handed over.
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
            Binding::Feed(lane) => Some(&self.feed(lane).route),
            Binding::ByName => None,
        };
        let known = feed.and_then(|route| Some((route.label.as_str(), route.topics.first()?.topic.as_str())));
        // A body over the limit is answered 413 even where its stub finds no room: such a refusal is not counted as a
        // 503.
        let stub = matches!(refused, Refused::TooLarge { .. });
        let full = |full| if stub { full } else { self.dead_letters.refuse(full) };
        let share = self.dead_letters.take().map_err(full)?;
        let entered = match refused {
            // The dedupe window must not join two stubs: different bodies may begin alike.
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

    /// Reads a body once more, to name its event in a log line. `None` when the body is no event.
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

    /// The producers of all lanes.
    pub fn producers(&self) -> &Arc<Producers> {
        &self.producers
    }
}
