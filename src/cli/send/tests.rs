//! The rule of attempts, tested against a server with scripted answers.

use std::{
    convert::Infallible,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{Args, Load, Schedule, Summary};
use crate::cli::{Failure, certificates::Certificates};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// The counts of a server.
#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    connections: AtomicUsize,
}

/// Starts a server that answers request `n` with the status `answer(n)`; for 0 it never answers.
async fn serve(certificates: &Certificates, answer: fn(usize) -> u16) -> (u16, Arc<Seen>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&certificates.ca).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&certificates.server).unwrap()],
            PrivateKeyDer::from_pem_file(&certificates.server_key).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Seen::default());
    let shown = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else { return };
                seen.connections.fetch_add(1, Ordering::SeqCst);
                let service = service_fn(|request: Request<Incoming>| reply(request, Arc::clone(&seen), answer));
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let stream = TokioIo::new(stream);
                let _ = if h2 {
                    http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await
                } else {
                    http1::Builder::new().serve_connection(stream, service).await
                };
            });
        }
    });
    (port, shown)
}

async fn reply(
    request: Request<Incoming>,
    seen: Arc<Seen>,
    answer: fn(usize) -> u16,
) -> Result<Response<Full<Bytes>>, Infallible> {
    request.into_body().collect().await.unwrap();
    let status = answer(seen.requests.fetch_add(1, Ordering::SeqCst));
    if status == 0 {
        std::future::pending::<()>().await;
    }
    Ok(Response::builder().status(status).body(Full::from("{}")).unwrap())
}

/// Runs `causeway send` with these flags against such a server. Returns the summary, the recorded lines and the
/// server's counts.
async fn run(flags: &str, answer: fn(usize) -> u16) -> (Result<Summary, Failure>, String, Arc<Seen>) {
    let dir = temp_dir::TempDir::new().unwrap();
    let certificates = Certificates::in_dir(dir.path()).unwrap();
    let (port, seen) = serve(&certificates, answer).await;
    let (summary, record) = send(dir.path(), &certificates, port, flags).await;
    (summary, record, seen)
}

async fn send(dir: &Path, certificates: &Certificates, port: u16, flags: &str) -> (Result<Summary, Failure>, String) {
    let file = |path: &Path| path.display().to_string();
    let (url, record) = (format!("https://localhost:{port}/events"), dir.join("record"));
    let fixed = [
        "send",
        "--url",
        &url,
        "--ca",
        &file(&certificates.ca),
        "--cert",
        &file(&certificates.sender),
        "--key",
        &file(&certificates.sender_key),
        "--record",
        &file(&record),
    ];
    let args =
        Line::parse_from(fixed.into_iter().map(str::to_owned).chain(flags.split_whitespace().map(str::to_owned))).args;
    let source = args.source.open(true, false).unwrap();
    let schedule = Schedule::new(args.pace(), args.load.count, args.load.seconds);
    let load =
        Load::new(args.rule, source, schedule, args.log.create().unwrap(), Duration::ZERO, CancellationToken::new())
            .unwrap();
    let endpoint = Arc::new(args.endpoint.resolve().await.unwrap());
    let summary = Arc::new(load).run(&endpoint, args.load.connections as usize, args.load.streams as usize).await;
    (summary, std::fs::read_to_string(record).unwrap())
}

/// `(acked, dropped, retried, attempts)`
fn counts(summary: &Summary) -> (u64, u64, u64, u64) {
    let tally = &summary.tally;
    (tally.acked, tally.dropped, tally.retried, tally.attempts)
}

#[tokio::test]
async fn two_503_and_then_200_is_acked_in_the_third_attempt() {
    for pace in [
        "--closed-loop",
        "--rate 1000",
        "--closed-loop --http2",
        "--rate 1000 --http2",
        "--closed-loop --fresh",
        "--closed-loop --fresh --http2",
    ] {
        let flags = format!("--generate --count 1 --retry-pause-ms 5 {pace}");
        let (summary, record, seen) = run(&flags, |request| if request < 2 { 503 } else { 200 }).await;
        assert_eq!(counts(&summary.unwrap()), (1, 0, 1, 3), "{pace}");
        assert!(record.ends_with(" 200 3\n") && record.lines().count() == 1, "{pace}: {record}");
        let connections = seen.connections.load(Ordering::SeqCst);
        assert!(
            if pace.contains("--fresh") { connections == 3 } else { connections <= 3 },
            "{pace}: {connections} connections"
        );
    }
}

#[tokio::test]
async fn an_event_that_is_never_answered_200_is_dropped_after_the_last_attempt() {
    for pace in ["--closed-loop", "--rate 1000"] {
        let (summary, record, seen) =
            run(&format!("--generate --count 3 --retry-pause-ms 5 --retries 2 {pace}"), |_| 503).await;
        assert_eq!(counts(&summary.unwrap()), (0, 3, 3, 9), "{pace}");
        assert!(record.lines().count() == 3 && record.lines().all(|line| line.ends_with(" 503 3")), "{pace}: {record}");
        assert_eq!(seen.requests.load(Ordering::SeqCst), 9, "{pace}");
    }
}

#[tokio::test]
async fn no_answer_in_time_is_a_failed_attempt() {
    for protocol in ["", "--http2"] {
        let flags = format!("--generate --count 1 --timeout-ms 300 --retry-pause-ms 5 --closed-loop {protocol}");
        let (summary, record, _) = run(&flags, |request| if request == 0 { 0 } else { 200 }).await;
        let summary = summary.unwrap();
        assert_eq!(counts(&summary), (1, 0, 1, 2), "{protocol}");
        assert_eq!(summary.json()["by_status"]["timeout"], 1, "{protocol}");
        assert!(record.ends_with(" 200 2\n"), "{record}");
    }
}

#[tokio::test]
async fn many_events_are_each_posted_once_and_connections_are_kept() {
    for flags in [
        "--closed-loop --connections 4",
        "--rate 2000 --connections 4",
        "--rate 2000 --connections 2 --http2 --streams 8",
    ] {
        let (summary, record, seen) = run(&format!("--generate --count 400 {flags}"), |_| 200).await;
        assert_eq!(counts(&summary.unwrap()), (400, 0, 0, 400), "{flags}");
        let ids: std::collections::HashSet<&str> = record.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(ids.len(), 400, "{flags}");
        assert!(seen.connections.load(Ordering::SeqCst) <= 4, "{flags}");
    }
}

#[tokio::test]
async fn what_a_person_can_put_right_is_said_at_once() {
    let dir = temp_dir::TempDir::new().unwrap();
    let certificates = Certificates::in_dir(dir.path()).unwrap();
    let other_dir = temp_dir::TempDir::new().unwrap();
    let other = Certificates::in_dir(other_dir.path()).unwrap();
    let (port, _) = serve(&certificates, |_| 200).await;
    let flags = "--generate --count 10 --closed-loop";
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let of = |ca: &Certificates, sender: &Certificates| Certificates {
        ca: ca.ca.clone(),
        server: ca.server.clone(),
        server_key: ca.server_key.clone(),
        sender: sender.sender.clone(),
        sender_key: sender.sender_key.clone(),
    };
    for (port, certificates, said) in [
        (refused, of(&certificates, &certificates), "is `causeway dev`"),
        (port, of(&other, &certificates), "--ca"),
        (port, of(&certificates, &other), "--cert"),
    ] {
        let (summary, _) = send(dir.path(), &certificates, port, flags).await;
        let message = summary.err().unwrap().message;
        assert!(message.contains(said), "{said:?} is not in {message:?}");
    }
}
