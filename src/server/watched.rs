//! A stream that sees two moments that hyper does not report: the first byte of a head and, over HTTP/2, the end of the
//! client's sending side.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{Http, connection::Connection};

/// The time after the last answer until hyper learns that a client sends no more: the answer has gone out by then.
const ANSWER_OUT: Duration = Duration::from_millis(250);

/// A connection's stream, watched.
pub struct Watched<S> {
    stream: S,
    connection: Arc<Connection>,
    http: Http,
    /// Set once the client sends no more but waits for answers: this timer looks again whether all are given.
    half_closed: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    /// Watches `stream` on behalf of `connection`.
    pub fn new(stream: S, connection: &Arc<Connection>, http: Http) -> Self {
        Self { stream, connection: Arc::clone(connection), http, half_closed: None }
    }

    /// A client that stops sending may still read (RFC 8446, section 6.1). h2 would then drop all its requests, so h2
    /// learns of that end only once they are answered. hyper's HTTP/1.1 waits by itself (`half_close`).
    fn hold_back_the_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.connection.is_answering(ANSWER_OUT) {
            let timer = self.half_closed.get_or_insert_with(|| Box::pin(sleep(ANSWER_OUT)));
            ready!(timer.as_mut().poll(context));
            self.half_closed = None;
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.half_closed.is_some() {
            ready!(this.hold_back_the_end(context));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut this.stream).poll_read(context, buffer));
        let is_end = match &read {
            Ok(()) => buffer.filled().len() == before && buffer.remaining() > 0,
            Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        };
        match this.http {
            Http::Two if is_end => ready!(this.hold_back_the_end(context)),
            Http::One if buffer.filled().len() > before => this.connection.received(),
            Http::One | Http::Two => {}
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
