//! The one table of refusals: every answer but the 200, which needs a [`Receipt`](crate::kafka::Receipt).

use serde_json::json;

use crate::{
    bridge::Overload,
    http::{Content, Hint, Refusal, RefusalStatus},
};

/// Why an event is not answered 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    NoCommitInTime,
    Overload(Overload),
    Stopping,
    TooLarge { max: usize },
    SlowBody,
    BrokenBody,
    Framing,
    Host,
    NotAllowed,
    Method,
    Path,
}

/// The status table: every cause, no wildcard.
impl Cause {
    /// One cause of each code, so that each is counted from 0.
    #[rustfmt::skip]
    pub(super) const ALL: [Self; 11] = [
        Self::NoCommitInTime, Self::Overload(Overload::Bytes), Self::Stopping, Self::TooLarge { max: 0 }, Self::SlowBody,
        Self::BrokenBody, Self::Framing, Self::Host, Self::NotAllowed, Self::Method, Self::Path,
    ];

    pub(super) fn status(&self) -> RefusalStatus {
        match self {
            Self::NoCommitInTime | Self::Overload(_) | Self::Stopping => RefusalStatus::SERVICE_UNAVAILABLE,
            Self::TooLarge { .. } => RefusalStatus::PAYLOAD_TOO_LARGE,
            Self::SlowBody => RefusalStatus::REQUEST_TIMEOUT,
            Self::BrokenBody | Self::Framing | Self::Host => RefusalStatus::BAD_REQUEST,
            Self::NotAllowed => RefusalStatus::FORBIDDEN,
            Self::Method => RefusalStatus::METHOD_NOT_ALLOWED,
            Self::Path => RefusalStatus::NOT_FOUND,
        }
    }

    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::NoCommitInTime => "no_commit_in_time",
            Self::Overload(_) => Overload::CODE,
            Self::Stopping => "stopping",
            Self::TooLarge { .. } => "body_too_large",
            Self::SlowBody => "body_too_slow",
            Self::BrokenBody => "body_broken",
            Self::Framing => "framing_refused",
            Self::Host => "host_refused",
            Self::NotAllowed => "certificate_not_allowed",
            Self::Method => "method_not_allowed",
            Self::Path => "not_found",
        }
    }

    pub(super) fn reason(&self) -> String {
        match self {
            Self::NoCommitInTime => {
                "Kafka did not commit the event in time; the attempt goes on, send it again".to_owned()
            }
            Self::Overload(overload) => format!("{overload}; send it again later"),
            Self::Stopping => "this instance is stopping; send it again".to_owned(),
            Self::TooLarge { max } => format!("the body is over the limit of {max} bytes"),
            Self::SlowBody => "the body did not arrive in time".to_owned(),
            Self::BrokenBody => "the body ended before it was complete".to_owned(),
            Self::Framing => "a body comes with a content-length, or with `transfer-encoding: chunked`".to_owned(),
            Self::Host => "a request names its host once, in `host` or `:authority`; both are the same".to_owned(),
            Self::NotAllowed => {
                "the client certificate's name is not on the allow-list (ingress.tls.client_names)".to_owned()
            }
            Self::Method => "events are sent with POST".to_owned(),
            Self::Path => "no feed has this path; events go to / or /events".to_owned(),
        }
    }

    fn hint(&self, number: u64) -> Option<Hint> {
        match self {
            // The retries spread over three seconds, so that refused senders do not come back at once.
            Self::Overload(_) => Some(Hint::RetryAfter { seconds: 1 + number % 3 }),
            Self::Method => Some(Hint::Allow("POST")),
            Self::Stopping
            | Self::TooLarge { .. }
            | Self::SlowBody
            | Self::BrokenBody
            | Self::Framing
            | Self::Host
            | Self::NoCommitInTime
            | Self::NotAllowed
            | Self::Path => None,
        }
    }

    /// The connection takes no request after this one.
    fn ends_connection(&self) -> bool {
        match self {
            Self::Stopping | Self::TooLarge { .. } | Self::SlowBody | Self::BrokenBody | Self::Framing | Self::Host => {
                true
            }
            Self::Overload(_) | Self::Method | Self::NoCommitInTime | Self::NotAllowed | Self::Path => false,
        }
    }

    /// The answer to request `number` of its connection.
    pub(super) fn answer(&self, number: u64, is_last: bool) -> Refusal {
        let content = json!({ "error": self.reason(), "code": self.code() });
        Refusal {
            status: self.status(),
            content: Content::json(content.to_string()),
            hint: self.hint(number),
            is_last: is_last || self.ends_connection(),
        }
    }
}

impl From<Overload> for Cause {
    fn from(overload: Overload) -> Self {
        Self::Overload(overload)
    }
}
