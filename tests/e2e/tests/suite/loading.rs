//! What is refused before the first request, and what the refusal says.

use anyhow::Result;
use tombolo_e2e::{App, guest, run};

#[test]
fn an_import_that_the_host_lacks_is_named() -> Result<()> {
    let component = guest("import-unknown");
    let arguments = [
        "serve",
        &component.to_string_lossy(),
        "--listen=127.0.0.1:0",
    ];
    let output = run(&arguments)?;
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    assert!(output.stderr.contains("error[TB0203]"), "{}", output.stderr);
    let import = "nowhere:absent/oracle@1.2.3";
    assert!(output.stderr.contains(import), "{}", output.stderr);
    assert_eq!(output.stdout, "");
    Ok(())
}

#[test]
fn a_store_without_a_grant_is_refused_with_the_line_that_allows_it() -> Result<()> {
    for (guest, import) in [
        ("kv-draft", "wasi:keyvalue/"),
        ("kv-draft2", "wasi:keyvalue/"),
        ("spin-sdk-5", "fermyon:spin/key-value"),
        ("spin-sdk-7", "spin:key-value/key-value"),
    ] {
        let app = App::new(guest, "")?;
        let output = app.run(&["up", "--listen", "127.0.0.1:0"])?;
        assert_eq!(output.code, Some(5), "{guest}: {}", output.stderr);
        for part in ["error[TB0204]", import, "grants = { keyvalue = ["] {
            assert!(output.stderr.contains(part), "{guest}: {}", output.stderr);
        }
    }
    Ok(())
}

#[test]
fn a_command_is_no_function_and_a_function_no_command() -> Result<()> {
    let command = guest("cli-p2");
    let arguments = ["serve", &command.to_string_lossy(), "--listen=127.0.0.1:0"];
    let output = run(&arguments)?;
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    assert!(output.stderr.contains("error[TB0206]"), "{}", output.stderr);
    let function = guest("http-hello");
    let output = run(&["run", &function.to_string_lossy()])?;
    assert_ne!(output.code, Some(0));
    assert!(output.stderr.contains("error[TB"), "{}", output.stderr);
    Ok(())
}

#[test]
fn what_is_not_a_component_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("text.wasm");
    std::fs::write(&file, "this is no component")?;
    let output = run(&["serve", &file.to_string_lossy(), "--listen=127.0.0.1:0"])?;
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    assert!(output.stderr.contains("error[TB0202]"), "{}", output.stderr);
    let missing = folder.path().join("missing.wasm");
    let output = run(&["serve", &missing.to_string_lossy(), "--listen=127.0.0.1:0"])?;
    assert_eq!(output.code, Some(4), "{}", output.stderr);
    assert!(output.stderr.contains("error[TB0201]"), "{}", output.stderr);
    Ok(())
}
