//! One connection to the bridge, opened again when it is lost.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::Mutex, time::timeout};
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use super::{endpoint::Endpoint, outcome::Broken};

/// Posts bodies one after the other.
pub struct Client {
    endpoint: Arc<Endpoint>,
    link: Link,
}

enum Link {
    Http1(Option<Box<Http1>>),
    /// The connection is shared by its streams.
    Http2(Arc<Mutex<Option<Http2>>>),
}

/// An HTTP/1.1 connection that its user polls: without a task of its own there are no wake-ups between two tasks.
struct Http1 {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: http1::Connection<TokioIo<TlsStream<TcpStream>>, Full<Bytes>>,
    /// A connection that has ended must not be polled again.
    ended: bool,
}

struct Http2 {
    sender: http2::SendRequest<Full<Bytes>>,
    _connection: AbortOnDropHandle<()>,
}

/// The longest that a connection may take to close in order.
const CLOSE_MAX: Duration = Duration::from_secs(1);

impl Client {
    /// The clients of one connection: one, or with HTTP/2 one for each of its `streams`.
    pub fn of_connection(endpoint: &Arc<Endpoint>, streams: usize) -> Vec<Self> {
        let shared = Arc::new(Mutex::new(None));
        let link = || match (endpoint.http2, endpoint.fresh) {
            (false, _) => Link::Http1(None),
            (true, false) => Link::Http2(Arc::clone(&shared)),
            (true, true) => Link::Http2(Arc::default()),
        };
        let count = if endpoint.http2 { streams } else { 1 };
        (0..count).map(|_| Self { endpoint: Arc::clone(endpoint), link: link() }).collect()
    }

    /// Posts `body`, reads the whole answer, and returns its status. The future may be dropped at any time, as a
    /// timeout does.
    ///
    /// # Errors
    /// The connection failed, or the answer did not come whole.
    pub async fn post(&mut self, body: Bytes) -> Result<u16, Broken> {
        let request = Request::from_parts(self.endpoint.head.clone(), Full::new(body));
        let endpoint = &self.endpoint;
        match &mut self.link {
            Link::Http1(link) => {
                // The connection is taken out, because it cannot be used again if its answer does not come.
                let mut http = match link.take() {
                    Some(http) => http.or_new(endpoint).await?,
                    None => Http1::open(endpoint).await?,
                };
                let status = http.exchange(request).await?;
                if !endpoint.fresh {
                    *link = Some(http);
                }
                Ok(status)
            }
            Link::Http2(link) => {
                let mut sender = Http2::sender(link, endpoint).await?;
                let response = sender.send_request(request).await.map_err(|error| Broken::of(&error))?;
                let status = status(response).await;
                if endpoint.fresh {
                    *link.lock().await = None;
                }
                status
            }
        }
    }

    /// Closes in order, so that the other side sees no connection cut.
    pub async fn close(self) {
        if let Link::Http1(Some(http)) = self.link {
            http.close().await;
        }
    }
}

impl Http1 {
    async fn open(endpoint: &Endpoint) -> Result<Box<Self>, Broken> {
        let stream = TokioIo::new(endpoint.connect().await?);
        let (sender, connection) = http1::handshake(stream).await.map_err(|error| Broken::of(&error))?;
        Ok(Box::new(Self { sender, connection, ended: false }))
    }

    /// This connection, or a new one if the server closed it while it was idle.
    async fn or_new(mut self: Box<Self>, endpoint: &Endpoint) -> Result<Box<Self>, Broken> {
        if self.ready().await { Ok(self) } else { Self::open(endpoint).await }
    }

    /// Whether the connection can take a request.
    async fn ready(&mut self) -> bool {
        std::future::poll_fn(|context| {
            if self.drive(context).is_err() || self.ended {
                return Poll::Ready(false);
            }
            self.sender.poll_ready(context).map(|ready| ready.is_ok())
        })
        .await
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<u16, Broken> {
        let Self { sender, connection, ended } = self;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| Broken::of(&error))?;
            status(response).await
        };
        let mut answer = pin!(answer);
        std::future::poll_fn(|context| {
            // The first poll of `answer` hands the request over, `drive` then writes it and reads, and the second poll
            // of `answer` takes what was read.
            if let Poll::Ready(answer) = answer.as_mut().poll(context) {
                return Poll::Ready(answer);
            }
            let driven = drive(connection, ended, context);
            match (answer.as_mut().poll(context), driven) {
                (Poll::Ready(Ok(status)), _) => Poll::Ready(Ok(status)),
                (_, Err(broken)) => Poll::Ready(Err(broken)),
                (Poll::Ready(Err(broken)), Ok(())) => Poll::Ready(Err(broken)),
                (Poll::Pending, Ok(())) if *ended => Poll::Ready(Err(Broken::closed())),
                (Poll::Pending, Ok(())) => Poll::Pending,
            }
        })
        .await
    }

    fn drive(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        drive(&mut self.connection, &mut self.ended, context)
    }

    async fn close(self) {
        let Self { sender, connection, ended } = self;
        drop(sender);
        if !ended {
            let _ = timeout(CLOSE_MAX, connection).await;
        }
    }
}

/// Lets the connection read and write as much as it can now.
fn drive<C: Future<Output = hyper::Result<()>> + Unpin>(
    connection: &mut C,
    ended: &mut bool,
    context: &mut Context<'_>,
) -> Result<(), Broken> {
    if *ended {
        return Ok(());
    }
    match Pin::new(connection).poll(context) {
        Poll::Pending => Ok(()),
        Poll::Ready(result) => {
            *ended = true;
            result.map_err(|error| Broken::of(&error))
        }
    }
}

impl Http2 {
    /// The connection's sender. The first stream that finds none opens a connection, and the others wait for it.
    async fn sender(
        link: &Mutex<Option<Self>>,
        endpoint: &Endpoint,
    ) -> Result<http2::SendRequest<Full<Bytes>>, Broken> {
        let mut link = link.lock().await;
        if let Some(http) = link.as_ref().filter(|http| !http.sender.is_closed()) {
            return Ok(http.sender.clone());
        }
        let stream = TokioIo::new(endpoint.connect().await?);
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), stream).await.map_err(|error| Broken::of(&error))?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        *link = Some(Self { sender: sender.clone(), _connection: AbortOnDropHandle::new(connection) });
        Ok(sender)
    }
}

async fn status(response: Response<Incoming>) -> Result<u16, Broken> {
    let status = response.status().as_u16();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame.map_err(|error| Broken::of(&error))?;
    }
    Ok(status)
}
