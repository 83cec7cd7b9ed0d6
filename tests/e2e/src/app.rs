//! An app in a folder of its own, as a developer has one.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

use crate::{Api, Output, Server, command, guest, run_with};

/// A folder with a `tombolo.toml`; removed when dropped.
pub struct App {
    folder: TempDir,
}

impl App {
    /// An app whose one function has every route. `settings` are lines of the function's table.
    pub fn new(guest_name: &str, settings: &str) -> Result<Self> {
        Self::with_functions(&[("main", guest_name, settings)])
    }

    /// An app of several functions, each with its guest and settings; the first has every route.
    pub fn with_functions(functions: &[(&str, &str, &str)]) -> Result<Self> {
        let mut manifest = String::from("[app]\nname = \"proof\"\nversion = \"1.0.0\"\n");
        for (name, guest_name, settings) in functions {
            let component = guest(guest_name);
            write!(
                manifest,
                "\n[functions.{name}]\ncomponent = {:?}\n{settings}\n",
                component.display().to_string(),
            )?;
        }
        let first = functions.first().map_or("main", |(name, ..)| name);
        write!(
            manifest,
            "\n[[triggers.http]]\nroute = \"/{{*rest}}\"\nfunction = \"{first}\"\n"
        )?;
        let folder = TempDir::new()?;
        std::fs::write(folder.path().join("tombolo.toml"), manifest)?;
        Ok(Self { folder })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The same app with more lines in its manifest.
    pub fn with(self, lines: &str) -> Result<Self> {
        let manifest = self.folder().join("tombolo.toml");
        let text = std::fs::read_to_string(&manifest)?;
        std::fs::write(manifest, text + lines)?;
        Ok(self)
    }

    /// The store of the node that runs in the folder, unless it was told another.
    pub fn store(&self) -> PathBuf {
        self.folder().join(".tombolo")
    }

    /// The control API of that node.
    pub fn api(&self) -> Result<Api> {
        Api::of(&self.store())
    }

    /// `tombolo up` in the folder, on a port of its own.
    pub fn up(&self) -> Result<Server> {
        self.up_with(&[])
    }

    /// The same with more arguments.
    pub fn up_with(&self, arguments: &[&str]) -> Result<Server> {
        let mut command = command();
        command
            .current_dir(self.folder())
            .args(["up", "--listen", "127.0.0.1:0"])
            .args(arguments);
        Server::start(&mut command)
    }

    /// Runs `tombolo ARGUMENTS` in the folder.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        run_with(arguments, self.folder(), "")
    }
}
