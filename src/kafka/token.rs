//! A token for SASL/OAUTHBEARER.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value as Json;

use super::millis_now;

/// A token and the facts read from it. It is not `Debug`, as it is a secret.
pub struct Token {
    pub(super) value: String,
    /// The client that the token was made out for.
    pub principal: String,
    /// The end of its validity, in milliseconds since 1970.
    pub ends_ms: i64,
    /// The time from which a new token should be fetched, in milliseconds since 1970.
    pub(super) renew_from_ms: i64,
}

/// Why there is no token, and a remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no token for Kafka: {what}")]
pub struct NoToken {
    /// The reason; it never shows a secret.
    pub what: String,
    /// The remedy, for the operator.
    pub remedy: &'static str,
}

impl NoToken {
    pub(super) fn new(what: impl Into<String>, remedy: &'static str) -> Self {
        Self { what: what.into(), remedy }
    }
}

impl Token {
    /// Reads a token. Its end is in the token itself, if it is a JWT, or is `ends_ms`. The error never shows the token.
    pub(super) fn new(value: &str, ends_ms: Option<i64>, principal: &str) -> Result<Self, &'static str> {
        if value.is_empty() {
            return Err("it is empty");
        }
        if value.contains(|c: char| !c.is_ascii_graphic()) {
            return Err("it is not one token alone");
        }
        let claims = claims(value);
        let claim = |name: &str| claims.as_ref().and_then(|claims| claims.get(name));
        // The number may have a fraction (RFC 7519, section 2).
        let exp = claim("exp").and_then(Json::as_f64).map(|seconds| (seconds * 1000.0) as i64);
        let ends_ms = exp.or(ends_ms).ok_or("nothing says when it ends")?;
        let named = ["sub", "azp", "client_id"].into_iter().find_map(|name| claim(name)?.as_str());
        let now = millis_now();
        Ok(Self {
            value: value.to_owned(),
            principal: named.filter(|name| !name.is_empty()).unwrap_or(principal).to_owned(),
            ends_ms,
            // Then a fifth of its life is left: time enough for a token server that is away for a while.
            renew_from_ms: now + ends_ms.saturating_sub(now).max(0) / 5 * 4,
        })
    }

    /// Fails when the token of a file is late: when half of its last fifth is over.
    pub(super) fn not_late(&self) -> Result<(), String> {
        let late_from = self.ends_ms - (self.ends_ms - self.renew_from_ms) / 2;
        let is_late = millis_now() >= late_from;
        let why = || format!("whose token ends at {} and was not renewed", super::told_time(self.ends_ms));
        if is_late { Err(why()) } else { Ok(()) }
    }

    pub(super) fn value(&self) -> &str {
        &self.value
    }
}

/// The claims in the middle part of a JWT. Their signature is the broker's to check.
fn claims(value: &str) -> Option<Json> {
    let mut parts = value.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{OAuth, TokenSource},
        kafka::tokens::Tokens,
    };

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
        // An end that is no time at all is one that is over, or never comes.
        for (exp, ends) in [("-1e300", i64::MIN), ("1e300", i64::MAX)] {
            let token = Token::new(&jwt(&format!(r#"{{"exp":{exp}}}"#)), None, "").ok().unwrap();
            assert_eq!(token.ends_ms, ends);
        }
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
