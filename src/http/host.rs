//! The host that a request names (RFC 9112, section 3.2; RFC 9113, section 8.3.1). The bridge has one host only, but a
//! proxy in between could read another one than we do.

use hyper::{Version, header, http::request::Parts};

/// Is the host named once, well-formed, and in `host` as in the target?
pub fn is_clear(head: &Parts) -> bool {
    let mut named = head.headers.get_all(header::HOST).iter().map(header::HeaderValue::as_bytes);
    let target = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    match (named.next(), named.next(), target) {
        (_, Some(_), _) => false,
        (Some(host), None, Some(target)) => is_host(host) && is_host(target) && is_same(host, target),
        (Some(host), None, None) => is_host(host),
        (None, None, Some(target)) => is_host(target) && head.version != Version::HTTP_11,
        (None, None, None) => head.version < Version::HTTP_11,
    }
}

/// `uri-host [ ":" port ]`.
fn is_host(text: &[u8]) -> bool {
    let (name, port) = split(text);
    let is_name = match name {
        [b'[', inner @ .., b']'] => inner.iter().all(|byte| byte.is_ascii_hexdigit() || b":.vV".contains(byte)),
        name => name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte)),
    };
    is_name && port.iter().all(u8::is_ascii_digit)
}

fn is_same(one: &[u8], other: &[u8]) -> bool {
    let ((one, one_port), (other, other_port)) = (split(one), split(other));
    one.eq_ignore_ascii_case(other) && or_default(one_port) == or_default(other_port)
}

/// The port that a host without one means: all events come over TLS.
fn or_default(port: &[u8]) -> &[u8] {
    if port.is_empty() { b"443" } else { port }
}

/// The name, and the port without its colon.
fn split(text: &[u8]) -> (&[u8], &[u8]) {
    let after_name = match text {
        [b'[', ..] => text.iter().position(|byte| *byte == b']').map(|end| end + 1),
        _ => text.iter().position(|byte| *byte == b':'),
    };
    match after_name.and_then(|end| text.split_at_checked(end)) {
        Some((name, [b':', port @ ..])) => (name, port),
        _ => (text, b""),
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    #[test]
    fn a_host_is_named_once_and_the_same_in_both_places() {
        let long = ["a"; 2];
        for (version, target, hosts, clear) in [
            (Version::HTTP_11, "/", &["events.example:8443"][..], true),
            (Version::HTTP_11, "/", &["[2001:db8::1]:8443"], true),
            (Version::HTTP_11, "/", &["10.0.0.1"], true),
            (Version::HTTP_11, "/", &[], false),
            (Version::HTTP_11, "/", &long, false),
            (Version::HTTP_11, "/", &["a b"], false),
            (Version::HTTP_11, "/", &["user@a"], false),
            (Version::HTTP_11, "/", &["a:b"], false),
            (Version::HTTP_11, "/", &["a/b"], false),
            (Version::HTTP_11, "/", &["[::1"], false),
            (Version::HTTP_11, "/", &["[::1]x"], false),
            (Version::HTTP_11, "https://a/", &["A:443"], true),
            (Version::HTTP_11, "https://a/", &["b"], false),
            (Version::HTTP_11, "https://a/", &[], false),
            (Version::HTTP_10, "/", &[], true),
            (Version::HTTP_2, "https://a/", &[], true),
            (Version::HTTP_2, "https://a:8443/", &["a:8443"], true),
            (Version::HTTP_2, "https://a:8443/", &["a"], false),
            (Version::HTTP_2, "/", &["a"], true),
            (Version::HTTP_2, "/", &[], false),
        ] {
            let mut request = Request::builder().version(version).uri(target);
            for host in hosts {
                request = request.header("host", *host);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(is_clear(&head), clear, "{version:?} {target} {hosts:?}");
        }
    }
}
