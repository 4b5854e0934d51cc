//! HTTP/1.1 or HTTP/2 on a stream whose handshake is done.

use std::{pin::Pin, sync::Arc, time::Duration};

use hyper::{
    Request,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{connections::Connection, watched::Watched};
use crate::{
    ingress::{Ingress, Peer},
    quota::Share,
};

/// HTTP/1.1: a head larger than this is answered 431. HTTP/2: so is a header list.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// HTTP/2: requests that one connection may hold at once. What h2 takes for them it keeps until the connection ends. More than
/// the 100 that clients take for granted (RFC 9113, section 6.5.2); few enough for a hundred connections to have them.
const STREAMS_MAX: usize = 512;

/// So many each connection may hold: that is part of what it takes anyway. Those beyond are taken from a number for all.
const STREAMS_OWN: usize = 8;

/// The same of a sender that is not on the allow-list: who may not post may not hold requests either.
const STREAMS_NOT_ALLOWED_MAX: usize = 1;

/// HTTP/2: streams that were reset before they were looked at (rapid reset), and those that broke the protocol; then the
/// connection ends. After a time in which the machine stood still all that timed out at its sender comes so: no attack.
const RESET_STREAMS_MAX: usize = 256;
const BROKEN_STREAMS_MAX: usize = 1024;

/// HTTP/2 receive windows: a body of common size needs no window update.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// The protocol that a connection speaks, by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    One,
    Two,
}

/// What answers the requests on one stream.
pub type Conversation = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

/// Answers the requests on a stream until its end or, once `told_to_close`, until those under way are answered. Boxed: an idle
/// connection would hold as much as the larger of the two protocols otherwise, several times over.
pub fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http: Http,
    head_max: Duration,
    ingress: &Arc<Ingress>,
    mut peer: Peer,
    connection: &Arc<Connection>,
    told_to_close: impl Future<Output = ()> + Send + 'static,
) -> Conversation {
    let allowed = peer.sender.is_ok();
    peer.closing = Arc::clone(&connection.closing);
    let _ = connection.http.set(http);
    let taken_from = Arc::clone(ingress);
    let (ingress, peer, busy) = (Arc::clone(ingress), Arc::new(peer), Arc::clone(connection));
    let service = service_fn(move |request: Request<Incoming>| ingress.answer(request, &peer, busy.begin()));
    let watched = Watched::new(stream, connection, http);
    match http {
        Http::One => {
            let http = Box::pin(http1().serve_connection(TokioIo::new(watched), service));
            Box::pin(finish(http, told_to_close, None))
        }
        Http::Two => {
            let (streams_max, shared) = streams(&taken_from, allowed);
            let http = Box::pin(http2(head_max, streams_max).serve_connection(TokioIo::new(watched), service));
            Box::pin(finish(http, told_to_close, shared))
        }
    }
}

/// How many streams a connection may have, and what it has for that of the number for all.
fn streams(ingress: &Ingress, allowed: bool) -> (usize, Option<Share>) {
    if !allowed {
        return (STREAMS_NOT_ALLOWED_MAX, None);
    }
    let shared = ingress.bridge().take_streams(STREAMS_MAX - STREAMS_OWN);
    (STREAMS_OWN + shared.as_ref().map_or(0, Share::amount), shared)
}

/// It takes a box, as a future keeps what it is given beside what it makes of that.
async fn finish<C: GracefulConnection>(
    mut http: Pin<Box<C>>,
    told_to_close: impl Future<Output = ()>,
    _streams: Option<Share>,
) -> C::Output {
    tokio::select! {
        biased;
        ended = http.as_mut() => return ended,
        () = told_to_close => http.as_mut().graceful_shutdown(),
    }
    http.await
}

/// It has no timers: the sweep looks after its heads. Its buffer stays as large as a body has made it, until the connection
/// ends: as large as a head is enough, as TLS brings no more at once either. A client that sends no more after its request still
/// gets its answer.
fn http1() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.header_read_timeout(None).max_header_size(HEAD_BYTES_MAX).max_buf_size(HEAD_BYTES_MAX).half_close(true);
    http
}

/// A client that is silent is asked by a PING whether it is there. In the middle of a head it cannot answer: frames of
/// other kinds must not come between.
fn http2(head_max: Duration, streams_max: usize) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(streams_max as u32)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(BROKEN_STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(head_max * 2)
        .keep_alive_timeout(head_max);
    http
}
