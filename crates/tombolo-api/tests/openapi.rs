//! The checked-in OpenAPI document is the one that the types make; `UPDATE_GOLDEN=1` writes it anew.

use std::path::Path;

#[test]
fn the_checked_in_document_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/openapi.json");
    let mut current = serde_json::to_string_pretty(&tombolo_api::openapi()).unwrap();
    current.push('\n');
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &current).unwrap();
    }
    let checked_in = std::fs::read_to_string(&file).unwrap();
    assert!(
        checked_in == current,
        "docs/reference/openapi.json is out of date: run this test with UPDATE_GOLDEN=1"
    );
}
