//! Who takes part in the HTTP benchmark: which servers this machine has, and how each is started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{self, find, program};
use crate::serving::{Server, free_address};

/// The server's core; the load generator has the other one.
pub const SERVER_CORE: &str = "0";

/// Flags that let `wasmtime serve` keep the memory of its pool resident.
const WASMTIME_TUNED: &str = "-Opooling-memory-keep-resident=2097152,pooling-table-keep-resident=65536,pooling-pagemap-scan=y";
pub const WASMTIME_HELP: &str =
    "wasmtime: cargo install wasmtime-cli --version 48.0.8 --locked (or $WASMTIME)";
pub const CONTROL: &str = "control";

/// A server that can be measured.
pub struct Contender {
    pub name: String,
    /// What is told beside the name: version, isolation.
    pub remark: String,
    program: PathBuf,
    /// `{}` stands for HOST:PORT and `{port}` for the port alone.
    arguments: Vec<String>,
}

/// A contender that is up.
pub struct Running {
    pub server: Server,
    /// What is asked of it, and answered with `hello, world` in its own capitals.
    pub url: String,
}

/// What takes part, and what would if it were installed.
pub struct Field {
    pub contenders: Vec<Contender>,
    pub missing: Vec<String>,
}

/// A guest that the platforms are compared with.
struct Guest {
    label: &'static str,
    component: PathBuf,
    kind: GuestKind,
}

/// Which ways of running a guest are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum GuestKind {
    /// A component of wasi:http 0.2: fresh, and reused one request at a time.
    Small,
    /// One that carries a language's interpreter: fresh only.
    Interpreted,
    /// A component of wasi:http 0.3: fresh, and reused by several requests at once.
    Concurrent,
}

impl Contender {
    pub fn start(&self) -> Result<Running> {
        let address = free_address()?;
        let mut command = self.command(address);
        let server = Server::listening(&mut command, address)
            .with_context(|| format!("{} does not start", self.name))?;
        let answer = server.ask(self.path())?;
        let greets = answer.body.to_lowercase().contains("hello, world");
        ensure!(
            answer.status == 200 && greets,
            "{} answers {} {:?} instead of hello, world",
            self.name,
            answer.status,
            answer.body
        );
        let url = format!("http://{address}{}", self.path());
        Ok(Running { server, url })
    }

    /// The templates' functions greet by name, everything else answers at the root.
    fn path(&self) -> &'static str {
        if self.name.ends_with(", js") || self.name.ends_with(", python") {
            "/hello/world"
        } else {
            "/"
        }
    }

    fn command(&self, address: SocketAddr) -> Command {
        let port = address.port().to_string();
        let mut command = program(
            "taskset",
            &["--cpu-list", SERVER_CORE],
            process::repository(),
        );
        command.arg(&self.program).env_remove("RUST_BACKTRACE");
        for argument in &self.arguments {
            let argument = argument.replace("{port}", &port);
            command.arg(argument.replace("{}", &address.to_string()));
        }
        command
    }
}

impl Field {
    /// Builds what is ours and looks for everything else.
    pub fn find(only: Option<&str>) -> Result<Self> {
        let mut field = Self {
            contenders: Vec::new(),
            missing: Vec::new(),
        };
        field.add_control();
        let guests = guests();
        field.add_tombolo(&guests);
        field.add_wasmtime(&guests)?;
        field.add_workerd()?;
        field.add_node()?;
        field.contenders.retain(|contender| {
            contender.name == CONTROL || only.is_none_or(|text| contender.name.contains(text))
        });
        field.build()?;
        Ok(field)
    }

