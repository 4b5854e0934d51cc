//! The comparison of a certificate's names with the allow-list, and their form in the log.

use x509_parser::{
    asn1_rs::{Any, Tag, ToDer},
    prelude::{AttributeTypeAndValue, FromDer, GeneralName, X509Certificate, X509Name},
};

use crate::config::{Attribute, AttributeValue, ClientName, Subject, short_name};

/// How much of a subject is told, in the log and beside dead letters: its sender chose it.
const SUBJECT_BYTES_MAX: usize = 256;

/// A certificate's subject, as [`written`].
pub(super) fn subject(certificate: &X509Certificate<'_>) -> String {
    written(certificate.subject())
}

/// A name by RFC 4514, to the letter as `openssl x509 -subject -nameopt RFC2253` prints it and `subject:` of the
/// configuration reads it: the log's can be copied to there. Cut where it is too long to be told.
pub(super) fn written(name: &X509Name<'_>) -> String {
    let mut written = String::new();
    let parts: Vec<Vec<_>> = name.iter_rdn().map(|part| part.iter().collect()).collect();
    for (place, part) in parts.iter().rev().enumerate() {
        for (within, attribute) in part.iter().rev().enumerate() {
            let separator = match (place, within) {
                (0, 0) => "",
                (_, 0) => ",",
                _ => "+",
            };
            let oid = attribute.attr_type().to_id_string();
            let known = short_name(&oid);
            let value = known.and_then(|_| Some(escaped(&text(attribute)?))).unwrap_or_else(|| dumped(attribute));
            let begin = format!("{separator}{}=", known.unwrap_or(&oid));
            for unit in std::iter::once(begin).chain(value) {
                if written.len() + unit.len() > SUBJECT_BYTES_MAX {
                    return written;
                }
                written.push_str(&unit);
            }
        }
    }
    written
}

/// A value's characters, those that stand for something else in a name (RFC 4514, section 2.4) and all but ASCII's
/// printable ones escaped.
fn escaped(text: &str) -> Vec<String> {
    let last = text.chars().count().saturating_sub(1);
    let escape = |(at, c): (usize, char)| match c {
        ',' | '+' | '"' | '\\' | '<' | '>' | ';' => format!("\\{c}"),
        '#' if at == 0 => "\\#".to_owned(),
        ' ' if at == 0 || at == last => "\\ ".to_owned(),
        ' '..='~' => c.to_string(),
        _ => c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("\\{byte:02X}")).collect(),
    };
    text.chars().enumerate().map(escape).collect()
}

/// A value in DER behind a `#`: of a type without a name, or no text.
fn dumped(attribute: &AttributeTypeAndValue<'_>) -> Vec<String> {
    let der = attribute.attr_value().to_der_vec().unwrap_or_default();
    std::iter::once("#".to_owned()).chain(der.iter().map(|byte| format!("{byte:02X}"))).collect()
}

/// The name by which `certificate` is `name`, in the form of the configuration.
pub(super) fn matching(name: &ClientName, certificate: &X509Certificate<'_>) -> Option<String> {
    let alternative = |wanted: &dyn Fn(&GeneralName<'_>) -> bool| {
        let names = certificate.subject_alternative_name().ok().flatten();
        names.is_some_and(|names| names.value.general_names.iter().any(wanted))
    };
    match name {
        ClientName::Any => Some(format!("subject:{}", subject(certificate))),
        ClientName::Dns(dns) => {
            alternative(&|name| matches!(name, GeneralName::DNSName(found) if found.eq_ignore_ascii_case(dns)))
                .then(|| format!("dns:{dns}"))
        }
        ClientName::Uri(uri) => {
            alternative(&|name| matches!(name, GeneralName::URI(found) if found == uri)).then(|| format!("uri:{uri}"))
        }
        ClientName::CommonName(cn) => {
            let found = certificate.subject().iter_common_name().any(|found| text(found).as_ref() == Some(cn));
            found.then(|| format!("cn:{cn}"))
        }
        ClientName::Subject(wanted) => same_name(wanted, certificate.subject()).then(|| format!("subject:{wanted}")),
    }
}

/// Each part has the same attributes. A certificate has the most general one first.
fn same_name(wanted: &Subject, name: &X509Name<'_>) -> bool {
    let found: Vec<Vec<_>> = name.iter_rdn().map(|part| part.iter().collect()).collect();
    wanted.parts.len() == found.len()
        && wanted.parts.iter().zip(found.iter().rev()).all(|(wanted, found)| {
            // A set: its order says nothing.
            wanted.len() == found.len() && wanted.iter().all(|one| found.iter().any(|other| same_attribute(one, other)))
        })
}

