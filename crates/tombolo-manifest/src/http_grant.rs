//! Grants of outgoing HTTP: a scheme, a host pattern and a port, matched exactly.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::text::text_type;

/// An origin that requests may go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGrant {
    /// The scheme.
    pub scheme: Scheme,
    /// Which hosts. `Any` stands for every public host, with either scheme and on every port.
    pub host: HostPattern,
    /// The port.
    pub port: u16,
}

/// The scheme of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// The scheme as it is written in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of a URL that names none.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A set of hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Every public host.
    Any,
    /// One name, in lower case.
    Name(String),
    /// Every name below this one, but not the name itself; without the leading `*.`.
    Subdomains(String),
    /// One address.
    Address(IpAddr),
}

/// Why a text is no host, or no port.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HostError {
    #[error("a host name has 1 to 253 characters in labels of 1 to 63")]
    Length,
    #[error("a host name has letters, digits, hyphens and dots, not `{0}`")]
    Character(char),
    #[error("`{0}` is neither a name nor an address in its usual spelling")]
    Address(String),
    #[error("a wildcard stands in front, as in `*.example.com`")]
    Wildcard,
    #[error("an IPv6 address in brackets ends with `]`, and a port may follow")]
    Brackets,
    #[error("a port is a number from 1 to 65535")]
    Port,
}

impl FromStr for HostPattern {
    type Err = HostError;

    /// Reads a name, `*.name` or an address (IPv6 in brackets).
    fn from_str(text: &str) -> Result<Self, HostError> {
        if let Some(inner) = text.strip_prefix('[') {
            return inner
                .strip_suffix(']')
                .and_then(|inner| inner.parse::<Ipv6Addr>().ok())
                .map(|address| Self::Address(address.into()))
                .ok_or_else(|| HostError::Address(text.into()));
        }
        if let Some(suffix) = text.strip_prefix("*.") {
            return host_name(suffix).map(Self::Subdomains);
        }
        if text.contains('*') {
            return Err(HostError::Wildcard);
        }
        match text.parse() {
            Ok(address @ IpAddr::V4(_)) => Ok(Self::Address(address)),
            _ => host_name(text).map(Self::Name),
        }
    }
}

/// A host name in lower case. A last label that begins with a digit makes it an address for
/// some resolvers (`127.1`, `0x7f000001`; WHATWG URL, "ends in a number"), so it is refused.
fn host_name(text: &str) -> Result<String, HostError> {
    if let Some(bad) = text
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
    {
        return Err(match bad {
            '*' => HostError::Wildcard,
            bad => HostError::Character(bad),
        });
    }
    if text.len() > 253
        || text
            .split('.')
            .any(|label| label.is_empty() || label.len() > 63)
    {
        return Err(HostError::Length);
    }
    let last = text.rsplit('.').next().unwrap_or_default();
    if last.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(HostError::Address(text.into()));
    }
    Ok(text.to_ascii_lowercase())
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Name(name) => f.write_str(name),
            Self::Subdomains(suffix) => write!(f, "*.{suffix}"),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl HostPattern {
    /// Whether a host is in the set. The host is in lower case, an IPv6 address without brackets.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Name(name) => host == name,
            Self::Subdomains(suffix) => host
                .strip_suffix(suffix.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|below| below.split('.').all(|label| !label.is_empty())),
            Self::Address(address) => host.parse() == Ok(*address),
        }
    }
}

/// Host and port of `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`, as text.
pub(crate) fn split_authority(text: &str) -> Result<(&str, Option<&str>), HostError> {
    if text.starts_with('[') {
        let end = text.find(']').ok_or(HostError::Brackets)?;
        let (host, rest) = text.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(HostError::Brackets),
        };
    }
    Ok(match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    })
}

pub(crate) fn parse_port(digits: &str) -> Result<u16, HostError> {
    Some(digits)
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .filter(|port| *port != 0)
        .ok_or(HostError::Port)
}

/// Why a text is no origin.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HttpGrantError {
    #[error("an origin begins with `http://` or `https://`")]
    Scheme,
    #[error("an origin has a scheme, a host and a port, but no path, query or user")]
    Path,
    #[error(transparent)]
    Host(#[from] HostError),
}

impl FromStr for HttpGrant {
    type Err = HttpGrantError;

