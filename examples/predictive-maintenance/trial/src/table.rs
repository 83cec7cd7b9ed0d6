//! Plain tables for people: aligned columns, a ruled head, bold only on a terminal.

use std::fmt::{self, Display, Formatter};

/// A table under construction. The first column is aligned left, the others right.
#[derive(Debug, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    bold: bool,
}

impl Table {
    pub fn new<const N: usize>(head: [&str; N], bold: bool) -> Self {
        Self {
            head: head.map(String::from).to_vec(),
            rows: Vec::new(),
            bold,
        }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }
}

impl Display for Table {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                std::iter::once(&self.head)
                    .chain(&self.rows)
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let line = |cells: &[String]| {
            let padded = cells.iter().zip(&widths).enumerate();
            padded
                .map(|(column, (cell, width))| {
                    if column == 0 {
                        format!("  {cell:<width$}")
                    } else {
                        format!("  {cell:>width$}")
                    }
                })
                .collect::<String>()
        };
        if self.bold {
            writeln!(out, "\u{1b}[1m{}\u{1b}[0m", line(&self.head))?;
        } else {
            writeln!(out, "{}", line(&self.head))?;
        }
        let rules: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
        writeln!(out, "{}", line(&rules))?;
        for row in &self.rows {
            writeln!(out, "{}", line(row).trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["state", "windows"], false);
        table.row(["ball".into(), "7".into()]);
        table.row(["inner race".into(), "15".into()]);
        assert_eq!(
            table.to_string(),
            "  state       windows\n  ──────────  ───────\n  ball              7\n  inner race       15\n"
        );
    }
}
