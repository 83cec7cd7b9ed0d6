//! Filters of MQTT topics (MQTT 5.0, section 4.7).

use std::fmt;
use std::str::FromStr;

use crate::text::text_type;

/// The protocol allows 65,535 bytes; no device has such topics, and each subscription costs its length.
const BYTES_MAX: usize = 1024;

/// Which MQTT topics: levels between slashes, `+` for any one level, `#` at the end for all that follow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicFilter(String);

/// Why a text is no filter of topics.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TopicFilterError {
    #[error("a topic filter has 1 to {BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    #[error("a topic filter has no control characters")]
    Character,
    #[error("`#` stands for all that follows: it is the last level, and the whole of it")]
    Rest,
    #[error("`+` stands for a whole level, between slashes")]
    Level,
    #[error("a shared subscription (`$share/…`) is for clients of a broker")]
    Shared,
}

impl TopicFilter {
    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a topic is meant. Wildcards in the first level do not stand for one that begins with `$`.
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.split('/');
        for wanted in self.0.split('/') {
            match (wanted, levels.next()) {
                // `a/#` stands for `a` as well.
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (wanted, Some(level)) if wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

impl FromStr for TopicFilter {
    type Err = TopicFilterError;

    fn from_str(text: &str) -> Result<Self, TopicFilterError> {
        if !(1..=BYTES_MAX).contains(&text.len()) {
            return Err(TopicFilterError::Length(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(TopicFilterError::Character);
        }
        if text.starts_with("$share/") {
            return Err(TopicFilterError::Shared);
        }
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            let last = levels.peek().is_none();
            if level.contains('#') && (level != "#" || !last) {
                return Err(TopicFilterError::Rest);
            }
            if level.contains('+') && level != "+" {
                return Err(TopicFilterError::Level);
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(TopicFilter, "topic-filter");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_protocol_says() {
        for (filter, topic, matches) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/ranking",
                true,
            ),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("sport/tennis/player1/#", "sport/tennis/player10", false),
            ("#", "sport", true),
            ("#", "$SYS/uptime", false),
            ("+/uptime", "$SYS/uptime", false),
            ("$SYS/#", "$SYS/uptime", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("a", "A", false),
            ("a/b", "a/b/", false),
        ] {
            let filter: TopicFilter = filter.parse().unwrap();
            assert_eq!(filter.matches(topic), matches, "{filter} {topic}");
        }
    }

    #[test]
    fn filters_that_mean_nothing_are_refused() {
        for (bad, why) in [
            ("", TopicFilterError::Length(0)),
            ("a/#/b", TopicFilterError::Rest),
            ("a#", TopicFilterError::Rest),
            ("a/b+", TopicFilterError::Level),
            ("++", TopicFilterError::Level),
            ("a\0", TopicFilterError::Character),
            ("$share/group/a", TopicFilterError::Shared),
            (&"a".repeat(1025), TopicFilterError::Length(1025)),
        ] {
            assert_eq!(bad.parse::<TopicFilter>(), Err(why), "{bad}");
        }
    }
}
