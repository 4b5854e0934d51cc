//! What the machine can do at most: a server of the same mutual TLS that reads the body and answers 200.

use std::{convert::Infallible, fs, net::SocketAddr, path::Path, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpListener;

/// Serves with `server.crt` and `server.key` of `dir` those whom `ca.crt` has signed, on a free port.
pub async fn start(dir: &Path) -> SocketAddr {
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls(dir)));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let _ = socket.set_nodelay(true);
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let service = service_fn(|request: Request<Incoming>| async move {
                    let _ = request.into_body().collect().await;
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"{}"))))
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

fn tls(dir: &Path) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.crt")).expect("PEM")).expect("a CA");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .expect("a verifier");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(dir.join("server.crt")).expect("PEM")],
            PrivateKeyDer::from_pem_file(dir.join("server.key")).expect("PEM"),
        )
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// A process of its own, until it is ended: with tokio's own number of workers, one a core. Its address goes to `dir`.
pub fn run(dir: &Path) {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let address = start(dir).await;
        let part = dir.join("address.part");
        fs::write(&part, address.to_string()).expect("a file");
        fs::rename(part, dir.join("address")).expect("its name");
        std::future::pending::<()>().await;
    });
}
