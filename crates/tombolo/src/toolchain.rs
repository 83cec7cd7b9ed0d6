//! The tools that builds need: whether this machine has them, and the command that installs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program, or a part of one, that a build command starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Cargo,
    WasmTarget,
    Node,
    Npm,
    Python,
}

/// The compilation target of components in Rust.
const WASM_TARGET: &str = "wasm32-wasip2";

impl Tool {
    /// Every tool that is known.
    pub const ALL: [Self; 5] = [
        Self::Cargo,
        Self::WasmTarget,
        Self::Node,
        Self::Npm,
        Self::Python,
    ];

    /// The tool's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cargo => "cargo",
            Self::WasmTarget => WASM_TARGET,
            Self::Node => "node",
            Self::Npm => "npm",
            Self::Python => "python3",
        }
    }

    /// The command that installs the tool.
    pub fn install(self) -> &'static str {
        match self {
            Self::Cargo => "`curl --proto '=https' -sSf https://sh.rustup.rs | sh` installs Rust",
            Self::WasmTarget => "`rustup target add wasm32-wasip2` installs the target",
            Self::Node | Self::Npm => {
                "`apt install nodejs npm` installs Node.js (version 20 or later is needed)"
            }
            Self::Python => {
                "`apt install python3 python3-venv` installs Python (version 3.10 or later is needed)"
            }
        }
    }

    /// What the tool says about its version, if it is there and works.
    pub fn version(self) -> Option<String> {
        match self {
            Self::Cargo | Self::Node | Self::Npm => said(self.name(), &["--version"]),
            Self::WasmTarget => {
                let folder = said(
                    "rustc",
                    &["--print", "target-libdir", "--target", WASM_TARGET],
                )?;
                Path::new(&folder).is_dir().then(|| "installed".into())
            }
            // A virtual environment needs `ensurepip`, which Debian packages by itself.
            Self::Python => said(
                "python3",
                &[
                    "-c",
                    "import ensurepip, sys; print('Python', sys.version.split()[0])",
                ],
            ),
        }
    }

    /// The least version that works, where there is one.
    pub fn version_min(self) -> Option<(u32, u32)> {
        match self {
            Self::Node => Some((20, 0)),
            Self::Python => Some((3, 10)),
            Self::Cargo => Some((1, 82)),
            Self::WasmTarget | Self::Npm => None,
        }
    }

    /// The tools that a build command starts, as far as its text tells; the shell's own words are seen too.
    pub fn of_command(command: &str) -> Vec<Self> {
        let words: Vec<&str> = command
            .split(|c: char| c.is_whitespace() || "&;|()=\"'".contains(c))
            .collect();
        Self::ALL
            .into_iter()
            .filter(|tool| words.contains(&tool.name()))
            .collect()
    }
}

/// Whether the version in what a tool said is at least this one; yes where it cannot be told.
pub fn is_at_least(said: &str, (major, minor): (u32, u32)) -> bool {
    let version = said.split_whitespace().find_map(|word| {
        let mut numbers = word
            .trim_start_matches('v')
            .split('.')
            .map(str::parse::<u32>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    });
    version.is_none_or(|version| version >= (major, minor))
}

/// Where a program is, if `PATH` leads to it.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(find(program)?)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_of_a_command_are_found_in_its_text() {
        assert_eq!(
            Tool::of_command("cargo build --release --target=wasm32-wasip2"),
            [Tool::Cargo, Tool::WasmTarget]
        );
        assert_eq!(
            Tool::of_command("npm install&&(node build.mjs)"),
            [Tool::Node, Tool::Npm]
        );
        assert_eq!(Tool::of_command("make"), []);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_at_least("v20.1.0", (20, 0)));
        assert!(is_at_least("Python 3.12.1", (3, 10)));
        assert!(!is_at_least("Python 3.9.2", (3, 10)));
        assert!(!is_at_least("cargo 1.70.0 (abc)", (1, 82)));
        assert!(is_at_least("installed", (1, 0)));
    }
}
