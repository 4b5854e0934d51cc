//! `--dry-run`: the record of a dead letter is built, but not sent.

use super::letter::Letter;
use crate::{
    bridge::Binding,
    cli::{Failure, target::Target},
    config::Config,
    event::{Event, Parser, Unreadable},
    record::{Record, Refused, Route, coding, confluent_prefix},
    serve::routes,
    transcode::Transcoder,
};

/// The translation from body to record, as the bridge does it.
pub struct Foresight<'a> {
    config: &'a Config,
    routes: Vec<Route>,
    parser: Parser,
    transcoder: Transcoder,
    record: Record,
    record_bytes_max: usize,
}

impl<'a> Foresight<'a> {
    /// Reads the schemas.
    ///
    /// # Errors
    /// A schema cannot be used.
    pub fn new(target: &'a Target) -> Result<Self, Failure> {
        let config = &target.config;
        let mut routes = routes(config).map_err(|faults| Failure::findings(faults.join("\n")))?;
        if config.registry.is_some() {
            // The registry's id is not asked for: any id has the same length.
            let topics = routes.iter_mut().flat_map(|route| &mut route.topics);
            topics.for_each(|topic| topic.prefix = confluent_prefix(0));
        }
        let record_bytes_max = usize::try_from(config.kafka.message_bytes_max()).unwrap_or(usize::MAX);
        Ok(Self {
            config,
            routes,
            parser: Parser::new(config.ingress.depth_max),
            transcoder: Transcoder::up_to(record_bytes_max),
            record: Record::default(),
            record_bytes_max,
        })
    }

    /// The topic that the event would go to.
    ///
    /// # Errors
    /// The reason why the event would be a dead letter again.
    pub fn of(&mut self, letter: &Letter) -> Result<String, String> {
        let Self { config, routes, parser, transcoder, record, record_bytes_max } = self;
        let codings = letter.origin.content_encoding.as_deref();
        let text = coding::decode(&letter.body, codings, config.ingress.body_bytes_max);
        let text = text.map_err(|why| Refused::Undecodable(&why).reason())?;
        let made = parser.read(&text, |event| {
            let event = event?;
            let Some(route) = feed(config, letter.binding, &event).and_then(|at| routes.get(at)) else {
                return Ok(String::new());
            };
            let made = route.fill(record, &event, &letter.body, &letter.origin, transcoder)?;
            Ok(route.topics.get(made.target).map(|target| target.topic.clone()).unwrap_or_default())
        });
        let topic = made.map_err(|why: Unreadable| why.to_string())?;
        let bytes = record.key().map_or(0, <[u8]>::len) + record.value().len();
        if bytes > *record_bytes_max {
            let reason = Refused::Unstorable("MessageSizeTooLarge").reason();
            return Err(format!("{reason}: key and value are over message.max.bytes = {record_bytes_max}"));
        }
        Ok(topic)
    }
}

/// The position of the event's feed in the configuration.
fn feed(config: &Config, binding: Binding, event: &Event<'_>) -> Option<usize> {
    let by_name = || config.feeds.iter().position(|feed| feed.name.as_deref() == Some(event.name));
    let other = || config.feeds.iter().position(|feed| feed.name.is_none());
    match binding {
        Binding::Feed(at) => Some(at),
        Binding::ByName => by_name().or_else(other),
    }
}
