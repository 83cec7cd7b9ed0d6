//! The model of `[mqtt]` in `node.toml`: the node's own MQTT broker.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::text_type;
use crate::text::{self, AddressText, BrokerTopicsText, DurationText, PathText, SizeText};
use crate::topic::{TopicFilter, TopicFilterError};

/// The node's own MQTT broker. Without listeners only functions publish to its topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// The addresses that clients connect to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub listeners: Vec<BrokerListener>,
    /// Who may connect with a password.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100_000))]
    pub users: Vec<BrokerUser>,
    /// What clients may do. What no rule allows is refused; without rules that is everything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10_000))]
    pub rules: Vec<BrokerRule>,
    /// Authorities, in PEM, that the `mqtts` brokers elsewhere may have their certificates from, besides the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PathText>")]
    pub remote_authorities: Option<PathBuf>,
    /// Most connections at once; one more is closed.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_max: u32,
    /// Most sessions, connected or not; a client that needs one more is refused.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub sessions_max: u32,
    /// Longest packet; a longer one ends its connection.
    #[serde(with = "text::size")]
    #[schemars(with = "SizeText", extend("x-minimum" = "1KiB", "x-maximum" = "3MiB"))]
    pub packet_bytes_max: u32,
    /// Most messages that wait for one client; the newest beyond is dropped and counted.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub queue_messages_max: u32,
    /// Most bytes that wait for all clients together; the newest message beyond is dropped and counted.
    #[serde(with = "text::size")]
    #[schemars(with = "SizeText", extend("x-minimum" = "1MiB", "x-maximum" = "64GiB"))]
    pub queues_bytes_max: u64,
    /// Most retained messages; one more is delivered, counted and not retained.
    #[schemars(range(min = 0, max = 10_000_000))]
    pub retained_max: u32,
    /// Most bytes of retained messages together.
    #[serde(with = "text::size")]
    #[schemars(with = "SizeText", extend("x-minimum" = "0B", "x-maximum" = "64GiB"))]
    pub retained_bytes_max: u64,
    /// Longest time that the session of a client that is away is kept.
    #[serde(with = "text::duration")]
    #[schemars(with = "DurationText", extend("x-minimum" = "0s", "x-maximum" = "365days"))]
    pub session_expiry_max: Duration,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            users: Vec::new(),
            rules: Vec::new(),
            remote_authorities: None,
            connections_max: 20_000,
            sessions_max: 50_000,
            packet_bytes_max: 1 << 20,
            queue_messages_max: 1000,
            queues_bytes_max: 128 << 20,
            retained_max: 50_000,
            retained_bytes_max: 64 << 20,
            session_expiry_max: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// An address that MQTT clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrokerListener {
    /// The address to listen on; port 0 picks one.
    #[schemars(with = "AddressText")]
    pub address: SocketAddr,
    /// Whether clients may connect that have neither password nor certificate. They have no user.
    #[serde(default)]
    pub anonymous: bool,
    /// Certificate and key; with them, the address speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BrokerTls>,
}

/// Files of a TLS listener, read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrokerTls {
    /// The certificate chain, in PEM.
    #[schemars(with = "PathText")]
    pub certificate: PathBuf,
    /// The private key, in PEM.
    #[schemars(with = "PathText")]
    pub key: PathBuf,
    /// The authorities of client certificates, in PEM. The user of a client with one is its first DNS name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PathText>")]
    pub client_authorities: Option<PathBuf>,
    /// Whether clients without a certificate are turned away.
    #[serde(default)]
    pub client_certificate_required: bool,
}

/// Somebody who may connect with a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrokerUser {
    /// The user name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// What is kept of the password: `pbkdf2-sha256$ITERATIONS$SALT$HASH`, salt and hash in hexadecimal.
    pub password: PasswordText,
}

/// What is kept of a password; shown to nobody who debugs.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordText(String);

/// The text is no `pbkdf2-sha256$ITERATIONS$SALT$HASH`.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "a password is kept as `pbkdf2-sha256$ITERATIONS$SALT$HASH`: salt and hash in hexadecimal, the hash of 32 bytes"
)]
pub struct PasswordTextError;

impl PasswordText {
    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PasswordText {
    type Err = PasswordTextError;

    fn from_str(text: &str) -> Result<Self, PasswordTextError> {
        let is_hex = |text: &str| {
            text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let parts: Vec<&str> = text.split('$').collect();
        match parts.as_slice() {
            ["pbkdf2-sha256", iterations, salt, hash]
                if matches!(iterations.parse::<u32>(), Ok(1..=10_000_000))
                    && !salt.is_empty()
                    && is_hex(salt)
                    && hash.len() == 64
                    && is_hex(hash) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(PasswordTextError),
        }
    }
}

impl fmt::Display for PasswordText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for PasswordText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordText(…)")
    }
}

text_type!(PasswordText, "password-hash");

/// One permission of MQTT clients. There are no prohibitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrokerRule {
    /// The user it is for; everybody, anonymous clients too, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub user: Option<String>,
    /// The topics, in which `{user}` and `{client}` stand for a level with the client's user and identifier.
    #[schemars(with = "BrokerTopicsText")]
    pub topics: String,
    /// Whether they may be published to.
    #[serde(default)]
    pub publish: bool,
    /// Whether they may be subscribed to.
    #[serde(default)]
    pub subscribe: bool,
}

/// Checks the topics of a rule.
pub(crate) fn check_topics(text: &str) -> Result<(), TopicFilterError> {
    let filled = text.replace("{user}", "u").replace("{client}", "c");
    filled.parse::<TopicFilter>().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_kept_in_one_form_and_not_shown() {
        let text = format!("pbkdf2-sha256$600000$00ff${}", "ab".repeat(32));
        let kept: PasswordText = text.parse().unwrap();
        assert_eq!(kept.to_string(), text);
        assert!(!format!("{kept:?}").contains("ab"));
        for bad in [
            "",
            "secret",
            "pbkdf2-sha256$600000$00ff$ab",
            &text.replace("600000", "0"),
            &text.replace("600000", "20000000"),
            &text.replace("00ff", "0ff"),
            &text.replace("00ff", ""),
            &text.replace("sha256", "sha1"),
            &format!("{text}$"),
        ] {
            assert!(bad.parse::<PasswordText>().is_err(), "{bad}");
        }
    }

    #[test]
    fn topics_of_rules_have_names_in_them() {
        for good in ["#", "machines/{client}/#", "{user}/+"] {
            assert!(check_topics(good).is_ok(), "{good}");
        }
        for bad in ["", "a/#/b", "$share/g/a"] {
            assert!(check_topics(bad).is_err(), "{bad}");
        }
    }
}
