//! Clocks that jump by years, both ways: what a queue has grows neither older nor younger by it, and each tick is one
//! event. The jumps come from libfaketime.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tombolo_e2e::{App, Server, command};

/// Where Debian's package puts the library, for each of its architectures.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    let mut files = folders
        .filter_map(Result::ok)
        .map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    let found = files.find(|file| file.exists());
    if found.is_none() {
        eprintln!("skipped: libfaketime is not installed (sudo apt-get install faketime)");
    }
    found
}

/// `tombolo up` of an app under a wall clock that a file sets.
fn up(app: &App, library: &Path, clock: &str) -> Result<Server> {
    let file = app.folder().join("clock");
    std::fs::write(&file, clock)?;
    let mut command = command();
    command
        .current_dir(app.folder())
        .args(["up", "--listen", "127.0.0.1:0"])
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &file)
        // Read each time, and steady clocks stay as they are.
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("TZ", "UTC");
    Server::start(&mut command)
}

fn jump(app: &App, clock: &str) -> Result<()> {
    Ok(std::fs::write(app.folder().join("clock"), clock)?)
}

fn id(text: &str) -> [String; 1] {
    [text.to_owned()]
}

#[tokio::test]
async fn queues_do_not_notice_that_the_clock_jumps() -> Result<()> {
    let Some(library) = library() else {
        return Ok(());
    };
    let consumed = "
[queues.kept]
retention = { age = \"1000d\" }
[queues.due]
retention = { age = \"1000d\" }
[queues.stuck]
[queues.poison]
[[triggers.queue]]
queue = \"due\"
function = \"main\"
[[triggers.queue]]
queue = \"stuck\"
function = \"main\"
[[triggers.queue]]
queue = \"poison\"
function = \"main\"
retry = { attempts = 5, backoff = \"1h\" }
";
    let app = App::new("event-types", "limits = { wall = \"10min\" }")?.with(consumed)?;
    let mut server = up(&app, &library, "+0")?;
    let api = app.api()?;
    let batch = "application/cloudevents+json";
    for kind in ["stuck", "poison"] {
        let event =
            serde_json::json!({"specversion": "1.0", "id": "1", "source": "/m", "type": kind});
        let path = format!("/apps/proof/queues/{kind}/events");
        let sent = api.post(&path, batch, serde_json::to_vec(&event)?).await?;
        assert_eq!(sent.status, 202, "{}", sent.text());
    }
    api.send("kept", &id("1")).await?;
    let due = "/apps/proof/queues/due/events?delay=900d";
    let event = serde_json::json!({"specversion": "1.0", "id": "due", "source": "/m", "type": "t"});
    assert_eq!(
        api.post(due, batch, serde_json::to_vec(&event)?)
            .await?
            .status,
        202
    );
    api.until("stuck", |queue| queue["leased"] == 1).await?;
    api.until("poison", |queue| queue["backing_off"] == 1)
        .await?;
    for (clock, delivered) in [("-5y", 0), ("-20y", 0), ("+5y", 1), ("+20y", 1)] {
        jump(&app, clock)?;
        // Neither expired by the clock of the wall nor forgotten.
        let again = api.send("kept", &id("1")).await?;
        let duplicate = again.text().contains("\"duplicates\":1");
        assert!(duplicate, "{clock}: {}", again.text());
        let kept = api.queue("kept").await?;
        assert_eq!(kept["depth"], 1, "{clock}");
        // What is due at a time of the wall is due when the wall says so, and not before.
        let due = api
            .until("due", |due| due["counters"]["delivered"] == delivered)
            .await;
        due.context(clock)?;
        let stuck = api.queue("stuck").await?;
        assert_eq!(stuck["leased"], 1, "{clock}: the lease ended");
        let poison = api.queue("poison").await?;
        assert_eq!(poison["backing_off"], 1, "{clock}: no backoff");
    }
    server.kill()?;
    let _server = up(&app, &library, "-5y")?;
    let api = app.api()?;
    let again = api.send("kept", &id("1")).await?;
    assert!(
        again.text().contains("\"duplicates\":1"),
        "{}",
        again.text()
    );
    assert_eq!(api.queue("kept").await?["depth"], 1);
    Ok(())
}

/// The hour ticks for three functions, and each second for a fourth, by which the others have been looked at.
const SCHEDULES: &str = "
[[triggers.cron]]
schedule = \"0 * * * *\"
missed = \"skip\"
function = \"skip\"
[[triggers.cron]]
schedule = \"0 * * * *\"
missed = \"once\"
function = \"once\"
[[triggers.cron]]
schedule = \"0 * * * *\"
missed = \"all\"
function = \"all\"
[[triggers.cron]]
schedule = \"* * * * * *\"
function = \"witness\"
";

#[tokio::test]
async fn schedules_make_up_for_a_jump_as_they_say_and_no_tick_comes_twice() -> Result<()> {
    let Some(library) = library() else {
        return Ok(());
    };
    let functions = ["skip", "once", "all", "witness"].map(|name| (name, "event-types", ""));
    let app = App::with_functions(&functions)?.with(SCHEDULES)?;
    // The clock at a start, and the ticks of skip, once and all that it brings.
    for (clock, ticks) in [
        ("@2030-01-01 00:30:00", [0, 0, 0]),
        ("@2030-01-01 05:30:00", [0, 1, 5]),
        ("@2035-01-01 05:30:00", [0, 1, 1000]),
        // Years back: a time of which nothing is known.
        ("@2025-01-01 00:30:00", [0, 0, 0]),
        // Ticks that were given up are missed here too.
        ("@2033-06-01 00:30:00", [0, 1, 1000]),
        ("@2035-01-01 06:00:05", [1, 1, 1]),
        ("@2035-01-01 06:00:40", [0, 0, 0]),
    ] {
        let mut server = up(&app, &library, clock)?;
        let api = app.api()?;
        api.until("witness.cron", |queue| queue["counters"]["delivered"] != 0)
            .await
            .context(clock)?;
        for (function, ticks) in ["skip", "once", "all"].into_iter().zip(ticks) {
            let queue = format!("{function}.cron");
            let found = api
                .until(&queue, |queue| queue["counters"]["delivered"] == ticks)
                .await;
            let found = found.with_context(|| format!("{function} at {clock}"))?;
            assert_eq!(
                found["counters"]["published"], ticks,
                "{function} at {clock}"
            );
        }
        server.terminate()?;
        assert!(server.wait()?.success(), "{}", server.log());
    }
    Ok(())
}
