//! What the tests of answers, outages and stopping share: events, bodies that come in parts, HTTP/1.1 by hand, and load.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Request,
    body::{Body, Bytes, Frame},
    client::conn::{http1, http2},
    header::{HeaderName, HeaderValue},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    sync::mpsc,
    task::JoinSet,
};

use crate::{
    bridge::Bridge,
    client::{Answer, Error, Http, Sender, TlsStream},
    kafka::Kafka,
    topics::Record,
};

pub const BOTH: [Http; 2] = [Http::One, Http::Two];

/// A small event of the journey feed; `id` is its key, too.
pub fn journey(id: &str) -> String {
    event("com.asapp.event.journey", id, "")
}

/// The same with `filling` in it, which the schema does not name.
pub fn event(name: &str, id: &str, filling: &str) -> String {
    let event = json!({"api_version": "v1", "name": name, "event_id": id, "event_type": "T", "meta_data": {"issue_id": id}, "filling": filling});
    event.to_string()
}

/// Text that no compression makes much smaller.
pub fn noise(bytes: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + (state >> 32) as u8 % 64).to_string().replace(['"', '\\'], "z")
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// How many records a feed's topic has of each event, by `ce_id`.
pub fn copies(kafka: &Kafka, bridge: &Bridge, feed: &str) -> BTreeMap<String, usize> {
    let mut copies = BTreeMap::new();
    for record in kafka.read(&bridge.topic(feed)) {
        *copies.entry(record.header("ce_id").unwrap().to_owned()).or_default() += 1;
    }
    copies
}

/// Every record of a bridge, dead letters included.
pub fn records(kafka: &Kafka, bridge: &Bridge) -> Vec<Record> {
    ["activity", "journey", "queue", "other", "dead-letter"]
        .iter()
        .flat_map(|feed| kafka.read(&bridge.topic(feed)))
        .collect()
}

/// The answer is an error of this status and code, in the form that all of them have.
#[track_caller]
pub fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.body["code"], json!(code), "{answer:?}");
    assert!(answer.body["error"].as_str().is_some_and(|error| !error.is_empty()), "{answer:?}");
    assert_eq!(answer.body.as_object().unwrap().len(), 2, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json", "{answer:?}");
}

/// A body whose parts come one by one, and whose length nobody knows before.
pub struct Parts(mpsc::Receiver<Bytes>);

