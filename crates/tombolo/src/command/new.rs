//! `tombolo new`: an app from a template.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tombolo_core::Code;

use crate::app;
use crate::arguments::{Global, New};
use crate::error::Error;
use crate::output::Output;

/// The file that editors check the manifest with.
const SCHEMA: &str = "tombolo.schema.json";

#[derive(Serialize)]
struct Created {
    name: String,
    template: &'static str,
    folder: PathBuf,
    files: Vec<&'static str>,
}

/// Writes the app's folder.
pub fn run(arguments: &New, global: &Global, output: &Output) -> Result<(), Error> {
    let folder = app::folder(global)?.join(arguments.name.as_str());
    let mut files = arguments.template.files(&arguments.name);
    files.push((SCHEMA, schema()));
    refuse_overwriting(&folder, &files, output)?;
    let created = Created {
        name: arguments.name.to_string(),
        template: arguments.template.name(),
        folder,
        files: files.iter().map(|(path, _)| *path).collect(),
    };
    if arguments.dry_run {
        output.progress(format!("would create {} files", created.files.len()));
    } else {
        for (path, text) in &files {
            write(&created.folder.join(path), text)?;
        }
        output.progress(format!(
            "created {} from {}",
            created.name, created.template
        ));
    }
    output.one(
        &created,
        || created.folder.display().to_string(),
        || {
            let paths = created.files.iter().map(|path| created.folder.join(path));
            paths
                .map(|path| path.display().to_string() + "\n")
                .collect()
        },
    )?;
    if !arguments.dry_run {
        output.progress(format!("next: cd {} && tombolo dev", created.name));
    }
    Ok(())
}

fn schema() -> String {
    format!("{:#}\n", tombolo_manifest::manifest_schema())
}

fn refuse_overwriting(
    folder: &Path,
    files: &[(&str, String)],
    output: &Output,
) -> Result<(), Error> {
    let there: Vec<&str> = files
        .iter()
        .map(|(path, _)| *path)
        .filter(|path| folder.join(path).exists())
        .collect();
    if there.is_empty() {
        return Ok(());
    }
    let question = format!("overwrite {} in {}?", there.join(", "), folder.display());
    if output.confirm(&question) {
        return Ok(());
    }
    Err(Error::new(
        Code::Conflict,
        format!("the folder has {} already", there.join(", ")),
    )
    .place(folder.display())
    .help("choose another name, or overwrite with `--yes`"))
}

fn write(file: &Path, text: &str) -> Result<(), Error> {
    let written = match file.parent() {
        Some(parent) => std::fs::create_dir_all(parent),
        None => Ok(()),
    }
    .and_then(|()| std::fs::write(file, text));
    written.map_err(|error| Error::io("cannot write the app", &error).place(file.display()))
}
