//! Generated events, like those that ASAPP sends. One seed always makes the same events, except for their times.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::templates;
use crate::transcode::print_millis;

/// The built-in feeds, as `--feed` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Feed {
    Activity,
    Journey,
    Queue,
}

/// An event to post.
#[derive(Debug, Clone)]
pub struct Event {
    /// The bytes of the body.
    pub body: Bytes,
    /// The position of the event's id in the body; an empty range if there is none.
    pub id: Range<usize>,
}

impl Event {
    /// The id as the body spells it, without quotes; empty if there is none.
    pub fn id(&self) -> &[u8] {
        self.body.get(self.id.clone()).unwrap_or_default()
    }
}

/// Makes event number `n` of a run. The event depends on `n` alone, not on the sender that asks for it.
pub struct Generator {
    seed: u64,
    templates: Vec<Template>,
    conversations: Vec<Conversation>,
    issues: u64,
    shares: u64,
}

/// A sender's reused buffers.
#[derive(Default)]
pub struct Scratch {
    body: BytesMut,
    clock: Clock,
}

/// The number of conversations. With more issues than these, several issues share all but the issue's id.
const CONVERSATIONS: u64 = 1_000;
const REPS: u64 = 200;
const QUEUES: [&str; 12] = [
    "Billing",
    "Billing Tier 2",
    "Sales",
    "Retention",
    "Technical Support",
    "Outages",
    "Moves and Transfers",
    "Payments",
    "Fraud",
    "Accessibility",
    "Business",
    "Spanish",
];
const GIVEN: [&str; 10] = ["Dana", "Priya", "Marcus", "Elena", "Tomás", "Aisha", "Wei", "Jordan", "Sofia", "Kwame"];
const FAMILY: [&str; 10] =
    ["Whitfield", "Raman", "Oyelaran", "Petrova", "Núñez", "Haddad", "Chen", "Ellis", "Marino", "Boateng"];

/// The share of each feed in the mix, in percent.
const fn share(feed: Feed) -> u64 {
    match feed {
        Feed::Activity => 30,
        Feed::Journey => 60,
        Feed::Queue => 10,
    }
}

/// The words that a conversation fills in. Its texts have this order.
const WORDS: [&str; 11] = [
    "session",
    "customer",
    "client",
    "opportunity",
    "queue",
    "queue_name",
    "rep",
    "rep_name",
    "rep_given",
    "rep_family",
    "rep_external",
];

type Conversation = [String; WORDS.len()];

struct Template {
    /// A throw of the dice below this, but not below the previous template's number, chooses this template.
    below: u64,
    pieces: Vec<Piece>,
}

enum Piece {
    Text(Box<[u8]>),
    EventId,
    IssueId,
    /// The current time less this many milliseconds.
    Time(i64),
    Number(Range<u64>),
    Word(usize),
}

impl Generator {
    /// A generator of events of `feeds` (all three if empty) that belong to `issues` issues.
    pub fn new(seed: u64, feeds: &[Feed], issues: u64) -> Self {
        let mut templates = Vec::new();
        let mut shares = 0;
        for (feed, name, meta, types) in [
            (Feed::Activity, "activity", templates::SYSTEM_META, templates::ACTIVITY),
            (Feed::Journey, "journey", templates::CUSTOMER_META, templates::JOURNEY),
            (Feed::Queue, "queue", templates::SYSTEM_META, templates::QUEUE),
        ] {
            if !feeds.is_empty() && !feeds.contains(&feed) {
                continue;
            }
            for event_type in types {
                shares += share(feed) * event_type.share;
                templates.push(Template { below: shares, pieces: pieces(&templates::event(name, meta, event_type)) });
            }
        }
        Self { seed, templates, conversations: conversations(seed), issues, shares }
    }

