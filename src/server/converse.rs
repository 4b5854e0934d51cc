//! HTTP/1.1 or HTTP/2 on a stream whose handshake is done.

use std::{convert::Infallible, pin::Pin, sync::Arc, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::Full;
use hyper::{
    Method, Request, Response,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
};

use super::{
    connection::Connection,
    connections::Newcomer,
    door::{Door, Handler},
    peer::Peer,
    watched::Watched,
};
use crate::{http::Answer, quota::Share, tls::Client};

/// A larger head (HTTP/1.1) or header list (HTTP/2) is answered 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// An HTTP/2 connection ends after this many streams that were reset before they were accepted (rapid reset), or that
/// broke the protocol. The limits leave room for a sender whose requests all timed out while the machine stood still:
/// that is no attack.
const RESET_STREAMS_MAX: usize = 256;
const BROKEN_STREAMS_MAX: usize = 1024;

/// The receive windows of HTTP/2, in bytes: a body of common size needs no window update.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// The protocol that a connection speaks, by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Http {
    One,
    Two,
}

/// The future that answers all requests of one connection.
pub type Conversation = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

impl<H: Handler> Door<H> {
    /// Answers the requests on a stream until its end or, once it is told to close, until those under way are answered.
    /// The future is boxed: without the box, an idle connection would hold several times the memory of the larger
    /// protocol.
    pub fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        http: Http,
        client: Client,
        newcomer: Newcomer,
    ) -> Conversation {
        let Newcomer { connection, told_to_close } = newcomer;
        let _ = connection.http.set(http);
        let watched = TokioIo::new(Watched::new(stream, &connection, http));
        let streams = (http == Http::Two).then(|| self.take_streams(&client));
        let (handler, peer) = (Arc::clone(&self.handler), Arc::new(Peer::new(&connection, client)));
        let service = service_fn(move |request: Request<Incoming>| {
            let head_only = request.method() == Method::HEAD;
            let (busy, connection) = (connection.begin(), Arc::clone(&connection));
            let answer = Arc::clone(&handler).answer(request, Arc::clone(&peer), busy);
            answer.map(move |answer| Ok::<_, Infallible>(respond(answer.into(), head_only, &connection)))
        });
        match streams {
            None => {
                let http = Box::pin(http1().serve_connection(watched, service));
                Box::pin(finish(http, told_to_close, None))
            }
            Some((streams_max, shared)) => {
                let http = Box::pin(http2(self.limits.head_max, streams_max).serve_connection(watched, service));
                Box::pin(finish(http, told_to_close, shared))
            }
        }
    }
}

/// Inlined, as are the conversions of answers: each would copy the response once more.
#[inline]
fn respond(answer: Answer, head_only: bool, connection: &Connection) -> Response<Full<Bytes>> {
    let mut response = Response::from(answer);
    if connection.closing.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    // Over HTTP/2, hyper would send the body of an answer to HEAD, and the client would see a broken connection.
    if head_only {
        *response.body_mut() = Full::default();
    }
    response
}

/// Runs a connection to its end, then gives its streams back. The argument is boxed because an async fn would store it
/// beside the pinned copy that the function makes of it.
async fn finish<C: GracefulConnection>(
    mut http: Pin<Box<C>>,
    told_to_close: oneshot::Receiver<()>,
    _streams: Option<Share>,
) -> C::Output {
    tokio::select! {
        biased;
        ended = http.as_mut() => return ended,
        // If the sender was dropped the server is shutting down: that is a request to close, too.
        _ = told_to_close => http.as_mut().graceful_shutdown(),
    }
    http.await
}

/// HTTP/1.1 has no timers here: the sweep ends slow heads. A buffer never shrinks once a body has grown it, so its
/// limit is the size of a head, which is also as much as TLS brings at once. A client that half-closes still gets its
/// answer.
fn http1() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.header_read_timeout(None).max_header_size(HEAD_BYTES_MAX).max_buf_size(HEAD_BYTES_MAX).half_close(true);
    http
}

/// A PING asks a silent client whether it is there. In the middle of a head a client cannot answer, because frames of
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
