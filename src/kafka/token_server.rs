//! A token server: a client's id and secret -> a token (OIDC client credentials, RFC 6749, section 4.4).

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value as Json;

use super::{
    millis_now,
    token::{NoToken, Token},
};
use crate::{
    config::TokenEndpoint,
    http_client::{Client, Trust},
};

/// The longest time for a request. A client that waits for a token does not serve its lane meanwhile.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer in bytes; a token has a few kilobytes.
const ANSWER_BYTES_MAX: u64 = 256 << 10;

/// The most characters of the server's reason that are shown.
const REASON_CHARS_MAX: usize = 200;

const KEY: &str = "sasl.oauthbearer.token.endpoint.url";

/// Asks for a token. Blocks for at most 5 s.
pub(super) fn ask(endpoint: &TokenEndpoint) -> Result<Token, NoToken> {
    let TokenEndpoint { url, client_id, .. } = endpoint;
    let secret = secret(endpoint)?;
    let trust = Trust { ca: endpoint.ca.as_deref(), identity: None };
    let client = Client::new(url, trust, TIMEOUT).map_err(|error| {
        NoToken::new(
            error.to_string(),
            "give https.ca.location as a readable PEM file, and the variables of a proxy as http://HOST:PORT",
        )
    })?;
    let mut form = vec![("grant_type", "client_credentials")];
    form.extend(endpoint.scope.as_deref().map(|scope| ("scope", scope)));
    let login = format!("Basic {}", STANDARD.encode(format!("{client_id}:{secret}")));
    let request = client.agent.post(url).header("authorization", login).header("accept", "application/json");
    let mut answer = request.send_form(form).map_err(|error| {
        NoToken::new(
            format!("{KEY} {url} does not answer{}: {error}", client.through),
            "is the token server up, the address right, and its CA in https.ca.location?",
        )
    })?;
    let status = answer.status().as_u16();
    let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    let wrong = |why: &str| {
        NoToken::new(
            format!("{KEY} {url} answers HTTP {status}: {why}"),
            "is it the address of the token endpoint itself?",
        )
    };
    let text = text.map_err(|_| wrong("its body cannot be read"))?;
    let json: Json = serde_json::from_str(&text).unwrap_or_default();
    if !answer.status().is_success() {
        return Err(refused(&json, status, url, &secret));
    }
    let value =
        json.get("access_token").and_then(Json::as_str).ok_or_else(|| wrong("there is no access_token in it"))?;
    // Some servers write the number as text.
    let expires_in = json.get("expires_in").and_then(|it| it.as_f64().or_else(|| it.as_str()?.parse().ok()));
    let ends = expires_in.map(|seconds| millis_now().saturating_add((seconds * 1000.0) as i64));
    let token = Token::new(value, ends, client_id).map_err(|why| wrong(&format!("a token of which {why}")))?;
    if token.ends_ms <= millis_now() {
        let why = format!("its token ended at {}", super::told_time(token.ends_ms));
        return Err(NoToken::new(format!("{KEY} {url}: {why}"), "do the clocks of both machines agree?"));
    }
    Ok(token)
}

fn secret(endpoint: &TokenEndpoint) -> Result<String, NoToken> {
    let Some(file) = &endpoint.client_secret_file else { return Ok(endpoint.client_secret.0.clone()) };
    match std::fs::read_to_string(file) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        Ok(_) | Err(_) => Err(NoToken::new(
            format!("sasl.oauthbearer.client.secret_file names {}, which is empty or cannot be read", file.display()),
            "name a readable file that holds nothing but the secret",
        )),
    }
}

/// The server's refusal in its own words (RFC 6749, section 5.2), without the secret.
fn refused(json: &Json, status: u16, url: &str, secret: &str) -> NoToken {
    let words = ["error", "error_description"].map(|name| json.get(name).and_then(Json::as_str).unwrap_or_default());
    let words = words.join(" ").replace(secret, "(hidden)");
    let words: String = words.trim().chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
    let remedy = match status {
        400 | 401 | 403 => {
            "are sasl.oauthbearer.client.id, client.secret and scope right, and may this client have a token?"
        }
        404 | 405 => "is it the address of the token endpoint itself?",
        _ => "ask whoever runs the token server",
    };
    NoToken::new(format!("{KEY} {url} answers HTTP {status}: {words}"), remedy)
}
