//! Files that users see, compared with what is checked in; `UPDATE_GOLDEN=1` writes them anew.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod reference_page;

use std::fs;
use std::path::{Path, PathBuf};

use tombolo_manifest::{Manifest, NodeConfig, manifest_schema, node_config_schema};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[track_caller]
fn compare(path: &Path, now: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, now).unwrap();
    }
    let before = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        before,
        now,
        "{} differs; UPDATE_GOLDEN=1 writes it anew",
        path.display()
    );
}

#[test]
fn schemas_are_checked_in() {
    for (name, schema) in [
        ("manifest", manifest_schema()),
        ("node-config", node_config_schema()),
    ] {
        let path = here(&format!("../../docs/reference/{name}.schema.json"));
        compare(&path, &format!("{schema:#}\n"));
    }
}

#[test]
fn reference_pages_are_checked_in() {
    for (name, page) in [
        ("manifest", reference_page::manifest(&manifest_schema())),
        (
            "node-config",
            reference_page::node_config(&node_config_schema()),
        ),
    ] {
        compare(&here(&format!("../../docs/reference/{name}.md")), &page);
    }
}

#[test]
fn broken_files_are_explained() {
    let mut cases = 0;
    for entry in fs::read_dir(here("tests/bad")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let problems = if name.starts_with("node-") {
            NodeConfig::parse(&text, "node.toml").expect_err(name)
        } else {
            Manifest::parse(&text, "tombolo.toml").expect_err(name)
        };
        compare(&path.with_extension("txt"), &format!("{problems}\n"));
        cases += 1;
    }
    assert!(cases >= 12);
}
