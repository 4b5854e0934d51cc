//! Dead letter -> the posted event, or the reason to skip it.

use std::sync::Arc;

use crate::{
    bridge::Binding,
    config::Config,
    event::Parser,
    kafka::reader::Stored,
    record::{Origin, coding, dead_letter},
};

/// A dead letter to replay.
pub struct Letter {
    /// The feed that the path decides, or `ByName` if the event's `name` decides.
    pub binding: Binding,
    /// The origin of the first post, with the attempts counted.
    pub origin: Origin,
    /// The posted body.
    pub body: Arc<[u8]>,
}

/// The reason to skip a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Skipped {
    #[error("a stub: only the first bytes of a body over the limit were kept")]
    Stub,
    #[error("empty: there is nothing to read")]
    Empty,
    #[error("replayed as often as --attempts-max allows")]
    Attempts,
}

impl Letter {
    /// Rebuilds the posted event from its dead letter.
    ///
    /// # Errors
    /// The reason to skip it.
    pub fn of(record: &Stored, config: &Config, attempts_max: u32) -> Result<Self, Skipped> {
        let attempts: u32 = record.text(dead_letter::ATTEMPTS).and_then(|attempts| attempts.parse().ok()).unwrap_or(0);
        if record.header(dead_letter::STUB).is_some() {
            return Err(Skipped::Stub);
        }
        if record.value.is_empty() {
            return Err(Skipped::Empty);
        }
        if attempts >= attempts_max {
            return Err(Skipped::Attempts);
        }
        let copy = |name: &str| record.header(name).map(|value| value.to_vec().into());
        let received_at = record.text(dead_letter::RECEIVED_AT).and_then(|millis| millis.parse().ok());
        let origin = Origin {
            received_at: received_at.or(record.timestamp).unwrap_or(0),
            sender: record.text(dead_letter::SENDER).unwrap_or("unknown").into(),
            content_type: copy(dead_letter::CONTENT_TYPE),
            content_encoding: copy(dead_letter::CONTENT_ENCODING),
            traceparent: copy("traceparent"),
            tracestate: copy("tracestate"),
            attempts: attempts.saturating_add(1),
        };
        Ok(Self { binding: binding(record, config), origin, body: Arc::from(record.value.as_slice()) })
    }
}

/// Chooses the feed. A body that was posted to a feed's own path belongs to that feed. For all others the event's
/// `name` decides again, because the configuration may have gained a feed for it. An event that its topic refused
/// (stage PRODUCE) could be read, so its `name` outranks the path if a feed has that name.
fn binding(record: &Stored, config: &Config) -> Binding {
    let bound = record
        .text(dead_letter::FEED)
        .and_then(|label| config.feeds.iter().position(|feed| feed.label == label && feed.path.is_some()))
        .filter(|_| record.text(dead_letter::STAGE) != Some("PRODUCE") || !has_named_feed(record, config));
    bound.map_or(Binding::ByName, Binding::Feed)
}

fn has_named_feed(record: &Stored, config: &Config) -> bool {
    let named = |name: &str| config.feeds.iter().any(|feed| feed.name.as_deref() == Some(name));
    let codings = record.header(dead_letter::CONTENT_ENCODING);
    let text = coding::decode(&record.value, codings, config.ingress.body_bytes_max);
    let reads = |text: &[u8]| {
        Parser::new(config.ingress.depth_max).read(text, |event| event.is_ok_and(|event| named(event.name)))
    };
    text.is_ok_and(|text| reads(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(headers: &[(&str, &str)], value: &str) -> Stored {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        Stored {
            topic: "d".to_owned(),
            partition: 0,
            offset: 7,
            timestamp: Some(5),
            key: None,
            headers,
            value: value.into(),
        }
    }

    fn config() -> Config {
        crate::config::from_toml("[ingress.tls]\nclient_names = ['*']\n[feeds.queue]\npath = '/q'\n").unwrap()
    }

    #[test]
    fn what_was_posted_is_rebuilt() {
        let record = stored(
            &[
                ("causeway_received_at", "42"),
                ("causeway_sender", "cn:a"),
                ("causeway_attempts", "1"),
                ("content-type", "text/x"),
                ("traceparent", "00-1"),
            ],
            "{",
        );
        let letter = Letter::of(&record, &config(), 3).ok().unwrap();
        let Origin { received_at, sender, content_type, content_encoding, traceparent, tracestate, attempts } =
            letter.origin;
        assert_eq!((received_at, &*sender, attempts), (42, "cn:a", 2));
        assert_eq!((content_type.as_deref(), content_encoding), (Some(b"text/x".as_slice()), None));
        assert_eq!((traceparent.as_deref(), tracestate), (Some(b"00-1".as_slice()), None));
        assert_eq!(*letter.body, *b"{");
        assert_eq!(Letter::of(&stored(&[], "{"), &config(), 3).ok().unwrap().origin.received_at, 5);
    }

    #[test]
    fn what_cannot_be_replayed_is_skipped() {
        for (headers, value, skipped) in [
            (&[("causeway_stub", "true")][..], "{", Some(Skipped::Stub)),
            (&[], "", Some(Skipped::Empty)),
            (&[("causeway_attempts", "3")], "{", Some(Skipped::Attempts)),
            (&[("causeway_attempts", "2")], "{", None),
        ] {
            assert_eq!(Letter::of(&stored(headers, value), &config(), 3).err(), skipped);
        }
    }

    #[test]
    fn only_a_path_binds() {
        for (feed, bound) in [("queue", Binding::Feed(2)), ("journey", Binding::ByName), ("gone", Binding::ByName)] {
            assert_eq!(binding(&stored(&[("causeway_feed", feed)], "{"), &config()), bound, "{feed}");
        }
        assert_eq!(binding(&stored(&[], "{"), &config()), Binding::ByName);
    }

    #[test]
    fn the_feed_of_an_event_was_not_always_its_paths() {
        for (stage, name, bound) in [
            ("READ", "com.asapp.event.journey", Binding::Feed(2)),
            ("PRODUCE", "com.asapp.event.journey", Binding::ByName),
            ("PRODUCE", "unknown", Binding::Feed(2)),
        ] {
            let body = format!(r#"{{"api_version":"v1","name":"{name}","event_id":"e","event_type":"t"}}"#);
            let record = stored(&[("causeway_feed", "queue"), ("__connect.errors.stage", stage)], &body);
            assert_eq!(binding(&record, &config()), bound, "{stage} {name}");
        }
    }
}
