//! librdkafka's objections to the properties of `[kafka.client]`: to each by itself, then to all of them together.

use std::collections::BTreeMap;

use rdkafka::{
    ClientConfig, ClientContext,
    client::Client,
    config::RDKafkaLogLevel,
    error::KafkaError,
    types::{RDKafkaConfRes, RDKafkaType},
};

use crate::config::PropertyFault;

const SEE: &str = "see librdkafka's CONFIGURATION.md";

/// Finds every fault that shows without a broker. The files of `ssl.*.location` are not read, as they may change.
pub fn property_faults(properties: &BTreeMap<String, String>) -> Vec<PropertyFault> {
    let each = properties.iter().filter_map(|(name, value)| Some((name, fault(name, value)?)));
    let each: Vec<_> =
        each.map(|(name, what)| PropertyFault { name: name.clone(), what: what.to_owned(), remedy: SEE }).collect();
    if each.is_empty() { together(properties) } else { each }
}

/// The fault of one property, in our words: librdkafka's own would repeat the value, which may be a secret.
fn fault(name: &str, value: &str) -> Option<&'static str> {
    match take(name, value) {
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            Some("librdkafka does not know this property")
        }
        Err(_) => Some("librdkafka does not take this value for the property"),
        // A property that also takes the text "x" is text, and a number in it is not cut off.
        Ok(()) if is_beyond_32_bits(value) && take(name, "x").is_err() => {
            Some("librdkafka cuts off what a number has beyond 32 bits")
        }
        Ok(()) => None,
    }
}

fn take(name: &str, value: &str) -> Result<(), KafkaError> {
    ClientConfig::new().set(name, value).create_native_config().map(drop)
}

/// Whether the value begins with a number beyond 32 bits, in any of the forms that C knows.
fn is_beyond_32_bits(value: &str) -> bool {
    let value = value.trim_start();
    let unsigned = value.trim_start_matches(['+', '-']);
    let hex = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X"));
    let (radix, digits) = match (hex, unsigned.strip_prefix('0')) {
        (Some(digits), _) => (16, digits),
        (None, Some(digits)) => (8, digits),
        (None, None) => (10, unsigned),
    };
    let digits: String = digits.chars().take_while(|c| c.is_digit(radix)).collect();
    !digits.is_empty() && i32::from_str_radix(&digits, radix).is_err()
}

/// The context of a client that logs nothing, as each error becomes a fault.
struct Silent;

impl ClientContext for Silent {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

/// Finds faults of the properties together: a misspelt mechanism, one without its password, unknown ciphers. librdkafka
/// reports those only when a client is made, and one at a time. So this tries SASL first, then TLS alone.
fn together(properties: &BTreeMap<String, String>) -> Vec<PropertyFault> {
    let mut given = properties.clone();
    given.retain(|name, _| !name.ends_with(".location"));
    let mut faults: Vec<_> = refusal(&given).into_iter().collect();
    let protocol = given.get("security.protocol").map(|protocol| protocol.to_ascii_lowercase());
    if faults.iter().any(|fault| fault.name.starts_with("sasl.")) && protocol.as_deref() == Some("sasl_ssl") {
        given.retain(|name, _| !name.starts_with("sasl."));
        given.insert("security.protocol".to_owned(), "ssl".to_owned());
        faults.extend(refusal(&given));
    }
    faults
}

/// librdkafka's refusal to make a client of these properties.
fn refusal(properties: &BTreeMap<String, String>) -> Option<PropertyFault> {
    if properties.is_empty() {
        return None;
    }
    let mut client = ClientConfig::new();
    client.extend(properties.clone());
    let native = client.create_native_config().ok()?;
    let error = Client::new(&client, native, RDKafkaType::RD_KAFKA_PRODUCER, Silent).err()?;
    let what = match &error {
        KafkaError::ClientCreation(why) => why.clone(),
        other => other.to_string(),
    };
    let mechanism = || ["sasl.mechanism", "sasl.mechanisms"].into_iter().find(|name| properties.contains_key(*name));
    let (name, remedy) = if what.contains("SASL mechanism") {
        (mechanism(), "write PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER")
    } else if what.contains("sasl.username") {
        (mechanism(), "give sasl.username, and sasl.password_file or sasl.password, or another mechanism")
    } else {
        let named = properties.keys().map(String::as_str).filter(|name| what.contains(*name));
        (named.max_by_key(|name| name.len()), SEE)
    };
    Some(PropertyFault { name: name.unwrap_or_default().to_owned(), what, remedy })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(properties: &[(&str, &str)]) -> Vec<(String, String)> {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        property_faults(&properties).into_iter().map(|fault| (fault.name, fault.what)).collect()
    }

    #[test]
    fn a_number_beyond_32_bits_is_refused_where_a_number_is_meant() {
        for number in
            ["4294967296", "2147483648", "0x1ffffffff", "040000000000", "-9999999999", "+4295967296", " 4295967296B"]
        {
            let found = faults(&[("queue.buffering.max.kbytes", number)]);
            assert_eq!(found.len(), 1, "{number}: {found:?}");
            assert_eq!(faults(&[("sasl.username", number)]), [], "{number}");
        }
        for number in ["2147483647", "0x7fffffff", "017777777777"] {
            assert_eq!(
                faults(&[("message.copy.max.bytes", "65535"), ("socket.send.buffer.bytes", "65535")]),
                [],
                "{number}"
            );
        }
    }

    #[test]
    fn what_librdkafka_refuses_at_its_start_has_its_property() {
        for (properties, name, words) in [
            (
                &[("security.protocol", "sasl_ssl"), ("sasl.mechanism", "SCRAM-SHA512")][..],
                "sasl.mechanism",
                "SCRAM-SHA512",
            ),
            (
                &[("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanisms", "PLAIN")],
                "sasl.mechanisms",
                "sasl.password",
            ),
            (
                &[
                    ("security.protocol", "sasl_plaintext"),
                    ("sasl.mechanism", "SCRAM-SHA-512"),
                    ("sasl.username", "me"),
                ],
                "sasl.mechanism",
                "sasl.password",
            ),
            (
                &[("security.protocol", "ssl"), ("ssl.cipher.suites", "NOT-A-CIPHER")],
                "ssl.cipher.suites",
                "ssl.cipher.suites",
            ),
            (&[("security.protocol", "ssl"), ("ssl.curves.list", "no-curve")], "ssl.curves.list", "ssl.curves.list"),
        ] {
            let found = faults(properties);
            assert!(found.len() == 1 && found[0].0 == name && found[0].1.contains(words), "{properties:?}: {found:?}");
        }
    }

    #[test]
    fn sasl_and_tls_are_told_together() {
        let properties =
            [("security.protocol", "SASL_SSL"), ("sasl.mechanism", "PLIAN"), ("ssl.cipher.suites", "NOT-A-CIPHER")];
        let names: Vec<_> = faults(&properties).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["sasl.mechanism", "ssl.cipher.suites"]);
    }

    #[test]
    fn what_is_right_is_taken() {
        let scram = [
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "a"),
            ("sasl.password", "b"),
        ];
        assert_eq!(faults(&scram), []);
        assert_eq!(faults(&[]), []);
    }
}
