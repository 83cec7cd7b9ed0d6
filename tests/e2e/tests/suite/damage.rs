//! Damage to each file of a stopped node: it starts or says why not, tells what is lost, and never serves what nobody
//! wrote.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use http::Request;
use tombolo_e2e::{Api, App, Client, Server, body};

/// A function that fails every event, one queue of it, and one that keeps events.
const QUEUES: &str = "
[queues.readings]
[queues.many]
[queues.failing]
[[triggers.queue]]
queue = \"failing\"
function = \"main\"
retry = { attempts = 1 }
";
const EVENTS: usize = 20;
const KEYS: usize = 10;
/// So many ids that some are written to files of their own.
const IDS: usize = 66_000;

fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|each| format!("{prefix}{each}")).collect()
}

fn value(key: &str) -> String {
    format!("value of {key} ").repeat(40)
}

async fn set(client: Client, key: &str) -> Result<()> {
    let request = Request::post(format!("/set?key={key}")).body(body(value(key)))?;
    let answer = client.send(request).await?;
    anyhow::ensure!(answer.status == 200, "{key}: {}", answer.text());
    Ok(())
}

/// A stopped node with events, dead letters and keys.
async fn stopped() -> Result<App> {
    let app = App::new("kv-draft2", "grants = { keyvalue = [\"default\"] }")?.with(QUEUES)?;
    let mut server = app.up()?;
    let api = app.api()?;
    for (queue, ids) in [
        ("readings", ids("e", EVENTS)),
        ("failing", ids("f", EVENTS)),
    ] {
        assert_eq!(api.send(queue, &ids).await?.status, 202);
    }
    for key in ids("k", KEYS) {
        set(server.client(), &key).await?;
    }
    api.until("failing.dead", |queue| queue["depth"] == EVENTS)
        .await?;
    server.terminate()?;
    assert!(server.wait()?.success(), "{}", server.log());
    Ok(app)
}

/// Something that happens to a file.
#[derive(Clone, Copy, Debug)]
enum Accident {
    /// One bit, at so many eighths of the file.
    Flip(usize),
    Half,
    Empty,
    Gone,
}

const ACCIDENTS: [Accident; 8] = [
    Accident::Flip(0),
    Accident::Flip(2),
    Accident::Flip(4),
    Accident::Flip(5),
    Accident::Flip(7),
    Accident::Half,
    Accident::Empty,
    Accident::Gone,
];

impl Accident {
    fn happen(self, file: &Path) -> Result<()> {
        let mut content = fs::read(file)?;
        match self {
            Self::Flip(eighths) => {
                let at = content.len() * eighths / 8 + content.len() / 16;
                if let Some(byte) = content.get_mut(at) {
                    *byte ^= 4;
                }
            }
            Self::Half => content.truncate(content.len() / 2),
            Self::Empty => content.clear(),
            Self::Gone => return Ok(fs::remove_file(file)?),
        }
        Ok(fs::write(file, content)?)
    }
}

/// The files of a folder and those below, as paths within it.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Makes `to` the same as `from`.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    for file in files(from)? {
        let copied = to.join(&file);
        fs::create_dir_all(copied.parent().context("a file is in a folder")?)?;
        fs::copy(from.join(&file), copied)?;
    }
    Ok(())
}

/// What became of a damaged store.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Refused,
    Told,
    Whole,
}

/// Whether a store is true: what it serves was written, what is missing is told, and what is new is taken.
async fn judge(app: &App) -> Result<Outcome> {
    let server = match app.up() {
        Ok(server) => server,
        Err(error) => {
            let text = error.to_string();
            let clear = text.contains("error[TB05") && text.contains("help:");
            anyhow::ensure!(
                clear && !text.contains("panicked"),
                "no clear error: {text}"
            );
            return Ok(Outcome::Refused);
        }
    };
    let api = app.api()?;
    let (told, missing) = looked_at(&server, &api).await?;
    anyhow::ensure!(
        told || missing.is_empty(),
        "lost in silence: {missing:?}\n{}",
        server.log()
    );
    anyhow::ensure!(!server.log().contains("panicked"), "{}", server.log());
    let taken = api.send("readings", &ids("new", 1)).await?;
    anyhow::ensure!(
        taken.status == 202 && taken.text().contains("\"accepted\":1"),
        "{}",
        taken.text()
    );
    set(server.client(), "new").await?;
    if told {
        let told = app.run(&["doctor", "--json"])?;
        let by_doctor = told.stdout.contains("of the log") || told.stdout.contains("of ids");
        let by_log = server.log().contains("ERROR") || server.log().contains("WARN");
        anyhow::ensure!(
            by_doctor || by_log,
            "neither doctor nor log: {}",
            told.stdout
        );
    }
    Ok(if told { Outcome::Told } else { Outcome::Whole })
}

