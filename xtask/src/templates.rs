//! Makes an app of each template with the real binary, builds it, serves it and asks it a question.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::{self, program};
use crate::serving::Server;

const TEMPLATES: [&str; 3] = ["http-rust", "http-js", "http-python"];

pub fn run() -> Result<()> {
    let tombolo = tombolo()?;
    let folder = process::repository().join("target/templates");
    fs::create_dir_all(&folder)?;
    for template in TEMPLATES {
        check(&tombolo, &folder, template).with_context(|| format!("template {template}"))?;
        println!("template {template}: built and answered");
    }
    Ok(())
}

/// The binary as the tests built it.
pub fn tombolo() -> Result<PathBuf> {
    process::run(process::cargo().args(["build", "--package=tombolo", "--locked"]))?;
    Ok(process::repository().join("target/debug/tombolo"))
}

fn check(tombolo: &Path, folder: &Path, template: &str) -> Result<()> {
    let app = folder.join(template);
    if app.exists() {
        fs::remove_dir_all(&app)?;
    }
    let arguments = ["new", template, "--template", template, "--no-input"];
    process::run(&mut program(tombolo, &arguments, folder))?;
    process::run(&mut program(tombolo, &["build"], &app))?;
    process::run(&mut program(tombolo, &["check"], &app))?;
    let arguments = ["up", "--listen", "127.0.0.1:0"];
    let server = Server::announced(&mut program(tombolo, &arguments, &app))?;
    let answer = server.ask("/hello/world")?;
    if answer.status != 200 || answer.body != "Hello, world!\n" {
        bail!("the answer is {} {:?}", answer.status, answer.body);
    }
    server.drain()
}