    /// Event number `index`, made at `now` (milliseconds since 1970).
    pub fn event(&self, index: u64, now: i64, scratch: &mut Scratch) -> Event {
        let mut dice = Dice::new(self.seed, index);
        let thrown = dice.below(self.shares);
        let pieces = self
            .templates
            .iter()
            .find(|template| thrown < template.below)
            .map_or(&[] as &[Piece], |template| &template.pieces);
        let issue = dice.below(self.issues);
        let conversation = self.conversations.get((issue % CONVERSATIONS) as usize);
        let Scratch { body, clock } = scratch;
        body.reserve(2_560);
        let mut id = 0..0;
        for piece in pieces {
            match piece {
                Piece::Text(text) => body.extend_from_slice(text),
                Piece::EventId => {
                    id = body.len()..body.len() + UUID_BYTES;
                    body.extend_from_slice(&dice.uuid());
                }
                Piece::IssueId => body.extend_from_slice(&Dice::new(self.seed ^ ISSUES, issue).ulid()),
                Piece::Time(back) => clock.print(now - back, body),
                Piece::Number(range) => number(range.start + dice.below(range.end - range.start), body),
                Piece::Word(word) => body
                    .extend_from_slice(conversation.and_then(|texts| texts.get(*word)).map_or(b"", String::as_bytes)),
            }
        }
        Event { body: body.split().freeze(), id }
    }
}

/// This number is mixed into the seed, so that the ids of issues differ from all others.
const ISSUES: u64 = 0x155e5;

fn conversations(seed: u64) -> Vec<Conversation> {
    let pick = |from: &[&str], at: u64| from.get(at as usize % from.len()).copied().unwrap_or_default().to_owned();
    // The names and ids of agents and queues do not depend on the seed.
    let conversation = |number: u64| {
        let mut dice = Dice::new(seed ^ 0x1550e, number);
        let (rep, queue) = (dice.below(REPS), dice.below(QUEUES.len() as u64));
        let mut rep_dice = Dice::new(0x2e9, rep);
        let (given, family) = (pick(&GIVEN, rep_dice.next()), pick(&FAMILY, rep_dice.next()));
        [
            dice.uuid_text(),
            dice.ulid_text(),
            format!("web-sdk-chrome-desktop_{}", dice.below(100_000)),
            dice.ulid_text(),
            Dice::new(0x90e0e, queue).ulid_text(),
            pick(&QUEUES, queue),
            rep_dice.ulid_text(),
            format!("{given} {family}"),
            given,
            family,
            format!("E{}", 100_000 + rep),
        ]
    };
    (0..CONVERSATIONS).map(conversation).collect()
}

/// Splits a template at its angle brackets. No other `<` occurs in the texts; a `>` in a path has no `<` before it.
fn pieces(template: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut parts = template.split('<');
    let text = |text: &str| Piece::Text(text.as_bytes().into());
    pieces.extend(parts.next().map(text));
    for part in parts {
        let (word, rest) = part.split_once('>').unwrap_or((part, ""));
        pieces.push(piece(word).unwrap_or_else(|| text(word)));
        pieces.push(text(rest));
    }
    pieces
}

fn piece(word: &str) -> Option<Piece> {
    match word {
        "id" => return Some(Piece::EventId),
        "issue" => return Some(Piece::IssueId),
        _ => {}
    }
    if let Some(back) = word.strip_prefix("now") {
        return Some(Piece::Time(back.strip_prefix('-').map_or(Some(0), |back| back.parse().ok())?));
    }
    if let Some((from, to)) = word.split_once("..") {
        return Some(Piece::Number(from.parse().ok()?..to.parse().ok()?));
    }
    WORDS.iter().position(|known| *known == word).map(Piece::Word)
}

/// SplitMix64 (Steele, Lea, Flood 2014). Each index of a seed begins at a state of its own.
pub struct Dice(u64);

const UUID_BYTES: usize = 36;
const ULID_BYTES: usize = 26;

impl Dice {
    /// The dice of one event: a seed and an index always throw the same numbers.
    pub fn new(seed: u64, index: u64) -> Self {
        let mut start = Self(seed);
        Self(start.next() ^ index.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is at most 2^32.
    fn below(&mut self, end: u64) -> u64 {
        ((self.next() >> 32) * end) >> 32
    }

    /// A version 4 UUID (RFC 9562) in lower case.
    pub fn uuid(&mut self) -> [u8; UUID_BYTES] {
        let random = (u128::from(self.next()) << 64) | u128::from(self.next());
        let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        let mut text = [b'-'; UUID_BYTES];
        let places = text.iter_mut().enumerate().filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23));
        for (nibble, (_, place)) in places.enumerate() {
            let value = (bits >> (124 - 4 * nibble)) as u8 & 0xf;
            *place = if value < 10 { b'0' + value } else { b'a' + value - 10 };
        }
        text
    }

