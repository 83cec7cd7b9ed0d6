//! One contract for all triggers: the same cases over each of them, by the real binary.
//!
//! A case is a function that always answers the same; it writes down each delivery before it does. Every trigger
//! leads to every function, so a further trigger is one more row of [`TRIGGERS`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http::Request;
use serde_json::Value;
use tombolo_e2e::{App, Client, Server, body};

/// How long anything that must happen may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// The trace of whatever is sent.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// What a function does, and what becomes of its events.
struct Case {
    name: &'static str,
    /// Lines of the function's table.
    settings: &'static str,
    attempts: usize,
    /// How it ends in the dead letters: what each attempt's cause tells.
    dead: Option<(&'static str, &'static str)>,
}

const fn done(name: &'static str, settings: &'static str) -> Case {
    Case {
        name,
        settings,
        attempts: 1,
        dead: None,
    }
}

const fn dead(
    name: &'static str,
    settings: &'static str,
    attempts: usize,
    burial: &'static str,
    cause: &'static str,
) -> Case {
    Case {
        name,
        settings,
        attempts,
        dead: Some((burial, cause)),
    }
}

const CASES: [Case; 14] = [
    done("ok", "env = { ANSWER = \"200\" }"),
    done("accepted", "env = { ANSWER = \"202\" }"),
    done("reply", "env = { ANSWER = \"reply\" }"),
    dead("gone", "env = { ANSWER = \"410\" }", 1, "refused", "410"),
    dead("moved", "env = { ANSWER = \"301\" }", 1, "refused", "301"),
    dead(
        "missing",
        "env = { ANSWER = \"404\" }",
        5,
        "attempts",
        "404",
    ),
    dead("slow", "env = { ANSWER = \"408\" }", 5, "attempts", "408"),
    dead(
        "conflict",
        "env = { ANSWER = \"409\" }",
        5,
        "attempts",
        "409",
    ),
    dead(
        "throttled",
        "env = { ANSWER = \"429\", RETRY_AFTER = \"1\" }",
        5,
        "attempts",
        "429",
    ),
    dead("broken", "env = { ANSWER = \"500\" }", 5, "attempts", "500"),
    dead("absent", "env = { ANSWER = \"503\" }", 5, "attempts", "503"),
    dead(
        "trap",
        "env = { ANSWER = \"trap\" }",
        5,
        "attempts",
        "TB0301",
    ),
    dead(
        "spin",
        "env = { ANSWER = \"spin\" }\nlimits = { cpu = \"20ms\" }",
        5,
        "attempts",
        "TB0303",
    ),
    dead(
        "hang",
        "env = { ANSWER = \"hang\" }\nlimits = { wall = \"300ms\" }",
        5,
        "attempts",
        "TB0302",
    ),
];

/// A way of an event to a function.
struct Trigger {
    /// What functions are told.
    name: &'static str,
    /// What tells its events from those of others with the same name.
    prefix: &'static str,
    /// Its queue, by the function's name.
    queue: fn(&str) -> String,
    /// Makes an event for the function; false where that is not possible here.
    send: fn(&Site, &str) -> Result<bool>,
    /// Whether the event belongs to [`TRACE`].
    traced: bool,
    replies: bool,
}

const TRIGGERS: [Trigger; 6] = [
    Trigger {
        name: "queue",
        prefix: "sent",
        queue: |function| format!("{function}-sent"),
        send: |site, function| {
            let queue = format!("{function}-sent");
            for duplicates in [0, 1] {
                let told = site.post(&format!("queues/{queue}/events"), "sent-1")?;
                ensure!(told["duplicates"] == duplicates, "{told}");
            }
            Ok(true)
        },
        traced: true,
        replies: true,
    },
    Trigger {
        name: "queue",
        prefix: "cli",
        queue: |function| format!("{function}-cli"),
        send: |site, function| {
            let queue = format!("{function}-cli");
            let event = ["queue", "send", &queue, "--data", "1", "--id", "cli-1"];
            let sent = site.app.run(&event)?;
            ensure!(sent.code == Some(0), "{sent:?}");
            Ok(true)
        },
        traced: false,
        replies: true,
    },
    Trigger {
        name: "async",
        prefix: "",
        queue: |function| format!("{function}.async"),
        send: |site, function| {
            for duplicates in [0, 1] {
                let told = site.post(&format!("functions/{function}/events"), "later-1")?;
                ensure!(told["duplicates"] == duplicates, "{told}");
            }
            Ok(true)
        },
        traced: true,
        replies: false,
    },
    Trigger {
        name: "cron",
        prefix: "",
        queue: |function| format!("{function}.cron"),
        // It comes by itself.
        send: |_, _| Ok(true),
        traced: false,
        replies: false,
    },
    Trigger {
        name: "change",
        prefix: "",
        queue: |function| format!("{function}.change"),
        send: |site, function| {
            let path = format!("/set?store=watched&key={function}/1");
            let answer = site.ask(&site.server.client(), Request::post(path), "new")?;
            ensure!(answer == "done", "{answer}");
            Ok(true)
        },
        traced: true,
        replies: false,
    },
    Trigger {
        name: "mqtt",
        prefix: "",
        queue: |function| format!("{function}.mqtt"),
        send: |site, function| site.publish(&format!("cases/{function}")),
        traced: true,
        replies: false,
    },
];