    fn add(
        &mut self,
        name: impl Into<String>,
        remark: impl Into<String>,
        program: &Path,
        arguments: &[&str],
    ) {
        self.contenders.push(Contender {
            name: name.into(),
            remark: remark.into(),
            program: program.to_path_buf(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
        });
    }

    /// The programs of ours that take part, with optimisation.
    fn build(&self) -> Result<()> {
        let mut control = process::cargo();
        control.args(["build", "--release", "--locked"]);
        process::run(control.current_dir(process::repository().join("benches/control")))?;
        let is_ours = |contender: &Contender| contender.name.starts_with("tombolo");
        if self.contenders.iter().any(is_ours) {
            tombolo()?;
        }
        Ok(())
    }

    fn add_control(&mut self) {
        let binary = process::repository().join("benches/control/target/release/control");
        self.add(CONTROL, "plain hyper, one thread", &binary, &["{}"]);
    }

    fn add_tombolo(&mut self, guests: &[Guest]) {
        if guests.is_empty() {
            let help = "tombolo and wasmtime need the guests; build them with: cargo verify";
            self.missing.push(help.into());
        }
        let binary = tombolo_binary();
        for guest in guests {
            let component = guest.component.display().to_string();
            let isolations: &[&str] = match guest.kind {
                GuestKind::Small => &["fresh", "serial"],
                GuestKind::Interpreted => &["fresh"],
                GuestKind::Concurrent => &["fresh", "concurrent"],
            };
            for isolation in isolations {
                let name = format!("tombolo {isolation}, {}", guest.label);
                let flag = format!("--isolation={isolation}");
                let arguments = ["serve", &component, "--listen={}", &flag, "--quiet"];
                self.add(name, remark(isolation), &binary, &arguments);
            }
        }
    }

    fn add_wasmtime(&mut self, guests: &[Guest]) -> Result<()> {
        let Some(binary) = named("WASMTIME", "wasmtime") else {
            self.missing.push(WASMTIME_HELP.into());
            return Ok(());
        };
        let version = process::output(&mut program(&binary, &["--version"], "."))?;
        let version = version.split(' ').nth(1).unwrap_or("?").trim();
        for guest in guests {
            let component = guest.component.display().to_string();
            let label = guest.label;
            let serve = |flags: &[&'static str]| -> Vec<String> {
                let mut arguments = vec!["serve", "--addr={}", "-Scli"];
                arguments.extend(flags);
                arguments.push(&component);
                arguments.into_iter().map(String::from).collect()
            };
            let mut add = |variant: &str, remark: &str, arguments: Vec<String>| {
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                let remark = format!("{version}, {remark}");
                self.add(
                    format!("wasmtime {variant}, {label}"),
                    remark,
                    &binary,
                    &arguments,
                );
            };
            if guest.kind == GuestKind::Concurrent {
                let flags = ["-Wcomponent-model-async", "-Sp3"];
                add("default", "reuse 128 × 16, its default", serve(&flags));
                continue;
            }
            add("default", "fresh, its default", serve(&[]));
            let tuned = serve(&[WASMTIME_TUNED]);
            add("tuned", "fresh, pool kept resident", tuned);
            if guest.kind == GuestKind::Small {
                let reused = serve(&["--max-instance-reuse-count=128"]);
                add("reuse", "an instance reused 128 times", reused);
            }
        }
        Ok(())
    }

    fn add_workerd(&mut self) -> Result<()> {
        let folder = process::repository().join("benches/http");
        let package = "node_modules/@cloudflare/workerd-linux-64/bin/workerd";
        let installed = folder.join(package);
        let found =
            named("WORKERD", "workerd").or_else(|| installed.is_file().then_some(installed));
        let Some(binary) = found else {
            self.missing
                .push("workerd: npm install --prefix benches/http (or $WORKERD)".into());
            return Ok(());
        };
        let version = process::output(&mut program(&binary, &["--version"], "."))?;
        let remark = format!(
            "{}, JS isolate, reused",
            version.trim().trim_start_matches("workerd ")
        );
        let config = folder.join("workerd.capnp").display().to_string();
        self.add(
            "workerd",
            remark,
            &binary,
            &["serve", &config, "--socket-addr=http={}"],
        );
        Ok(())
    }

    fn add_node(&mut self) -> Result<()> {
        let Some(binary) = find("node") else {
            self.missing.push("node: apt-get install nodejs".into());
            return Ok(());
        };
        let version = process::output(&mut program(&binary, &["--version"], "."))?;
        let script = process::repository()
            .join("benches/http/node.mjs")
            .display()
            .to_string();
        let remark = format!("{}, JS, no isolation", version.trim());
        self.add("node", remark, &binary, &[&script, "{port}"]);
        Ok(())
    }
}

fn remark(isolation: &str) -> &'static str {
    match isolation {
        "fresh" => "an instance for each request",
        "serial" => "one request at a time in an instance",
        _ => "many requests at once in an instance",
    }
}

/// The guests that have been built; `cargo verify` makes them all.
fn guests() -> Vec<Guest> {
    let target = process::repository().join("target/templates");
    let guest = |label, component, kind| Guest {
        label,
        component,
        kind,
    };
    let interpreted = |name: &str| target.join(name).join("dist/hello.wasm");
    [
        guest("p2", small_guest(), GuestKind::Small),
        guest("p3", built_guest("http_p3.wasm"), GuestKind::Concurrent),
        guest("js", interpreted("http-js"), GuestKind::Interpreted),
        guest("python", interpreted("http-python"), GuestKind::Interpreted),
    ]
    .into_iter()
    .filter(|guest| guest.component.is_file())
    .collect()
}

/// The component of wasi:http 0.2 that every platform runs.
pub fn small_guest() -> PathBuf {
    built_guest("http_hello.wasm")
}

fn built_guest(file: &str) -> PathBuf {
    process::repository()
        .join("tests/guests/target/wasm32-wasip2/release")
        .join(file)
}

/// The tombolo that is measured: the one that `$TOMBOLO` names, else this working copy's, built with optimisation.
pub fn tombolo() -> Result<PathBuf> {
    if std::env::var_os("TOMBOLO").is_none() {
        let arguments = ["build", "--release", "--package=tombolo", "--locked"];
        process::run(process::cargo().args(arguments))?;
    }
    Ok(tombolo_binary())
}

fn tombolo_binary() -> PathBuf {
    let ours = || process::repository().join("target/release/tombolo");
    std::env::var_os("TOMBOLO").map_or_else(ours, PathBuf::from)
}

/// A program named by a variable of the environment, else found on PATH.
pub fn named(variable: &str, name: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .or_else(|| find(name))
}
