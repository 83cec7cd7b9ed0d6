//! Many topic filters at once: a tree of levels that finds those which select a topic.

use std::collections::HashMap;
use std::hash::Hash;

use super::topic::TopicFilter;

/// Values under topic filters; one value for each pair of filter and key.
#[derive(Debug)]
pub struct Filters<K, V> {
    root: Level<K, V>,
}

/// One level of the tree. Wildcards are children like others: no literal level is called `+` or `#`.
#[derive(Debug)]
struct Level<K, V> {
    below: HashMap<Box<str>, Level<K, V>>,
    here: HashMap<K, V>,
}

impl<K, V> Default for Level<K, V> {
    fn default() -> Self {
        Self {
            below: HashMap::new(),
            here: HashMap::new(),
        }
    }
}

impl<K, V> Default for Filters<K, V> {
    fn default() -> Self {
        Self {
            root: Level::default(),
        }
    }
}

impl<K: Eq + Hash, V> Filters<K, V> {
    /// The value under this filter and key, made when it is not there yet.
    pub fn entry(&mut self, filter: &TopicFilter, key: K, new: impl FnOnce() -> V) -> &mut V {
        let mut level = &mut self.root;
        for name in filter.as_str().split('/') {
            level = level.below.entry(name.into()).or_default();
        }
        level.here.entry(key).or_insert_with(new)
    }

    /// Removes the value under this filter and key, and the levels that nothing needs any more.
    pub fn remove(&mut self, filter: &TopicFilter, key: &K) -> Option<V> {
        remove(&mut self.root, Some(filter.as_str()), key)
    }

    /// Changes the value under this filter and key.
    pub fn get_mut(&mut self, filter: &TopicFilter, key: &K) -> Option<&mut V> {
        let mut level = &mut self.root;
        for name in filter.as_str().split('/') {
            level = level.below.get_mut(name)?;
        }
        level.here.get_mut(key)
    }

    /// Calls `found` with everything whose filter selects the topic.
    pub fn select<'a>(&'a self, topic: &str, mut found: impl FnMut(&'a K, &'a V)) {
        walk(&self.root, Some(topic), true, &mut found);
    }
}

fn remove<K: Eq + Hash, V>(level: &mut Level<K, V>, rest: Option<&str>, key: &K) -> Option<V> {
    let Some(rest) = rest else {
        return level.here.remove(key);
    };
    let (name, tail) = split(rest);
    let below = level.below.get_mut(name)?;
    let removed = remove(below, tail, key);
    if below.below.is_empty() && below.here.is_empty() {
        level.below.remove(name);
    }
    removed
}

fn walk<'a, K, V>(
    level: &'a Level<K, V>,
    rest: Option<&str>,
    first: bool,
    found: &mut impl FnMut(&'a K, &'a V),
) {
    let Some(rest) = rest else {
        report(level, found);
        // `a/#` selects `a` as well.
        if let Some(all) = level.below.get("#") {
            report(all, found);
        }
        return;
    };
    let (name, tail) = split(rest);
    if !(first && name.starts_with('$')) {
        if let Some(all) = level.below.get("#") {
            report(all, found);
        }
        if let Some(any) = level.below.get("+") {
            walk(any, tail, false, found);
        }
    }
    if let Some(below) = level.below.get(name) {
        walk(below, tail, false, found);
    }
}

fn report<'a, K, V>(level: &'a Level<K, V>, found: &mut impl FnMut(&'a K, &'a V)) {
    for (key, value) in &level.here {
        found(key, value);
    }
}

fn split(rest: &str) -> (&str, Option<&str>) {
    match rest.split_once('/') {
        Some((name, tail)) => (name, Some(tail)),
        None => (rest, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["a", "b", "", "+", "#", "$x"]);
        prop::collection::vec(level, 1..5).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_each_filter_selects(
            filters in prop::collection::vec(text(), 0..20),
            gone in prop::collection::vec(any::<bool>(), 20),
            topic in text(),
        ) {
            let mut tree = Filters::default();
            let filters: Vec<(usize, TopicFilter)> =
                filters.iter().filter_map(|text| text.parse().ok()).enumerate().collect();
            for (key, filter) in &filters {
                tree.entry(filter, *key, || ());
            }
            for (key, filter) in &filters {
                if gone[*key] {
                    prop_assert!(tree.remove(filter, key).is_some());
                }
            }
            let mut found = Vec::new();
            tree.select(&topic, |key, ()| found.push(*key));
            found.sort_unstable();
            let wanted: Vec<usize> = filters
                .iter()
                .filter(|(key, filter)| !gone[*key] && filter.matches(&topic))
                .map(|(key, _)| *key)
                .collect();
            prop_assert!(topic.contains(['+', '#']) || found == wanted);
            for (key, filter) in &filters {
                tree.remove(filter, key);
            }
            prop_assert!(tree.root.below.is_empty());
        }
    }
}