fn same_attribute(wanted: &Attribute, found: &AttributeTypeAndValue<'_>) -> bool {
    found.attr_type().to_id_string() == wanted.oid
        && match &wanted.value {
            AttributeValue::Text(wanted) => text(found).is_some_and(|found| found.as_bytes() == wanted),
            AttributeValue::Der(wanted) => Any::from_der(wanted).is_ok_and(|(rest, wanted)| {
                let found = found.attr_value();
                rest.is_empty() && wanted.tag() == found.tag() && wanted.as_bytes() == found.as_bytes()
            }),
        }
}

/// The value where it is text: of the older kinds, as OpenSSL reads them.
fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let bytes = attribute.as_slice();
    match attribute.attr_value().tag() {
        Tag::T61String => Some(bytes.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let units = bytes.as_chunks().0.iter().copied().map(u16::from_be_bytes);
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        Tag::UniversalString => {
            let chars = bytes.as_chunks().0.iter().copied().map(|four| char::from_u32(u32::from_be_bytes(four)));
            chars.collect()
        }
        _ => attribute.as_str().ok().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, pem::PemObject};

    use super::*;

    /// As the configuration reads it.
    fn subject(text: &str) -> ClientName {
        let names = toml::Value::try_from([format!("subject:{text}")]).unwrap();
        let config = crate::config::from_toml(&format!("[ingress.tls]\nclient_names = {names}\n")).unwrap();
        config.ingress.tls.client_names[0].clone()
    }

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
            (subject("CN=sender-7,O=ASAPP\\, Inc.,C=US"), true),
            (subject("cn=sender-7, o=ASAPP\\2C Inc., c=US"), true),
            (subject("CN=sender-7"), false),
        ] {
            assert_eq!(matching(&name, &parsed).is_some(), expected, "{name:?}");
        }
    }

    #[test]
    fn a_subject_is_told_up_to_256_bytes_and_compared_whole() {
        let long = "é".repeat(400);
        let mut names = rcgen::DistinguishedName::new();
        names.push(rcgen::DnType::CommonName, long.as_str());
        let leaf = certificate(names, Vec::new());
        let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
        let told = super::subject(&parsed);
        // `CN=`, and no part of a letter that goes over the limit.
        assert_eq!(told, format!("CN={}", "\\C3\\A9".repeat(42)));
        assert_eq!(matching(&ClientName::Any, &parsed), Some(format!("subject:{told}")));
        assert!(matching(&subject(&format!("CN={long}")), &parsed).is_some());
        assert!(matching(&subject(&told), &parsed).is_none());
    }

    /// The output of `openssl x509 -subject -nameopt RFC2253`: each certificate below its subject.
    const PRINTED: &str = include_str!("../../tests/data/subjects.pem");

    #[test]
    fn a_subject_is_written_as_openssl_prints_it() {
        let certificates = CertificateDer::pem_slice_iter(PRINTED.as_bytes()).map(Result::unwrap).collect::<Vec<_>>();
        let subjects = PRINTED.lines().filter_map(|line| line.strip_prefix("subject=")).collect::<Vec<_>>();
        assert_eq!((certificates.len(), subjects.len()), (9, 9));
        for (at, written) in subjects.iter().enumerate() {
            for (other, der) in certificates.iter().enumerate() {
                let (_, parsed) = X509Certificate::from_der(der).unwrap();
                assert_eq!(matching(&subject(written), &parsed).is_some(), at == other, "{written} beside {other}");
            }
            let (_, parsed) = X509Certificate::from_der(&certificates[at]).unwrap();
            assert!(matching(&subject(&format!("{written},O=more")), &parsed).is_none(), "{written}");
            assert_eq!(super::subject(&parsed), *written, "and told like that");
        }
    }

    #[test]
    fn a_common_name_is_read_whatever_kind_of_string_it_is() {
        let mut read = 0;
        for der in CertificateDer::pem_slice_iter(PRINTED.as_bytes()).map(Result::unwrap) {
            let (_, parsed) = X509Certificate::from_der(&der).unwrap();
            // UTF8String, BMPString, T61String, UniversalString.
            for cn in ["日本", "Zürich 日本", "Zürich", "sender-ü 7"] {
                read += usize::from(matching(&ClientName::CommonName(cn.into()), &parsed).is_some());
            }
        }
        assert_eq!(read, 4);
    }
}
