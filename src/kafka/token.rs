//! Tokens for SASL/OAUTHBEARER: had from a token server or a file, given to each client, renewed before they end.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rdkafka::{ClientContext, client::Client, producer::Producer as _};
use serde_json::Value as Json;

use super::{Connection, Producers, millis_now, native::set_token, token_server, watch};
use crate::{
    config::{OAuth, TokenSource},
    metrics::Metrics,
};

/// A token with what can be told of it. No `Debug`: it is a secret.
pub struct Token {
    value: String,
    /// For whom it was made out.
    pub principal: String,
    /// Milliseconds since 1970.
    pub ends_ms: i64,
    /// From then on it is better to have the next one.
    renew_from_ms: i64,
}

/// Why there is no token, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no token for Kafka: {what}")]
pub struct NoToken {
    pub what: String,
    pub remedy: &'static str,
}

impl NoToken {
    pub(super) fn new(what: impl Into<String>, remedy: &'static str) -> Self {
        Self { what: what.into(), remedy }
    }
}

/// The key of a file that holds the token.
const FILE_KEY: &str = "kafka.client.sasl.oauthbearer.token_file";

const NOT_RENEWED: &str =
    "whoever writes this file must renew it: on Kubernetes a projected volume does, a copy of one does not";

/// After a try that failed.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// The token that all clients of one connection use.
pub(super) struct Tokens {
    oauth: OAuth,
    latest: Mutex<Option<Arc<Token>>>,
    /// Whoever holds it asks for the next token; with how the last try failed, and when.
    tries: Mutex<Option<(NoToken, Instant)>>,
}

impl Tokens {
    pub(super) fn new(oauth: OAuth) -> Self {
        Self { oauth, latest: Mutex::default(), tries: Mutex::default() }
    }

    /// The token as it is known, without asking anybody.
    pub(super) fn latest(&self) -> Option<Arc<Token>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|token| token.ends_ms > millis_now())
    }

    /// A token that is good now. Where it is time for the next one that is had first; where that fails the old one is good to
    /// its end. Blocks.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn current(&self) -> Result<Arc<Token>, NoToken> {
        self.renewed().0
    }

    /// The same, and how the last try failed, if it did.
    fn renewed(&self) -> (Result<Arc<Token>, NoToken>, Option<NoToken>) {
        let is_good = |token: &Arc<Token>| token.renew_from_ms > millis_now();
        if let (TokenSource::Endpoint(_), Some(token)) = (&self.oauth.source, self.latest().filter(is_good)) {
            return (Ok(token), None);
        }
        // Many clients may want one at the same time: the others wait for who asks.
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.latest();
        let failed = match &*tries {
            _ if matches!(self.oauth.source, TokenSource::Endpoint(_)) && old.as_ref().is_some_and(is_good) => None,
            Some((why, at)) if at.elapsed() < TRY_AGAIN => Some(why.clone()),
            Some(_) | None => self.fetch(old.as_deref()).err(),
        };
        let Some(why) = failed else {
            *tries = None;
            return (self.latest().ok_or_else(|| NoToken::new("it has ended", "is this machine's clock right?")), None);
        };
        if tries.as_ref().is_none_or(|(_, at)| at.elapsed() >= TRY_AGAIN) {
            *tries = Some((why.clone(), Instant::now()));
        }
        (old.ok_or_else(|| why.clone()), Some(why))
    }

    fn fetch(&self, old: Option<&Token>) -> Result<(), NoToken> {
        let fresh = match &self.oauth.source {
            TokenSource::Endpoint(endpoint) => token_server::ask(endpoint)?,
            TokenSource::File(file) => {
                let named = || format!("{FILE_KEY} names {}", file.display());
                let text = std::fs::read_to_string(file).map_err(|error| {
                    NoToken::new(format!("{}, which cannot be read: {error}", named()), "name a readable file")
                })?;
                if let Some(old) = old.filter(|old| old.value == text.trim()) {
                    return old.not_late().map_err(|why| NoToken::new(format!("{}, {why}", named()), NOT_RENEWED));
                }
                let fresh = Token::new(text.trim(), None, "").map_err(|why| {
                    NoToken::new(format!("{}: {why}", named()), "have a JWT alone written there, with its end (`exp`)")
                })?;
                if fresh.ends_ms <= millis_now() {
                    let ended = super::told_time(fresh.ends_ms);
                    return Err(NoToken::new(format!("{}, whose token ended at {ended}", named()), NOT_RENEWED));
                }
                fresh
            }
        };
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(fresh));
        Ok(())
    }

    /// Gives a client the token.
    pub(super) fn give<C: ClientContext>(&self, client: &Client<C>, token: &Token) -> Result<(), NoToken> {
        set_token(client, token, &self.oauth.extensions)
            .map_err(|why| NoToken::new(format!("librdkafka does not take it: {why}"), "is it a token?"))
    }
}

