//! h2spec, a conformance test of HTTP/2, against the bridge. The test needs Go: `cargo test --test h2spec`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails here has failed"
)]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use harness as support;
use tokio::{io::copy_bidirectional, net::TcpListener};

use self::support::{
    bridge::Setup,
    client::{Http, Sender},
    scratch,
};

/// The number of cases of this version of h2spec with `--strict`.
const CASES: u32 = 146;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_passes() {
    let h2spec = build();
    let bridge = Setup::new(support::kafka(), None).start();
    let tunnel = tunnel(bridge.sender(Http::Two)).await;
    let mut command = Command::new(h2spec);
    command.args(["--strict", "--timeout", "5", "--port", &tunnel.port().to_string()]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let summary = format!("{CASES} tests, {CASES} passed, 0 skipped, 0 failed");
    assert!(output.status.success() && text.contains(&summary), "not {summary:?}:\n{text}");
}

/// The program, built from the sources that `go.mod` fixes.
fn build() -> PathBuf {
    let program = scratch::harness().join("h2spec");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg("github.com/summerwind/h2spec/cmd/h2spec")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/h2spec"))
        .status()
        .expect("go starts: install Go 1.19 or newer (Debian: golang-go)");
    assert!(built.success(), "h2spec cannot be built");
    program
}

/// A port without TLS, whose connections go on to the bridge by mutual TLS: h2spec has no client certificate.
async fn tunnel(sender: Sender) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sender = Arc::new(sender);
    tokio::spawn(async move {
        while let Ok((mut plain, _)) = listener.accept().await {
            let sender = Arc::clone(&sender);
            tokio::spawn(async move {
                let mut tls = sender.connect().await.expect("the bridge accepts");
                let _ = copy_bidirectional(&mut plain, &mut tls).await;
            });
        }
    });
    address
}
