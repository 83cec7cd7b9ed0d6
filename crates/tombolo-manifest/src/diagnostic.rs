//! Problems of a file, each with its place, shown as rustc shows them.

use std::fmt;
use std::ops::Range;

use tombolo_core::Code;

/// The most characters of a line that are shown.
const SHOWN_MAX: usize = 240;

/// One problem and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The kind of problem.
    pub code: Code,
    /// What is wrong.
    pub message: String,
    /// The file, as the caller named it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The character within the line, from 1.
    pub column: usize,
    /// The line, without its end; of a very long one the part around the place.
    pub source_line: String,
    /// How many characters of `source_line` stand before the place.
    pub indent: usize,
    /// How many characters of `source_line` are meant; at least 1.
    pub width: usize,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A problem at a range of bytes of the text. A range over several lines is cut at the end of its first.
    pub fn at(code: Code, message: &str, file: &str, text: &str, span: Range<usize>) -> Self {
        let start = text.floor_char_boundary(span.start);
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = text.get(line_start..).unwrap_or_default();
        let line = line.lines().next().unwrap_or_default();
        let line_end = line_start + line.len();
        // A place in the line's end, such as between CR and LF, is shown behind its last character.
        let start = start.min(line_end);
        let end = text.floor_char_boundary(span.end).clamp(start, line_end);
        let chars = |range: Range<usize>| text.get(range).unwrap_or_default().chars().count();
        let (column, width) = (chars(line_start..start), chars(start..end));
        // The place of a long line stays in sight with some of what is before it.
        let skipped = if column < SHOWN_MAX / 2 {
            0
        } else {
            column - SHOWN_MAX / 4
        };
        let indent = column - skipped;
        let shown: String = line.chars().skip(skipped).take(SHOWN_MAX).collect();
        Self {
            code,
            message: visible(message),
            file: file.into(),
            line: before.matches('\n').count() + 1,
            column: column + 1,
            source_line: visible(&shown),
            indent,
            width: width.clamp(1, SHOWN_MAX - indent),
            help: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl AsRef<str>) -> Self {
        self.help = Some(visible(help.as_ref()));
        self
    }
}

/// The text without characters that would command a terminal.
fn visible(text: &str) -> String {
    let replace = |c: char| match c {
        '\t' => c,
        '\n' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(replace).collect()
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        // A tab before the place is repeated, so that the caret stands below it on any terminal.
        let before = self.source_line.chars().take(self.indent);
        let indent: String = before.map(|c| if c == '\t' { c } else { ' ' }).collect();
        writeln!(f, "error[{}]: {}", self.code, self.message)?;
        writeln!(f, "{margin}--> {}:{}:{}", self.file, self.line, self.column)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.source_line)?;
        write!(f, "{margin} | {indent}{}", "^".repeat(self.width))?;
        if let Some(help) = &self.help {
            write!(f, "\n{margin} |\n{margin} = help: {help}")?;
        }
        Ok(())
    }
}

/// All problems that were found, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(pub(crate) Vec<Diagnostic>);

impl Diagnostics {
    /// The problems in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// The code of the first problem.
    pub fn code(&self) -> Code {
        self.0
            .first()
            .map_or(Code::ManifestValue, |first| first.code)
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
