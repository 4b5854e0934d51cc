//! The flow, put together: body -> event -> record -> Kafka. What it returns is waited on for the receipt.

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
    /// Streams of HTTP/2 that connections may open beyond those that each has anyway.
    streams: Arc<Quota>,
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
    /// The path is bound to the feed at this position in `config.feeds`.
    Feed(usize),
}

/// The label of what no feed is known of.
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

    /// `routes` are those of `config.feeds`, in their order, as are the lanes of `producers` ([`Self::lanes`]).
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
            streams: Quota::new(config.streams_max()),
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

    /// Takes up to `most` streams of HTTP/2 for one connection, for as long as it lives: h2 keeps what they took once. A quarter of
    /// what is free, so that no connection comes too late for some.
    pub fn take_streams(&self, most: usize) -> Option<Share> {
        let free = self.streams.max().saturating_sub(self.streams.taken());
        self.streams.take(most.min(free / 4))
    }

    /// Counts a 503 of an event that was not read, or not to its end, with this code.
    pub fn count_unread(&self, code: &str) {
        self.metrics.refused.with_label_values(&[UNKNOWN_FEED, code]).inc();
    }

    /// The whole path of a body: read it, make its record, hand it to Kafka. A body that is no event becomes a dead letter.
    ///
    /// # Errors
    /// [`Overload`]: nothing was handed over.
    pub fn deliver(&self, accepted: Accepted, binding: Binding) -> Result<InFlight, Overload> {
        let mut bench = self.bench();
        let Bench { parser, transcoder, direct, record } = &mut *bench;
        let body = Arc::clone(&accepted.body);
        let decoded = coding::decode(&body, accepted.origin.content_encoding.as_deref(), self.body_bytes_max);
        let sent = match decoded {
            Ok(text) => match self.deliver_directly(&text, accepted, binding, direct, record) {
                Ok(sent) => sent,
                Err(accepted) => parser.read(&text, |event| match event {
                    Ok(event) => self.deliver_event(&event, accepted, binding, transcoder, record),
                    Err(why) => self.dead_letter(Refused::Unreadable(&why), None, accepted, binding, record),
                }),
            },
            Err(why) => self.dead_letter(Refused::Undecodable(&why), None, accepted, binding, record),
        };
        self.benches.lock().unwrap_or_else(PoisonError::into_inner).push(bench);
        sent
    }

    /// Without the tape, where the decoded body looks as it mostly does; else it is given back, and nothing has come of it.
    #[allow(clippy::result_large_err, reason = "what was accepted comes back")]
    fn deliver_directly(
        &self,
        text: &[u8],
        accepted: Accepted,
        binding: Binding,
        direct: &mut Direct,
        record: &mut Record,
    ) -> Result<Result<InFlight, Overload>, Accepted> {
        let named = |name| self.by_name.get(name).copied();
        let lane = match binding {
            Binding::Feed(lane) => Some(lane),
            Binding::ByName => self.name.peek(text).and_then(named),
        };
        let Some(lane) = lane else { return Err(accepted) };
        let feed = self.feed(lane);
        let Some(share) = feed.held.quota.take(1) else { return Err(accepted) };
        match feed.route.fill_directly(record, text, &accepted.body, self.depth_max, &accepted.origin, direct) {
            // What looked like its name may have stood elsewhere.
            Some(made) if binding != Binding::ByName || named(made.facts.name) == Some(lane) => {
                Ok(self.send(lane, feed, share, accepted, &made, record))
            }
            _ => Err(accepted),
        }
    }

    fn deliver_event(
        &self,
        event: &Event<'_>,
        accepted: Accepted,
        binding: Binding,
        transcoder: &mut Transcoder,
        record: &mut Record,
    ) -> Result<InFlight, Overload> {
        let lane = match binding {
            Binding::Feed(lane) => lane,
            Binding::ByName => self.by_name.get(event.name).copied().unwrap_or(self.other),
        };
        let feed = self.feed(lane);
        // First: to refuse an event must cost as little as can be.
        let share = feed.held.take().map_err(|full| feed.held.refuse(full))?;
        match feed.route.fill(record, event, &accepted.body, &accepted.origin, transcoder) {
            Ok(made) => self.send(lane, feed, share, accepted, &made, record),
            Err(why) => self.dead_letter(Refused::Unreadable(&why), None, accepted, binding, record),
        }
    }

    fn send(
        &self,
        lane: usize,
        feed: &FeedLane,
        share: Share,
        mut accepted: Accepted,
        made: &Made<'_>,
        record: &Record,
    ) -> Result<InFlight, Overload> {
        if record.key().map_or(0, <[u8]>::len) + record.value().len() > self.record_bytes_max {
            let (refused, key) = (Refused::Unstorable("MessageSizeTooLarge"), record.key());
            return self.dead_letter(refused, key, accepted, Binding::Feed(lane), &mut Record::default());
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

    /// Puts the first bytes of a body over the limit into the dead letters.
    ///
    /// # Errors
    /// [`Overload`]: nothing was handed over.
    pub fn deliver_stub(&self, refused: Refused<'_>, first: Accepted, binding: Binding) -> Result<InFlight, Overload> {
        self.dead_letter(refused, None, first, binding, &mut Record::default())
    }

    fn dead_letter(
        &self,
        refused: Refused<'_>,
        key: Option<&[u8]>,
        mut accepted: Accepted,
        binding: Binding,
        record: &mut Record,
    ) -> Result<InFlight, Overload> {
        let feed = match binding {
            Binding::Feed(lane) => Some(&self.feed(lane).route),
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
