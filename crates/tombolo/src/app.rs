//! The app in a folder: its manifest, the node's config beside it, and the node that runs there.

use std::io;
use std::path::{Path, PathBuf};

use tombolo_api::address::AddressError;
use tombolo_api::{Address, Client};
use tombolo_core::{Code, FunctionId, Name};
use tombolo_manifest::{Manifest, NodeConfig};

use crate::arguments::{Global, NodeFiles};
use crate::error::Error;

/// The manifest's file name.
pub const MANIFEST: &str = "tombolo.toml";
/// The file name of the node's config.
pub const NODE_CONFIG: &str = "node.toml";
/// What is said about an app whose functions nothing starts.
pub const NO_TRIGGER: &str =
    "nothing starts a function: `[[triggers.http]]` in `tombolo.toml` adds a route to one";

/// The folder that the command works in, without `..` or a relative beginning.
pub fn folder(global: &Global) -> Result<PathBuf, Error> {
    let named = global.directory.as_deref().unwrap_or(Path::new("."));
    let folder = named.canonicalize().map_err(|error| {
        let named = named.display();
        if error.kind() == io::ErrorKind::NotFound {
            Error::new(
                Code::NotFound,
                format!("the folder `{named}` does not exist"),
            )
            .help("`-C DIR` names the folder that the command works in")
        } else {
            Error::io(format!("cannot work in `{named}`"), &error)
        }
    })?;
    if folder.is_dir() {
        Ok(folder)
    } else {
        Err(Error::usage(format!("`{}` is no folder", named.display()))
            .help("`-C DIR` names the folder that the command works in"))
    }
}

/// The manifest of the app in the folder.
pub fn manifest(folder: &Path) -> Result<Manifest, Error> {
    let file = folder.join(MANIFEST);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::manifest_missing(folder));
        }
        Err(error) => {
            return Err(Error::io("cannot read the manifest", &error).place(file.display()));
        }
    };
    Ok(Manifest::parse(&text, MANIFEST)?)
}

/// The node's config: of the file that is named, else of `node.toml`, else the default. Its paths are
/// made absolute, as seen from the file's folder.
pub fn node_config(folder: &Path, files: &NodeFiles) -> Result<NodeConfig, Error> {
    let (file, named) = match &files.config {
        Some(file) => (folder.join(file), true),
        None => (folder.join(NODE_CONFIG), false),
    };
    let mut config = match std::fs::read_to_string(&file) {
        Ok(text) => {
            let shown = file.strip_prefix(folder).unwrap_or(&file);
            NodeConfig::parse(&text, &shown.display().to_string())?
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !named => NodeConfig::default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(
                Error::new(Code::NotFound, "the node's config does not exist")
                    .place(file.display())
                    .help("correct `--config`, or leave it out: every key has a default"),
            );
        }
        Err(error) => {
            return Err(Error::io("cannot read the node's config", &error).place(file.display()));
        }
    };
    let base = file.parent().unwrap_or(folder);
    config.store = base.join(&config.store);
    config.secrets = config.secrets.map(|secrets| base.join(secrets));
    if let Some(tls) = &mut config.http.tls {
        tls.certificate = base.join(&tls.certificate);
        tls.key = base.join(&tls.key);
    }
    let listeners = config.mqtt.listeners.iter_mut();
    for tls in listeners.filter_map(|listener| listener.tls.as_mut()) {
        tls.certificate = base.join(&tls.certificate);
        tls.key = base.join(&tls.key);
        tls.client_authorities = tls.client_authorities.take().map(|file| base.join(file));
    }
    let authorities = &mut config.mqtt.remote_authorities;
    *authorities = authorities.take().map(|file| base.join(file));
    if let Some(store) = &files.store {
        config.store = folder.join(store);
    }
    Ok(config)
}

/// A client of the node that runs with this store, if one does.
pub fn running_node(config: &NodeConfig) -> Result<Option<Client>, Error> {
    match Address::read(&config.store) {
        Ok(address) => Ok(Some(Client::new(address))),
        Err(AddressError::Missing(_)) => Ok(None),
        Err(error) => Err(Error::new(Code::Io, "cannot find the node").why(&error)),
    }
}

/// A client of the node that runs in the folder.
pub fn client(global: &Global, files: &NodeFiles) -> Result<Client, Error> {
    let folder = folder(global)?;
    let config = node_config(&folder, files)?;
    running_node(&config)?.ok_or_else(|| {
        Error::new(Code::Unreachable, "no node runs in this folder")
            .place(config.store.display())
            .help("`tombolo up` starts one; `-C DIR` names the folder of another")
    })
}

/// The function that a text names: `app/function`, or a function of the only app that has one of this name.
pub async fn function_id(client: &Client, text: &str) -> Result<FunctionId, Error> {
    if let Some((app, function)) = text.split_once('/') {
        return Ok(FunctionId {
            app: name(app)?,
            function: name(function)?,
        });
    }
    let wanted = name(text)?;
    let mut found: Vec<FunctionId> = client
        .functions()
        .await?
        .items
        .into_iter()
        .filter(|function| function.name == wanted)
        .map(|function| FunctionId {
            app: function.app,
            function: function.name,
        })
        .collect();
    match (found.pop(), found.pop()) {
        (Some(id), None) => Ok(id),
        (Some(one), Some(other)) => Err(Error::usage(format!(
            "several apps have a function `{text}`"
        ))
        .help(format!("name the app too: `{other}` or `{one}`"))),
        (None, _) => Err(
            Error::new(Code::NotFound, format!("there is no function `{text}`"))
                .help("`tombolo get functions` lists what there is"),
        ),
    }
}

fn name(text: &str) -> Result<Name, Error> {
    text.parse()
        .map_err(|error| Error::usage(format!("`{text}` is no name")).why(&error))
}