/// A node with all of it.
struct Site {
    app: App,
    server: Server,
    admin: Client,
    token: String,
    asking: tokio::runtime::Runtime,
}

fn manifest(cases: &[Case]) -> Result<App> {
    let mut functions = vec![("look", "kv-draft2", String::new())];
    let (mut stores, mut more) = (vec!["\"watched\"".to_owned()], String::new());
    for Case { name, settings, .. } in cases {
        let notes = format!("\"{name}-notes\"");
        let settings = settings.replacen("{ ", &format!("{{ NOTES = {notes}, "), 1);
        let settings = format!("{settings}\ngrants = {{ keyvalue = [{notes}] }}");
        functions.push((name, "events", settings));
        stores.push(notes);
        writeln!(
            more,
            "\n[queues.{name}-sent]\n[queues.{name}-cli]\n[queues.{name}-replies]"
        )?;
        for way in ["sent", "cli"] {
            writeln!(
                more,
                "[[triggers.queue]]\nqueue = \"{name}-{way}\"\nfunction = \"{name}\"\n\
                 retry = {{ attempts = 5, backoff = \"1ms\" }}\nreply = \"{name}-replies\""
            )?;
        }
        writeln!(
            more,
            "[[triggers.cron]]\nschedule = \"*/5 * * * * *\"\nfunction = \"{name}\"\n\
             [[triggers.change]]\nkeyvalue = \"watched\"\nprefix = \"{name}/\"\nfunction = \"{name}\"\n\
             [[triggers.mqtt]]\ntopic = \"cases/{name}\"\nfunction = \"{name}\""
        )?;
    }
    functions[0].2 = format!("grants = {{ keyvalue = [{}] }}", stores.join(", "));
    let functions: Vec<_> = functions
        .iter()
        .map(|(name, guest, settings)| (*name, *guest, settings.as_str()))
        .collect();
    let app = App::with_functions(&functions)?;
    let path = app.folder().join("tombolo.toml");
    let text = std::fs::read_to_string(&path)? + &more;
    std::fs::write(path, text)?;
    Ok(app)
}

impl Site {
    fn start(app: App) -> Result<Self> {
        let server = app.up_with(&["--mqtt-listen", "127.0.0.1:0"])?;
        let address = std::fs::read(app.folder().join(".tombolo/node.json"))?;
        let address: Value = serde_json::from_slice(&address)?;
        let admin = address["admin"].as_str().context("no address")?;
        let admin = Client::http1(admin.trim_start_matches("http://").parse()?);
        let token = address["token"].as_str().context("no token")?.to_owned();
        Ok(Self {
            app,
            server,
            admin,
            token,
            asking: tokio::runtime::Runtime::new()?,
        })
    }

    /// Sends a request that belongs to the trace.
    fn ask(&self, to: &Client, request: http::request::Builder, data: &str) -> Result<String> {
        let request = request
            .header("traceparent", format!("00-{TRACE}-{SPAN}-01"))
            .header("authorization", format!("Bearer {}", self.token))
            .body(body(data.to_owned()))?;
        Ok(self.asking.block_on(to.send(request))?.text())
    }

    /// Sends an event to the API.
    fn post(&self, path: &str, id: &str) -> Result<Value> {
        let request = Request::post(format!("/_tombolo/api/v1/apps/proof/{path}"))
            .header("ce-specversion", "1.0")
            .header("ce-id", id)
            .header("ce-source", "/test")
            .header("ce-type", "test");
        Ok(serde_json::from_str(&self.ask(
            &self.admin,
            request,
            "1",
        )?)?)
    }

