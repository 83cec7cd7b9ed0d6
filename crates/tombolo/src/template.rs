//! The templates of `tombolo new`, embedded in the binary.

use clap::ValueEnum;
use tombolo_core::Name;

/// What an app may begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// A function in Rust that answers HTTP
    #[value(name = "http-rust")]
    Rust,
    /// A function in JavaScript that answers HTTP
    #[value(name = "http-js")]
    JavaScript,
    /// A function in Python that answers HTTP
    #[value(name = "http-python")]
    Python,
}

/// A file of a template: its path and its text.
type File = (&'static str, &'static str);

macro_rules! files {
    ($folder:literal: $($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../templates/", $folder, "/", $path)))),*]
    };
}

const HTTP_RUST: &[File] =
    files!["http-rust": "tombolo.toml", "Cargo.toml", "src/lib.rs", "README.md", ".gitignore"];

const HTTP_JS: &[File] = files!["http-js":
    "tombolo.toml", "package.json", "build.mjs", "src/hello.js", "src/greeting.js", "src/greeting.test.js",
    "wit/wasi-http.wit", "README.md", ".gitignore",
];

const HTTP_PYTHON: &[File] = files!["http-python":
    "tombolo.toml", "requirements.txt", "build.sh", "hello.py", "greeting.py", "test_greeting.py",
    "wit/wasi-http.wit", "README.md", ".gitignore",
];

impl Template {
    /// The template's name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "http-rust",
            Self::JavaScript => "http-js",
            Self::Python => "http-python",
        }
    }

    /// The files of an app of this name.
    pub fn files(self, app: &Name) -> Vec<(&'static str, String)> {
        let files = match self {
            Self::Rust => HTTP_RUST,
            Self::JavaScript => HTTP_JS,
            Self::Python => HTTP_PYTHON,
        };
        files
            .iter()
            .map(|(path, text)| (*path, text.replace("{{name}}", app.as_str())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    fn list(folder: &Path, base: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                list(&path, base, found);
            } else {
                found.insert(path.strip_prefix(base).unwrap().display().to_string());
            }
        }
    }

    #[test]
    fn every_file_of_a_template_is_embedded_and_every_manifest_is_valid() {
        let app: Name = "my-app".parse().unwrap();
        for &template in Template::value_variants() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../templates")
                .join(template.name());
            let mut on_disk = BTreeSet::new();
            list(&folder, &folder, &mut on_disk);
            let files = template.files(&app);
            let embedded: BTreeSet<String> =
                files.iter().map(|(path, _)| path.to_string()).collect();
            assert_eq!(embedded, on_disk, "{template:?}");
            for (path, text) in files {
                assert!(!text.contains("{{"), "{path}");
                if path == "tombolo.toml" {
                    let manifest = tombolo_manifest::Manifest::parse(&text, path).unwrap();
                    assert_eq!(manifest.app.name, app);
                    assert!(text.starts_with("#:schema "));
                }
            }
        }
    }
}
