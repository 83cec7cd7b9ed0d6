//! What a component may import: checked when it is loaded, with the line of the manifest that would allow what is missing.

use std::borrow::Cow;

use tombolo_core::Code;
use tombolo_manifest::{Grants, Isolation};
use wasmtime::component::Component;

use crate::code_cache::CodeError;
use crate::engine::EngineError;
use crate::function::Function;
use crate::instance::Pre;
use crate::linker::Linkers;
use crate::world::{Outline, World};

/// Why a function cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the file is not a WebAssembly component")]
    NotComponent,
    #[error("the file is empty, not a WebAssembly component")]
    Empty,
    #[error("the file is text, not a WebAssembly component")]
    Text,
    #[error("the text of the component is not valid: {0}")]
    TextInvalid(String),
    #[error(
        "the file is a core module, not a component; `tombolo run` runs commands of WASI preview 1"
    )]
    Module,
    #[error("the component is a command ({0}), not a function; `tombolo run` runs it")]
    Command(World),
    #[error(
        "the component exports neither `wasi:http/incoming-handler@0.2` nor `wasi:http/handler@0.3`"
    )]
    HandlerMissing,
    #[error("the component imports `{import}`, which this host does not have")]
    ImportUnknown { import: String },
    #[error("the component imports `{import}`, but is granted no {what}")]
    ImportNotGranted {
        import: String,
        what: &'static str,
        line: &'static str,
    },
    #[error("`isolation = \"concurrent\"` needs a component of wasi:http 0.3, this one is of {0}")]
    IsolationUnsupported(World),
    #[error("the component does not fit the host's interfaces: {0}")]
    Link(Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Code(#[from] CodeError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl LoadError {
    /// The error code under which `explain` tells more.
    pub fn code(&self) -> Code {
        match self {
            Self::NotComponent | Self::Module | Self::Empty | Self::Text | Self::TextInvalid(_) => {
                Code::ComponentInvalid
            }
            Self::Command(_) | Self::HandlerMissing => Code::HandlerMissing,
            Self::ImportUnknown { .. } | Self::Link(_) => Code::ImportUnknown,
            Self::ImportNotGranted { .. } => Code::ImportNotGranted,
            Self::IsolationUnsupported(_) => Code::IsolationUnsupported,
            Self::Code(CodeError::Io { .. } | CodeError::Source(_) | CodeError::Key(_)) => Code::Io,
            Self::Code(CodeError::Compile(_)) => Code::CompileFailed,
            Self::Engine(_) => Code::HostError,
        }
    }
}

/// The binary form; the text form of WebAssembly is taken as well.
pub(crate) fn binary(bytes: &[u8]) -> Result<Cow<'_, [u8]>, LoadError> {
    wat::parse_bytes(bytes).map_err(|error| match bytes.trim_ascii_start() {
        [] => LoadError::Empty,
        // As every text of WebAssembly begins: with a bracket or a comment.
        [b'(' | b';', ..] => LoadError::TextInvalid(error.to_string().replace("<anon>", "text")),
        _ if str::from_utf8(bytes).is_ok() => LoadError::Text,
        _ => LoadError::NotComponent,
    })
}

/// What a function may use by grant only.
struct ByGrant {
    /// How the names of the interfaces begin.
    interfaces: &'static [&'static str],
    is_granted: fn(&Grants) -> bool,
    what: &'static str,
    /// The line that gives it.
    line: &'static str,
}

const BY_GRANT: &[ByGrant] = &[
    ByGrant {
        interfaces: &[
            "wasi:keyvalue/",
            "fermyon:spin/key-value",
            "spin:key-value/",
        ],
        is_granted: |grants| !grants.keyvalue.is_empty(),
        what: "key-value store",
        line: "grants = { keyvalue = [\"NAME\"] }",
    },
    ByGrant {
        interfaces: &["wasi:messaging/"],
        is_granted: |grants| !grants.queues.is_empty() || !grants.topics.is_empty(),
        what: "queue and no topic",
        line: "grants = { queues = [\"NAME\"] }",
    },
];

/// Checks what can be told before compiling.
pub(crate) fn check(
    outline: &Outline,
    function: &tombolo_manifest::Function,
) -> Result<World, LoadError> {
    let world = match outline.world {
        None => return Err(LoadError::HandlerMissing),
        Some(World::Module) => return Err(LoadError::Module),
        Some(world @ (World::Cli02 | World::Cli03)) => return Err(LoadError::Command(world)),
        Some(world @ (World::Http02 | World::Http03)) => world,
    };
    if function.isolation == Isolation::Concurrent && world != World::Http03 {
        return Err(LoadError::IsolationUnsupported(world));
    }
    for import in &outline.imports {
        let begins = |by: &&ByGrant| by.interfaces.iter().any(|name| import.starts_with(name));
        if let Some(by) = BY_GRANT.iter().find(begins)
            && !(by.is_granted)(&function.grants)
        {
            return Err(LoadError::ImportNotGranted {
                import: import.clone(),
                what: by.what,
                line: by.line,
            });
        }
    }
    Ok(world)
}

/// Links every import to what the host has, and checks that it has the shape that the component wants.
pub(crate) fn link(
    linkers: &Linkers,
    function: &Function,
    component: &Component,
    outline: &Outline,
) -> Result<Pre, LoadError> {
    let link = || {
        let linker = linkers.get(function.kind, &function.engine)?;
        Pre::new(&linker, component, function.world)
    };
    link().map_err(|error| {
        let text = format!("{error:#}");
        let named = outline
            .imports
            .iter()
            .find(|import| text.contains(&format!("`{import}`")));
        match named {
            Some(import) if text.contains("not found in the linker") => LoadError::ImportUnknown {
                import: import.clone(),
            },
            _ => LoadError::Link(text.into()),
        }
    })
}