/// Whether damage is told, and what is missing. Fails where something is served that nobody wrote.
async fn looked_at(server: &Server, api: &Api) -> Result<(bool, Vec<String>)> {
    let node = api.get("/node").await?;
    let mut told = node["damages"]
        .as_array()
        .is_some_and(|all| !all.is_empty());
    let mut missing = Vec::new();
    for (queue, prefix) in [("readings", "e"), ("failing.dead", "f")] {
        let mut expected: BTreeSet<String> = ids(prefix, EVENTS).into_iter().collect();
        for listed in api.events(queue).await? {
            let event = &listed["event"];
            if event.is_null() {
                // It cannot be read, and the page says why.
                anyhow::ensure!(listed["problem"].is_string(), "{queue} serves {listed}");
                told = true;
                continue;
            }
            let id = event["id"].as_str().context("an event without id")?;
            anyhow::ensure!(
                event["data"] == format!("data of {id}"),
                "{queue} serves {event}"
            );
            anyhow::ensure!(expected.remove(id), "{queue} serves {id} again");
        }
        missing.extend(expected);
        told |= api.queue(queue).await?["counters"]["lost"] != 0;
    }
    for key in ids("k", KEYS) {
        let answer = server.client().get(&format!("/get?key={key}")).await?;
        match answer.status.as_u16() {
            200 => anyhow::ensure!(answer.text() == value(&key), "{key} is {}", answer.text()),
            404 => missing.push(key),
            500 => told = true,
            _ => bail!("{key}: {}", answer.text()),
        }
    }
    Ok((told, missing))
}

/// Lets each accident happen to each of these files, alone.
async fn damage(app: &App, wanted: impl Fn(&Path) -> bool) -> Result<Vec<(PathBuf, Outcome)>> {
    let whole = app.folder().join("whole");
    copy(&app.store(), &whole)?;
    let mut outcomes = Vec::new();
    for file in files(&whole)?.into_iter().filter(|file| wanted(file)) {
        for accident in ACCIDENTS {
            copy(&whole, &app.store())?;
            accident.happen(&app.store().join(&file))?;
            let judged = judge(app).await;
            let outcome = judged.with_context(|| format!("{accident:?} of {}", file.display()))?;
            outcomes.push((file.clone(), outcome));
        }
    }
    copy(&whole, &app.store())?;
    assert_eq!(judge(app).await?, Outcome::Whole);
    Ok(outcomes)
}

#[tokio::test]
async fn whatever_happens_to_a_file_of_the_store_is_told_or_mended() -> Result<()> {
    let app = stopped().await?;
    let outcomes = damage(&app, |_| true).await?;
    let of = |part: &str, outcome: &Outcome| {
        let found = outcomes
            .iter()
            .filter(|(file, found)| file.to_string_lossy().contains(part) && found == outcome);
        found.count()
    };
    // Compiled code is made again, and nothing else has changed.
    assert_eq!(
        of("cwasm", &Outcome::Whole),
        ACCIDENTS.len(),
        "{outcomes:?}"
    );
    assert!(of("data.redb", &Outcome::Refused) >= 3, "{outcomes:?}");
    assert!(of(".log", &Outcome::Told) >= 3, "{outcomes:?}");
    Ok(())
}

#[tokio::test]
async fn damaged_files_of_remembered_ids_cost_duplicates_and_nothing_else() -> Result<()> {
    let app = stopped().await?;
    let mut server = app.up()?;
    let api = app.api()?;
    for chunk in ids("r", IDS).chunks(1000) {
        assert_eq!(api.send("many", chunk).await?.status, 202);
    }
    server.terminate()?;
    assert!(server.wait()?.success(), "{}", server.log());
    let outcomes = damage(&app, |file| file.starts_with("ids")).await?;
    assert!(!outcomes.is_empty(), "no ids are in files");
    for (file, outcome) in outcomes {
        assert_ne!(outcome, Outcome::Refused, "{}", file.display());
    }
    Ok(())
}
