//! The terminal while figures are shown on it: a screen of its own, and keys that are read as they are pressed.

use std::io::{IsTerminal as _, stdin, stdout};

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::io::AsyncReadExt as _;

use crate::error::Error;
use crate::output;

/// A screen of its own without a cursor, and the way back (xterm's control sequences).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the first line, and behind what is shown: clear the rest of a line, and of the screen.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K\r\n";
const CLEAR_REST: &str = "\x1b[J";
/// The lines where a terminal does not tell how many it has.
const LINES: usize = 24;

/// The terminal; as it was before when dropped.
pub struct Screen {
    before: Termios,
    keys: tokio::io::Stdin,
}

impl Screen {
    /// Takes the terminal; none where in- or output is something else.
    pub fn enter() -> Result<Option<Self>, Error> {
        if !stdin().is_terminal() || !stdout().is_terminal() {
            return Ok(None);
        }
        let failed = |error: rustix::io::Errno| Error::io("cannot use the terminal", &error.into());
        let before = tcgetattr(stdin()).map_err(failed)?;
        let mut keys = before.clone();
        // Each key at once and unseen; Ctrl-C stays a signal.
        keys.local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO);
        keys.special_codes[SpecialCodeIndex::VMIN] = 1;
        keys.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(stdin(), OptionalActions::Now, &keys).map_err(failed)?;
        let screen = Self {
            before,
            keys: tokio::io::stdin(),
        };
        output::write(ENTER)?;
        Ok(Some(screen))
    }

    /// Shows a text instead of what is there, as much as there is room for.
    pub fn show(&self, text: &str) -> Result<(), Error> {
        // A terminal that does not know its size says 0.
        let size = tcgetwinsize(stdout())
            .ok()
            .filter(|size| size.ws_row > 0 && size.ws_col > 0);
        let lines = size.map_or(LINES, |size| usize::from(size.ws_row));
        let columns = size.map_or(usize::MAX, |size| usize::from(size.ws_col));
        let mut shown = HOME.to_owned();
        for line in text.lines().take(lines.saturating_sub(1)) {
            shown.extend(line.chars().take(columns));
            shown += CLEAR_LINE;
        }
        output::write(&(shown + CLEAR_REST))
    }

    /// Waits for `q`, or for the end of the terminal's input.
    pub async fn quit(&mut self) {
        while let Ok(key) = self.keys.read_u8().await {
            if key == b'q' || key == b'Q' {
                return;
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to tell that the terminal is gone.
        let _ = output::write(LEAVE);
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}
