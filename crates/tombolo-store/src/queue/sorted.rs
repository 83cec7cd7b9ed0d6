//! A sorted map that spends a byte or two of its own on an entry: a B+ tree of two levels, with fat leaves.
//!
//! The standard `BTreeMap` leaves its nodes half empty when keys come in order, which is how the
//! sequences of a queue come. Here a leaf filled in order stays full, and a leaf that empties is
//! joined with its neighbour.

use std::collections::{BTreeMap, VecDeque};

/// Entries of a full leaf: an insertion in the middle moves at most half of them.
const LEAF: usize = 64;

/// A sorted map; a set when `V` is `()`. Every operation costs O(log n).
#[derive(Clone, Debug)]
pub(crate) struct Sorted<K, V = ()> {
    /// By a key that is not above the leaf's first and above all keys of the leaf before.
    leaves: BTreeMap<K, VecDeque<(K, V)>>,
    len: usize,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self {
            leaves: BTreeMap::new(),
            len: 0,
        }
    }
}

impl<K: Ord + Copy, V> Sorted<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn get(&self, key: K) -> Option<&V> {
        let (_, leaf) = self.leaves.range(..=key).next_back()?;
        let index = leaf.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        leaf.get(index).map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let (_, leaf) = self.leaves.range_mut(..=key).next_back()?;
        let index = leaf.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        leaf.get_mut(index).map(|(_, value)| value)
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    /// Puts the value in and gives back the one that the key had.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self
            .leaves
            .first_key_value()
            .is_none_or(|(name, _)| key < *name)
        {
            // Below all: the first leaf begins here from now on.
            let leaf = self.leaves.pop_first().map(|(_, leaf)| leaf);
            self.leaves.insert(key, leaf.unwrap_or_default());
        }
        let (_, leaf) = self.leaves.range_mut(..=key).next_back()?;
        let index = match leaf.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(index) => {
                let (_, old) = leaf.get_mut(index)?;
                return Some(std::mem::replace(old, value));
            }
            Err(index) => index,
        };
        self.len += 1;
        if leaf.len() < LEAF {
            put(leaf, index, (key, value));
        } else if index == LEAF {
            // Keys come in order: this leaf will fill like the one before.
            let mut next = VecDeque::with_capacity(LEAF);
            next.push_back((key, value));
            self.leaves.insert(key, next);
        } else {
            let mut upper = leaf.split_off(LEAF / 2);
            match index.checked_sub(LEAF / 2) {
                Some(index) if index > 0 => put(&mut upper, index, (key, value)),
                _ => put(leaf, index, (key, value)),
            }
            if let Some(&(first, _)) = upper.front() {
                self.leaves.insert(first, upper);
            }
        }
        None
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let (&name, leaf) = self.leaves.range_mut(..=key).next_back()?;
        let index = leaf.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        let (_, value) = leaf.remove(index)?;
        self.len -= 1;
        if leaf.is_empty() {
            self.leaves.remove(&name);
        } else if leaf.len() < LEAF / 4 {
            self.join(name);
        }
        Some(value)
    }

    /// Joins a leaf that has become small with the next or the one before, if both stay small
    /// enough to grow again.
    fn join(&mut self, name: K) {
        let mut pair = self.leaves.range(name..).take(2).map(|(key, _)| *key);
        let after = pair.nth(1);
        let before = self.leaves.range(..name).next_back().map(|(key, _)| *key);
        for (low, high) in [(Some(name), after), (before, Some(name))] {
            let (Some(low), Some(high)) = (low, high) else {
                continue;
            };
            let entries = |key: K| self.leaves.get(&key).map_or(0, VecDeque::len);
            if entries(low) + entries(high) > LEAF / 2 {
                continue;
            }
            let mut upper = self.leaves.remove(&high).unwrap_or_default();
            if let Some(lower) = self.leaves.get_mut(&low) {
                lower.append(&mut upper);
                lower.shrink_to(LEAF / 2);
            }
            return;
        }
    }

    pub(crate) fn first(&self) -> Option<(K, &V)> {
        let (_, leaf) = self.leaves.first_key_value()?;
        leaf.front().map(|(key, value)| (*key, value))
    }

    /// The greatest key that is not above `key`.
    pub(crate) fn last_to(&self, key: K) -> Option<(K, &V)> {
        let (_, leaf) = self.leaves.range(..=key).next_back()?;
        let index = leaf.partition_point(|(found, _)| *found <= key);
        match index.checked_sub(1) {
            Some(index) => leaf.get(index).map(|(key, value)| (*key, value)),
            // A leaf may begin above its name; then the one before has it, if any has.
            None => {
                let name = leaf.front().map(|(first, _)| *first)?;
                let mut lower = self.leaves.range(..name).rev();
                let (_, leaf) =
                    lower.find(|(_, leaf)| leaf.front().is_some_and(|(k, _)| *k <= key))?;
                leaf.back().map(|(key, value)| (*key, value))
            }
        }
    }

    /// The smallest key that is not below `key`.
    pub(crate) fn first_from(&self, key: K) -> Option<(K, &V)> {
        if let Some((_, leaf)) = self.leaves.range(..=key).next_back() {
            let index = leaf.partition_point(|(found, _)| *found < key);
            if let Some((key, value)) = leaf.get(index) {
                return Some((*key, value));
            }
        }
        let (_, leaf) = self.leaves.range(key..).next()?;
        leaf.front().map(|(key, value)| (*key, value))
    }

    /// Entries in order, from the first whose key is not below `key`.
    pub(crate) fn range_from(&self, key: K) -> impl Iterator<Item = (K, &V)> {
        let start = self.leaves.range(..=key).next_back().map(|(name, _)| *name);
        self.leaves
            .range(start.unwrap_or(key)..)
            .enumerate()
            .flat_map(move |(nth, (_, leaf))| {
                let skipped = match nth {
                    0 => leaf.partition_point(|(found, _)| *found < key),
                    _ => 0,
                };
                leaf.range(skipped..).map(|(key, value)| (*key, value))
            })
    }

    /// All entries in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.leaves
            .values()
            .flat_map(|leaf| leaf.iter().map(|(key, value)| (*key, value)))
    }
}

