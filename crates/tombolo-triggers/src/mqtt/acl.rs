//! Permissions: which user may publish to and subscribe to which topics.

use super::topic::{TopicError, TopicFilter};

/// One permission. There are no prohibitions: what no rule allows is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The user it is for; everybody, anonymous clients too, when there is none.
    pub user: Option<String>,
    pub publish: bool,
    pub subscribe: bool,
    /// A topic filter, in which `{user}` and `{client}` stand for a level with the name of the
    /// user and with the client's identifier.
    pub topics: String,
}

impl Rule {
    /// Checks the topics.
    ///
    /// # Errors
    /// They are no topic filter.
    pub fn check(&self) -> Result<(), TopicError> {
        self.topics
            .replace("{user}", "u")
            .replace("{client}", "c")
            .parse::<TopicFilter>()
            .map(drop)
    }

    /// The filter for this client. None when the rule is not for it.
    fn for_client(&self, user: Option<&str>, id: &str) -> Option<TopicFilter> {
        if self.user.is_some() && self.user.as_deref() != user {
            return None;
        }
        let mut topics = self.topics.clone();
        for (placeholder, name) in [("{user}", user), ("{client}", Some(id))] {
            if topics.contains(placeholder) {
                topics = topics.replace(placeholder, name.filter(|name| is_level(name))?);
            }
        }
        topics.parse().ok()
    }
}

/// A name with a separator or a wildcard in it would widen the rule that it is put into.
fn is_level(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '+', '#', '$', '{', '}'])
}

/// What one client may do, worked out when it connects.
#[derive(Debug, Default)]
pub struct Permissions {
    publish: Vec<TopicFilter>,
    subscribe: Vec<TopicFilter>,
}

impl Permissions {
    /// The permissions of a client.
    pub fn of(rules: &[Rule], user: Option<&str>, id: &str) -> Self {
        let mut permissions = Self::default();
        for rule in rules {
            let Some(filter) = rule.for_client(user, id) else {
                continue;
            };
            if rule.publish {
                permissions.publish.push(filter.clone());
            }
            if rule.subscribe {
                permissions.subscribe.push(filter);
            }
        }
        permissions
    }

    /// Whether the client may publish to the topic.
    pub fn may_publish(&self, topic: &str) -> bool {
        self.publish.iter().any(|filter| filter.matches(topic))
    }

    /// Whether the client may have what is published to the topic.
    pub fn may_get(&self, topic: &str) -> bool {
        self.subscribe.iter().any(|filter| filter.matches(topic))
    }

    /// Whether the client may have everything that the filter selects: one rule covers all of it.
    pub fn may_subscribe(&self, wanted: &TopicFilter) -> bool {
        self.subscribe.iter().any(|filter| filter.covers(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(user: Option<&str>, topics: &str) -> Rule {
        Rule {
            user: user.map(String::from),
            publish: true,
            subscribe: true,
            topics: topics.into(),
        }
    }

    #[test]
    fn what_no_rule_allows_is_refused() {
        let rules = [
            rule(Some("anna"), "machines/{client}/#"),
            rule(None, "public/+"),
        ];
        let anna = Permissions::of(&rules, Some("anna"), "m1");
        assert!(anna.may_publish("machines/m1/speed"));
        assert!(anna.may_publish("public/a"));
        for topic in [
            "machines/m2/speed",
            "machines",
            "Machines/m1/a",
            "public/a/b",
            "$SYS/a",
        ] {
            assert!(!anna.may_publish(topic), "{topic}");
        }
        let bert = Permissions::of(&rules, Some("bert"), "m1");
        assert!(!bert.may_publish("machines/m1/speed"));
        assert!(!Permissions::default().may_publish("a"));
    }

    #[test]
    fn a_wider_filter_than_the_rule_is_refused() {
        let permissions = Permissions::of(&[rule(None, "a/+/c")], None, "x");
        for (wanted, allowed) in [
            ("a/+/c", true),
            ("a/b/c", true),
            ("a/#", false),
            ("#", false),
        ] {
            let wanted: TopicFilter = wanted.parse().unwrap();
            assert_eq!(permissions.may_subscribe(&wanted), allowed, "{wanted}");
        }
    }

    #[test]
    fn names_that_would_widen_a_rule_get_nothing() {
        for name in ["#", "+", "a/b", "a/#", "", "$SYS"] {
            let permissions = Permissions::of(&[rule(None, "devices/{client}/#")], None, name);
            assert!(!permissions.may_publish("devices/a/b"), "{name:?}");
            assert!(!permissions.may_publish("devices//b"), "{name:?}");
        }
        let anonymous = Permissions::of(&[rule(None, "{user}/#")], None, "x");
        assert!(!anonymous.may_publish("/a"));
    }
}
