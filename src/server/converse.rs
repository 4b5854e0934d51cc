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
use crate::ingress::{Ingress, Peer};

/// HTTP/1.1: a head larger than this is answered 431. HTTP/2: so is a header list.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// HTTP/2: requests that one connection may hold at once.
const STREAMS_MAX: u32 = 1024;

/// The same of a sender that is not on the allow-list: who may not post may not hold a thousand requests either.
const STREAMS_NOT_ALLOWED_MAX: u32 = 1;

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
    peer: Peer,
    connection: &Arc<Connection>,
    told_to_close: impl Future<Output = ()> + Send + 'static,
) -> Conversation {
    let streams_max = if peer.sender.is_ok() { STREAMS_MAX } else { STREAMS_NOT_ALLOWED_MAX };
    let (ingress, peer, busy) = (Arc::clone(ingress), Arc::new(peer), Arc::clone(connection));
    let service = service_fn(move |request: Request<Incoming>| ingress.answer(request, &peer, busy.begin()));
    match http {
        Http::One => {
            let watched = Watched { stream, connection: Arc::clone(connection) };
            let http = Box::pin(http1().serve_connection(TokioIo::new(watched), service));
            Box::pin(finish(http, told_to_close))
        }
        Http::Two => {
            let http = Box::pin(http2(head_max, streams_max).serve_connection(TokioIo::new(stream), service));
            Box::pin(finish(http, told_to_close))
        }
    }
}

/// It takes a box, as a future keeps what it is given beside what it makes of that.
async fn finish<C: GracefulConnection>(mut http: Pin<Box<C>>, told_to_close: impl Future<Output = ()>) -> C::Output {
    tokio::select! {
        biased;
        ended = http.as_mut() => return ended,
        () = told_to_close => http.as_mut().graceful_shutdown(),
    }
    http.await
}

/// It has no timers: the sweep looks after its heads.
fn http1() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.header_read_timeout(None).max_header_size(HEAD_BYTES_MAX).max_buf_size(64 * 1024).half_close(false);
    http
}

/// A client that is silent is asked by a PING whether it is there. In the middle of a head it cannot answer: frames of
/// other kinds must not come between.
fn http2(head_max: Duration, streams_max: u32) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(BROKEN_STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(head_max * 2)
        .keep_alive_timeout(head_max);
    http
}
