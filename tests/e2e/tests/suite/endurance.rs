//! What a node bears for as long as it runs: guests that are given up, many releases, little room, a lost cache.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use serde_json::Value;
use tombolo_e2e::{Answer, App, Client, Server, command};

/// A node whose pool has the fewest slots that there are: 16, half of them for calls from outside.
const SMALL: &str = "[runtime]\nmemory_bytes_max = \"64MiB\"\n";
/// How long something that must come may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes the node's config into the app's folder, where `up` and `dev` find it.
fn configure(app: &App, config: &str) -> Result<()> {
    Ok(std::fs::write(app.folder().join("node.toml"), config)?)
}

/// Asks until the answer is as it must become; it may be another one before.
async fn ask_until(client: Client, path: &str, expected: impl Fn(&Answer) -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = client.get(path).await?;
        if expected(&answer) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{path} still answers {}: {}", answer.status, answer.text());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until `describe function main` tells this value.
async fn describe_until(app: &App, key: &str, expected: Value) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let described = app.run(&["describe", "function", "main", "--json"])?;
        let function: Value = serde_json::from_str(&described.stdout)
            .with_context(|| format!("{}{}", described.stdout, described.stderr))?;
        if function[key] == expected {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("`{key}` does not become {expected}: {function}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The files of the code cache with this extension.
fn cached(app: &App, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(app.folder().join(".tombolo/code"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    assert!(!found.is_empty(), "there is no .{extension} in the store");
    Ok(found)
}

#[tokio::test]
async fn guests_that_were_given_up_leave_the_node_to_others() -> Result<()> {
    let shared = "isolation = \"concurrent\"\nlimits = { wall = \"200ms\" }";
    let app = App::with_functions(&[("main", "http-p3", shared), ("other", "http-p3", "")])?;
    configure(&app, SMALL)?;
    let server = app.up()?;
    let client = server.client();
    // Sixteen slots with sixteen places each.
    for _ in 0..40 {
        let asked = (0..8).map(|_| client.get("/sleep?ms=3600000"));
        for answer in try_join_all(asked).await? {
            assert_eq!(answer.status, 504, "{}", answer.text());
            assert_eq!(answer.problem()?["limit"], "wall");
        }
    }
    describe_until(&app, "instances", 0.into()).await?;
    let other = app.run(&["invoke", "other", "--http", "GET /"])?;
    assert_eq!(other.stdout, "hello, world", "{}", other.stderr);
    ask_until(client, "/", |answer| answer.text() == "hello, world").await
}

#[test]
fn a_node_ends_though_a_guest_would_not() -> Result<()> {
    let settings = "isolation = \"concurrent\"\nlimits = { wall = \"200ms\" }";
    let app = App::new("http-p3", settings)?;
    let request = "GET /sleep?ms=3600000";
    let output = app.run(&["invoke", "main", "--http", request])?;
    assert_eq!(output.code, Some(124), "{}", output.stderr);
    Ok(())
}

#[tokio::test]
async fn a_guest_that_is_given_up_takes_nobody_along() -> Result<()> {
    let settings = "isolation = \"concurrent\"\nlimits = { wall = \"60s\" }";
    let app = App::new("http-p3", settings)?;
    configure(&app, "[runtime]\ncores = 1\n")?;
    let server = app.up()?;
    let mut held = server.client().converse("/echo", "a").await?;
    assert_eq!(held.hear(1).await?, "a");
    let gone = server.client().converse("/echo", "b").await?;
    // Its client leaves.
    drop(gone);
    assert_eq!(server.client().get("/").await?.text(), "hello, world");
    held.say("c").await?;
    assert_eq!(held.end().await?, "c");
    Ok(())
}

#[tokio::test]
async fn a_trap_of_a_shared_instance_is_told_to_all_whom_it_served() -> Result<()> {
    let app = App::new("http-p3", "isolation = \"concurrent\"")?;
    configure(&app, "[runtime]\ncores = 1\n")?;
    let server = app.up()?;
    let client = server.client();
    for _ in 0..10 {
        let waiting: Vec<_> = (0..3)
            .map(|_| tokio::spawn(async move { client.get("/sleep?ms=2000").await }))
            .collect();
        let trapped = client.get("/trap").await?;
        assert_eq!(trapped.problem()?["code"], "TB0301");
        for answer in waiting {
            let answer = answer.await??;
            // Those that came after the trap have an instance of their own.
            if answer.status != 200 {
                assert_eq!(answer.problem()?["code"], "TB0301", "{}", answer.text());
                assert_eq!(answer.problem()?["blame"], "guest");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_release_leaves_nothing_behind() -> Result<()> {
    for (guest, isolation) in [("http-kitchen", "serial"), ("http-p3", "concurrent")] {
        let app = App::new(guest, &format!("isolation = \"{isolation}\""))?;
        configure(&app, SMALL)?;
        let path = app.folder().join("tombolo.toml");
        let manifest = std::fs::read_to_string(&path)?;
        let mut command = command();
        let command = command
            .current_dir(app.folder())
            .args(["dev", "--listen", "127.0.0.1:0"]);
        let server = Server::start(command)?;
        for release in 1..24 {
            let version = format!("version = \"1.0.{release}\"");
            std::fs::write(&path, manifest.replace("version = \"1.0.0\"", &version))?;
            let deadline = Instant::now() + PATIENCE;
            while !app
                .run(&["get", "apps"])?
                .stdout
                .contains(&format!("1.0.{release}"))
            {
                assert!(Instant::now() < deadline, "{version}: {}", server.log());
            }
            let answer = server.client().get("/leak").await?;
            assert_eq!((release, answer.text().as_str()), (release, "1"));
        }
    }
    Ok(())
}

#[tokio::test]
async fn memory_of_all_instances_is_bounded_and_the_node_takes_the_blame() -> Result<()> {
    let app = App::new("http-kitchen", "limits = { memory = \"512MiB\" }")?;
    configure(&app, SMALL)?;
    let server = app.up()?;
    let client = server.client();
    for _ in 0..5 {
        let refused = client.get("/allocate?mib=100").await?;
        assert_eq!(refused.status, 429, "{}", refused.text());
        assert_eq!(refused.problem()?["code"], "TB0308");
        assert_eq!(refused.problem()?["blame"], "host");
        assert!(refused.header("retry-after").is_some());
        // What an instance had comes back with it.
        let served = client.get("/allocate?mib=40").await?;
        assert_eq!(served.status, 200, "{}", served.text());
    }
    Ok(())
}

#[tokio::test]
async fn memory_of_idle_instances_comes_back_to_who_needs_it() -> Result<()> {
    let app = App::with_functions(&[
        ("main", "http-kitchen", "limits = { memory = \"512MiB\" }"),
        ("hoard", "http-kitchen", "isolation = \"serial\""),
    ])?;
    configure(&app, SMALL)?;
    let server = app.up()?;
    let hoarded = app.run(&["invoke", "hoard", "--http", "GET /allocate?mib=40"])?;
    assert_eq!(hoarded.code, Some(0), "{}", hoarded.stderr);
    ask_until(server.client(), "/allocate?mib=40", |answer| {
        assert!(
            [200, 429].contains(&answer.status.as_u16()),
            "{}",
            answer.text()
        );
        answer.status == 200
    })
    .await
}

#[test]
fn idle_instances_give_way_to_other_functions() -> Result<()> {
    let names = ["main", "b", "c", "d", "e", "f"];
    let functions = names.map(|name| (name, "http-kitchen", "isolation = \"serial\""));
    let app = App::with_functions(&functions)?;
    configure(&app, SMALL)?;
    let _server = app.up()?;
    for name in names {
        std::thread::scope(|scope| {
            let ask = || app.run(&["invoke", name, "--http", "GET /sleep?ms=1000"]);
            let asked: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            for asked in asked {
                let output = asked.join().expect("asking does not panic")?;
                assert_eq!(output.stdout, "slept", "{name}: {}", output.stderr);
            }
            anyhow::Ok(())
        })?;
    }
    Ok(())
}

#[tokio::test]
async fn lost_code_is_compiled_beside_the_requests() -> Result<()> {
    let app = App::new("http-hello", "")?;
    configure(&app, "[runtime]\nidle_after = \"1s\"\n")?;
    let server = app.up()?;
    let client = server.client();
    assert_eq!(client.get("/").await?.text(), "hello, world");
    describe_until(&app, "code_loaded", false.into()).await?;
    for file in cached(&app, "cwasm")? {
        std::fs::remove_file(file)?;
    }
    let refused = client.get("/").await?;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.problem()?["code"], "TB0312");
    assert!(refused.header("retry-after").is_some());
    ask_until(client, "/", |answer| {
        assert!(
            [200, 503].contains(&answer.status.as_u16()),
            "{}",
            answer.text()
        );
        answer.status == 200
    })
    .await?;
    cached(&app, "cwasm").map(drop)
}

#[tokio::test]
async fn a_damaged_copy_of_a_component_is_replaced_by_the_next_deployment() -> Result<()> {
    let app = App::new("http-hello", "")?;
    let mut server = app.up()?;
    server.terminate()?;
    server.wait()?;
    for file in cached(&app, "wasm")? {
        std::fs::write(file, "damaged")?;
    }
    for file in cached(&app, "cwasm")? {
        std::fs::remove_file(file)?;
    }
    let server = app.up()?;
    assert_eq!(server.client().get("/").await?.text(), "hello, world");
    Ok(())
}
