//! Reads, before anything is compiled, what a component imports and exports, and so which engine it needs.

use wasmparser::{CanonicalFunction, CanonicalOption, Encoding, Parser, Payload};

use crate::engine::EngineKind;

/// What kind of program a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// Exports `wasi:http/incoming-handler` 0.2.
    Http02,
    /// Exports `wasi:http/handler` 0.3.
    Http03,
    /// Exports `wasi:cli/run` 0.2.
    Cli02,
    /// Exports `wasi:cli/run` 0.3.
    Cli03,
    /// A core module, which can be a command of WASI preview 1.
    Module,
}

/// What a binary says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outline {
    pub(crate) world: Option<World>,
    pub(crate) engine: EngineKind,
    pub(crate) imports: Vec<String>,
}

/// The bytes are neither a component nor a module.
#[derive(Debug, thiserror::Error)]
#[error("the file is no WebAssembly")]
pub struct OutlineError(#[from] wasmparser::BinaryReaderError);

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Http02 => "wasi:http 0.2",
            Self::Http03 => "wasi:http 0.3",
            Self::Cli02 => "wasi:cli 0.2",
            Self::Cli03 => "wasi:cli 0.3",
            Self::Module => "wasip1",
        })
    }
}

impl Outline {
    /// Reads the outer level of a component; what is nested in it says nothing about its world.
    pub(crate) fn read(binary: &[u8]) -> Result<Self, OutlineError> {
        let mut outline = Self {
            world: None,
            engine: EngineKind::Plain,
            imports: Vec::new(),
        };
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(binary) {
            match payload? {
                Payload::Version {
                    encoding: Encoding::Module,
                    ..
                } if depth == 0 => {
                    outline.world = Some(World::Module);
                    return Ok(outline);
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        outline.import(import?.name.name);
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        outline.export(export?.name.name);
                    }
                }
                Payload::ComponentCanonicalSection(section) => {
                    for function in section {
                        outline.canonical(&function?);
                    }
                }
                _ => {}
            }
        }
        Ok(outline)
    }

    fn import(&mut self, name: &str) {
        if name.contains("@0.3.") {
            self.engine = EngineKind::Concurrent;
        }
        self.imports.push(name.into());
    }

    fn export(&mut self, name: &str) {
        let world = match name.split_once('@') {
            Some(("wasi:http/incoming-handler", version)) if version.starts_with("0.2.") => {
                World::Http02
            }
            Some(("wasi:http/handler", version)) if version.starts_with("0.3.") => World::Http03,
            Some(("wasi:cli/run", version)) if version.starts_with("0.2.") => World::Cli02,
            Some(("wasi:cli/run", version)) if version.starts_with("0.3.") => World::Cli03,
            _ => return,
        };
        if matches!(world, World::Http03 | World::Cli03) {
            self.engine = EngineKind::Concurrent;
        }
        // A component that is both is a function first.
        if !matches!(self.world, Some(World::Http02 | World::Http03)) {
            self.world = Some(world);
        }
    }

    fn canonical(&mut self, function: &CanonicalFunction) {
        let options = match function {
            CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. } => {
                options
            }
            _ => return,
        };
        if options.contains(&CanonicalOption::Async) {
            self.engine = EngineKind::Concurrent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(wat: &str) -> Outline {
        Outline::read(&wat::parse_str(wat).unwrap()).unwrap()
    }

    #[test]
    fn exports_tell_the_world_and_imports_the_engine() {
        let function = outline(
            r#"(component (import "wasi:http/types@0.2.3" (instance $i)) (export "wasi:http/incoming-handler@0.2.3" (instance $i)))"#,
        );
        assert_eq!(
            (function.world, function.engine),
            (Some(World::Http02), EngineKind::Plain)
        );
        assert_eq!(function.imports, ["wasi:http/types@0.2.3"]);
        let service = outline(
            r#"(component (import "wasi:http/types@0.3.0" (instance $i)) (export "wasi:http/handler@0.3.0" (instance $i)))"#,
        );
        assert_eq!(
            (service.world, service.engine),
            (Some(World::Http03), EngineKind::Concurrent)
        );
        assert_eq!(outline("(component)").world, None);
        assert_eq!(outline("(module)").world, Some(World::Module));
    }

    #[test]
    fn exports_of_nested_components_do_not_count() {
        let nested = outline(
            r#"(component (component (import "wasi:http/types@0.2.3" (instance $i)) (export "wasi:http/incoming-handler@0.2.3" (instance $i))))"#,
        );
        assert_eq!(nested.world, None);
        assert!(nested.imports.is_empty());
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(Outline::read(b"not wasm").is_err());
        assert!(Outline::read(b"").is_err());
    }
}
