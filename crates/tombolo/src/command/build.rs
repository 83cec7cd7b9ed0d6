//! `tombolo build`: runs the build command of each function.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tombolo_core::{Code, Name};
use tombolo_manifest::{Function, Manifest};

use crate::app;
use crate::arguments::{Build, Format, Global};
use crate::error::Error;
use crate::output::{Output, Row};
use crate::toolchain::Tool;

/// What the shell exits with when it does not find a program.
const NOT_FOUND: i32 = 127;

/// A function whose component was built, or would be.
#[derive(Serialize)]
struct Built {
    function: Name,
    command: String,
    component: PathBuf,
}

impl Row for Built {
    const COLUMNS: &'static [&'static str] = &["FUNCTION", "COMPONENT"];
    const WIDE: &'static [&'static str] = &["COMMAND"];

    fn name(&self) -> String {
        self.component.display().to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.function.to_string(),
            self.component.display().to_string(),
            self.command.clone(),
        ]
    }
}

/// Builds the app in the folder.
pub async fn run(arguments: &Build, global: &Global, output: &Output) -> Result<(), Error> {
    let folder = app::folder(global)?;
    let manifest = app::manifest(&folder)?;
    let chosen = choose(&manifest, &arguments.functions)?;
    if chosen.is_empty() {
        output.progress(
            "no function has a build command: `build = { command = \"…\" }` in [functions.NAME] gives it one",
        );
    }
    let built: Vec<Built> = chosen
        .iter()
        .filter_map(|(name, function)| {
            Some(Built {
                function: (*name).clone(),
                command: function.build.as_ref()?.command.clone(),
                component: function.component.clone(),
            })
        })
        .collect();
    if !arguments.dry_run {
        build(&folder, &chosen, output).await?;
    }
    if built.is_empty() && matches!(output.format, Format::Table | Format::Wide) {
        return Ok(());
    }
    output.list(&built)
}

/// A function and its name.
type Chosen<'a> = Vec<(&'a Name, &'a Function)>;

/// Builds every function of the app that has a build command.
pub async fn build_app(folder: &Path, manifest: &Manifest, output: &Output) -> Result<(), Error> {
    build(folder, &choose(manifest, &[])?, output).await
}

/// Builds some functions of the app.
pub async fn build_functions(
    folder: &Path,
    manifest: &Manifest,
    names: &[Name],
    output: &Output,
) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    build(folder, &choose(manifest, names)?, output).await
}

fn choose<'a>(manifest: &'a Manifest, names: &'a [Name]) -> Result<Chosen<'a>, Error> {
    if names.is_empty() {
        let all = manifest.functions.iter();
        return Ok(all
            .filter(|(_, function)| function.build.is_some())
            .collect());
    }
    let mut chosen = Vec::new();
    for name in names {
        let function = manifest.functions.get(name).ok_or_else(|| {
            let known: Vec<&str> = manifest.functions.keys().map(Name::as_str).collect();
            Error::new(
                Code::NotFound,
                format!("the manifest defines no function `{name}`"),
            )
            .help(format!("it defines {}", known.join(", ")))
        })?;
        if function.build.is_none() {
            return Err(
                Error::usage(format!("the function `{name}` has no build command")).help(format!(
                    "add `build = {{ command = \"…\" }}` to [functions.{name}]"
                )),
            );
        }
        chosen.push((name, function));
    }
    Ok(chosen)
}

async fn build(folder: &Path, chosen: &Chosen<'_>, output: &Output) -> Result<(), Error> {
    let mut done: Vec<&str> = Vec::new();
    for (name, function) in chosen {
        let Some(build) = &function.build else {
            continue;
        };
        // Functions of one workspace often share the command that builds them all.
        if !done.contains(&build.command.as_str()) {
            output.progress(format!("building {name}: {}", build.command));
            let started = Instant::now();
            build_one(folder, name, &build.command).await?;
            output.progress(format!(
                "built {name} in {:.1} s",
                started.elapsed().as_secs_f64()
            ));
            done.push(&build.command);
        }
        let component = folder.join(&function.component);
        if !component.is_file() {
            return Err(Error::new(
                Code::BuildFailed,
                format!(
                    "the build of `{name}` made no `{}`",
                    function.component.display()
                ),
            )
            .place(component.display())
            .help("`component` in the manifest names the file that the build command makes"));
        }
    }
    Ok(())
}

/// The shell and all that it started; ended when dropped, so that no build goes on without who asked for it.
struct Group(Option<Pid>);

impl Group {
    /// The group that a shell leads.
    fn of(shell: &tokio::process::Child) -> Self {
        let leader = shell.id().and_then(|id| i32::try_from(id).ok());
        Self(leader.and_then(Pid::from_raw))
    }

    /// The system may give the number to others from now on.
    fn has_ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It fails only when everything has ended by itself.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Runs a build command; what it prints goes to stderr as it comes.
async fn build_one(folder: &Path, name: &Name, command: &str) -> Result<(), Error> {
    let cannot = |error| Error::io("cannot start the shell that builds", &error);
    let mut shell = tokio::process::Command::new("sh")
        .args(["-c", &format!("exec 1>&2\n{command}")])
        .current_dir(folder)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(cannot)?;
    let mut group = Group::of(&shell);
    let status = shell.wait().await.map_err(cannot)?;
    group.has_ended();
    if status.success() {
        return Ok(());
    }
    let failed = |code| {
        Error::new(code, format!("the build of `{name}` failed ({status})")).place(format!(
            "{} [functions.{name}] build = {{ command = \"{command}\" }}",
            app::MANIFEST
        ))
    };
    let missing = Tool::of_command(command)
        .into_iter()
        .find(|tool| tool.version().is_none());
    Err(match missing {
        Some(tool) => Error::new(
            Code::ToolMissing,
            format!(
                "the build of `{name}` needs `{}`, which this machine lacks",
                tool.name()
            ),
        )
        .help(tool.install()),
        None if status.code() == Some(NOT_FOUND) => failed(Code::ToolMissing).help(
            "the shell's message above names the program; install it, or correct the command",
        ),
        None => failed(Code::BuildFailed).help("the output of the build command above says why"),
    })
}
