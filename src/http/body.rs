//! A request's body, read within its limit, its time and its share of the memory.

use std::{future::ready, pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::quota::Share;

/// How much of a body over the limit is kept: its first bytes.
const FIRST_BYTES: usize = 16 * 1024;

/// How much of a refused body is read and forgotten, and how long the next part of it is waited for.
const DISCARD_BYTES_MAX: usize = 16 * 1024 * 1024;
const DISCARD_PAUSE_MAX: Duration = Duration::from_millis(250);

/// The limits of one body.
pub struct Within<'a> {
    pub bytes_max: usize,
    /// From the first wait for it to its end.
    pub time_max: Duration,
    /// The end of the time for its request.
    pub deadline: Instant,
    /// No body is waited for any longer.
    pub cut_off: &'a CancellationToken,
}

/// A body, read as far as it is wanted.
pub enum Received {
    Whole(Arc<[u8]>),
    /// It is over the limit: its first bytes, and its length where its head declared one.
    TooLarge {
        first: Arc<[u8]>,
        bytes: Option<u64>,
    },
}

/// Why a body was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// The client went away, or broke its framing.
    Broken,
    Slow,
    /// It has outgrown its share, and there is no more to be had. Its rest is on the way.
    NoRoom,
    CutOff,
}

/// How much of a body will be kept, as far as its head tells.
pub fn expected(body: &Incoming, bytes_max: usize) -> usize {
    match body.size_hint().exact() {
        Some(declared) if declared > bytes_max as u64 => FIRST_BYTES,
        declared => declared.unwrap_or(0) as usize,
    }
}

/// Reads a body. `share` is the room that was taken for it; it grows with a body that declared no length.
///
/// # Errors
/// [`Unread`].
pub async fn read(body: &mut Incoming, share: &mut Share, within: &Within<'_>) -> Result<Received, Unread> {
    let mut read = pin!(read_all(body, share, within.bytes_max));
    // Most bodies are there with their head: no timer for those.
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
            // A copy of its own: a slice of hyper's buffer would keep all of that for as long as the body lives.
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

/// Reads a refused body to its end and forgets it. Left unread it would cost the connection, and the reset that answers
/// what still comes could overtake the refusal.
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
