//! What a request's headers say.

use std::{borrow::Cow, sync::Arc};

use hyper::{
    HeaderMap,
    header::{self, HeaderName},
};

use crate::{kafka::millis_now, record::Origin};

/// A header that is carried into the record is cut out when it is longer: the record has room for 16 KiB beside the body.
const CARRIED_BYTES_MAX: usize = 1024;

/// hyper takes every list of codings that ends in `chunked`. Where another one is read, the request may end at another place.
pub fn framing_is_ambiguous(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = |coding: &header::HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    codings.next().is_some_and(|coding| !chunked(coding)) || codings.next().is_some()
}

/// What of a request goes into its record.
pub fn origin(headers: &HeaderMap, sender: &Arc<str>) -> Origin {
    let carried = |name: &HeaderName| {
        let value = headers.get(name)?.as_bytes();
        (value.len() <= CARRIED_BYTES_MAX)
            .then(|| if value == JSON { Cow::Borrowed(JSON) } else { Cow::Owned(value.to_vec()) })
    };
    Origin {
        received_at: millis_now(),
        sender: Arc::clone(sender),
        content_type: carried(&header::CONTENT_TYPE),
        content_encoding: carried(&header::CONTENT_ENCODING),
        traceparent: carried(&TRACEPARENT),
        tracestate: tracestate(headers),
        attempts: 0,
    }
}

/// Several lines of it are one list (W3C Trace Context, section 3.3.1).
fn tracestate(headers: &HeaderMap) -> Option<Cow<'static, [u8]>> {
    let lines: Vec<&[u8]> = headers.get_all(&TRACESTATE).iter().map(header::HeaderValue::as_bytes).collect();
    Some(lines.join(&b","[..])).filter(|list| !lines.is_empty() && list.len() <= CARRIED_BYTES_MAX).map(Cow::Owned)
}

/// What is kept of a request's headers while its body is waited for.
pub fn carried_bytes(origin: &Origin) -> usize {
    let carried = [&origin.content_type, &origin.content_encoding, &origin.traceparent, &origin.tracestate];
    carried.into_iter().flatten().map(|value| value.len()).sum()
}

const JSON: &[u8] = b"application/json";
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

#[cfg(test)]
mod tests {
    use super::*;

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
            for line in lines {
                headers.append(TRACESTATE, line.parse().unwrap());
            }
            let carried = origin(&headers, &Arc::from("sender")).tracestate;
            assert_eq!(carried.as_deref(), expected.map(str::as_bytes));
        }
    }
}
