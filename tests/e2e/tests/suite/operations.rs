//! What an operator relies on: drains that finish what was begun and end in time, releases taken over under load, and
//! limits that slow clients cannot stretch.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tombolo_e2e::{App, Client, Origin, Server, guest};

/// Longer than any test waits, and than any drain may take.
const LONG_MS: u32 = 240_000;

#[tokio::test]
async fn what_a_function_does_after_its_answer_is_finished_in_a_drain() -> Result<()> {
    let origin = Origin::start()?;
    let url = format!("http://{}", origin.address());
    let mut server = Server::serve("http-kitchen", &["--grant-http", &url])?;
    let path = format!("/later?ms=300&url={url}/");
    assert_eq!(server.client().get(&path).await?.text(), "later");
    server.terminate()?;
    assert_eq!(server.wait()?.code(), Some(0), "{}", server.log());
    assert_eq!(origin.connections(), 1);
    Ok(())
}

#[tokio::test]
async fn a_drain_ends_although_functions_are_still_at_work() -> Result<()> {
    let app = App::new("http-kitchen", "limits = { wall = \"10min\" }")?;
    config(&app, "[http]\ndrain_timeout = \"100ms\"\n")?;
    let mut server = app.up()?;
    let later = format!("/later?ms={LONG_MS}&url=http://127.0.0.1:9/");
    // One of the listener's, and one that came by the API.
    assert_eq!(server.client().get(&later).await?.text(), "later");
    let invoked = app.run(&["invoke", "main", "--http", &format!("GET {later}")])?;
    assert_eq!(invoked.code, Some(0), "{}", invoked.stderr);
    server.terminate()?;
    assert_eq!(server.wait()?.code(), Some(0), "{}", server.log());
    Ok(())
}

#[tokio::test]
async fn a_second_signal_cuts_what_a_drain_waits_for() -> Result<()> {
    let app = App::new("http-kitchen", "limits = { wall = \"10min\" }")?;
    config(&app, "[http]\ndrain_timeout = \"1h\"\n")?;
    let mut server = app.up()?;
    let mut held = server.client().converse("/echo", "before").await?;
    assert_eq!(held.hear(6).await?, "before");
    server.terminate()?;
    server.wait_for_log("draining")?;
    server.terminate()?;
    assert_eq!(server.wait()?.code(), Some(130), "{}", server.log());
    assert!(held.end().await.is_err(), "the answer looks whole");
    Ok(())
}

