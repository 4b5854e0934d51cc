//! The choice of the proxy to a server, by the environment variables that curl reads, as curl reads them.

use std::net::IpAddr;

use ureq::{Proxy, http::Uri};

/// A proxy, and the variable that names it.
#[derive(Debug, Clone)]
pub(super) struct Through {
    pub proxy: Proxy,
    pub variable: &'static str,
}

/// `HTTP_PROXY` in capitals is missing here: in a CGI program, a client can set it by a header.
const HTTP: &[&str] = &["http_proxy", "all_proxy", "ALL_PROXY"];
const HTTPS: &[&str] = &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const NONE: &[&str] = &["no_proxy", "NO_PROXY"];

/// The proxy for `url`, if there is one. The error names the variable that holds none; not its value, which may hold a
/// password.
pub(super) fn of(url: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Through>, String> {
    let Some(target) = Target::of(url) else { return Ok(None) };
    let given = |names: &[&'static str]| {
        names.iter().find_map(|name| Some((*name, variable(name).filter(|value| !value.trim().is_empty())?)))
    };
    let Some((variable, proxy)) = given(if target.tls { HTTPS } else { HTTP }) else { return Ok(None) };
    if given(NONE).is_some_and(|(_, list)| target.is_in(&list)) {
        return Ok(None);
    }
    let proxy = Proxy::new(proxy.trim()).map_err(|_| format!("{variable} holds no proxy's address"))?;
    Ok(Some(Through { proxy, variable }))
}

impl std::fmt::Display for Through {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, " through the proxy {}:{} of {}", self.proxy.host(), self.proxy.port(), self.variable)
    }
}

/// Where a request goes.
struct Target {
    tls: bool,
    host: String,
    port: u16,
}

impl Target {
    fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let tls = uri.scheme_str()?.eq_ignore_ascii_case("https");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Some(Self { tls, host: bare(uri.host()?), port })
    }

    /// Whether a list of hosts, addresses and networks has it. Commas or blanks stand between them.
    fn is_in(&self, list: &str) -> bool {
        let mut entries = list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty());
        entries.any(|entry| entry == "*" || self.is(entry))
    }

    fn is(&self, entry: &str) -> bool {
        let (entry, port) = split_port(entry);
        if port.is_some_and(|port| port != self.port) {
            return false;
        }
        match (self.host.parse::<IpAddr>(), entry.split_once('/')) {
            (Ok(address), Some((network, bits))) => is_within(address, network, bits),
            (Ok(address), None) => bare(entry).parse() == Ok(address),
            (Err(_), _) => {
                let name = bare(entry.trim_start_matches("*.").trim_start_matches('.'));
                let before = self.host.strip_suffix(&name);
                !name.is_empty() && before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
        }
    }
}

/// Without the brackets of an IPv6 address, the dot at a name's end, and capitals.
fn bare(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase()
}

/// `host:port` or `[v6]:port`; an IPv6 address without brackets has no port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

fn is_within(address: IpAddr, network: &str, bits: &str) -> bool {
    let Ok(bits) = bits.parse::<u32>() else { return false };
    match (address, bare(network).parse()) {
        (IpAddr::V4(address), Ok(IpAddr::V4(network))) if bits <= 32 => {
            let differs = address.to_bits() ^ network.to_bits();
            differs.checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(address), Ok(IpAddr::V6(network))) if bits <= 128 => {
            let differs = address.to_bits() ^ network.to_bits();
            differs.checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(url: &str, variables: &[(&str, &str)]) -> Option<String> {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        of(url, &variable).unwrap().map(|through| through.to_string().trim().to_owned())
    }

    #[test]
    fn each_scheme_has_its_variables() {
        let all = [("http_proxy", "http://a:1"), ("HTTPS_PROXY", "b:2"), ("all_proxy", "http://c:3")];
        assert_eq!(through("http://r", &all).unwrap(), "through the proxy a:1 of http_proxy");
        assert_eq!(through("https://r", &all).unwrap(), "through the proxy b:2 of HTTPS_PROXY");
        assert_eq!(through("http://r", &all[1..]).unwrap(), "through the proxy c:3 of all_proxy");
        assert_eq!(through("http://r", &all[1..2]), None);
        assert_eq!(through("https://r", &all[..1]), None);
        let capitals = [("HTTP_PROXY", "http://a:1")];
        assert_eq!(through("http://r", &capitals), None);
        let small_first = [("https_proxy", "d:4"), ("HTTPS_PROXY", "b:2")];
        assert_eq!(through("https://r", &small_first).unwrap(), "through the proxy d:4 of https_proxy");
        assert_eq!(
            through("https://r", &[("https_proxy", " "), ("HTTPS_PROXY", "b:2")]).unwrap(),
            "through the proxy b:2 of HTTPS_PROXY"
        );
    }

    #[test]
    fn no_proxy_names_hosts_domains_ports_addresses_and_networks() {
        for (url, list, direct) in [
            ("http://registry:8081", "registry", true),
            ("http://registry:8081", "a, registry ,b", true),
            ("http://registry:8081", "a registry", true),
            ("http://Registry.Example.", "example", true),
            ("http://registry.example", ".example", true),
            ("http://registry.example", "*.example", true),
            ("http://registry.example", "example.", true),
            ("http://notexample", "example", false),
            ("http://registry.example.org", "example", false),
            ("http://registry:8081", "registry:8081", true),
            ("http://registry:8081", "registry:8080", false),
            ("http://registry", "registry:80", true),
            ("http://registry", "*", true),
            ("http://10.1.2.3:8081", "10.0.0.0/8", true),
            ("http://10.1.2.3", "10.1.2.0/24,11.0.0.0/8", true),
            ("http://10.1.3.3", "10.1.2.0/24", false),
            ("http://10.1.2.3", "0.0.0.0/0", true),
            ("http://10.1.2.3", "10.1.2.3", true),
            ("http://10.1.2.3", "2.3", false),
            ("http://[fd00::1]:8081", "fd00::/8", true),
            ("http://[fd00::1]:8081", "fd00::1", true),
            ("http://[fd00::1]:8081", "[fd00::1]:8081", true),
            ("http://[fd00::1]:8081", "fe80::/10", false),
            ("http://registry", "", false),
            ("http://registry", "10.0.0.0/99, /, :, .", false),
        ] {
            let found = through(url, &[("http_proxy", "http://proxy:3128"), ("no_proxy", list)]);
            assert_eq!(found.is_none(), direct, "{url} by {list:?}: {found:?}");
        }
        assert_eq!(through("http://registry", &[("http_proxy", "http://p:1"), ("NO_PROXY", "registry")]), None);
    }

    #[test]
    fn a_variable_without_an_address_is_named_and_not_shown() {
        let error =
            of("https://r", &|name| (name == "https_proxy").then(|| "ftp://me:sesame@x".to_owned())).unwrap_err();
        assert_eq!(error, "https_proxy holds no proxy's address");
        let shown = through("https://r", &[("https_proxy", "http://me:sesame@x:1")]).unwrap();
        assert_eq!(shown, "through the proxy x:1 of https_proxy");
    }
}
