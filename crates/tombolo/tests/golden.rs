//! What users see, compared with the files in `tests/golden/`; `UPDATE_GOLDEN=1` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

const COMMANDS: [&str; 16] = [
    "new",
    "build",
    "dev",
    "up",
    "serve",
    "run",
    "invoke",
    "check",
    "logs",
    "top",
    "get",
    "describe",
    "queue",
    "doctor",
    "explain",
    "completions",
];

/// Runs the binary in a folder: exit code, stdout and stderr, without what differs from run to run.
fn transcript(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tombolo"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("COLUMNS")
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let real = folder.canonicalize().unwrap();
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes).replace(&real.display().to_string(), "[FOLDER]")
    };
    let mut transcript = format!("$ tombolo {}\n", arguments.join(" "));
    transcript += &text(&output.stdout);
    for line in text(&output.stderr).lines() {
        transcript += &format!("2> {line}\n");
    }
    transcript + &format!("exit {}\n", output.status.code().unwrap())
}

fn assert_golden(name: &str, text: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(
        text, golden,
        "{name} differs; if that is meant, run with UPDATE_GOLDEN=1"
    );
}

#[test]
fn every_command_explains_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = transcript(folder.path(), &["--help"]);
    for command in COMMANDS {
        text += "\n";
        text += &transcript(folder.path(), &[command, "--help"]);
    }
    for command in ["list", "peek", "send", "redrive", "purge"] {
        text += "\n";
        text += &transcript(folder.path(), &["queue", command, "--help"]);
    }
    assert_golden("help.txt", &text);
}

#[test]
fn every_error_code_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = transcript(folder.path(), &["explain"]);
    for arguments in [
        &["explain", "TB0102"][..],
        &["explain", "205", "-o", "json"],
        &["explain", "TB9999"],
    ] {
        text += "\n";
        text += &transcript(folder.path(), arguments);
    }
    assert_golden("explain.txt", &text);
}

const MANIFEST: &str = r#"[app]
name = "shop"
version = "1.0.0"

[functions.cart]
component = "cart.wasm"
build = { command = "echo compiling; exit 3" }

[functions.till]
component = "till.wasm"
build = { command = "exit 127" }

[functions.plain]
component = "plain.wasm"

[[triggers.http]]
route = "/cart/{id}"
function = "cart"
"#;

#[test]
fn errors_say_what_where_why_and_what_next() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut text = String::new();
    for arguments in [
        &["up"][..],
        &["get", "apps"],
        &["up", "-C", "nowhere"],
        &["up", "--listen", "8080"],
        &["up", "--timeout", "1s"],
    ] {
        text += &(transcript(at, arguments) + "\n");
    }
    std::fs::write(at.join("tombolo.toml"), MANIFEST).unwrap();
    for arguments in [
        &["build", "cart"][..],
        &["build", "till"],
        &["build", "plain"],
        &["build", "nobody"],
        &["check"],
        &["check", "-o", "json", "-q"],
        &["up", "--listen", "127.0.0.1:0"],
        &["up", "--config", "nothing.toml"],
        &["invoke", "cart", "--http", "GET cart"],
        &["new", "tombolo", "-o", "name", "--dry-run"],
    ] {
        text += &(transcript(at, arguments) + "\n");
    }
    std::fs::write(at.join("tombolo.toml"), MANIFEST.replace("route", "rout")).unwrap();
    text += &transcript(at, &["check"]);
    std::fs::write(at.join("tombolo.toml"), MANIFEST).unwrap();
    std::fs::write(at.join("node.toml"), "[http]\nlisten = \"nowhere\"\n").unwrap();
    text += "\n";
    text += &transcript(at, &["up"]);
    assert_golden("errors.txt", &text);
}

