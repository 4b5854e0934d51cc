//! A check of each broker: does it let this bridge in, and if not, what is the remedy?

use crate::{
    cli::findings::{Findings, Level},
    config::Config,
    kafka::{
        Connection,
        admin::Survey,
        reach::{Unreached, unreached},
    },
};

/// Tries each broker at the address that it advertises, and also at its address in `kafka.brokers` if the two differ.
pub fn look(config: &Config, survey: &Survey, findings: &mut Findings) {
    let connection = Connection::new(config);
    let advertised = survey.addresses();
    let given = connection.brokers().split(',');
    let other: Vec<&str> = given.filter(|broker| !advertised.contains(&plain(broker))).collect();
    let topic = &config.dead_letter.topic;
    let found = unreached(&connection, other.iter().copied().chain(advertised.iter().copied()), topic);
    for broker in &found {
        judge(broker, other.contains(&broker.address.as_str()), findings);
    }
    if found.is_empty() {
        findings.ok("brokers", format!("{} in the cluster, all reached: {}", advertised.len(), advertised.join(", ")));
    }
}

/// `[PROTOCOL://]host:port` without the protocol.
fn plain(broker: &str) -> &str {
    broker.split_once("://").map_or(broker, |(_, address)| address)
}

fn judge(broker: &Unreached, only_first: bool, findings: &mut Findings) {
    let (level, place) = match only_first {
        true => (Level::Warning, "of kafka.brokers does not let this bridge in, others do"),
        false => (
            Level::Error,
            "is in the cluster, and does not let this bridge in: the partitions that it leads cannot be written",
        ),
    };
    let Unreached { address, why, .. } = broker;
    findings.add(level, "brokers", format!("{address} {place}: {why}"), remedy(broker));
}

/// The remedy, chosen by the words of librdkafka's message, because its error codes are less precise.
fn remedy(Unreached { address, why, misnamed }: &Unreached) -> String {
    let host = plain(address).rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
    let has = |words: &[&str]| words.iter().any(|word| why.contains(word));
    if host.ends_with('.') && (*misnamed || why.contains("SSL")) {
        format!(
            "in TLS no name ends in a dot (RFC 6066, section 3): take that of {host} off the broker's advertised.listeners"
        )
    } else if *misnamed {
        format!(
            "its certificate does not name {host}: have one issued that does, or correct the broker's advertised.listeners"
        )
    } else if has(&["certificate verify failed", "Failed to verify broker certificate"]) {
        "is [kafka.client] \"ssl.ca.location\" the CA that signed its certificate, and is that still valid?".to_owned()
    } else if has(&[
        "client SSL authentication might be required",
        "alert certificate required",
        "alert bad certificate",
    ]) {
        "it wants a client's certificate of a CA that it knows: [kafka.client] \"ssl.certificate.location\" and \"ssl.key.location\"".to_owned()
    } else if has(&["OAUTHBEARER", "invalid_token"]) {
        "does this broker take tokens of this issuer, for this audience and with this scope? See [kafka.client] \"sasl.oauthbearer.scope\", and the broker's sasl.oauthbearer.expected.audience"
            .to_owned()
    } else if has(&["SASL", "uthentication"]) {
        "does this broker know the user? See [kafka.client] \"sasl.mechanism\", \"sasl.username\", \"sasl.password\""
            .to_owned()
    } else if has(&["security.protocol", "PLAINTEXT broker listener", "SSL handshake failed"]) {
        "does [kafka.client] \"security.protocol\" fit this broker's listener?".to_owned()
    } else if has(&["resolve"]) {
        format!("have {host} resolved here, or correct the broker's advertised.listeners")
    } else if has(&["refused"]) {
        "start it, or correct the broker's advertised.listeners".to_owned()
    } else {
        "open the way to it (a firewall may drop what goes there), or correct the broker's advertised.listeners"
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_remedy() {
        for (address, misnamed, why, words) in [
            ("kafka:9093", true, "SSL handshake failed: certificate verify failed", "does not name kafka:"),
            ("kafka:9093", false, "SSL routines::certificate verify failed", "\"ssl.ca.location\" the CA"),
            ("kafka.:9093", false, "SSL handshake failed: alert unrecognized name", "take that of kafka. off"),
            ("kafka.:9093", true, "certificate verify failed", "take that of kafka. off"),
            ("kafka.:9092", false, "Failed to resolve 'kafka.:9092'", "have kafka. resolved"),
            ("kafka:9093", false, "SSL handshake failed: sslv3 alert bad certificate", "\"ssl.certificate.location\""),
            (
                "kafka:9093",
                false,
                "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?",
                "fit",
            ),
            ("kafka:9093", false, "SASL authentication error: Authentication failed", "\"sasl.password\""),
            ("kafka:9093", false, "SASL authentication error: {\"status\":\"invalid_token\"}", "this issuer"),
            ("kafka:9092", false, "verify that security.protocol is correctly configured", "\"security.protocol\""),
            ("[::1]:9092", false, "Connect to ipv6#[::1]:9092 failed: Connection refused", "start it"),
            ("kafka:9092", false, "Local: Timed out", "open the way to it"),
        ] {
            let found = remedy(&Unreached { address: address.to_owned(), why: why.to_owned(), misnamed });
            assert!(found.contains(words), "{why}: {found}");
        }
    }
}
