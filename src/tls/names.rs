//! A certificate's names beside those of the allow-list.

use x509_parser::prelude::{GeneralName, X509Certificate};

use crate::config::ClientName;

/// The name by which `certificate` is `name`, in the form of the configuration.
pub(super) fn matching(name: &ClientName, certificate: &X509Certificate<'_>, subject: &str) -> Option<String> {
    let alternative = |wanted: &dyn Fn(&GeneralName<'_>) -> bool| {
        let names = certificate.subject_alternative_name().ok().flatten();
        names.is_some_and(|names| names.value.general_names.iter().any(wanted))
    };
    match name {
        ClientName::Any => Some(format!("subject:{subject}")),
        ClientName::Dns(dns) => {
            alternative(&|name| matches!(name, GeneralName::DNSName(found) if found.eq_ignore_ascii_case(dns)))
                .then(|| format!("dns:{dns}"))
        }
        ClientName::Uri(uri) => {
            alternative(&|name| matches!(name, GeneralName::URI(found) if found == uri)).then(|| format!("uri:{uri}"))
        }
        ClientName::CommonName(cn) => {
            let found = certificate.subject().iter_common_name().any(|found| found.as_str() == Ok(cn));
            found.then(|| format!("cn:{cn}"))
        }
        ClientName::Subject(wanted) => same_name(wanted, &rfc4514(certificate)).then(|| format!("subject:{wanted}")),
    }
}

/// RFC 4514 writes a name's parts in reverse order, most specific first.
fn rfc4514(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut parts: Vec<String> = certificate
        .subject()
        .iter_rdn()
        .map(|rdn| {
            let attributes = rdn.iter().map(|attribute| {
                let kind =
                    x509_parser::objects::oid2abbrev(attribute.attr_type(), x509_parser::objects::oid_registry());
                let kind = kind.map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
                format!("{kind}={}", escape(attribute.as_str().unwrap_or_default()))
            });
            attributes.collect::<Vec<_>>().join("+")
        })
        .collect();
    parts.reverse();
    parts
}

/// RFC 4514, section 2.4.
fn escape(value: &str) -> String {
    let mut escaped = String::new();
    let last = value.chars().count().saturating_sub(1);
    for (position, c) in value.chars().enumerate() {
        let edge = position == 0 && matches!(c, '#' | ' ') || position == last && c == ' ';
        if edge || matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Compares a written name with a certificate's parts: white space around the separators does not count, nor does the case of types.
fn same_name(written: &str, parts: &[String]) -> bool {
    let written = split_name(written);
    written.len() == parts.len()
        && written.iter().zip(parts).all(|(a, b)| match (a.split_once('='), b.split_once('=')) {
            (Some((a_kind, a)), Some((b_kind, b))) => a_kind.trim().eq_ignore_ascii_case(b_kind) && a.trim() == b,
            _ => false,
        })
}

/// Splits at commas that no backslash escapes.
fn split_name(written: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in written.chars() {
        if c == ',' && !escaped {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    parts.iter().map(|part| part.trim_start().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use x509_parser::prelude::FromDer;

    use super::*;

    fn certificate(names: rcgen::DistinguishedName, alternatives: Vec<rcgen::SanType>) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = names;
        params.subject_alt_names = alternatives;
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_sender_is_known_by_any_of_its_names() {
        let mut names = rcgen::DistinguishedName::new();
        names.push(rcgen::DnType::CountryName, "US");
        names.push(rcgen::DnType::OrganizationName, "ASAPP, Inc.");
        names.push(rcgen::DnType::CommonName, "sender-7");
        let leaf = certificate(
            names,
            vec![
                rcgen::SanType::DnsName("Sender.asapp.example".try_into().unwrap()),
                rcgen::SanType::URI("spiffe://asapp/sender".try_into().unwrap()),
            ],
        );
        let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
        for (name, expected) in [
            (ClientName::Any, true),
            (ClientName::Dns("sender.asapp.example".into()), true),
            (ClientName::Dns("asapp.example".into()), false),
            (ClientName::Uri("spiffe://asapp/sender".into()), true),
            (ClientName::Uri("spiffe://asapp".into()), false),
            (ClientName::CommonName("sender-7".into()), true),
            (ClientName::CommonName("sender".into()), false),
            (ClientName::Subject("CN=sender-7,O=ASAPP\\, Inc.,C=US".into()), true),
            (ClientName::Subject("cn=sender-7, o=ASAPP\\, Inc., c=US".into()), true),
            (ClientName::Subject("CN=sender-7".into()), false),
        ] {
            assert_eq!(matching(&name, &parsed, "").is_some(), expected, "{name:?}");
        }
    }
}
