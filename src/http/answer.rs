//! Answers. A success can be built only from what it is the answer to, and a refusal has no status of a success.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{self, HeaderValue},
};

use crate::kafka::Receipt;

/// The answer to a request. Its conversion is the only way to a response.
#[derive(Debug)]
pub enum Answer {
    /// The request asked for a commit; the receipt proves it.
    Committed(Receipt, Content),
    /// The request only asked to read.
    Read(Content),
    /// The request ends with a status of 4xx or 5xx.
    Refused(Refusal),
}

/// The answers of an endpoint that commits: it has no success without a receipt.
pub type Write = Result<(Receipt, Content), Refusal>;

/// The answers of an endpoint that only reads.
pub type Read = Result<Content, Refusal>;

/// A body and its media type.
#[derive(Debug)]
pub struct Content {
    /// The value of `content-type`.
    pub media_type: &'static str,
    /// The body.
    pub bytes: Bytes,
}

/// An answer that is no success.
#[derive(Debug)]
pub struct Refusal {
    /// The status, 4xx or 5xx.
    pub status: RefusalStatus,
    /// The body, which names the cause.
    pub content: Content,
    /// A header that tells the client how to go on.
    pub hint: Option<Hint>,
    /// The connection takes no further request (HTTP/1.1).
    pub is_last: bool,
}

/// A header that tells the client what to do instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// The client may try again after this time.
    RetryAfter {
        /// The time in seconds.
        seconds: u64,
    },
    /// The methods that the path takes.
    Allow(&'static str),
}

/// A status from 400 to 599: no other can be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusalStatus(StatusCode);

impl RefusalStatus {
    /// 400.
    pub const BAD_REQUEST: Self = Self::new(StatusCode::BAD_REQUEST);
    /// 403.
    pub const FORBIDDEN: Self = Self::new(StatusCode::FORBIDDEN);
    /// 404.
    pub const NOT_FOUND: Self = Self::new(StatusCode::NOT_FOUND);
    /// 405.
    pub const METHOD_NOT_ALLOWED: Self = Self::new(StatusCode::METHOD_NOT_ALLOWED);
    /// 408.
    pub const REQUEST_TIMEOUT: Self = Self::new(StatusCode::REQUEST_TIMEOUT);
    /// 413.
    pub const PAYLOAD_TOO_LARGE: Self = Self::new(StatusCode::PAYLOAD_TOO_LARGE);
    /// 503.
    pub const SERVICE_UNAVAILABLE: Self = Self::new(StatusCode::SERVICE_UNAVAILABLE);

    /// Only constants call this, so another status does not compile.
    const fn new(status: StatusCode) -> Self {
        assert!(matches!(status.as_u16(), 400..=599));
        Self(status)
    }

    /// The status as hyper knows it.
    pub fn code(self) -> StatusCode {
        self.0
    }
}

impl Content {
    /// A body of JSON; `text` is not checked.
    pub fn json(text: impl Into<Bytes>) -> Self {
        Self { media_type: "application/json", bytes: text.into() }
    }
}

impl From<Write> for Answer {
    #[inline]
    fn from(outcome: Write) -> Self {
        match outcome {
            Ok((receipt, content)) => Self::Committed(receipt, content),
            Err(refusal) => Self::Refused(refusal),
        }
    }
}

impl From<Read> for Answer {
    fn from(outcome: Read) -> Self {
        outcome.map_or_else(Self::Refused, Self::Read)
    }
}

impl From<Answer> for Response<Full<Bytes>> {
    #[inline]
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Committed(_, content) | Answer::Read(content) => respond(StatusCode::OK, content),
            Answer::Refused(Refusal { status, content, hint, is_last }) => {
                let mut response = respond(status.code(), content);
                let headers = response.headers_mut();
                match hint {
                    Some(Hint::RetryAfter { seconds }) => drop(headers.insert(header::RETRY_AFTER, seconds.into())),
                    Some(Hint::Allow(methods)) => {
                        headers.insert(header::ALLOW, HeaderValue::from_static(methods));
                    }
                    None => {}
                }
                if is_last {
                    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                response
            }
        }
    }
}

#[inline]
fn respond(status: StatusCode, content: Content) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(content.bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content.media_type));
    response
}
