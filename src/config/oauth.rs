//! SASL/OAUTHBEARER in `[kafka.client]`. The keys have librdkafka's names, but Causeway fetches the tokens, because
//! our librdkafka is built without HTTP.

use std::{collections::BTreeMap, path::PathBuf};

use super::{Secret, client::key, fault::Wrong, settings::Settings};

/// The way to tokens for Kafka.
#[derive(Debug, Clone)]
pub struct OAuth {
    /// Where tokens come from.
    pub source: TokenSource,
    /// Names and values that a broker is sent beside the token (RFC 7628, section 3.1).
    pub extensions: Vec<(String, String)>,
}

/// The source of tokens.
#[derive(Debug, Clone)]
pub enum TokenSource {
    /// A token server, asked with OIDC client credentials.
    Endpoint(TokenEndpoint),
    /// A file that holds a token. Another program writes the file, and renews the token there.
    File(PathBuf),
}

/// A server that gives tokens for a client's id and secret (RFC 6749, section 4.4).
#[derive(Debug, Clone)]
pub struct TokenEndpoint {
    /// The server's address, `https://` or `http://`.
    pub url: String,
    /// The client's id.
    pub client_id: String,
    /// The client's secret. If it comes from a file, this is the file's content at the start.
    pub client_secret: Secret,
    /// The file that holds the secret, read again for each token.
    pub client_secret_file: Option<PathBuf>,
    /// The scope to ask for.
    pub scope: Option<String>,
    /// The CA of the server's certificate, a PEM file.
    pub ca: Option<PathBuf>,
}

const URL: &str = "sasl.oauthbearer.token.endpoint.url";
const ID: &str = "sasl.oauthbearer.client.id";
const SECRET: &str = "sasl.oauthbearer.client.secret";
const SCOPE: &str = "sasl.oauthbearer.scope";
const EXTENSIONS: &str = "sasl.oauthbearer.extensions";
const METHOD: &str = "sasl.oauthbearer.method";
const GRANT: &str = "sasl.oauthbearer.grant.type";
const CA: &str = "https.ca.location";
/// This property is taken only with `_file` after it, because a token in the configuration itself would expire.
const TOKEN: &str = "sasl.oauthbearer.token";

/// The properties that Causeway takes, each with librdkafka's other name for it, if any.
const TAKEN: &[(&str, &str)] = &[
    (URL, ""),
    (ID, "sasl.oauthbearer.client.credentials.client.id"),
    (SECRET, "sasl.oauthbearer.client.credentials.client.secret"),
    (SCOPE, ""),
    (EXTENSIONS, ""),
    (METHOD, ""),
    (GRANT, ""),
    (CA, ""),
    (TOKEN, ""),
];

/// Whether Causeway takes the property itself, and hides it from librdkafka.
pub fn is_ours(property: &str) -> bool {
    TAKEN.iter().any(|(name, alias)| *name == property || *alias == property)
}

/// The given properties, and their files. The methods are asked by the first name in [`TAKEN`]; the configuration
/// may use either.
struct Given<'a> {
    properties: &'a BTreeMap<String, String>,
    files: &'a BTreeMap<String, PathBuf>,
}

impl Given<'_> {
    fn name(&self, name: &str) -> String {
        let alias = TAKEN.iter().find(|(known, _)| *known == name).map_or("", |(_, alias)| alias);
        if self.properties.contains_key(alias) { alias.to_owned() } else { name.to_owned() }
    }

    fn value(&self, name: &str) -> Option<String> {
        self.properties.get(&self.name(name)).cloned()
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        self.files.get(&self.name(name)).cloned()
    }

    /// The key that the configuration used.
    fn key(&self, name: &str) -> String {
        let file = if self.file(name).is_some() { "_file" } else { "" };
        format!("{}{file}", key(&self.name(name)))
    }
}