impl Token {
    /// One that says by itself when it ends, as a JWT does, or of which that is known. The error never shows it.
    pub(super) fn new(value: &str, ends_ms: Option<i64>, principal: &str) -> Result<Self, &'static str> {
        if value.is_empty() {
            return Err("it is empty");
        }
        if value.contains(|c: char| !c.is_ascii_graphic()) {
            return Err("it is not one token alone");
        }
        let claims = claims(value);
        let claim = |name: &str| claims.as_ref().and_then(|claims| claims.get(name));
        // A fraction is allowed (RFC 7519, section 2).
        let exp = claim("exp").and_then(Json::as_f64).map(|seconds| (seconds * 1000.0) as i64);
        let ends_ms = exp.or(ends_ms).ok_or("nothing says when it ends")?;
        let named = ["sub", "azp", "client_id"].into_iter().find_map(|name| claim(name)?.as_str());
        let now = millis_now();
        Ok(Self {
            value: value.to_owned(),
            principal: named.filter(|name| !name.is_empty()).unwrap_or(principal).to_owned(),
            ends_ms,
            // A fifth of its life is left then: time enough for a token server that is away for a while.
            renew_from_ms: now + (ends_ms - now).max(0) / 5 * 4,
        })
    }

    /// One of a file is late when half of the last fifth is over.
    fn not_late(&self) -> Result<(), String> {
        let late_from = self.ends_ms - (self.ends_ms - self.renew_from_ms) / 2;
        let is_late = millis_now() >= late_from;
        let why = || format!("whose token ends at {} and was not renewed", super::told_time(self.ends_ms));
        if is_late { Err(why()) } else { Ok(()) }
    }

    pub(super) fn value(&self) -> &str {
        &self.value
    }
}

/// What a JWT says in its middle part. Whether it is signed well the broker looks.
fn claims(value: &str) -> Option<Json> {
    let mut parts = value.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}

/// Gives the token to one client that lives on, whenever there is another one. Where no tokens are wanted it does nothing.
#[derive(Default)]
pub(super) struct Keeper {
    tokens: Option<Arc<Tokens>>,
    given: Mutex<Option<(Instant, Arc<Token>)>>,
}

/// So often is looked for the next token.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Keeper {
    pub(super) fn new(connection: &Connection) -> Self {
        Self { tokens: connection.tokens(), given: Mutex::default() }
    }

    /// Another client has taken the one's place.
    pub(super) fn begin_again(&self) {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// To be called before each request. May block for as long as a token server takes.
    ///
    /// # Errors
    /// Why there is no token that is good now.
    pub(super) fn keep<C: ClientContext>(&self, client: &Client<C>) -> Result<(), NoToken> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.as_ref().is_some_and(|(at, _)| at.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        let token = tokens.current()?;
        if given.as_ref().is_none_or(|(_, before)| !Arc::ptr_eq(before, &token)) {
            tokens.give(client, &token)?;
        }
        *given = Some((Instant::now(), token));
        Ok(())
    }
}

/// Starts the thread that gives each lane's producers the next token in time, if any are wanted. It ends when the producers
/// are gone.
pub(super) fn start(producers: &Arc<Producers>, connection: &Connection, metrics: &Arc<Metrics>) {
    let Some(tokens) = connection.tokens() else { return };
    let (producers, metrics) = (Arc::downgrade(producers), Arc::clone(metrics));
    watch::spawn("token", move || {
        let mut given: Vec<[Option<Given>; 2]> = Vec::new();
        let mut told = None;
        while let Some(producers) = look(&producers) {
            let (token, failed) = tokens.renewed();
            publish(&token, failed.as_ref(), &mut told, &metrics);
            if let Ok(token) = token {
                given.resize_with(producers.lanes.len(), Default::default);
                hand_round(&producers, &tokens, &token, &mut given);
            }
        }
    });
}

fn look(producers: &Weak<Producers>) -> Option<Arc<Producers>> {
    std::thread::sleep(LOOK_EVERY);
    producers.upgrade()
}

/// Which producer has which token: the producer by its place in memory, as nothing of it is used.
type Given = (usize, Arc<Token>);

