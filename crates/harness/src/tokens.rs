//! The signer of tokens that a broker takes, and a server that hands them out for an id and a secret.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rcgen::{KeyPair, SigningKey};
use serde_json::json;

use super::{
    certs::Identity,
    gate::{Asked, Gate},
};

/// The audience in each token: brokers take no other.
const AUDIENCE: &str = "kafka";

/// A key of P-256, with which JWTs are signed (ES256).
pub struct Issuer {
    key: Arc<KeyPair>,
    keys: PathBuf,
}

/// Where the brokers of a cluster look for the keys.
pub fn keys_url(cluster: &Path) -> String {
    format!("file://{}", cluster.join("tokens.jwks").display())
}

impl Issuer {
    pub(super) fn new(cluster: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let point = key.public_key_raw().to_vec();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
        let keys = cluster.join("tokens.jwks");
        let one = json!({"kty": "EC", "crv": "P-256", "kid": "1", "use": "sig", "alg": "ES256", "x": x, "y": y});
        fs::write(&keys, json!({ "keys": [one] }).to_string()).unwrap();
        Self { key: Arc::new(key), keys }
    }

    /// A broker's properties for one of its listeners. A session there lasts no longer than its token.
    pub(super) fn properties(&self, listener: &str) -> String {
        const SECURITY: &str = "org.apache.kafka.common.security.oauthbearer";
        let of = |property: &str| format!("listener.name.{listener}.oauthbearer.{property}");
        let url = keys_url(self.keys.parent().unwrap());
        format!(
            "{}={SECURITY}.OAuthBearerLoginModule required;\n{}={SECURITY}.OAuthBearerValidatorCallbackHandler\n{}={url}\n{}={AUDIENCE}\n{}=0\n{}=3600000\n",
            of("sasl.jaas.config"),
            of("sasl.server.callback.handler.class"),
            of("sasl.oauthbearer.jwks.endpoint.url"),
            of("sasl.oauthbearer.expected.audience"),
            of("sasl.oauthbearer.clock.skew.seconds"),
            of("connections.max.reauth.ms"),
        )
    }

    /// A token for `subject` that ends in so many seconds.
    pub fn token(&self, subject: &str, seconds: i64) -> String {
        sign(&self.key, subject, seconds)
    }

    /// A token server: whoever has the secret gets tokens that end after `seconds`.
    pub fn server(&self, secret: &str, seconds: u64) -> TokenServer {
        TokenServer::start(Arc::clone(&self.key), secret, seconds, None)
    }

    /// A token server over TLS, with this certificate.
    pub fn server_over_tls(&self, identity: &Identity, secret: &str, seconds: u64) -> TokenServer {
        TokenServer::start(Arc::clone(&self.key), secret, seconds, Some(identity))
    }
}

/// The client's id, and so the principal.
pub const CLIENT: &str = "causeway-client";

pub struct TokenServer {
    pub gate: Gate,
    seconds: Arc<AtomicU64>,
}

impl TokenServer {
    fn start(key: Arc<KeyPair>, secret: &str, seconds: u64, identity: Option<&Identity>) -> Self {
        let seconds = Arc::new(AtomicU64::new(seconds));
        let (login, lifetime) = (STANDARD.encode(format!("{CLIENT}:{secret}")), Arc::clone(&seconds));
        let answer = move |asked: &Asked| {
            let known = asked.headers.get("authorization") == Some(&format!("Basic {login}"));
            if (asked.method.as_str(), asked.path.as_str()) != ("POST", "/token") {
                return (404, "{}".to_owned());
            }
            if asked.body != "grant_type=client_credentials&scope=a+scope" {
                return (400, json!({"error": "invalid_request", "error_description": asked.body}).to_string());
            }
            if !known {
                return (401, json!({"error": "invalid_client", "error_description": "who is that?"}).to_string());
            }
            let seconds = lifetime.load(Ordering::SeqCst);
            let token = sign(&key, CLIENT, i64::try_from(seconds).unwrap());
            (200, json!({"access_token": token, "token_type": "Bearer", "expires_in": seconds}).to_string())
        };
        let gate = match identity {
            Some(identity) => Gate::tls(identity, None, answer),
            None => Gate::plain(answer),
        };
        Self { gate, seconds }
    }

    /// The tokens from now on end after so many seconds.
    pub fn set_lifetime(&self, seconds: u64) {
        self.seconds.store(seconds, Ordering::SeqCst);
    }

    pub fn url(&self) -> String {
        format!("{}/token", self.gate.url())
    }
}

fn sign(key: &KeyPair, subject: &str, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let head = json!({"alg": "ES256", "typ": "JWT", "kid": "1"});
    let claims = json!({
        "iss": "https://issuer.example", "aud": AUDIENCE, "sub": subject, "scope": "a scope", "iat": now - 1, "exp": now + seconds,
    });
    let signed = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = plain(&key.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The two numbers of an ASN.1 signature, each of 32 bytes, as JWS wants them (RFC 7518, section 3.4).
fn plain(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut both = Vec::new();
    for _ in 0..2 {
        let (length, number) = (usize::from(rest[1]), &rest[2..]);
        let (number, after) = number.split_at(length);
        let number = &number[number.len().saturating_sub(32)..];
        both.extend(std::iter::repeat_n(0, 32 - number.len()));
        both.extend(number);
        rest = after;
    }
    both
}