    fn uuid_text(&mut self) -> String {
        String::from_utf8_lossy(&self.uuid()).into_owned()
    }

    /// A text in the form of a ULID: 26 characters of Crockford's base 32.
    fn ulid(&mut self) -> [u8; ULID_BYTES] {
        const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let mut text = [b'0'; ULID_BYTES];
        for (at, place) in text.iter_mut().enumerate().skip(1) {
            // The ULIDs of our time begin with 01.
            let value = if at == 1 { 1 } else { self.below(32) };
            *place = ALPHABET.get(value as usize).copied().unwrap_or_default();
        }
        text
    }

    fn ulid_text(&mut self) -> String {
        String::from_utf8_lossy(&self.ulid()).into_owned()
    }
}

fn number(number: u64, out: &mut BytesMut) {
    let mut unit = 1;
    while number / unit >= 10 {
        unit *= 10;
    }
    while unit > 0 {
        out.put_u8(b'0' + (number / unit % 10) as u8);
        unit /= 10;
    }
}

/// Prints times as ASAPP does. The text of the day is kept for the next time.
struct Clock {
    day: i64,
    date: String,
}

const DAY_MS: i64 = 86_400_000;
/// The length of `YYYY-MM-DDT`.
const DATE_BYTES: usize = 11;

impl Default for Clock {
    fn default() -> Self {
        Self { day: i64::MIN, date: String::new() }
    }
}

impl Clock {
    fn print(&mut self, millis: i64, out: &mut BytesMut) {
        let (day, rest) = (millis.div_euclid(DAY_MS), millis.rem_euclid(DAY_MS));
        if day != self.day {
            self.day = day;
            self.date = print_millis(millis - rest).unwrap_or_default();
            self.date.truncate(DATE_BYTES);
        }
        let digit = |unit: i64, base: i64| b'0' + (rest / unit % base) as u8;
        out.extend_from_slice(self.date.as_bytes());
        out.extend_from_slice(&[
            digit(36_000_000, 10),
            digit(3_600_000, 10),
            b':',
            digit(600_000, 6),
            digit(60_000, 10),
            b':',
            digit(10_000, 6),
            digit(1_000, 10),
            b'.',
            digit(100, 10),
            digit(10, 10),
            digit(1, 10),
            b'Z',
        ]);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{HashMap, HashSet},
        sync::Arc,
    };

    use super::*;
    use crate::{
        event::Parser,
        feed::{self, SchemaSource},
        record::{Origin, Record, Route},
        restore::restore,
        schema::Schema,
        transcode::{Direct, Transcoder},
    };

    const NOW: i64 = 1_750_000_000_123;

    fn events(seed: u64, feeds: &[Feed], count: u64) -> Vec<Event> {
        events_of(1_000, seed, feeds, count)
    }

    fn events_of(issues: u64, seed: u64, feeds: &[Feed], count: u64) -> Vec<Event> {
        let (generator, mut scratch) = (Generator::new(seed, feeds, issues), Scratch::default());
        (0..count).map(|index| generator.event(index, NOW, &mut scratch)).collect()
    }

    /// The built-in feeds' routes, by the `name` of their events.
    fn routes() -> HashMap<String, Route> {
        let known = feed::built_in().into_iter().filter_map(|feed| Some((feed.name.clone()?, feed)));
        known
            .map(|(name, feed)| match feed.schema {
                SchemaSource::BuiltIn(text) => (name, Route::new(&feed, Schema::parse(text).unwrap())),
                SchemaSource::File(_) => unreachable!("a built-in feed"),
            })
            .collect()
    }

    fn origin() -> Origin {
        Origin {
            received_at: NOW,
            sender: Arc::from("cn:test"),
            content_type: None,
            content_encoding: None,
            traceparent: None,
            tracestate: None,
            attempts: 0,
        }
    }

