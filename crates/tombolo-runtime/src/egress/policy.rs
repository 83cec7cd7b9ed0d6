//! Which addresses a function may reach: what a grant covers, and which addresses no wildcard or name ever does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tombolo_manifest::{HostPattern, HttpGrant};

/// Where a request wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) scheme: &'static str,
    /// Lower case; an IPv6 address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Why a request does not leave the node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the URL has no host, or one that is not valid")]
    Host,
    #[error("the scheme is neither http nor https")]
    Scheme,
    #[error("no grant covers {0}; `grants.http = [\"{0}\"]` in the manifest would")]
    NotGranted(String),
    #[error(
        "{host} has the {class} address {address}, which only a grant of the address itself allows"
    )]
    Address {
        host: String,
        address: IpAddr,
        class: &'static str,
    },
}

impl Destination {
    /// Reads the destination of a URL. A host that a lenient parser would take for an IPv4 address
    /// (decimal, octal, hexadecimal or shortened) is that address.
    pub(crate) fn of(uri: &http::Uri) -> Result<Self, Refusal> {
        let (scheme, default_port) = match uri.scheme_str() {
            Some("http") => ("http", 80),
            Some("https") => ("https", 443),
            _ => return Err(Refusal::Scheme),
        };
        let authority = uri.authority().ok_or(Refusal::Host)?;
        if authority.as_str().contains('@') {
            return Err(Refusal::Host);
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if host.is_empty() {
            return Err(Refusal::Host);
        }
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, port)) if !port.ends_with(']') => port.parse().map_err(|_| Refusal::Host)?,
            _ => default_port,
        };
        let host = lenient_ipv4(&host).map_or(host, |address| address.to_string());
        Ok(Self { scheme, host, port })
    }

    /// The destination's host, when it is an address.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Checks that some grant covers the destination; returns whether it names the address itself.
    pub(crate) fn check_granted(&self, grants: &[HttpGrant]) -> Result<bool, Refusal> {
        let mut covering = grants
            .iter()
            .filter(|grant| grant.allows(self.scheme, &self.host, self.port))
            .peekable();
        if covering.peek().is_none() {
            return Err(Refusal::NotGranted(self.origin()));
        }
        Ok(covering.any(|grant| matches!(grant.host, HostPattern::Address(_))))
    }

    /// Checks an address that the host has.
    pub(crate) fn check_address(&self, address: IpAddr) -> Result<(), Refusal> {
        match special(address) {
            Some(class) => Err(Refusal::Address {
                host: self.host.clone(),
                address,
                class,
            }),
            None => Ok(()),
        }
    }

    fn origin(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match (self.scheme, self.port) {
            ("http", 80) | ("https", 443) => format!("{}://{host}", self.scheme),
            _ => format!("{}://{host}:{}", self.scheme, self.port),
        }
    }
}

/// What kind of special-purpose address this is (IANA's registries of special-purpose addresses),
/// or `None` for an address of the public network.
pub(crate) fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    Some(match (a, b, c) {
        (127, ..) => "loopback",
        (0, ..) => "unspecified",
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => "private",
        (100, 64..=127, _) => "carrier NAT",
        (169, 254, _) => "link-local or metadata",
        (168, 63, 129) if address.octets() == [168, 63, 129, 16] => "metadata",
        (192, 0, 0) => "protocol assignment",
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => "documentation",
        (192, 88, 99) => "6to4 relay",
        (198, 18..=19, _) => "benchmarking",
        (224..=239, ..) => "multicast",
        (240..=255, ..) => "reserved",
        _ => return None,
    })
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    if let Some(inner) = embedded_v4(address) {
        return special_v4(inner);
    }
    Some(match segments {
        [0, 0, 0, 0, 0, 0, 0, 1] => "loopback",
        [0, 0, 0, 0, 0, 0, 0, 0] => "unspecified",
        // The rest of ::/8 carries embedded or reserved addresses.
        [0x0000..=0x00ff, ..] if segments != [0; 8] && !is_nat64(&segments) => "reserved",
        [0xfc00..=0xfdff, ..] => "private",
        [0xfe80..=0xfebf, ..] => "link-local",
        [0xfec0..=0xfeff, ..] => "site-local",
        [0xff00..=0xffff, ..] => "multicast",
        [0x2001, 0x0db8, ..] | [0x3fff, 0x0000..=0x0fff, ..] => "documentation",
        [0x2001, 0x0000..=0x01ff, ..] => "protocol assignment",
        [0x0100, 0, 0, 0, ..] => "discard-only",
        [0x5f00, ..] => "segment routing",
        _ => return None,
    })
}

fn is_nat64(segments: &[u16; 8]) -> bool {
    matches!(
        segments,
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..]
    )
}