/// Reads the way to tokens, if `sasl.mechanism` is OAUTHBEARER.
pub(super) fn read(
    settings: &mut Settings,
    properties: &BTreeMap<String, String>,
    files: &BTreeMap<String, PathBuf>,
) -> Option<OAuth> {
    let given = Given { properties, files };
    let mechanism = ["sasl.mechanism", "sasl.mechanisms"].into_iter().find(|name| properties.contains_key(*name));
    let Some(mechanism) = mechanism.filter(|name| properties.get(*name).is_some_and(|it| it == "OAUTHBEARER")) else {
        refuse_all(settings, &given);
        return None;
    };
    for (name, allowed) in [(METHOD, &["default", "oidc"][..]), (GRANT, &["client_credentials"])] {
        if given.value(name).is_some_and(|value| !allowed.contains(&value.as_str())) {
            let remedy = format!("write {}, or leave it out", allowed.join(" or "));
            settings.fault(&given.key(name), Wrong::new("is no way to a token that Causeway knows", remedy));
        }
    }
    let protocol = properties.get("security.protocol").map(|protocol| protocol.to_ascii_lowercase());
    if !protocol.is_some_and(|protocol| protocol.starts_with("sasl_")) {
        let remedy = "write \"security.protocol\" = \"sasl_ssl\"";
        settings.fault(&key(mechanism), Wrong::new("is OAUTHBEARER, and security.protocol has no SASL", remedy));
    }
    let extensions = given.value(EXTENSIONS).map_or(Ok(Vec::new()), |text| extensions(&text));
    let extensions = extensions.map_err(|wrong| settings.fault(&given.key(EXTENSIONS), wrong)).unwrap_or_default();
    let source = match (given.value(URL), given.file(TOKEN)) {
        (Some(_), Some(_)) => {
            settings.both(&given.key(TOKEN), &given.key(URL));
            return None;
        }
        (None, Some(file)) => TokenSource::File(file),
        (Some(url), None) => TokenSource::Endpoint(endpoint(settings, &given, url)?),
        (None, None) if given.value(TOKEN).is_some() => {
            let remedy = format!("have it renewed in a file, and name that as {}_file", key(TOKEN));
            settings.fault(&key(TOKEN), Wrong::new("is a token, which has an end", remedy));
            return None;
        }
        (None, None) if is_unread(settings, TOKEN) => return None,
        (None, None) => {
            let remedy = format!("give {} with {} and {}_file, or {}_file", key(URL), key(ID), key(SECRET), key(TOKEN));
            settings.fault(&key(mechanism), Wrong::new("is OAUTHBEARER, and there is no way to a token", remedy));
            return None;
        }
    };
    Some(OAuth { source, extensions })
}

/// Whether the property's file was given but could not be read, which is already noted as a fault.
fn is_unread(settings: &Settings, name: &str) -> bool {
    let aliases = TAKEN.iter().filter(|(known, _)| *known == name);
    aliases.flat_map(|(name, alias)| [name, alias]).any(|name| settings.is_given(&format!("{}_file", key(name))))
}

/// Notes a fault for each of our properties: without OAUTHBEARER they would have no effect.
fn refuse_all(settings: &mut Settings, given: &Given<'_>) {
    for (name, _) in TAKEN {
        if given.value(name).is_some() {
            let remedy = format!("write {} = \"OAUTHBEARER\", or leave it out", key("sasl.mechanism"));
            settings.fault(&given.key(name), Wrong::new("is given, and sasl.mechanism is not OAUTHBEARER", remedy));
        }
    }
}

fn endpoint(settings: &mut Settings, given: &Given<'_>, url: String) -> Option<TokenEndpoint> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    if rest.is_none_or(|rest| rest.is_empty() || rest.contains(|c: char| c.is_whitespace() || c == '@')) {
        // The address may hold a password, so the fault does not show it.
        let remedy = "write it as in https://login.example/oauth2/token, without a user";
        settings.fault(&given.key(URL), Wrong::new("is no address of a token server", remedy));
        return None;
    }
    let mut needed = |name: &str| {
        let value = given.value(name);
        if value.is_none() && !is_unread(settings, name) {
            let what = format!("is given without {}", key(name));
            settings.fault(&given.key(URL), Wrong::new(what, "give both: the token server asks who wants a token"));
        }
        value
    };
    let (client_id, client_secret) = (needed(ID), needed(SECRET));
    Some(TokenEndpoint {
        url,
        client_id: client_id?,
        client_secret: Secret(client_secret?),
        client_secret_file: given.file(SECRET),
        scope: given.value(SCOPE),
        ca: given.value(CA).map(PathBuf::from),
    })
}

/// Reads `name=value` pairs, separated by commas as librdkafka takes them.
fn extensions(text: &str) -> Result<Vec<(String, String)>, Wrong> {
    let pairs = text.split(',').map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        let is_name = !name.is_empty() && name != "auth" && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        let is_value = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        (is_name && is_value).then(|| (name.to_owned(), value.to_owned()))
    });
    let remedy = "write name=value with commas between, names of letters alone, as in logicalCluster=lkc-1,identityPoolId=pool-1";
    pairs.collect::<Option<_>>().ok_or_else(|| Wrong::new("holds something else than names with values", remedy))
}