    #[test]
    fn every_generated_event_fits_its_schema_and_leaves_no_extras() {
        let routes = routes();
        let mut keys: HashMap<String, HashSet<Vec<u8>>> = HashMap::new();
        let mut types = HashSet::new();
        for event in events(1, &[], 3_000) {
            let id = String::from_utf8(event.id().to_vec()).unwrap();
            Parser::new(128).read(&event.body, |read| {
                let read = read.unwrap_or_else(|why| panic!("{why}: {:?}", event.body));
                assert_eq!(read.event_id, id);
                types.insert(format!("{}/{}", read.name, read.event_type));
                let route = routes.get(read.name).unwrap_or_else(|| panic!("no feed is called {}", read.name));
                let mut record = Record::default();
                route.fill(&mut record, &read, &event.body, &origin(), &mut Transcoder::default()).unwrap();
                let prefix = crate::record::single_object_prefix(route.schema.fingerprint);
                let value = record.value().strip_prefix(prefix.as_slice()).unwrap();
                assert_eq!(
                    value.last(),
                    Some(&0),
                    "extras is the last field, and an empty map is a zero byte: {:?}",
                    event.body
                );
                let restored = restore(value, &route.schema).unwrap();
                let directly = route.fill_directly(
                    &mut Record::default(),
                    &event.body,
                    &event.body,
                    128,
                    &origin(),
                    &mut Direct::default(),
                );
                assert!(directly.is_some(), "a typical event is translated without a tape: {:?}", event.body);
                assert_eq!(restored, serde_json::from_slice::<serde_json::Value>(&event.body).unwrap());
                keys.entry(route.label.clone()).or_default().insert(record.key().expect("a key").to_vec());
            });
        }
        assert_eq!(types.len(), templates::ACTIVITY.len() + templates::JOURNEY.len() + templates::QUEUE.len());
        assert_eq!(keys["queue"].len(), QUEUES.len());
        assert!(keys["journey"].len() > 500 && keys["activity"].len() > 150, "keys repeat, but are many");
    }

    #[test]
    fn a_seed_makes_the_same_events_and_no_id_twice() {
        let bodies = |seed| events(seed, &[], 500).into_iter().map(|event| event.body).collect::<Vec<_>>();
        assert_eq!(bodies(7), bodies(7));
        assert_ne!(bodies(7), bodies(8));
        let ids: HashSet<Vec<u8>> =
            (1..=4).flat_map(|seed| events(seed, &[], 25_000)).map(|event| event.id().to_vec()).collect();
        assert_eq!(ids.len(), 100_000);
        let id = String::from_utf8(events(1, &[], 1)[0].id().to_vec()).unwrap();
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'4'), "{id}");
        assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}");
    }

    #[test]
    fn events_are_as_large_as_typical_ones_and_feeds_can_be_chosen() {
        for (feed, name, least, most) in [
            (Feed::Activity, "activity", 600, 950),
            (Feed::Journey, "journey", 800, 2_000),
            (Feed::Queue, "queue", 700, 1_000),
        ] {
            for event in events(1, &[feed], 500) {
                let text = std::str::from_utf8(&event.body).unwrap();
                assert!(text.contains(&format!(r#""name":"com.asapp.event.{name}""#)), "{text}");
                assert!((least..most).contains(&text.len()), "{} bytes: {text}", text.len());
            }
        }
    }

    #[test]
    fn journey_events_are_of_as_many_issues_as_wanted() {
        for (issues, least, most) in [(1, 1, 1), (100, 100, 100), (1_000_000, 1_900, 2_000)] {
            let ids: HashSet<Vec<u8>> = events_of(issues, 1, &[Feed::Journey], 2_000)
                .iter()
                .map(|event| {
                    let event: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
                    event["meta_data"]["issue_id"].as_str().unwrap().as_bytes().to_vec()
                })
                .collect();
            assert!((least..=most).contains(&ids.len()), "{} of {issues}", ids.len());
            assert!(ids.iter().all(|id| id.len() == ULID_BYTES && id.starts_with(b"01")));
        }
    }

    #[test]
    fn times_are_printed_as_the_transcoder_prints_them() {
        let mut clock = Clock::default();
        for millis in [0, -1, NOW, NOW + 1, DAY_MS - 1, DAY_MS, 951_782_399_999, 253_402_300_799_999] {
            let mut out = BytesMut::new();
            clock.print(millis, &mut out);
            assert_eq!(std::str::from_utf8(&out).unwrap(), print_millis(millis).unwrap());
        }
        for (value, text) in [(0, "0"), (9, "9"), (10, "10"), (900_000, "900000")] {
            let mut out = BytesMut::new();
            number(value, &mut out);
            assert_eq!(out, text);
        }
    }
}
