//! The command line: every command, argument and flag.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tombolo_core::{Code, LogLevel, Name};
use tombolo_manifest::{DirectoryGrant, HttpGrant, Isolation, SocketGrant};

use crate::template::Template;

pub mod queue;

/// Runs functions, as WebAssembly components, where the events are.
#[derive(Debug, Parser)]
#[command(name = "tombolo", version, max_term_width = 100)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
#[command(
    after_help = "`tombolo COMMAND --help` tells more. `tombolo explain TB0123` explains an error, offline."
)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub global: Global,
}

/// Flags of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The format of data on stdout
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT", hide_default_value = true)]
    pub output: Format,
    /// Short for `--output json`
    #[arg(long, global = true, conflicts_with = "output")]
    pub json: bool,
    /// Tell results and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Tell more; twice for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN", hide_default_value = true)]
    pub color: Color,
    /// Work in this folder
    #[arg(short = 'C', long = "directory", global = true, value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Answer every question with yes
    #[arg(long, global = true)]
    pub yes: bool,
    /// Ask no questions
    #[arg(long, global = true)]
    pub no_input: bool,
    /// Give up after this time, such as 30s
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
}

impl Global {
    /// The format of data.
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

/// A format of data on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Yaml,
    Name,
    Wide,
}

/// When colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an app from a template
    New(New),
    /// Build the components of the app
    Build(Build),
    /// Build, serve, and do so again whenever a file changes
    Dev(Dev),
    /// Serve the app in this folder
    Up(Up),
    /// Serve one component, without a manifest
    Serve(Serve),
    /// Run one component or module as a command
    Run(Run),
    /// Call a function once
    Invoke(Invoke),
    /// Find the problems of the app without serving it
    Check(Check),
    /// Show what functions and the node log
    Logs(Logs),
    /// Show what functions and queues do at this moment
    Top(Top),
    /// List what the node has
    Get(Get),
    /// Show everything about one thing
    Describe(Describe),
    /// Look into queues; send, redrive and purge events
    Queue(queue::Queue),
    /// Check this machine
    Doctor(Doctor),
    /// Explain an error code
    Explain(Explain),
    /// Print the completions for a shell
    Completions(Completions),
}

impl Command {
    /// Whether the command serves until it is told to stop, and handles signals itself.
    pub fn is_server(&self) -> bool {
        matches!(self, Self::Dev(_) | Self::Up(_) | Self::Serve(_))
    }
}

