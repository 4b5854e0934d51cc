//! A request's head: how its body is framed, and the headers that go on with the request.

use std::borrow::Cow;

use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};

/// A longer header is left out: a record has room for 16 KiB beside the body.
const CARRIED_BYTES_MAX: usize = 1024;

/// A header's value as it is kept beyond its request.
pub type Carried = Cow<'static, [u8]>;

/// W3C Trace Context.
#[derive(Debug, Default)]
pub struct TraceContext {
    /// `traceparent`, if it is valid.
    pub parent: Option<Carried>,
    /// `tracestate`, if its `traceparent` is valid.
    pub state: Option<Carried>,
}

/// Is there a transfer coding beside `chunked`? hyper takes each list of codings that ends in `chunked`, but a proxy
/// that reads the list in another way may see the request's end at another place.
pub fn framing_is_ambiguous(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    codings.next().is_some_and(|coding| !chunked(coding)) || codings.next().is_some()
}

/// The header's first value, if it is short enough to be carried.
pub fn carried(headers: &HeaderMap, name: &HeaderName) -> Option<Carried> {
    let value = headers.get(name)?.as_bytes();
    (value.len() <= CARRIED_BYTES_MAX)
        .then(|| if value == JSON { Cow::Borrowed(JSON) } else { Cow::Owned(value.to_vec()) })
}

/// The value of a header that is a list, with its lines joined by commas (RFC 9110, section 5.3).
pub fn carried_list(headers: &HeaderMap, name: &HeaderName) -> Option<Carried> {
    let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let mut list = lines.next()?.to_vec();
    for line in lines {
        list.push(b',');
        list.extend_from_slice(line);
    }
    (list.len() <= CARRIED_BYTES_MAX).then_some(Cow::Owned(list))
}

/// The trace that the request belongs to.
pub fn trace_context(headers: &HeaderMap) -> TraceContext {
    let parent = traceparent(headers);
    // `tracestate` belongs to its `traceparent`, and says nothing without one (section 3.3).
    let state = parent.as_ref().and_then(|_| carried_list(headers, &TRACESTATE));
    TraceContext { parent, state }
}

/// The only `traceparent`, if it is valid: a trace made of another one's parts would be worse than none (W3C Trace
/// Context, section 3.2).
fn traceparent(headers: &HeaderMap) -> Option<Carried> {
    let mut lines = headers.get_all(&TRACEPARENT).iter().map(HeaderValue::as_bytes);
    let only = lines.next().filter(|_| lines.next().is_none())?;
    (is_traceparent(only) && only.len() <= CARRIED_BYTES_MAX).then(|| Cow::Owned(only.to_vec()))
}

/// `00-TRACE-PARENT-FLAGS` in lower-case hex, none of the first two all zero; a later version may have more behind a `-`.
fn is_traceparent(text: &[u8]) -> bool {
    let Some((known, rest)) = text.split_at_checked(TRACEPARENT_BYTES) else { return false };
    let parts: Vec<&[u8]> = known.split(|byte| *byte == b'-').collect();
    let is_hex = |part: &[u8]| part.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
    let is_zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    match parts.as_slice() {
        [version, trace, parent, flags] => {
            [version.len(), trace.len(), parent.len(), flags.len()] == [2, 32, 16, 2]
                && parts.iter().all(|part| is_hex(part))
                && !is_zero(trace)
                && !is_zero(parent)
                && *version != b"ff"
                && (rest.is_empty() || *version != b"00" && rest.starts_with(b"-"))
        }
        _ => false,
    }
}

/// The length of a `traceparent` of version 00.
const TRACEPARENT_BYTES: usize = 55;

const JSON: &[u8] = b"application/json";
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_context_that_cannot_be_read_is_not_carried() {
        let more = |version: &str, rest: &str| format!("{version}{}{rest}", &TRACE[2..]);
        for (lines, carried) in [
            (&[TRACE.to_owned()][..], true),
            (&[more("01", "")], true),
            (&[more("cc", "-what-will-be")], true),
            (&[more("cc", ".what-will-be")], false),
            (&[more("00", "-more")], false),
            (&[more("ff", "")], false),
            (&[TRACE.to_uppercase()], false),
            (&[TRACE[..54].to_owned()], false),
            (&[TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32))], false),
            (&[TRACE.replace("00f067aa0ba902b7", &"0".repeat(16))], false),
            (&[TRACE.replace('-', "_")], false),
            (&[TRACE.to_owned(), TRACE.to_owned()], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(TRACESTATE, "a=1".parse().unwrap());
            for line in lines {
                headers.append(TRACEPARENT, line.parse().unwrap());
            }
            let TraceContext { parent, state } = trace_context(&headers);
            assert_eq!((parent.is_some(), state.is_some()), (carried, carried), "{lines:?}");
        }
    }

    #[test]
    fn lines_of_tracestate_are_one_list() {
        let long = "x".repeat(CARRIED_BYTES_MAX);
        for (lines, expected) in [
            (&["a=1,b=2", "c=3"][..], Some("a=1,b=2,c=3")),
            (&["a=1"], Some("a=1")),
            (&[], None),
            (&[&long], Some(long.as_str())),
            (&[&long, "a=1"], None),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(TRACEPARENT, TRACE.parse().unwrap());
            for line in lines {
                headers.append(TRACESTATE, line.parse().unwrap());
            }
            let carried = trace_context(&headers).state;
            assert_eq!(carried.as_deref(), expected.map(str::as_bytes));
        }
    }
}
