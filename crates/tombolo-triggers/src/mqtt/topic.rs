//! Topic names and filters: what is valid, what matches what, and which filter covers which.

use std::fmt;
use std::sync::Arc;

/// A longer name or filter is refused. The specification allows 65,535 bytes, which nobody needs
/// and which every stored subscription would have to be reckoned with.
pub const TOPIC_BYTES_MAX: usize = 1024;
/// A name or filter with more levels is refused; it bounds the depth of every walk over them.
pub const TOPIC_LEVELS_MAX: usize = 64;

const SHARE: &str = "$share/";

/// Why a text is no topic name or no topic filter.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum TopicError {
    #[error("a topic has 1 to {TOPIC_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    #[error("a topic has at most {TOPIC_LEVELS_MAX} levels, this one has {0}")]
    Levels(usize),
    #[error("a topic has no control characters")]
    Control,
    #[error("a topic name has no wildcards")]
    Wildcard,
    #[error("`+` stands alone in its level, `#` alone in the last one")]
    Misplaced,
    #[error("a shared subscription is written $share/GROUP/FILTER")]
    Share,
}

/// Checks the name of a topic that is published to.
///
/// # Errors
/// The name is empty, too long or too deep, or has wildcards or control characters.
pub fn check_name(name: &str) -> Result<(), TopicError> {
    check_text(name)?;
    if name.contains(['+', '#']) {
        return Err(TopicError::Wildcard);
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), TopicError> {
    if text.is_empty() || text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::Length(text.len()));
    }
    let levels = text.split('/').count();
    if levels > TOPIC_LEVELS_MAX {
        return Err(TopicError::Levels(levels));
    }
    // MQTT 5, 1.5.4: U+0000 must not, the other control characters should not be there.
    if text.chars().any(char::is_control) {
        return Err(TopicError::Control);
    }
    Ok(())
}

/// A topic filter: levels, `+` for any one level, `#` for all that follow.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicFilter(Arc<str>);