#[test]
fn a_bare_file_that_cannot_be_used_is_told_from_one_that_can() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let files = [
        ("empty.wasm", ""),
        ("notes.wasm", "this is no component"),
        ("broken.wasm", "(component"),
        ("library.wasm", "(module)"),
    ];
    for (name, text) in files {
        std::fs::write(at.join(name), text).unwrap();
    }
    let mut text = String::new();
    for arguments in [
        &["serve", "nothing.wasm"][..],
        &["serve", "."],
        &["run", "nothing.wasm"],
        &["serve", "empty.wasm"],
        &["serve", "notes.wasm"],
        &["run", "notes.wasm"],
        &["serve", "broken.wasm"],
        &["serve", "library.wasm"],
        &["run", "library.wasm"],
        &["run", "--dir", "nowhere::/data", "library.wasm"],
        &["serve", "--dir", "notes.wasm::/data", "library.wasm"],
    ] {
        text += &(transcript(at, arguments) + "\n");
    }
    let manifest = "[app]\nname = \"shop\"\nversion = \"1.0.0\"\n[functions.plain]\ncomponent = \"notes.wasm\"\n";
    std::fs::write(at.join("tombolo.toml"), manifest).unwrap();
    for arguments in [&["build"][..], &["check"]] {
        text += &(transcript(at, arguments) + "\n");
    }
    let granted = manifest.to_owned() + "grants = { directories = [\"nowhere::/data\"] }\n";
    std::fs::write(at.join("tombolo.toml"), granted).unwrap();
    text += &transcript(at, &["check"]);
    assert_golden("files.txt", &text);
}

#[test]
fn a_missing_tool_is_named_with_the_command_that_installs_it() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = MANIFEST.replace("exit 127", "npm run build");
    std::fs::write(folder.path().join("tombolo.toml"), manifest).unwrap();
    std::os::unix::fs::symlink("/bin/sh", folder.path().join("sh")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tombolo"))
        .args(["build", "till"])
        .current_dir(folder.path())
        .env("PATH", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("error[TB0602]: the build of `till` needs `npm`"),
        "{said}"
    );
    assert!(said.contains("help: `apt install nodejs npm`"), "{said}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_new_app_is_never_written_over_an_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut text = transcript(at, &["new", "shop", "--template", "http-js"]);
    std::fs::write(at.join("shop/README.md"), "mine").unwrap();
    text += "\n";
    text += &transcript(at, &["new", "shop", "--template", "http-rust"]);
    assert_eq!(
        std::fs::read_to_string(at.join("shop/README.md")).unwrap(),
        "mine"
    );
    assert_golden("new.txt", &text);
}

/// What the API of a node answers, the same each time.
fn api(path: &str) -> &'static str {
    match path {
        "/_tombolo/api/v1/apps" => {
            r#"{"items":[{"name":"shop","version":"1.0.0","folder":"/apps/shop","functions":["cart","till"],"triggers":1}]}"#
        }
        "/_tombolo/api/v1/apps/shop" => {
            r#"{"name":"shop","version":"1.0.0","description":"Sells","functions":["cart","till"],"triggers":1}"#
        }
        "/_tombolo/api/v1/functions" => {
            r#"{"items":[{"app":"shop","name":"cart","isolation":"fresh","world":"wasi:http 0.2","usage":{"invocations":12,"errors":1,"cold_starts":1,"cpu_ns":1500000,"wall_ns":9000000,"gb_seconds":0.0042,"bytes":1000,"running":1,"waiting":0}}]}"#
        }
        "/_tombolo/api/v1/functions/shop/cart" => {
            r#"{"app":"shop","name":"cart","component":"/apps/shop/cart.wasm","digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","isolation":"fresh","world":"wasi:http 0.2","instances":1,"code_loaded":true,"limits":{"wall_ms":2000,"cpu_ms":500,"memory_bytes":67108864,"hostcall_bytes":1048576,"response_bytes":8388608,"log_bytes":65536,"concurrency":200,"waiting":1000},"grants":{"http":["https://weather.example"],"keyvalue":["carts"]},"env":["CITY"],"config":{"horizon":"90s"},"triggers":[{"app":"shop","kind":"http","route":"/cart/{id}","function":"cart"}],"usage":{"invocations":12}}"#
        }
        "/_tombolo/api/v1/triggers" => {
            r#"{"items":[{"app":"shop","kind":"http","route":"/cart/{id}","function":"cart"},{"app":"shop","kind":"http","route":"/{*rest}","static":"/apps/shop/public"},{"app":"shop","kind":"http","route":"/hooks/orders","function":"cart","queue":"orders"}]}"#
        }
        "/_tombolo/api/v1/queues" => {
            r#"{"items":[{"app":"shop","name":"orders","used":true,"function":"cart","depth":3,"bytes":420,"oldest_age_ms":61500,"ready":1,"leased":0,"scheduled":1,"backing_off":1,"counters":{"published":9,"attempts":8,"retried":1,"delivered":5,"dead":1}},{"app":"shop","name":"orders.dead","used":true,"depth":1,"bytes":140,"oldest_age_ms":250,"ready":1,"leased":0,"scheduled":0,"backing_off":0,"counters":{"published":1}}]}"#
        }
        "/_tombolo/api/v1/apps/shop/queues/orders/events" => {
            r#"{"items":[{"sequence":8,"standing":"backing-off","priority":4,"bytes":140,"published":"2026-01-31T12:00:00.000Z","retry_in_ms":1500,"attempts":1,"history":[{"attempt":1,"at":"2026-01-31T12:00:01.000Z","code":"TB0301","detail":"the function trapped"}],"event":{"specversion":"1.0","id":"8","source":"/till/1","type":"order","subject":"plums"}}]}"#
        }
        "/_tombolo/api/v1/apps/shop/queues/orders.dead/events" => {
            r#"{"items":[{"sequence":6,"standing":"ready","priority":4,"bytes":140,"published":"2026-01-31T12:00:00.000Z","attempts":0,"history":[],"problem":"its content cannot be read: the store is damaged: an event"}]}"#
        }
        "/_tombolo/api/v1/apps/shop/queues/orders.dead/events/7" => {
            r#"{"sequence":7,"standing":"ready","priority":4,"bytes":140,"published":"2026-01-31T12:00:00.000Z","attempts":0,"history":[],"dead":{"origin":"shop/orders","burial":"refused","attempts":1,"history":[{"attempt":1,"at":"2026-01-31T12:00:01.000Z","detail":"the function answered 422"}]},"event":{"specversion":"1.0","id":"7","source":"/till/1","type":"order","data":{"count":3}}}"#
        }
        "/_tombolo/api/v1/logs" => concat!(
            r#"{"time":"2026-01-31T12:00:00.000Z","app":"shop","function":"cart","request_id":"r1","trace_id":"t1","stream":"stdout","level":"info","message":"one"}"#,
            "\n",
            r#"{"time":"2026-01-31T12:00:00.001Z","stream":"node","level":"warn","message":"two","fields":{"left":3}}"#,
            "\n"
        ),
        _ => {
            r#"{"type":"urn:tombolo:error:TB0002","title":"t","status":404,"detail":"there is no such thing","code":"TB0002"}"#
        }
    }
}