/// Arguments of `new`.
#[derive(Args, Debug)]
pub struct New {
    /// The app's name, and its folder's
    pub name: Name,
    /// What to begin with
    #[arg(short, long, value_enum, default_value_t = Template::Rust)]
    pub template: Template,
    /// Tell what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `build`.
#[derive(Args, Debug)]
pub struct Build {
    /// The functions to build [default: every function that has a build command]
    #[arg(value_name = "FUNCTION")]
    pub functions: Vec<Name>,
    /// Tell what would be run, and run nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Where the node's config and its store are.
#[derive(Args, Clone, Debug, Default)]
pub struct NodeFiles {
    /// The node's config [default: node.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The node's store folder [default: .tombolo]
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
}

/// Arguments of `up`.
#[derive(Args, Debug)]
pub struct Up {
    #[command(flatten)]
    pub files: NodeFiles,
    /// The address to serve at; may be repeated [default: 127.0.0.1:3000]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub listen: Vec<SocketAddr>,
    /// The address of the MQTT broker [default: 127.0.0.1:1883 when the app uses topics and node.toml names none]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub mqtt_listen: Option<SocketAddr>,
}

/// Arguments of `dev`.
#[derive(Args, Debug)]
pub struct Dev {
    #[command(flatten)]
    pub up: Up,
}

/// Arguments that say what a component without a manifest may do.
#[derive(Args, Debug)]
pub struct Bare {
    /// An environment variable for the guest; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// A folder for the guest, `:ro` at the end for reading only; may be repeated
    #[arg(long, value_name = "HOST::GUEST")]
    pub dir: Vec<DirectoryGrant>,
    /// An origin the guest may send requests to, `*` for any; may be repeated
    #[arg(long, value_name = "ORIGIN")]
    pub grant_http: Vec<HttpGrant>,
    /// An endpoint the guest may connect to, `*` for any; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    pub grant_sockets: Vec<SocketGrant>,
    /// Limits of an invocation, such as memory=64MiB,wall=2s,cpu=500ms
    #[arg(long, value_name = "KEY=VALUE,...", value_delimiter = ',')]
    pub limits: Vec<String>,
    /// Whether invocations share an instance: fresh, serial or concurrent
    #[arg(long, value_name = "KIND", default_value_t = Isolation::Fresh)]
    pub isolation: Isolation,
}

/// Arguments of `serve`.
#[derive(Args, Debug)]
pub struct Serve {
    /// The component, binary or text
    pub file: PathBuf,
    /// The address to serve at; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000", value_parser = address)]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub bare: Bare,
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    pub bare: Bare,
    /// The component or module, binary or text
    pub file: PathBuf,
    /// The guest's arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

/// Arguments of `invoke`.
#[derive(Args, Debug)]
pub struct Invoke {
    /// The function, or app/function
    pub function: String,
    /// Method and path of the request, such as "GET /signals/7"
    #[arg(long, value_name = "REQUEST", conflicts_with_all = ["event", "trigger"])]
    pub http: Option<String>,
    /// A header of the request; may be repeated
    #[arg(short = 'H', long, value_name = "NAME: VALUE", conflicts_with_all = ["event", "trigger"])]
    pub header: Vec<String>,
    /// The body of the request or the data of the event; @FILE reads a file, - stdin
    #[arg(short, long, conflicts_with = "event")]
    pub data: Option<String>,
    /// A CloudEvent in its JSON format; - reads stdin
    #[arg(long, value_name = "FILE")]
    pub event: Option<PathBuf>,
    /// The kind of trigger that the event is said to come from
    #[arg(long, value_enum, value_name = "KIND")]
    pub trigger: Option<Trigger>,
    /// Leave the event to the node, which delivers it with retries, and print the receipt
    #[arg(long, conflicts_with_all = ["http", "header", "trigger", "include"])]
    pub later: bool,
    /// Where the node is to send what became of it, as far as the function's grants allow
    #[arg(long, value_name = "URL", requires = "later")]
    pub callback: Option<String>,
    /// Print the status and the headers of the answer too
    #[arg(short, long)]
    pub include: bool,
    #[command(flatten)]
    pub files: NodeFiles,
}

/// The kind of a trigger that can be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Trigger {
    Cron,
    Queue,
    Mqtt,
    Object,
    Change,
}

impl Trigger {
    /// The kind as functions see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cron => "cron",
            Self::Queue => "queue",
            Self::Mqtt => "mqtt",
            Self::Object => "object",
            Self::Change => "change",
        }
    }
}

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct Check {
    /// The node's config [default: node.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `logs`.
#[derive(Args, Debug)]
pub struct Logs {
    /// Go on with what is logged from now on
    #[arg(short, long)]
    pub follow: bool,
    /// Entries of this function only, or of app/function
    #[arg(long)]
    pub function: Option<String>,
    /// Entries of this level and above
    #[arg(long)]
    pub level: Option<LogLevel>,
    /// Entries whose message matches this regular expression
    #[arg(long, value_name = "REGEX")]
    pub grep: Option<String>,
    /// Entries from this moment on (RFC 3339), or of the last 5m
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// The newest entries only
    #[arg(long, value_name = "COUNT")]
    pub tail: Option<usize>,
    #[command(flatten)]
    pub files: NodeFiles,
}

/// Arguments of `top`.
#[derive(Args, Debug)]
pub struct Top {
    /// How often the figures are taken
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Show them so many times [default: until q or Ctrl-C]
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// Show them one time
    #[arg(long, conflicts_with = "count")]
    pub once: bool,
    #[command(flatten)]
    pub files: NodeFiles,
}

/// Arguments of `get`.
#[derive(Args, Debug)]
pub struct Get {
    /// What to list
    #[arg(value_enum)]
    pub kind: Kind,
    #[command(flatten)]
    pub files: NodeFiles,
}

/// What `get` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    #[value(alias = "app")]
    Apps,
    #[value(alias = "function")]
    Functions,
    #[value(alias = "trigger")]
    Triggers,
}

/// Arguments of `describe`.
#[derive(Args, Debug)]
pub struct Describe {
    /// The kind of thing
    #[arg(value_enum)]
    pub kind: Thing,
    /// Its name; a function may be given as app/function, a trigger is named by its route
    pub name: String,
    #[command(flatten)]
    pub files: NodeFiles,
}

/// What `describe` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Thing {
    App,
    Function,
    Trigger,
}

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    #[command(flatten)]
    pub files: NodeFiles,
}

/// Arguments of `explain`.
#[derive(Args, Debug)]
pub struct Explain {
    /// The code, such as TB0101 [default: list all of them]
    pub code: Option<Code>,
}

/// Arguments of `completions`.
#[derive(Args, Debug)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// A shell that completions are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

fn duration(text: &str) -> Result<Duration, String> {
    tombolo_manifest::parse_duration(text).map_err(|error| error.to_string())
}

/// The shortest interval that does not make the figures themselves the node's work.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        interval if interval < INTERVAL_MIN => Err("the shortest interval is 100ms".into()),
        interval => Ok(interval),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "an address to listen on is an IP address and a port, for example 127.0.0.1:8080, or 0.0.0.0:8080 for every \
         network"
            .into()
    })
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("an environment variable is given as NAME=VALUE".into()),
    }
}
