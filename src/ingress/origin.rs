//! The part of a request's head that goes into its record.

use std::sync::Arc;

use hyper::{HeaderMap, header};

use crate::{
    http::head::{TraceContext, carried, carried_list, trace_context},
    kafka::millis_now,
    record::Origin,
};

pub(super) fn origin(headers: &HeaderMap, sender: &Arc<str>) -> Origin {
    let TraceContext { parent, state } = trace_context(headers);
    Origin {
        received_at: millis_now(),
        sender: Arc::clone(sender),
        content_type: carried(headers, &header::CONTENT_TYPE),
        content_encoding: carried_list(headers, &header::CONTENT_ENCODING),
        traceparent: parent,
        tracestate: state,
        attempts: 0,
    }
}

/// The bytes of a request's headers that are kept while the bridge waits for its body.
pub(super) fn carried_bytes(origin: &Origin) -> usize {
    let carried = [&origin.content_type, &origin.content_encoding, &origin.traceparent, &origin.tracestate];
    carried.into_iter().flatten().map(|value| value.len()).sum()
}