    fn from_str(text: &str) -> Result<Self, HttpGrantError> {
        if text == "*" {
            return Ok(Self {
                scheme: Scheme::Https,
                host: HostPattern::Any,
                port: Scheme::Https.default_port(),
            });
        }
        let (scheme, authority) = match text.split_once("://") {
            Some(("http", authority)) => (Scheme::Http, authority),
            Some(("https", authority)) => (Scheme::Https, authority),
            _ => return Err(HttpGrantError::Scheme),
        };
        if authority.contains(['/', '?', '#', '@', '\\']) {
            return Err(HttpGrantError::Path);
        }
        let (host, port) = split_authority(authority)?;
        let port = match port {
            Some(digits) => parse_port(digits)?,
            None => scheme.default_port(),
        };
        Ok(Self {
            scheme,
            host: host.parse()?,
            port,
        })
    }
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host == HostPattern::Any {
            return f.write_str("*");
        }
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port != self.scheme.default_port() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

text_type!(HttpGrant, "http-grant");

impl HttpGrant {
    /// Whether a request to this origin is granted. The scheme and the host are in ASCII lower
    /// case, an IPv6 address is without brackets; whatever is spelt otherwise is not granted.
    pub fn allows(&self, scheme: &str, host: &str, port: u16) -> bool {
        match &self.host {
            HostPattern::Any => matches!(scheme, "http" | "https"),
            host_pattern => {
                scheme == self.scheme.as_str() && port == self.port && host_pattern.matches(host)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(text: &str) -> HttpGrant {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_is_matched_exactly() {
        let weather = grant("https://Weather.Example");
        assert!(weather.allows("https", "weather.example", 443));
        for (scheme, host, port) in [
            ("http", "weather.example", 443),
            ("http", "weather.example", 80),
            ("https", "weather.example", 8443),
            ("https", "weather.example.", 443),
            ("https", "WEATHER.EXAMPLE", 443),
            ("https", "a.weather.example", 443),
            ("https", "notweather.example", 443),
            ("https", "weather.example.evil.example", 443),
            ("https", "", 443),
            ("HTTPS", "weather.example", 443),
        ] {
            assert!(
                !weather.allows(scheme, host, port),
                "{scheme} {host} {port}"
            );
        }
    }

    #[test]
    fn the_port_is_the_schemes_unless_it_is_named() {
        assert!(grant("http://a.example").allows("http", "a.example", 80));
        assert!(grant("https://a.example:8443").allows("https", "a.example", 8443));
        assert!(!grant("https://a.example:8443").allows("https", "a.example", 443));
        assert_eq!(
            grant("https://a.example:443").to_string(),
            "https://a.example"
        );
    }

    #[test]
    fn a_wildcard_matches_what_is_below_and_not_the_apex() {
        let below = grant("https://*.example.com");
        assert!(below.allows("https", "a.example.com", 443));
        assert!(below.allows("https", "b.a.example.com", 443));
        for host in [
            "example.com",
            ".example.com",
            "aexample.com",
            "a..example.com",
            "a.example.com.",
            "*.com",
        ] {
            assert!(!below.allows("https", host, 443), "{host}");
        }
    }

    #[test]
    fn an_address_matches_only_itself() {
        let loopback = grant("http://127.0.0.1:9000");
        assert!(loopback.allows("http", "127.0.0.1", 9000));
        for host in [
            "127.0.0.2",
            "localhost",
            "::1",
            "::ffff:127.0.0.1",
            "127.1",
            "0x7f000001",
            "2130706433",
        ] {
            assert!(!loopback.allows("http", host, 9000), "{host}");
        }
        assert!(grant("http://[::1]").allows("http", "0:0:0:0:0:0:0:1", 80));
        assert!(!grant("http://[::1]").allows("http", "127.0.0.1", 80));
    }

    #[test]
    fn a_star_is_any_host() {
        assert!(grant("*").allows("http", "a.example", 8080));
        assert!(!grant("*").allows("ftp", "a.example", 21));
        assert_eq!(grant("*").to_string(), "*");
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for bad in [
            "",
            "https://",
            "weather.example",
            "ftp://a.example",
            "https://a.example/",
            "https://u@a.example",
            "https://a.example:0",
            "https://a.example:",
            "https://a.example:+1",
            "https://a..example",
            "https://*",
            "https://*.",
            "https://a*.example",
            "https://127.1",
            "https://0x7f.1",
            "https://2130706433",
            "https://::1",
            "https://[::1",
            "https://[127.0.0.1]",
            "https://[::1]x",
            "https://straße.example",
            "https://*.10.0.0.1",
            "HTTPS://a.example",
        ] {
            assert!(bad.parse::<HttpGrant>().is_err(), "{bad}");
        }
    }
}
