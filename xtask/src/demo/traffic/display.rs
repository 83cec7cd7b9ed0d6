//! Progress: a table that is drawn over itself on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::metrics::Figures;
use super::replay::Counts;

const REDRAW_EVERY: Duration = Duration::from_millis(150);
const BAR_CELLS: usize = 32;
/// Lines of progress where there is no terminal.
const LINES: usize = 8;

pub struct Display {
    batches: usize,
    terminal: bool,
    drawn: Option<Instant>,
    lines_up: usize,
}

impl Display {
    pub fn new(batches: usize) -> Self {
        Self {
            batches,
            terminal: std::io::stderr().is_terminal(),
            drawn: None,
            lines_up: 0,
        }
    }

    /// Shows the state when it is time to; `figures` are asked for only then.
    pub fn show(&mut self, counts: &Counts, figures: impl FnOnce() -> Result<Figures>) {
        if self.terminal {
            if self
                .drawn
                .is_none_or(|drawn| drawn.elapsed() >= REDRAW_EVERY)
            {
                self.draw(counts, &figures().unwrap_or_default());
            }
        } else if counts.batches.is_multiple_of((self.batches / LINES).max(1)) {
            eprintln!(
                "{}  {:>3} %  {} events  {} decisions  p50 {:.2} ms  p99 {:.2} ms",
                clock(counts.time),
                100 * counts.batches / self.batches,
                grouped(counts.events as u64),
                grouped(counts.decided() as u64),
                counts.latency_ms(0.5),
                counts.latency_ms(0.99),
            );
        }
    }

    /// Shows the final state: in place on a terminal, else as the table that was not drawn before.
    pub fn finish(&mut self, counts: &Counts, figures: &Figures) {
        self.draw(counts, figures);
        eprintln!();
    }

    fn draw(&mut self, counts: &Counts, figures: &Figures) {
        let rows = rows(counts, figures, self.batches);
        let mut out = std::io::stderr().lock();
        // A terminal that is gone is no reason to end the replay.
        if self.lines_up > 0 {
            write!(out, "\x1b[{}A", self.lines_up).ok();
        }
        let clear = if self.terminal { "\x1b[K" } else { "" };
        for (name, value) in &rows {
            writeln!(out, "{name:<18}{value}{clear}").ok();
        }
        self.lines_up = if self.terminal { rows.len() } else { 0 };
        self.drawn = Some(Instant::now());
    }
}

fn rows(counts: &Counts, figures: &Figures, batches: usize) -> Vec<(&'static str, String)> {
    let seconds = counts.elapsed.as_secs_f64().max(1e-3);
    let full = BAR_CELLS * counts.batches / batches.max(1);
    let kind = |name: &str| grouped(counts.decisions.get(name).copied().unwrap_or(0) as u64);
    let ratio = counts.bytes as f64 / figures.forwarded_bytes.max(1) as f64;
    vec![
        (
            "recording",
            format!(
                "{}  {}{}  {} × real time",
                clock(counts.time),
                "█".repeat(full),
                "░".repeat(BAR_CELLS - full.min(BAR_CELLS)),
                (counts.batches as f64 / seconds).round()
            ),
        ),
        (
            "events",
            format!(
                "{} in {} batches",
                grouped(counts.events as u64),
                grouped(counts.batches as u64)
            ),
        ),
        (
            "decisions",
            format!(
                "{} (keep {}, extend {}, end {})",
                grouped(counts.decided() as u64),
                kind("keep"),
                kind("extend"),
                kind("end")
            ),
        ),
        (
            "decision latency",
            format!(
                "p50 {:.2} ms, p99 {:.2} ms",
                counts.latency_ms(0.5),
                counts.latency_ms(0.99)
            ),
        ),
        (
            "cold starts",
            format!(
                "signal {}, city {}",
                figures.signal_cold_starts, figures.city_cold_starts
            ),
        ),
        (
            "bytes",
            format!(
                "{} in, {} forwarded in {} deliveries (1 : {ratio:.0})",
                grouped(counts.bytes),
                grouped(figures.forwarded_bytes),
                figures.deliveries
            ),
        ),
        (
            "sent again",
            format!(
                "{} on purpose, {} because of an answer",
                counts.repeated, counts.retried
            ),
        ),
        (
            "CPU of signal",
            format!("{:.2} s", figures.signal_cpu_seconds),
        ),
    ]
}

fn clock(time: i64) -> String {
    let second = time.rem_euclid(86_400);
    format!(
        "{:02}:{:02}:{:02}",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_readable() {
        assert_eq!(
            [grouped(7), grouped(1_234), grouped(1_234_567)],
            ["7", "1,234", "1,234,567"]
        );
        assert_eq!(clock(1_713_182_400 + 3_661), "13:01:01");
    }
}