    /// Publishes a message with Mosquitto's client, where it is installed.
    fn publish(&self, topic: &str) -> Result<bool> {
        self.server.wait_for_log("broker at mqtt")?;
        let log = self.server.log();
        let (_, address) = log.split_once("broker at mqtt").context("no broker")?;
        let address = address.lines().next().unwrap_or_default();
        let port = address.rsplit(':').next().unwrap_or_default();
        let trace = format!("00-{TRACE}-{SPAN}-01");
        let published = Command::new("mosquitto_pub")
            .args([
                "-h",
                "localhost",
                "-p",
                port,
                "-V",
                "5",
                "-q",
                "1",
                "-m",
                "1",
                "-t",
                topic,
            ])
            .args(["-D", "publish", "user-property", "traceparent", &trace])
            .status();
        match published {
            Ok(status) => {
                ensure!(status.success(), "{status}");
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("skipped: Mosquitto's clients are not installed");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What a function wrote down of an event, by default of the trigger's first: headers, by attempt.
    fn deliveries(
        &self,
        trigger: &Trigger,
        function: &str,
        id: Option<&str>,
    ) -> Result<Vec<Value>> {
        let look = |path: String| self.ask(&self.server.client(), Request::get(path), "");
        let keys = look(format!("/keys?store={function}-notes"))?;
        let prefix = match id {
            Some(id) => format!("{}/{}/", trigger.name, noted(id)),
            None => format!("{}/{}", trigger.name, trigger.prefix),
        };
        let mut first = None;
        let mut attempts = BTreeMap::new();
        for key in keys.split(',').filter(|key| key.starts_with(&prefix)) {
            let (event, attempt) = key.rsplit_once('/').context("no attempt")?;
            if *first.get_or_insert(event) == event {
                attempts.insert(attempt.parse::<usize>()?, key.to_owned());
            }
        }
        let deliveries = attempts.into_iter().map(|(attempt, key)| {
            let noted = look(format!("/get?store={function}-notes&key={key}"))?;
            let mut noted: Value = serde_json::from_str(&noted).context(noted)?;
            noted["attempt"] = attempt.into();
            Ok(noted)
        });
        deliveries.collect()
    }

    fn queue(&self, arguments: &[&str]) -> Result<Value> {
        let output = self
            .app
            .run(&[&["queue"], arguments, &["--json"]].concat())?;
        ensure!(output.code == Some(0), "{output:?}");
        Ok(serde_json::from_str(&output.stdout)?)
    }

    /// The figures of all queues.
    fn queues(&self) -> Result<BTreeMap<String, Value>> {
        let listed = self.queue(&["list"])?;
        let queues = listed["items"].as_array().context("no list")?.iter();
        let named = |queue: &Value| Some((queue["name"].as_str()?.to_owned(), queue.clone()));
        Ok(queues.filter_map(named).collect())
    }

    /// Waits until every queue is right of which it is asked.
    fn until(&self, right: impl Fn(&BTreeMap<String, Value>) -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match right(&self.queues()?) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

/// An id as functions write it down: as the header has it, in which a space is encoded.
fn noted(id: &str) -> String {
    let header = id.replace(' ', "%20");
    header.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// How often an event of a queue has come to its end.
fn ended(queues: &BTreeMap<String, Value>, name: &str) -> u64 {
    let counters = queues.get(name).map(|queue| &queue["counters"]);
    let count = |key| counters.and_then(|all| all[key].as_u64()).unwrap_or(0);
    count("delivered") + count("dead")
}

/// Checks what a function saw of an event of a trigger, and what became of it.
fn check(site: &Site, trigger: &Trigger, case: &Case) -> Result<()> {
    let queue = (trigger.queue)(case.name);
    let letters = site.queue(&["peek", &format!("{queue}.dead")])?;
    let letter = letters["items"].as_array().context("no list")?.first();
    let id = letter.and_then(|letter| letter["event"]["id"].as_str());
    let seen = site.deliveries(trigger, case.name, id)?;
    let attempts: Vec<_> = seen
        .iter()
        .filter_map(|one| one["attempt"].as_u64())
        .collect();
    let expected: Vec<_> = (1..=case.attempts as u64).collect();
    ensure!(attempts == expected, "attempts {attempts:?}");
    let trace = |parent: &Value| Some(parent.as_str()?.split('-').nth(1)?.to_owned());
    let first = trace(&seen[0]["traceparent"]).context("no trace")?;
    ensure!(!trigger.traced || first == TRACE, "trace {first}");
    for one in &seen {
        let again = trace(&one["traceparent"]);
        // Without a source each delivery begins a trace of its own.
        ensure!(!trigger.traced || again.as_ref() == Some(&first), "{one}");
        ensure!(one["ce-id"] == seen[0]["ce-id"], "{one}");
    }
    let Some((burial, cause)) = case.dead else {
        ensure!(letter.is_none(), "a dead letter: {letter:?}");
        return replies(site, trigger, case, &seen[0]);
    };
    let dead = &letter.context("no dead letter")?["dead"];
    ensure!(
        dead["burial"] == burial && dead["attempts"] == case.attempts,
        "{dead}"
    );
    let history = dead["history"].as_array().context("no history")?;
    ensure!(history.len() == case.attempts, "{dead}");
    for one in history {
        ensure!(
            one.to_string().contains(cause),
            "{one} does not tell {cause}"
        );
        let traced = one["trace"].to_string().contains(TRACE);
        ensure!(traced || !trigger.traced, "{one}");
    }
    Ok(())
}

/// Checks the reply to an event, where the trigger has somewhere for it to go.
fn replies(site: &Site, trigger: &Trigger, case: &Case, seen: &Value) -> Result<()> {
    if case.name != "reply" || !trigger.replies {
        return Ok(());
    }
    let replies = site.queue(&["peek", &format!("{}-replies", case.name)])?;
    let id = format!("{}+", seen["ce-id"].as_str().unwrap_or_default());
    let mut replies = replies["items"].as_array().context("no list")?.iter();
    let reply = replies.find(|one| one["event"]["id"] == id.as_str());
    let reply = reply.context("no reply")?;
    let traced = reply["trace"].to_string().contains(TRACE);
    ensure!(traced || !trigger.traced, "{reply}");
    Ok(())
}

#[test]
fn every_answer_means_the_same_whatever_the_event_came_by() -> Result<()> {
    let site = Site::start(manifest(&CASES)?)?;
    let mut sent = Vec::new();
    for trigger in &TRIGGERS {
        for case in &CASES {
            if (trigger.send)(&site, case.name)? {
                sent.push((trigger, case));
            }
        }
    }
    site.until(|queues| {
        for (trigger, case) in &sent {
            let name = (trigger.queue)(case.name);
            ensure!(
                ended(queues, &name) > 0,
                "{name} has not ended: {:?}",
                queues.get(&name)
            );
        }
        Ok(())
    })?;
    let mut wrong = String::new();
    for (trigger, case) in sent {
        if let Err(error) = check(&site, trigger, case) {
            writeln!(wrong, "{} by {}: {error:#}", case.name, trigger.name)?;
        }
    }
    ensure!(wrong.is_empty(), "{wrong}");
    Ok(())
}

#[test]
fn a_crash_between_the_answer_and_its_acknowledgement_delivers_again() -> Result<()> {
    let case = done("crash", "env = { ANSWER = \"endless\" }");
    let mut site = Site::start(manifest(&[case])?)?;
    let mut sent = Vec::new();
    for trigger in &TRIGGERS {
        if (trigger.send)(&site, "crash")? {
            sent.push(trigger);
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let mut before = Vec::new();
    for trigger in &sent {
        // The head of the answer is there, and the function has done its work.
        loop {
            match site.deliveries(trigger, "crash", None)?.first() {
                Some(seen) => break before.push(seen["ce-id"].clone()),
                None if Instant::now() > deadline => bail!("{} does not come", trigger.name),
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
    site.server.kill()?;
    let path = site.app.folder().join("tombolo.toml");
    let text = std::fs::read_to_string(&path)?;
    // Other notes, so that the deliveries after the crash are told from those before.
    let text = text
        .replace("endless", "200")
        .replace("crash-notes", "again-notes");
    std::fs::write(path, text)?;
    let site = Site::start(site.app)?;
    let queues: Vec<_> = sent
        .iter()
        .map(|trigger| (trigger.queue)("crash"))
        .collect();
    site.until(|now| {
        for name in &queues {
            ensure!(ended(now, name) > 0, "{name} is not delivered again");
        }
        Ok(())
    })?;
    for (trigger, id) in sent.into_iter().zip(before) {
        let look = |path: &str| site.ask(&site.server.client(), Request::get(path), "");
        let keys = look("/keys?store=again-notes")?;
        let key = format!(
            "{}/{}/1",
            trigger.name,
            noted(id.as_str().unwrap_or_default())
        );
        ensure!(
            keys.split(',').any(|one| one == key),
            "{key} is not among {keys}"
        );
    }
    Ok(())
}
