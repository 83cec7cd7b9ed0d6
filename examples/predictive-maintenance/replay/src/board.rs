//! Progress: a table that is drawn over itself on a terminal, a line for each phase and machine elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use messages::Action;

const REDRAW_EVERY: Duration = Duration::from_millis(120);
const BAR_CELLS: usize = 24;

/// What is shown; clones show the same.
#[derive(Clone)]
pub struct Board(Arc<Mutex<State>>);

struct State {
    terminal: bool,
    drawn: Option<Instant>,
    lines_up: usize,
    phase: &'static str,
    rows: Vec<Row>,
}

struct Row {
    machine: String,
    planned: usize,
    acknowledged: u64,
    told: Option<Action>,
    latency: Option<Duration>,
}

impl Board {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            terminal: std::io::stderr().is_terminal(),
            drawn: None,
            lines_up: 0,
            phase: "",
            rows: Vec::new(),
        })))
    }

    pub fn phase(&self, phase: &'static str) {
        self.change(|state| {
            state.phase = phase;
            if state.terminal {
                state.draw();
            } else {
                eprintln!("{phase}");
            }
        });
    }

    /// A machine begins to send so many messages.
    pub fn begin(&self, machine: &str, planned: usize) {
        self.change(|state| {
            state.rows.retain(|row| row.machine != machine);
            state.rows.push(Row {
                machine: machine.to_owned(),
                planned,
                acknowledged: 0,
                told: None,
                latency: None,
            });
        });
    }

    pub fn acknowledged(&self, machine: &str, acknowledged: u64) {
        self.row(machine, |row| row.acknowledged = acknowledged);
    }

    /// A machine was told something.
    pub fn heard(&self, machine: &str, acknowledged: u64, told: Action, latency: Option<Duration>) {
        self.row(machine, |row| {
            row.acknowledged = acknowledged;
            row.told = Some(told);
            row.latency = latency;
        });
    }

    /// Leaves the last state on the screen.
    pub fn finish(&self) {
        self.change(|state| {
            state.draw();
            eprintln!();
        });
    }

    fn row(&self, machine: &str, change: impl FnOnce(&mut Row)) {
        self.change(|state| {
            if let Some(row) = state.rows.iter_mut().find(|row| row.machine == machine) {
                change(row);
            }
            let due = state
                .drawn
                .is_none_or(|drawn| drawn.elapsed() >= REDRAW_EVERY);
            if state.terminal && due {
                state.draw();
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl State {
    fn draw(&mut self) {
        let mut out = std::io::stderr().lock();
        // A terminal that is gone is no reason to end the replay.
        if self.lines_up > 0 {
            write!(out, "\x1b[{}A", self.lines_up).ok();
        }
        let clear = if self.terminal { "\x1b[K" } else { "" };
        writeln!(out, "{}{clear}", self.phase).ok();
        for row in &self.rows {
            writeln!(out, "  {}{clear}", row.line()).ok();
        }
        self.lines_up = if self.terminal {
            self.rows.len() + 1
        } else {
            0
        };
        self.drawn = Some(Instant::now());
    }
}

impl Row {
    fn line(&self) -> String {
        let done = usize::try_from(self.acknowledged)
            .unwrap_or(usize::MAX)
            .min(self.planned);
        let full = BAR_CELLS * done / self.planned.max(1);
        let told = self
            .told
            .map_or(String::new(), |told| format!("{told:?}").to_lowercase());
        let latency = self.latency.map_or(String::new(), |latency| {
            format!("{:.1} ms", 1e3 * latency.as_secs_f64())
        });
        format!(
            "{:<14} {}{} {:>5} of {:<5} {told:<6} {latency:>10}",
            self.machine,
            "█".repeat(full),
            "░".repeat(BAR_CELLS - full),
            self.acknowledged,
            self.planned,
        )
    }
}