#[cfg(test)]
mod tests {
    use super::{
        super::load::tests::{MINIMAL, assert_faults},
        *,
    };

    const OAUTHBEARER: &str = "'security.protocol' = 'sasl_ssl'\n'sasl.mechanism' = 'OAUTHBEARER'\n";
    const URL_LINE: &str = "'sasl.oauthbearer.token.endpoint.url' = 'https://login.example/token'\n";

    fn client(lines: &str) -> String {
        format!("{MINIMAL}[kafka.client]\n{lines}\n")
    }

    #[test]
    fn client_credentials_are_taken_under_both_of_their_names() {
        for (id, secret) in [(ID, SECRET), (TAKEN[1].1, TAKEN[2].1)] {
            let lines = format!(
                "{OAUTHBEARER}{URL_LINE}'{id}' = 'me'\n'{secret}' = 'sesame'\n'{SCOPE}' = 'kafka'\n'{METHOD}' = 'oidc'\n\
                 '{EXTENSIONS}' = 'logicalCluster=lkc-1, identityPoolId=pool-a b'"
            );
            let config = super::super::from_toml(&client(&lines)).unwrap();
            assert!(!format!("{config:?}{}", config.resolved()).contains("sesame"));
            let OAuth { source: TokenSource::Endpoint(endpoint), extensions } = config.kafka.oauth.unwrap() else {
                panic!("no endpoint");
            };
            assert_eq!((endpoint.client_id.as_str(), endpoint.client_secret.0.as_str()), ("me", "sesame"));
            assert_eq!(endpoint.scope.as_deref(), Some("kafka"));
            let expected = [("logicalCluster", "lkc-1"), ("identityPoolId", "pool-a b")];
            assert_eq!(extensions, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
    }

    #[test]
    fn what_is_missing_or_too_much_is_told_with_its_remedy() {
        let way = "is OAUTHBEARER, and there is no way to a token";
        let both = format!("{URL_LINE}'{ID}' = 'me'\n'{SECRET}' = 'x'\n");
        for (lines, expected) in [
            (OAUTHBEARER.to_owned(), vec![way]),
            (
                format!("{OAUTHBEARER}{URL_LINE}"),
                vec!["without kafka.client.sasl.oauthbearer.client.id", "client.secret"],
            ),
            (format!("{OAUTHBEARER}'{TOKEN}' = 'x'"), vec!["is a token, which has an end"]),
            (format!("{OAUTHBEARER}'{TOKEN}_file' = 'nowhere'"), vec!["names nowhere, which cannot be read"]),
            (format!("{OAUTHBEARER}{both}'{GRANT}' = 'urn:x'"), vec!["write client_credentials, or leave it out"]),
            (format!("{OAUTHBEARER}{both}'{EXTENSIONS}' = 'a1=b'"), vec!["names with values"]),
            (format!("'sasl.mechanism' = 'OAUTHBEARER'\n{both}"), vec!["security.protocol has no SASL"]),
            (
                "'sasl.mechanism' = 'PLAIN'\n'sasl.oauthbearer.scope' = 'x'".to_owned(),
                vec!["and sasl.mechanism is not OAUTHBEARER"],
            ),
            (
                format!("{OAUTHBEARER}'{URL}' = 'https://me:sesame@x'\n'{ID}' = 'me'\n'{SECRET}' = 'x'"),
                vec!["is no address of a token server"],
            ),
            (
                "'sasl.oauthbearer.assertion.file' = 'x'".to_owned(),
                vec!["kafka.client.sasl.oauthbearer.assertion.file may not be set"],
            ),
        ] {
            assert_faults(&client(&lines), &expected);
        }
    }

    #[test]
    fn a_token_in_a_file_is_hidden_and_its_file_known() {
        let dir = temp_dir::TempDir::new().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "sesame\n").unwrap();
        let lines = format!("{OAUTHBEARER}'{TOKEN}_file' = '{}'", file.display());
        let config = super::super::from_toml(&client(&lines)).unwrap();
        assert!(!format!("{config:?}{}", config.resolved()).contains("sesame"));
        assert!(matches!(config.kafka.oauth.unwrap().source, TokenSource::File(known) if known == file));
    }
}
