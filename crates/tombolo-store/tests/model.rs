//! Random histories of writes, increments, swaps and restarts, compared with a sorted map.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use tombolo_store::{KeyValue, Store, StoreError, Swapped, Write};

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(usize, Option<Vec<u8>>)>),
    Increment(usize, i64),
    Swap(usize, Option<Vec<u8>>, Vec<u8>),
    Reopen,
    Drop,
}

/// Few keys, so that steps meet; some are prefixes of others.
const KEYS: [&str; 6] = ["", "a", "a\0", "aa", "b", "é"];

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..4),
        2 => (-20_i64..20).prop_map(|number| number.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 9000),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS.len();
    let change = (key.clone(), prop::option::of(value()));
    prop_oneof![
        5 => prop::collection::vec(change, 0..5).prop_map(Step::Write),
        3 => (key.clone(), prop_oneof![-9_i64..9, any::<i64>()]).prop_map(|(key, by)| Step::Increment(key, by)),
        3 => (key, prop::option::of(value()), value()).prop_map(|(key, old, new)| Step::Swap(key, old, new)),
        1 => Just(Step::Reopen),
        1 => Just(Step::Drop),
    ]
}

type Model = BTreeMap<String, Bytes>;

async fn apply(key_value: &KeyValue, model: &mut Model, step: Step) {
    match step {
        Step::Write(changes) => {
            let mut writes = Vec::new();
            for (key, value) in changes {
                let key = KEYS[key].to_owned();
                if let Some(value) = value.map(Bytes::from) {
                    model.insert(key.clone(), value.clone());
                    writes.push(Write::Set { key, value });
                } else {
                    model.remove(&key);
                    writes.push(Write::Delete { key });
                }
            }
            key_value.write(writes).await.unwrap();
        }
        Step::Increment(key, by) => {
            let text = model.get(KEYS[key]).map_or("0".into(), |value| {
                String::from_utf8_lossy(value).into_owned()
            });
            let sum = text
                .parse()
                .ok()
                .and_then(|number: i64| number.checked_add(by));
            let result = key_value.increment(KEYS[key], by).await;
            match sum {
                Some(sum) => {
                    assert_eq!(result.unwrap(), sum);
                    model.insert(KEYS[key].into(), sum.to_string().into());
                }
                None => assert!(matches!(result, Err(StoreError::NotANumber))),
            }
        }
        Step::Swap(key, expected, value) => {
            let found = model.get(KEYS[key]).cloned();
            let (expected, value) = (expected.map(Bytes::from), Bytes::from(value));
            // Half of the time the caller knows what is there.
            let expected = if value.len().is_multiple_of(2) {
                found.clone()
            } else {
                expected
            };
            let swapped = key_value.swap(KEYS[key], expected.clone(), value.clone());
            let swapped = swapped.await.unwrap();
            if expected == found {
                assert_eq!(swapped, Swapped::Done);
                model.insert(KEYS[key].into(), value);
            } else {
                assert_eq!(swapped, Swapped::Changed(found));
            }
        }
        Step::Reopen | Step::Drop => {}
    }
}

fn compare(key_value: &KeyValue, model: &Model) {
    let keys: Vec<String> = model.keys().cloned().collect();
    assert_eq!(key_value.keys(None, 100).unwrap(), keys);
    let all: Vec<String> = KEYS.iter().map(|&key| key.into()).collect();
    let values = key_value.get_many(&all).unwrap();
    for (key, value) in KEYS.iter().zip(values) {
        assert_eq!(value.as_ref(), model.get(*key), "{key:?}");
        let after: Vec<_> = keys
            .iter()
            .filter(|other| other.as_str() > *key)
            .cloned()
            .collect();
        assert_eq!(key_value.keys(Some(key), 100).unwrap(), after);
    }
}

async fn history(folder: &Path, steps: Vec<Step>) {
    let (app, name) = ("app".parse().unwrap(), "model".parse().unwrap());
    let mut store = Store::open(folder).unwrap();
    let mut model = Model::new();
    for step in steps {
        if matches!(step, Step::Reopen) {
            store.close().await;
            store = Store::open(folder).unwrap();
        } else if matches!(step, Step::Drop) {
            drop(store);
            store = Store::open(folder).unwrap();
        }
        let key_value = store.key_value(&app, &name);
        apply(&key_value, &mut model, step).await;
        compare(&key_value, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_store_behaves_like_a_sorted_map(steps in prop::collection::vec(step(), 1..25)) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(history(folder.path(), steps));
    }
}