impl Parts {
    /// The body ends when its sender is dropped.
    pub fn new() -> (mpsc::Sender<Bytes>, Self) {
        let (sender, parts) = mpsc::channel(64);
        (sender, Self(parts))
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

/// Posts `body` on a connection of its own, which ends with the call, also when that is aborted.
pub async fn post_parts(
    sender: Sender,
    http: Http,
    path: &str,
    headers: &[(&str, &str)],
    body: Parts,
) -> Result<Answer, Error> {
    let io = TokioIo::new(sender.connect().await?);
    let uri = if http == Http::One { path.to_owned() } else { format!("https://localhost{path}") };
    let mut request = Request::post(uri);
    if http == Http::One {
        request = request.header("host", "localhost");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body)?;
    // Aborts the connection's task when it is dropped.
    let mut tasks = JoinSet::new();
    let (head, body) = if http == Http::One {
        let (mut sender, connection) = http1::handshake(io).await?;
        tasks.spawn(async move { drop(connection.await) });
        sender.send_request(request).await?.into_parts()
    } else {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tasks.spawn(async move { drop(connection.await) });
        sender.send_request(request).await?.into_parts()
    };
    let body = serde_json::from_slice(&body.collect().await?.to_bytes())?;
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

/// How a client says that it sends no more.
#[derive(Clone, Copy, Debug)]
pub enum HalfClose {
    CloseNotify,
    Fin,
    Both,
}

impl HalfClose {
    pub const ALL: [Self; 3] = [Self::CloseNotify, Self::Fin, Self::Both];
}

pub async fn half_close(stream: &mut TlsStream, how: HalfClose) {
    match how {
        HalfClose::CloseNotify => {
            stream.get_mut().1.send_close_notify();
            stream.flush().await.unwrap();
        }
        HalfClose::Fin => stream.get_mut().0.shutdown().await.unwrap(),
        HalfClose::Both => stream.shutdown().await.unwrap(),
    }
}

/// HTTP/1.1 by hand, for when it matters what is written at which time.
pub struct Raw(BufReader<TlsStream>);

impl Raw {
    /// `sender` speaks HTTP/1.1.
    pub async fn open(sender: &Sender) -> Self {
        Self::over(sender.connect().await.unwrap())
    }

    /// On a connection that is there.
    pub fn over(stream: TlsStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// The handshake took up an earlier session.
    pub fn resumed(&self) -> bool {
        self.0.get_ref().get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// When the server has closed the connection, that is seen as no answer.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.write_all(bytes.as_ref()).await;
        let _ = self.0.flush().await;
    }

    /// Nothing more is written; what comes is still read.
    pub async fn half_close(&mut self, how: HalfClose) {
        half_close(self.0.get_mut(), how).await;
    }

    /// A whole request in one write.
    pub async fn post(&mut self, path: &str, body: &str) {
        self.write(format!("{}{body}", head(path, body.len()))).await;
    }

    /// The next answer, its body included; `None` when the server has closed the connection instead.
    pub async fn answer(&mut self) -> Option<Answer> {
        let (status, headers) = self.head().await?;
        let length = headers.get("content-length").map_or(0, |length| length.to_str().unwrap().parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        let body = if body.is_empty() { Json::Null } else { serde_json::from_slice(&body).unwrap() };
        Some(Answer { status, headers, body })
    }

    /// The next status line and headers.
    pub async fn head(&mut self) -> Option<(u16, HeaderMap)> {
        let status = self.line().await?.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        loop {
            let line = self.line().await.expect("a head is complete");
            let Some((name, value)) = line.split_once(": ") else { return Some((status, headers)) };
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }
}

/// The head of a POST with a declared length.
pub fn head(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Senders that each post one event after the other until they are stopped or their connection fails.
pub struct Load {
    senders: JoinSet<Posted>,
    stop: Arc<AtomicUsize>,
    acked: Arc<AtomicUsize>,
}

/// What one sender has seen.
#[derive(Default)]
pub struct Posted {
    /// The ids that were answered 200.
    pub acked: Vec<String>,
    /// How often another status came.
    pub others: BTreeMap<u16, usize>,
    pub errors: usize,
}

impl Load {
    /// `senders` of them, every second one over HTTP/2, each on a connection of its own. `go_on` is asked after a failed request.
    pub fn start(bridge: &Bridge, senders: usize, go_on: bool) -> Self {
        let (stop, acked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for number in 0..senders {
            let sender = bridge.sender(BOTH[number % 2]);
            tasks.spawn(post_until(sender, number, go_on, Arc::clone(&stop), Arc::clone(&acked)));
        }
        Self { senders: tasks, stop, acked }
    }

    /// How many events were answered 200 so far.
    pub fn acked(&self) -> usize {
        self.acked.load(Ordering::Relaxed)
    }

    /// Lets each sender finish the request it is at.
    pub async fn stop(self) -> Posted {
        self.stop.store(1, Ordering::Relaxed);
        self.ended().await
    }

    /// Waits until each sender has stopped by itself.
    pub async fn ended(self) -> Posted {
        let mut all = Posted::default();
        for posted in self.senders.join_all().await {
            all.acked.extend(posted.acked);
            all.errors += posted.errors;
            for (status, count) in posted.others {
                *all.others.entry(status).or_default() += count;
            }
        }
        all
    }
}

async fn post_until(
    sender: Sender,
    number: usize,
    go_on: bool,
    stop: Arc<AtomicUsize>,
    acked: Arc<AtomicUsize>,
) -> Posted {
    let mut posted = Posted::default();
    for count in 0.. {
        if stop.load(Ordering::Relaxed) > 0 {
            break;
        }
        let id = format!("load-{number}-{count}");
        match sender.post("/", &[], journey(&id)).await {
            Ok(answer) if answer.status == 200 => {
                posted.acked.push(id);
                acked.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => *posted.others.entry(answer.status).or_default() += 1,
            Err(_) => {
                posted.errors += 1;
                if !go_on {
                    break;
                }
            }
        }
    }
    posted
}

/// Every event that was answered 200 stands in its topic.
#[track_caller]
pub fn assert_all_there(kafka: &Kafka, bridge: &Bridge, posted: &Posted) {
    let copies = copies(kafka, bridge, "journey");
    let lost: Vec<_> = posted.acked.iter().filter(|id| !copies.contains_key(*id)).collect();
    let (count, some) = (lost.len(), &lost[..lost.len().min(5)]);
    assert!(lost.is_empty(), "{count} of {} events answered 200 are not in Kafka: {some:?}...", posted.acked.len());
}
