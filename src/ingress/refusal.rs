//! The one table of what is answered, but for the 200.

use hyper::{
    StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use crate::bridge::Overload;

/// What can happen to a request, but for the 200: that needs a [`Receipt`](crate::kafka::Receipt).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
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

/// The status table: every refusal, no wildcard.
impl Refusal {
    /// One of each code: each is counted from 0.
    #[rustfmt::skip]
    pub(super) const ALL: [Self; 11] = [
        Self::NoCommitInTime, Self::Overload(Overload::Bytes), Self::Stopping, Self::TooLarge { max: 0 }, Self::SlowBody,
        Self::BrokenBody, Self::Framing, Self::Host, Self::NotAllowed, Self::Method, Self::Path,
    ];

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NoCommitInTime | Self::Overload(_) | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::BrokenBody | Self::Framing | Self::Host => StatusCode::BAD_REQUEST,
            Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Path => StatusCode::NOT_FOUND,
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

    pub(super) fn header(&self, number: u64) -> Option<(HeaderName, HeaderValue)> {
        match self {
            // Spread over three seconds, so that those who were refused do not come back as one.
            Self::Overload(_) => Some((header::RETRY_AFTER, HeaderValue::from(1 + number % 3))),
            Self::Stopping | Self::TooLarge { .. } | Self::SlowBody | Self::BrokenBody | Self::Framing | Self::Host => {
                Some((header::CONNECTION, HeaderValue::from_static("close")))
            }
            Self::Method => Some((header::ALLOW, HeaderValue::from_static("POST"))),
            Self::NoCommitInTime | Self::NotAllowed | Self::Path => None,
        }
    }
}

impl From<Overload> for Refusal {
    fn from(overload: Overload) -> Self {
        Self::Overload(overload)
    }
}