/// Inserts, growing by a quarter of a leaf at most: doubling would waste half.
fn put<T>(leaf: &mut VecDeque<T>, index: usize, value: T) {
    if leaf.len() == leaf.capacity() {
        leaf.reserve_exact(leaf.len().clamp(4, LEAF / 4));
    }
    leaf.insert(index, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_leaf_filled_in_order_stays_full() {
        let mut sorted = Sorted::default();
        for key in 0..1_000_u64 {
            sorted.insert(key, ());
        }
        assert_eq!(sorted.leaves.len(), 1_000_usize.div_ceil(LEAF));
    }

    #[test]
    fn sparse_leaves_are_joined() {
        let mut sorted = Sorted::default();
        for key in 0..10_000_u64 {
            sorted.insert(key, ());
        }
        for key in (0..10_000).filter(|key| key % 50 != 0) {
            sorted.remove(key);
        }
        assert_eq!(sorted.len(), 200);
        assert!(sorted.leaves.len() <= 2 * 200 / (LEAF / 4));
    }

    proptest! {
        #[test]
        fn behaves_as_the_standard_map(
            steps in prop::collection::vec((0_u8..5, 0_u16..600, any::<u8>()), 1..1500),
        ) {
            let (mut sorted, mut model) = (Sorted::default(), BTreeMap::new());
            for (step, key, value) in steps {
                match step {
                    0..=2 => prop_assert_eq!(sorted.insert(key, value), model.insert(key, value)),
                    3 => prop_assert_eq!(sorted.remove(key), model.remove(&key)),
                    _ => {
                        let first = sorted.first().map(|(key, _)| key);
                        prop_assert_eq!(first, model.first_key_value().map(|(key, _)| *key));
                        if let Some(first) = first {
                            prop_assert_eq!(sorted.remove(first), model.remove(&first));
                        }
                    }
                }
                prop_assert_eq!(sorted.len(), model.len());
                prop_assert_eq!(sorted.get(key), model.get(&key));
                prop_assert_eq!(sorted.get_mut(key), model.get_mut(&key));
                prop_assert_eq!(
                    sorted.last_to(key).map(|(key, value)| (key, *value)),
                    model.range(..=key).next_back().map(|(key, value)| (*key, *value))
                );
                prop_assert_eq!(
                    sorted.first_from(key).map(|(key, value)| (key, *value)),
                    model.range(key..).next().map(|(key, value)| (*key, *value))
                );
                prop_assert_eq!(
                    sorted.range_from(key).next().map(|(key, value)| (key, *value)),
                    model.range(key..).next().map(|(key, value)| (*key, *value))
                );
            }
            prop_assert!(sorted.iter().map(|(key, value)| (key, *value)).eq(model.iter().map(|(k, v)| (*k, *v))));
        }
    }
}
