//! A request's body, read within its limit, its time and its share of the memory.

use std::{future::ready, pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::quota::Share;

/// The number of first bytes that are kept of a body over the limit.
const FIRST_BYTES: usize = 16 * 1024;

/// The limits on reading a refused body: bytes in all, and the wait for its next part.
const DISCARD_BYTES_MAX: usize = 16 * 1024 * 1024;
const DISCARD_PAUSE_MAX: Duration = Duration::from_millis(250);

/// The limits of one body.
pub struct Within<'a> {
    /// The largest whole body, in bytes.
    pub bytes_max: usize,
    /// The longest time from the first wait for the body to its end.
    pub time_max: Duration,
    /// The time by which the request is answered.
    pub deadline: Instant,
    /// Once this is cancelled, the wait for a body ends.
    pub cut_off: &'a CancellationToken,
}

/// A body, read as far as it is needed.
pub enum Received {
    /// The whole body, within its limit.
    Whole(Arc<[u8]>),
    /// The body is over its limit.
    TooLarge {
        /// The first bytes of the body.
        first: Arc<[u8]>,
        /// The length in bytes, if the head declared one.
        bytes: Option<u64>,
    },
}

/// Why a body was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// The client went away, or broke its framing.
    Broken,
    /// The body did not arrive in time.
    Slow,
    /// The body has outgrown its share and the quota is empty. Its rest is still on the way.
    NoRoom,
    /// `Within::cut_off` was cancelled.
    CutOff,
}

/// The bytes of a body that will be kept, by its declared length; 0 without one.
pub fn expected(body: &Incoming, bytes_max: usize) -> usize {
    match body.size_hint().exact() {
        Some(declared) if declared > bytes_max as u64 => FIRST_BYTES,
        declared => declared.unwrap_or(0) as usize,
    }
}

/// Reads a body. `share` is the room that was taken for it; it grows with a body that declared no length.
///
/// # Errors
/// [`Unread`] names the reason why the body was not read to its end.
pub async fn read(body: &mut Incoming, share: &mut Share, within: &Within<'_>) -> Result<Received, Unread> {
    let mut read = pin!(read_all(body, share, within.bytes_max));
    // Most bodies arrive with their head, and need no timer.
    tokio::select! {
        biased;
        read = read.as_mut() => return read,
        () = ready(()) => {}
    }
    let by = within.deadline.min(Instant::now() + within.time_max);
    let rest = async {
        tokio::select! {
            biased;
            read = timeout_at(by, read) => read.unwrap_or(Err(Unread::Slow)),
            () = within.cut_off.cancelled() => Err(Unread::CutOff),
        }
    };
    Box::pin(rest).await
}

async fn read_all(body: &mut Incoming, share: &mut Share, bytes_max: usize) -> Result<Received, Unread> {
    let declared = body.size_hint().exact();
    let too_large = declared.is_some_and(|declared| declared > bytes_max as u64);
    let expected = expected(body, bytes_max);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        if bytes.is_empty() && declared == Some(data.len() as u64) && !too_large {
            // The bytes are copied: a slice would keep hyper's whole buffer for as long as the body lives.
            return Ok(Received::Whole(Arc::from(&*data)));
        }
        if bytes.is_empty() {
            bytes.reserve(expected);
        }
        bytes.extend_from_slice(&data);
        if bytes.len() > share.amount() && !share.resize(bytes.len()) {
            return Err(Unread::NoRoom);
        }
        if bytes.len() > bytes_max || too_large && bytes.len() >= FIRST_BYTES {
            bytes.truncate(FIRST_BYTES);
            share.resize(bytes.len());
            return Ok(Received::TooLarge { first: Arc::from(&*bytes), bytes: declared });
        }
    }
    let read = Arc::from(&*bytes);
    Ok(if too_large { Received::TooLarge { first: read, bytes: declared } } else { Received::Whole(read) })
}

/// Reads a refused body to its end and forgets it. An unread body would end the connection, and the reset that answers
/// the body's later bytes could overtake the refusal.
pub async fn discard(body: &mut Incoming, deadline: Instant) {
    let mut left = DISCARD_BYTES_MAX;
    let read = async {
        while let Ok(Some(Ok(frame))) = timeout(DISCARD_PAUSE_MAX, body.frame()).await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = rest;
        }
    };
    let _ = timeout_at(deadline, read).await;
}
