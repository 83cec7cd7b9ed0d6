//! What an operator watches: `top`, and the deliveries that `dev` shows.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;
use tombolo_e2e::{App, Server, command, tombolo};

const CONSUMED: &str = "
[queues.readings]
[[triggers.queue]]
queue = \"readings\"
function = \"main\"
retry = { attempts = 1 }
";

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[tokio::test]
async fn top_tells_of_functions_and_queues_in_each_interval() -> Result<()> {
    let app = App::new("event-types", "")?.with(CONSUMED)?;
    let unreachable = app.run(&["top", "--once"])?;
    assert_eq!(unreachable.code, Some(6), "{unreachable:?}");
    let server = app.up()?;
    let api = app.api()?;
    api.send("readings", &ids(&["1", "2", "3"])).await?;
    api.until("readings", |queue| queue["counters"]["delivered"] == 3)
        .await?;
    assert_eq!(server.client().get("/").await?.text(), "taken");

    let json = app.run(&["top", "-n", "2", "--interval", "100ms", "--json"])?;
    assert_eq!(json.code, Some(0), "{json:?}");
    let lines: Vec<&str> = json.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{}", json.stdout);
    for line in lines {
        let figures: Value = serde_json::from_str(line)?;
        let function = &figures["functions"][0];
        assert_eq!(
            (&function["name"], &function["invocations"]),
            (&"main".into(), &4.into())
        );
        assert_eq!(function["invocations_per_s"], 0.0);
        let queues = figures["queues"].as_array().context("no queues")?;
        let queue = queues.iter().find(|queue| queue["name"] == "readings");
        let queue = queue.context("no queue")?;
        assert_eq!(
            (&queue["attempts"], &queue["depth"]),
            (&3.into(), &0.into())
        );
    }
    let table = app.run(&["top", "--once", "--interval", "100ms"])?;
    for part in ["CALLS/S", "proof/main", "IN FLIGHT", "proof/readings"] {
        assert!(table.stdout.contains(part), "no {part}: {}", table.stdout);
    }
    let wrong = app.run(&["top", "--interval", "1ms"])?;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    Ok(())
}

#[test]
fn top_leaves_the_terminal_as_it_was_when_q_is_pressed() -> Result<()> {
    let app = App::new("event-types", "")?;
    let _server = app.up()?;
    let line = format!("{} top --interval 100ms && stty -a", tombolo().display());
    let script = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .current_dir(app.folder())
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut script) = script else {
        eprintln!("skipped: this machine has no `script`, which makes terminals");
        return Ok(());
    };
    let mut screen = script.stdout.take().context("stdout is no pipe")?;
    let (mut shown, mut bytes) = (String::new(), [0; 1024]);
    while !shown.contains("FUNCTION") {
        let read = screen.read(&mut bytes)?;
        anyhow::ensure!(read > 0, "it ends by itself: {shown}");
        shown += &String::from_utf8_lossy(bytes.get(..read).unwrap_or_default());
    }
    let mut keys = script.stdin.take().context("stdin is no pipe")?;
    keys.write_all(b"q")?;
    keys.flush()?;
    screen.read_to_string(&mut shown)?;
    assert!(script.wait()?.success(), "{shown}");
    let (_, after) = shown
        .split_once("\x1b[?1049l")
        .context("the screen is not left")?;
    assert!(
        after.contains(" icanon") && after.contains(" echo "),
        "{after}"
    );
    Ok(())
}

#[tokio::test]
async fn dev_shows_each_delivery() -> Result<()> {
    let app = App::new("event-types", "")?.with(CONSUMED)?;
    let mut dev = command();
    dev.current_dir(app.folder())
        .args(["dev", "--listen", "127.0.0.1:0"]);
    let server = Server::start(&mut dev)?;
    let sent = app.run(&[
        "queue", "send", "readings", "--data", "1", "--id", "first", "--type", "reading",
    ])?;
    assert_eq!(sent.code, Some(0), "{sent:?}");
    server.wait_for_log("verdict=\"done\"")?;
    let poison = app.run(&[
        "queue", "send", "readings", "--data", "1", "--id", "second", "--type", "poison",
    ])?;
    assert_eq!(poison.code, Some(0), "{poison:?}");
    server.wait_for_log("verdict=\"failed\"")?;
    let log = server.log();
    let line = log.lines().find(|line| line.contains("id=\"first\""));
    let line = line.context("no line of the event")?;
    for part in [
        "delivery",
        "trigger=\"queue\"",
        "queue=proof/readings",
        "type=\"reading\"",
        "function=proof/main",
        " ms=",
    ] {
        assert!(line.contains(part), "no {part}: {line}");
    }
    Ok(())
}