/// The IPv4 address inside an IPv4-mapped, IPv4-compatible, NAT64 or 6to4 address.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let low = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0xffff, a, b] | [0, 0, 0, 0, 0xffff, 0, a, b] => Some(low(a, b)),
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0, a, b] => Some(low(a, b)),
        [0x64, 0xff9b, 0, 0, 0, 0, a, b] => Some(low(a, b)),
        // The local-use NAT64 prefix (RFC 8215): whatever the translator does with it is local.
        [0x64, 0xff9b, 1, ..] => Some(Ipv4Addr::UNSPECIFIED),
        [0x2002, a, b, ..] => Some(low(a, b)),
        _ => None,
    }
}

/// An IPv4 address in any spelling that `inet_aton` takes: one to four parts, decimal, octal or hexadecimal.
fn lenient_ipv4(host: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = host.split('.').map(number).collect::<Option<_>>()?;
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|part| *part > 255) {
        return None;
    }
    let bits = 8 * (4 - leading.len());
    if *last >= 1 << bits {
        return None;
    }
    let high = leading
        .iter()
        .enumerate()
        .map(|(place, part)| part << (24 - 8 * place))
        .sum::<u64>();
    u32::try_from(high + last).ok().map(Ipv4Addr::from)
}

fn number(part: &str) -> Option<u64> {
    let (digits, radix) = match part.strip_prefix("0x").or_else(|| part.strip_prefix("0X")) {
        Some("") => ("0", 16),
        Some(hex) => (hex, 16),
        None if part.len() > 1 && part.starts_with('0') => (part, 8),
        None => (part, 10),
    };
    digits
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric())
        .then_some(())?;
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(url: &str) -> Result<Destination, Refusal> {
        Destination::of(&url.parse::<http::Uri>().unwrap())
    }

    #[test]
    fn addresses_that_are_not_of_the_public_network_are_refused_in_every_spelling() {
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://0x7f.0.0.1/",
            "http://0x7f000001/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[64:ff9b:1::a00:1]/",
            "http://[2002:7f00:1::]/",
            "http://10.0.0.1/",
            "http://172.16.0.1/",
            "http://172.31.255.255/",
            "http://192.168.1.1/",
            "http://169.254.169.254/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://100.64.0.1/",
            "http://100.127.255.255/",
            "http://224.0.0.1/",
            "http://[ff02::1]/",
            "http://0.0.0.0/",
            "http://0/",
            "http://[::]/",
            "http://255.255.255.255/",
            "http://198.18.0.1/",
            "http://[::7f00:1]/",
            "http://192.0.0.192/",
            "http://168.63.129.16/",
            "http://127.0.0.1./",
        ] {
            let destination = destination(url).unwrap();
            let address = destination
                .address()
                .unwrap_or_else(|| panic!("{url} is not seen as an address"));
            assert!(destination.check_address(address).is_err(), "{url}");
        }
    }

    #[test]
    fn public_addresses_are_not_refused() {
        for url in [
            "http://8.8.8.8/",
            "https://[2606:4700::1111]/",
            "http://172.32.0.1/",
            "http://100.128.0.1/",
            "http://[64:ff9b::808:808]/",
        ] {
            let destination = destination(url).unwrap();
            assert_eq!(
                destination.check_address(destination.address().unwrap()),
                Ok(()),
                "{url}"
            );
        }
    }

    #[test]
    fn hosts_and_ports_are_read_exactly() {
        let read = |url| destination(url).map(|d| (d.scheme, d.host, d.port));
        assert_eq!(
            read("https://Weather.Example/x"),
            Ok(("https", "weather.example".into(), 443))
        );
        assert_eq!(
            read("http://a.example.:8080"),
            Ok(("http", "a.example".into(), 8080))
        );
        assert_eq!(
            read("http://[2001:DB8::1]:9"),
            Ok(("http", "2001:db8::1".into(), 9))
        );
        assert_eq!(
            read("http://granted.example@evil.example/"),
            Err(Refusal::Host)
        );
        assert_eq!(read("ftp://a.example/"), Err(Refusal::Scheme));
        assert_eq!(read("/relative"), Err(Refusal::Scheme));
    }

    #[test]
    fn only_a_grant_of_the_address_itself_opens_a_special_address() {
        let grants = |texts: &[&str]| {
            texts
                .iter()
                .map(|t| t.parse().unwrap())
                .collect::<Vec<HttpGrant>>()
        };
        let local = destination("http://127.0.0.1:9000/").unwrap();
        assert_eq!(
            local.check_granted(&grants(&["http://127.0.0.1:9000"])),
            Ok(true)
        );
        assert_eq!(local.check_granted(&grants(&["*"])), Ok(false));
        assert!(matches!(
            local.check_granted(&grants(&["http://127.0.0.1"])),
            Err(Refusal::NotGranted(_))
        ));
        let named = destination("https://api.example.com/").unwrap();
        assert_eq!(
            named.check_granted(&grants(&["https://*.example.com"])),
            Ok(false)
        );
        let refusal = named.check_granted(&[]).unwrap_err();
        assert!(
            refusal
                .to_string()
                .contains("grants.http = [\"https://api.example.com\"]")
        );
    }
}
