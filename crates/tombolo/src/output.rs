//! Output: data on stdout in the chosen format, everything else on stderr.

use std::io::{self, IsTerminal as _, Write};

use serde::Serialize;

use crate::arguments::{Color, Format, Global};
use crate::error::Error;

/// Where a command writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// The format of data.
    pub format: Format,
    /// Whether progress is left out.
    pub quiet: bool,
    /// Whether stderr shows colours.
    color: bool,
    /// Whether questions may be asked.
    asks: bool,
    /// Whether every question is answered with yes.
    yes: bool,
}

/// A line of a table.
pub trait Row: Serialize {
    /// The heads of the columns.
    const COLUMNS: &'static [&'static str];
    /// The heads of the columns that only `-o wide` shows.
    const WIDE: &'static [&'static str] = &[];

    /// What `-o name` prints.
    fn name(&self) -> String;

    /// One cell for each column, those of `WIDE` last.
    fn cells(&self) -> Vec<String>;
}

/// Several things as a structure, in the order of their fields.
#[derive(Serialize)]
struct Items<'a, T> {
    items: &'a [T],
}

impl Output {
    /// The output that the global flags describe.
    pub fn new(global: &Global) -> Self {
        let terminal = io::stderr().is_terminal();
        let color = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                terminal
                    && !is_set("NO_COLOR")
                    && std::env::var("TERM").is_ok_and(|term| term != "dumb")
            }
        };
        Self {
            format: global.format(),
            quiet: global.quiet,
            color,
            asks: !global.no_input && terminal && io::stdin().is_terminal() && !is_set("CI"),
            yes: global.yes,
        }
    }

    /// Tells about progress, unless that is not wanted.
    pub fn progress(&self, line: impl AsRef<str>) {
        if !self.quiet {
            self.say(line);
        }
    }

    /// Tells what must not be missed.
    pub fn say(&self, line: impl AsRef<str>) {
        // Nobody is left to tell that stderr is closed.
        let _ = writeln!(io::stderr().lock(), "{}", line.as_ref());
    }

    /// Tells why the command failed.
    pub fn error(&self, error: &Error) {
        let text = error.render(self.color);
        if !text.is_empty() {
            self.say(text);
        }
    }

    /// Asks a question that yes or no answers; no where nobody can be asked.
    pub fn confirm(&self, question: &str) -> bool {
        if self.yes || !self.asks {
            return self.yes;
        }
        let _ = write!(io::stderr().lock(), "{question} [y/N] ");
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer);
        read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
    }

    /// Prints several things, or their names, or a table of them.
    pub fn list<T: Row>(&self, items: &[T]) -> Result<(), Error> {
        match self.format {
            Format::Json | Format::Yaml => self.structure(&Items { items }),
            Format::Name => write(&lines(items.iter().map(Row::name))),
            Format::Table => write(&table(items, false)),
            Format::Wide => write(&table(items, true)),
        }
    }

    /// Prints one thing: as a structure, its name, or the text for people.
    pub fn one<T: Serialize>(
        &self,
        thing: &T,
        name: impl FnOnce() -> String,
        text: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        match self.format {
            Format::Json | Format::Yaml => self.structure(thing),
            Format::Name => write(&(name() + "\n")),
            Format::Table | Format::Wide => write(&text()),
        }
    }

    /// Prints JSON or YAML.
    fn structure<T: Serialize>(&self, thing: &T) -> Result<(), Error> {
        let text = if self.format == Format::Yaml {
            serde_yaml_ng::to_string(thing).map_err(|error| unprintable(&error))?
        } else {
            serde_json::to_string_pretty(thing).map_err(|error| unprintable(&error))? + "\n"
        };
        write(&text)
    }
}

/// Writes data to stdout. A reader that has gone (`| head`) ends the command quietly.
pub fn write_bytes(bytes: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::Told(0)),
        Err(error) => Err(Error::io("cannot write to stdout", &error)),
    }
}

/// Writes text to stdout.
pub fn write(text: &str) -> Result<(), Error> {
    write_bytes(text.as_bytes())
}

/// Names and values below one another, the values aligned.
pub fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    lines(pairs.iter().map(|(name, value)| {
        let name = format!("{name}:");
        let indent = format!("\n{:width$} ", "");
        format!("{name:width$} {}", value.replace('\n', &indent))
    }))
}

fn unprintable(error: &dyn std::fmt::Display) -> Error {
    Error::new(
        tombolo_core::Code::Failed,
        format!("the result cannot be printed: {error}"),
    )
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

/// Things below one another, with all columns or without the wide ones.
pub fn table<'r, T: Row + 'r>(items: impl IntoIterator<Item = &'r T>, wide: bool) -> String {
    let columns = match wide {
        true => T::COLUMNS.len() + T::WIDE.len(),
        false => T::COLUMNS.len(),
    };
    let head = T::COLUMNS
        .iter()
        .chain(T::WIDE)
        .map(ToString::to_string)
        .collect();
    let rows: Vec<Vec<String>> = std::iter::once(head)
        .chain(items.into_iter().map(Row::cells))
        .map(|mut cells: Vec<String>| {
            cells.truncate(columns);
            cells
        })
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    lines(rows.iter().map(|row| {
        let padded = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Fruit(&'static str, &'static str);

    impl Row for Fruit {
        const COLUMNS: &'static [&'static str] = &["NAME"];
        const WIDE: &'static [&'static str] = &["TASTE"];

        fn name(&self) -> String {
            self.0.into()
        }

        fn cells(&self) -> Vec<String> {
            vec![self.0.into(), self.1.into()]
        }
    }

    #[test]
    fn a_table_is_aligned_and_wide_shows_more() {
        let fruits = [Fruit("plum", "sweet"), Fruit("lemon", "sour")];
        assert_eq!(table(&fruits, false), "NAME\nplum\nlemon\n");
        assert_eq!(
            table(&fruits, true),
            "NAME   TASTE\nplum   sweet\nlemon  sour\n"
        );
    }

    #[test]
    fn values_of_several_lines_stay_in_their_column() {
        assert_eq!(
            pairs(&[("a", "1".into()), ("long", "2\n3".into())]),
            "a:    1\nlong: 2\n      3\n"
        );
    }
}
