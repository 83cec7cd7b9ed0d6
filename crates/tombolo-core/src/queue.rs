//! Names of queues: those of the manifest, those that the host makes for a function, and their dead letters.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name::{Name, NameError};

const DEAD: &str = "dead";

/// What feeds a queue that the host makes for a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Feed {
    /// Asynchronous invocations: `<function>.async`.
    Async,
    /// Ticks of schedules: `<function>.cron`.
    Cron,
    /// Messages of MQTT topics: `<function>.mqtt`.
    Mqtt,
    /// Changes of stores: `<function>.change`.
    Change,
    /// What became of asynchronous invocations, for those who asked to be called back: `<function>.callback`.
    Callback,
}

impl Feed {
    /// The word behind the function's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Cron => "cron",
            Self::Mqtt => "mqtt",
            Self::Change => "change",
            Self::Callback => "callback",
        }
    }

    fn of(word: &str) -> Option<Self> {
        let all = [
            Self::Async,
            Self::Cron,
            Self::Mqtt,
            Self::Change,
            Self::Callback,
        ];
        all.into_iter().find(|feed| feed.as_str() == word)
    }
}

/// A queue's name within its app: `readings` of the manifest, `rollup.cron` which the host feeds
/// for the function `rollup`, and `readings.dead` or `rollup.cron.dead`, their dead letters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueName(Arc<str>);

/// Why a text is not the name of a queue.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum QueueNameError {
    /// What stands before the first dot is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// What stands behind it is nothing that the host makes.
    #[error(
        "behind a queue's name only `.dead`, `.async`, `.cron`, `.mqtt`, `.change` or `.callback` may follow, not `.{0}`"
    )]
    Suffix(String),
}

impl QueueName {
    /// The queue that the host makes for a function.
    pub fn of_function(function: &Name, feed: Feed) -> Self {
        Self(format!("{function}.{}", feed.as_str()).into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The queue of its dead letters; a queue of dead letters is its own.
    #[must_use]
    pub fn dead(&self) -> Self {
        if self.is_dead() {
            self.clone()
        } else {
            Self(format!("{self}.{DEAD}").into())
        }
    }

    /// Whether it holds the dead letters of another.
    pub fn is_dead(&self) -> bool {
        self.living_text().is_some()
    }

    /// The queue whose dead letters it holds, if it holds any.
    pub fn living(&self) -> Option<Self> {
        self.living_text().map(|text| Self(text.into()))
    }

    /// The function and the kind of source, when the host made it (or the queue whose dead letters
    /// it holds) for one.
    pub fn function(&self) -> Option<(Name, Feed)> {
        let living = self.living_text().unwrap_or(&self.0);
        let (function, feed) = living.split_once('.')?;
        Some((function.parse().ok()?, Feed::of(feed)?))
    }

    fn living_text(&self) -> Option<&str> {
        self.0.strip_suffix(DEAD)?.strip_suffix('.')
    }
}

impl From<Name> for QueueName {
    fn from(name: Name) -> Self {
        Self(name.as_str().into())
    }
}

impl FromStr for QueueName {
    type Err = QueueNameError;

    fn from_str(text: &str) -> Result<Self, QueueNameError> {
        let (name, suffix) = match text.split_once('.') {
            Some((name, suffix)) => (name, Some(suffix)),
            None => (text, None),
        };
        name.parse::<Name>()?;
        if let Some(suffix) = suffix {
            let feed = match suffix.rsplit_once('.') {
                Some((feed, DEAD)) => feed,
                _ => suffix,
            };
            if suffix != DEAD && Feed::of(feed).is_none() {
                return Err(QueueNameError::Suffix(suffix.to_owned()));
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for QueueName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for QueueName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A queue on a node, written `app/queue`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct QueueId {
    /// The app that the queue belongs to.
    pub app: Name,
    /// The queue's name within the app.
    pub queue: QueueName,
}

impl QueueId {
    /// The queue of its dead letters; a queue of dead letters is its own.
    #[must_use]
    pub fn dead(&self) -> Self {
        Self {
            app: self.app.clone(),
            queue: self.queue.dead(),
        }
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> QueueName {
        text.parse().unwrap()
    }

    #[test]
    fn a_queue_its_feeds_and_their_dead_letters_have_names() {
        for (text, dead, function) in [
            ("readings", false, None),
            ("dead", false, None),
            ("cron", false, None),
            ("readings.dead", true, None),
            ("rollup.cron", false, Some("rollup")),
            ("rollup.async.dead", true, Some("rollup")),
        ] {
            let queue = name(text);
            assert_eq!(queue.as_str(), text);
            assert_eq!(queue.is_dead(), dead, "{text}");
            let found = queue.function().map(|(function, _)| function);
            assert_eq!(found.as_ref().map(Name::as_str), function, "{text}");
        }
        let made = QueueName::of_function(&"rollup".parse().unwrap(), Feed::Change);
        assert_eq!(made, name("rollup.change"));
    }

    #[test]
    fn dead_letters_go_there_and_back() {
        for text in ["readings", "dead", "rollup.mqtt"] {
            let queue = name(text);
            let dead = queue.dead();
            assert!(dead.is_dead());
            assert_eq!(dead.as_str().parse::<QueueName>().unwrap(), dead);
            assert_eq!(dead.living(), Some(queue));
            assert_eq!(dead.dead(), dead);
        }
    }

    #[test]
    fn other_suffixes_are_refused() {
        for text in [
            "a.",
            "a.b",
            "a.dead.dead",
            "a.cron.cron",
            "a.dead.cron",
            "a.cron.dead.dead",
            "a..dead",
        ] {
            assert!(
                matches!(text.parse::<QueueName>(), Err(QueueNameError::Suffix(_))),
                "{text}"
            );
        }
        assert_eq!(
            ".dead".parse::<QueueName>(),
            Err(QueueNameError::Name(NameError::Length(0)))
        );
    }
}