impl TopicFilter {
    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the filter selects the topic (MQTT 5, 4.7).
    pub fn matches(&self, topic: &str) -> bool {
        let mut levels = topic.split('/');
        if topic.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        for wanted in self.0.split('/') {
            if wanted == "#" {
                return true;
            }
            match levels.next() {
                Some(level) if wanted == "+" || wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    /// Whether this filter selects every topic that the other one selects.
    pub fn covers(&self, other: &Self) -> bool {
        // Wildcards in the first level leave out topics that begin with `$`.
        if other.0.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut theirs = other.0.split('/');
        for ours in self.0.split('/') {
            if ours == "#" {
                return true;
            }
            match theirs.next() {
                Some("#") | None => return false,
                Some(level) if ours == "+" || ours == level => {}
                Some(_) => return false,
            }
        }
        theirs.next().is_none()
    }

    /// The levels before the first wildcard, as the prefix that every selected topic has. `a/#`
    /// selects `a` too, so the prefix ends before the separator.
    pub fn prefix(&self) -> &str {
        let wild = self.0.find(['+', '#']).unwrap_or(self.0.len());
        let prefix = self.0.get(..wild).unwrap_or_default();
        prefix.strip_suffix('/').unwrap_or(prefix)
    }
}

impl std::str::FromStr for TopicFilter {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        check_text(text)?;
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            let alone = level.len() == 1;
            let last = levels.peek().is_none();
            if level.contains('#') && !(alone && last) || level.contains('+') && !alone {
                return Err(TopicError::Misplaced);
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a client subscribes to: a filter, perhaps shared with a group (`$share/GROUP/FILTER`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Selection {
    pub group: Option<Arc<str>>,
    pub filter: TopicFilter,
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{SHARE}{group}/{}", self.filter),
            None => write!(f, "{}", self.filter),
        }
    }
}

impl std::str::FromStr for Selection {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let Some(shared) = text.strip_prefix(SHARE) else {
            let filter = text.parse()?;
            return Ok(Self {
                group: None,
                filter,
            });
        };
        let (group, filter) = shared.split_once('/').ok_or(TopicError::Share)?;
        if group.is_empty() || group.contains(['+', '#']) || group.chars().any(char::is_control) {
            return Err(TopicError::Share);
        }
        if group.len() > TOPIC_BYTES_MAX {
            return Err(TopicError::Length(group.len()));
        }
        Ok(Self {
            group: Some(group.into()),
            filter: filter.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> TopicFilter {
        text.parse().unwrap()
    }

    #[test]
    fn filters_select_as_the_specification_says() {
        for (text, yes, no) in [
            (
                "a/b",
                vec!["a/b"],
                vec!["a", "a/b/", "a/b/c", "/a/b", "A/b"],
            ),
            ("a/+", vec!["a/b", "a/"], vec!["a", "a/b/c"]),
            ("a/#", vec!["a", "a/", "a/b", "a/b/c"], vec!["ab", "b"]),
            ("#", vec!["a", "/", "a/b"], vec!["$SYS", "$SYS/a"]),
            ("+/a", vec!["b/a", "/a"], vec!["$SYS/a", "a"]),
            ("$SYS/#", vec!["$SYS/a", "$SYS"], vec!["a"]),
            ("/+", vec!["/a"], vec!["a", "/a/b"]),
        ] {
            for topic in yes {
                assert!(filter(text).matches(topic), "{text} selects {topic}");
            }
            for topic in no {
                assert!(!filter(text).matches(topic), "{text} leaves out {topic}");
            }
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        use TopicError::*;
        for (text, why) in [
            ("", Length(0)),
            ("a#", Misplaced),
            ("#/a", Misplaced),
            ("a/b+/c", Misplaced),
            ("++", Misplaced),
            ("a\u{0}", Control),
            ("a\u{7f}", Control),
        ] {
            assert_eq!(text.parse::<TopicFilter>(), Err(why), "{text:?}");
        }
        assert_eq!(check_name("a/+"), Err(Wildcard));
        assert_eq!(check_name(&"/".repeat(64)), Err(Levels(65)));
        for text in ["$share/g", "$share//a", "$share/+/a"] {
            assert_eq!(text.parse::<Selection>(), Err(Share), "{text}");
        }
        let shared: Selection = "$share/g/a/#".parse().unwrap();
        assert_eq!(shared.group.as_deref(), Some("g"));
        assert_eq!(shared.filter.as_str(), "a/#");
        assert_eq!(shared.to_string(), "$share/g/a/#");
    }

    #[test]
    fn a_filter_covers_only_what_it_selects_wholly() {
        for (wide, narrow) in [
            ("#", "a/+"),
            ("a/#", "a/#"),
            ("a/#", "a"),
            ("a/+", "a/+"),
            ("a/+/c", "a/b/c"),
        ] {
            assert!(filter(wide).covers(&filter(narrow)), "{wide} {narrow}");
        }
        for (wide, narrow) in [
            ("a/+", "a/#"),
            ("a/b", "a/+"),
            ("+", "#"),
            ("#", "$SYS/#"),
            ("a/b/#", "a/#"),
        ] {
            assert!(!filter(wide).covers(&filter(narrow)), "{wide} {narrow}");
        }
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "$x"])
    }

    fn pattern() -> impl Strategy<Value = String> {
        let one = prop_oneof![4 => level(), 2 => Just("+")];
        (prop::collection::vec(one, 1..4), any::<bool>()).prop_map(|(mut levels, open)| {
            if open {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn covering_means_selecting_whatever_the_other_selects(
            wide in pattern(), narrow in pattern(),
            topic in prop::collection::vec(level(), 1..5),
        ) {
            let (Ok(wide), Ok(narrow)) = (wide.parse::<TopicFilter>(), narrow.parse::<TopicFilter>()) else {
                return Ok(());
            };
            let topic = topic.join("/");
            if wide.covers(&narrow) && narrow.matches(&topic) {
                prop_assert!(wide.matches(&topic), "{wide} {narrow} {topic}");
            }
            if wide.matches(&topic) {
                prop_assert!(topic.starts_with(wide.prefix()));
            }
        }
    }
}