#[tokio::test]
async fn a_node_says_that_it_drains_before_it_closes_its_listeners() -> Result<()> {
    let app = App::new("http-hello", "")?;
    config(&app, "[http]\ndrain_delay = \"1h\"\n")?;
    let mut server = app.up()?;
    let admin = Client::http1(admin(&app)?);
    assert_eq!(admin.get("/_tombolo/readyz").await?.status, 200);
    server.terminate()?;
    while admin.get("/_tombolo/readyz").await?.status == 200 {
        tokio::task::yield_now().await;
    }
    // Balancers that have not looked yet still send requests.
    assert_eq!(server.client().get("/").await?.text(), "hello, world");
    server.terminate()?;
    assert_eq!(server.wait()?.code(), Some(130), "{}", server.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_takes_over_a_release_without_losing_a_request() -> Result<()> {
    let app = App::new("http-hello", "")?;
    let server = app.up()?;
    let load = Load::start(server.client());
    load.answered(50).await;
    let manifest = app.folder().join("tombolo.toml");
    let first = std::fs::read_to_string(&manifest)?;
    let (old, new) = (guest("http-hello"), guest("http-kitchen"));
    let second = first
        .replace(&old.display().to_string(), &new.display().to_string())
        .replace("1.0.0", "2.0.0");
    std::fs::write(&manifest, &second)?;
    server.signal("HUP")?;
    server.wait_for_log("serving version 2.0.0")?;
    assert_eq!(server.client().get("/").await?.text(), "kitchen");

    // What cannot be deployed changes nothing, and is told.
    let missing = second.replace(&new.display().to_string(), "/nowhere.wasm");
    let renamed = second.replace("proof", "other");
    for (broken, code) in [
        ("no manifest", "error[TB0101]"),
        (&missing, "error[TB0201]"),
        (&renamed, "is called `other` now"),
    ] {
        std::fs::write(&manifest, broken)?;
        server.signal("HUP")?;
        server.wait_for_log(code)?;
        assert_eq!(server.client().get("/").await?.text(), "kitchen");
    }
    server.wait_for_log("still serving the release from before")?;

    std::fs::write(&manifest, first)?;
    server.signal("HUP")?;
    server.wait_for_log("serving version 1.0.0")?;
    assert_eq!(server.client().get("/").await?.text(), "hello, world");
    load.answered(50).await;
    load.end().await
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends_with_its_wall_time() -> Result<()> {
    let app = App::new(
        "http-kitchen",
        "limits = { wall = \"500ms\", response = \"1GiB\" }",
    )?;
    config(&app, "[http]\nbody_idle_timeout = \"1h\"\n")?;
    let server = app.up()?;
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(32 << 10)?;
    let mut stream = socket.connect(server.address()).await?;
    stream
        .write_all(b"GET /stream-long HTTP/1.1\r\nhost: a\r\n\r\n")
        .await?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let usage = usage(&app)?;
        if usage["errors"] == 1 && usage["running"] == 0 {
            break;
        }
        if Instant::now() > deadline {
            bail!("the invocation does not end: {usage}");
        }
    }
    let logged = app.run(&["logs"])?;
    assert!(logged.stdout.contains("TB0302"), "{}", logged.stdout);
    drop(stream);
    Ok(())
}

#[test]
fn a_trigger_is_described_by_its_route() -> Result<()> {
    let app = App::new("http-hello", "")?;
    let _server = app.up()?;
    for name in ["/{*rest}", "http:/{*rest}"] {
        let output = app.run(&["describe", "trigger", name])?;
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        assert!(output.stdout.contains("proof/main"), "{}", output.stdout);
    }
    let output = app.run(&["describe", "trigger", "/nowhere"])?;
    assert_eq!(output.code, Some(4), "{}", output.stderr);
    Ok(())
}

fn config(app: &App, text: &str) -> Result<()> {
    Ok(std::fs::write(app.folder().join("node.toml"), text)?)
}

/// The admin listener of the node that runs in the app's folder.
fn admin(app: &App) -> Result<SocketAddr> {
    let text = std::fs::read_to_string(app.folder().join(".tombolo/node.json"))?;
    let address: Value = serde_json::from_str(&text)?;
    let origin = address["admin"].as_str().context("no address")?;
    Ok(origin.trim_start_matches("http://").parse()?)
}

fn usage(app: &App) -> Result<Value> {
    let output = app.run(&["describe", "function", "main", "--json"])?;
    let function: Value = serde_json::from_str(&output.stdout)?;
    Ok(function["usage"].clone())
}

/// Clients that send one request after another and note what is no whole answer.
struct Load {
    over: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<Result<()>>>,
}

impl Load {
    fn start(client: Client) -> Self {
        let (over, answers) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let clients = (0..4).map(|_| {
            let (over, answers) = (over.clone(), answers.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    let answer = client.get("/").await?;
                    let text = answer.text();
                    if answer.status != 200 || !["hello, world", "kitchen"].contains(&&*text) {
                        bail!("{}: {text}", answer.status);
                    }
                    answers.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            })
        });
        Self {
            clients: clients.collect(),
            over,
            answers,
        }
    }

    /// Waits until so many more were answered, or a client has given up.
    async fn answered(&self, more: usize) {
        let until = self.answers.load(Ordering::SeqCst) + more;
        while self.answers.load(Ordering::SeqCst) < until
            && !self.clients.iter().any(|client| client.is_finished())
        {
            tokio::task::yield_now().await;
        }
    }

    async fn end(self) -> Result<()> {
        self.over.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await??;
        }
        Ok(())
    }
}