/// A producer that took another one's place was given the token when it was made, and perhaps the one before.
fn hand_round(producers: &Producers, tokens: &Tokens, token: &Arc<Token>, given: &mut [[Option<Given>; 2]]) {
    for (lane, given) in producers.lanes.iter().zip(given) {
        for (producer, before) in [Some(lane.current()), lane.made_alone()].into_iter().zip(given) {
            let Some(producer) = producer else { continue };
            let place = Arc::as_ptr(&producer).addr();
            if before.as_ref().is_some_and(|(at, known)| *at == place && Arc::ptr_eq(known, token)) {
                continue;
            }
            match tokens.give(producer.client(), token) {
                Ok(()) => *before = Some((place, Arc::clone(token))),
                Err(error) => tracing::warn!(feed = lane.label, %error, "the next token for Kafka is not in use"),
            }
        }
    }
}

/// Shows in the metrics and tells once what is new.
fn publish(
    token: &Result<Arc<Token>, NoToken>,
    failed: Option<&NoToken>,
    told: &mut Option<(NoToken, bool)>,
    metrics: &Metrics,
) {
    let not_in_use = metrics.reload_refused.with_label_values(&["kafka_token"]);
    not_in_use.set(i64::from(failed.is_some()));
    if let Ok(token) = token {
        metrics.kafka_token_expiry.set(token.ends_ms / 1000);
    }
    let news = failed.map(|why| (why.clone(), token.is_ok()));
    if news == *told {
        return;
    }
    match (failed, token) {
        (None, _) => tracing::info!("there is a new token for Kafka again"),
        (Some(why), Ok(old)) => {
            tracing::warn!(
                remedy = why.remedy,
                "{why}; the one in use is good until {}",
                super::told_time(old.ends_ms)
            );
        }
        (Some(why), Err(_)) => tracing::error!(remedy = why.remedy, "{why}; the last one has ended"),
    }
    *told = news;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_jwt_says_for_whom_it_is_and_when_it_ends() {
        let token = Token::new(&jwt(r#"{"sub":"me","exp":4102444800.5}"#), Some(1), "client").ok().unwrap();
        assert_eq!((token.principal.as_str(), token.ends_ms), ("me", 4_102_444_800_500));
        let token = Token::new(&jwt(r#"{"azp":"app"}"#), Some(7), "client").ok().unwrap();
        assert_eq!((token.principal.as_str(), token.ends_ms), ("app", 7));
        let token = Token::new("opaque", Some(7), "client").ok().unwrap();
        assert_eq!((token.principal.as_str(), token.ends_ms), ("client", 7));
        for (value, why) in [
            ("", "empty"),
            ("opaque", "when it ends"),
            ("a.b.c", "when it ends"),
            ("Bearer a.b.c", "one token alone"),
            (&jwt(r#"{"exp":"soon"}"#), "when it ends"),
        ] {
            assert!(Token::new(value, None, "").err().unwrap().contains(why), "{value}");
        }
    }

    #[test]
    fn a_file_that_is_renewed_is_taken_up_and_one_that_breaks_leaves_the_old_token() {
        let dir = temp_dir::TempDir::new().unwrap();
        let file = dir.path().join("token");
        let in_a_while =
            |seconds: i64| jwt(&format!(r#"{{"sub":"s{seconds}","exp":{}}}"#, millis_now() / 1000 + seconds));
        std::fs::write(&file, in_a_while(1000)).unwrap();
        let oauth = OAuth { source: TokenSource::File(file.clone()), extensions: Vec::new() };
        let tokens = Tokens::new(oauth.clone());
        assert_eq!(tokens.current().ok().unwrap().principal, "s1000");
        std::fs::write(&file, in_a_while(2000) + "\n").unwrap();
        assert_eq!(tokens.current().ok().unwrap().principal, "s2000");
        std::fs::write(&file, in_a_while(-5)).unwrap();
        let (token, failed) = tokens.renewed();
        assert_eq!(token.ok().unwrap().principal, "s2000");
        assert!(failed.unwrap().what.contains("whose token ended at"));
        let ending =
            Token { value: String::new(), principal: String::new(), ends_ms: millis_now() + 1000, renew_from_ms: 0 };
        assert!(ending.not_late().unwrap_err().contains("was not renewed"));
        let why = Tokens::new(oauth).current().err().unwrap();
        assert!(why.what.contains("whose token ended at") && why.remedy.contains("renew"), "{why:?}");
    }
}