fn answer(stream: TcpStream) {
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let path = request.split(' ').nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let _headers = lines.take_while(|line| !line.is_empty()).count();
    let body = api(path);
    let status = if body.contains("urn:tombolo:error") {
        "404 Not Found"
    } else {
        "200 OK"
    };
    let length = body.len();
    let answered = write!(
        &stream,
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    answered.unwrap();
}

#[test]
fn what_a_node_has_is_shown_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = listener.local_addr().unwrap();
    // The thread ends with the test's process.
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    std::fs::create_dir(at.join(".tombolo")).unwrap();
    let address = format!(r#"{{"admin":"http://{admin}","token":"t","pid":1}}"#);
    std::fs::write(at.join(".tombolo/node.json"), address).unwrap();
    let mut text = String::new();
    for kind in ["apps", "functions", "triggers"] {
        for format in ["table", "wide", "name", "json", "yaml"] {
            text += &(transcript(at, &["get", kind, "-o", format]) + "\n");
        }
    }
    for arguments in [
        &["describe", "app", "shop"][..],
        &["describe", "app", "nobody"],
        &["describe", "function", "cart"],
        &["describe", "function", "cart", "--json"],
        &["describe", "function", "nobody"],
        &["queue", "list"],
        &["queue", "list", "-o", "wide"],
        &["queue", "list", "-o", "name"],
        &["queue", "peek", "orders", "--limit", "1"],
        &["queue", "peek", "shop/orders", "--limit", "1", "-o", "wide"],
        &["queue", "peek", "orders.dead", "--limit", "1"],
        &["queue", "peek", "orders.dead", "--limit", "1", "-o", "wide"],
        &["queue", "peek", "orders.dead", "--limit", "1", "--json"],
        &["queue", "peek", "orders.dead", "7"],
        &["queue", "peek", "orders", "99"],
        &["queue", "purge", "nothing", "--all"],
        &["queue", "send", "orders", "--data", "x", "--source", "a b"],
        &["logs"],
        &["logs", "-o", "wide", "--tail", "2"],
        &["logs", "--json"],
        &["logs", "--since", "yesterday"],
        &["logs", "--function", "nobody"],
    ] {
        text += &(transcript(at, arguments) + "\n");
    }
    assert_golden("get.txt", &text);
}
