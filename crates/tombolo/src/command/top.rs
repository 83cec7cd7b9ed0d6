//! `tombolo top`: what functions and queues do at this moment, anew in each interval.

mod figures;
mod screen;

use std::time::Duration;

use tokio::time::Instant;

use self::figures::{Figures, Sample};
use self::screen::Screen;
use crate::app;
use crate::arguments::{Format, Global, Top};
use crate::error::Error;
use crate::output::{self, Output};

/// Shows figures until `q`, a signal, or as often as the arguments say.
pub async fn run(arguments: &Top, global: &Global, output: &Output) -> Result<(), Error> {
    let client = app::client(global, &arguments.files)?;
    let mut before = Sample::take(&client).await?;
    let is_table = matches!(output.format, Format::Table | Format::Wide);
    let endless = arguments.count.is_none() && !arguments.once;
    // Left again however this ends.
    let mut screen = match is_table && endless {
        true => Screen::enter()?,
        false => None,
    };
    let mut left = arguments.count.unwrap_or(u32::from(arguments.once));
    let mut next = Instant::now() + arguments.interval;
    loop {
        // Both branches are cancel-safe: a key that is not read yet is read the next time.
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = quit(&mut screen) => return Ok(()),
        }
        let now = Sample::take(&client).await?;
        let figures = Figures::between(&before, &now);
        match &screen {
            Some(screen) => screen.show(&figures.tables(output.format)),
            None => output::write(&figures.text(output.format)?),
        }?;
        before = now;
        left = left.saturating_sub(1);
        if left == 0 && !endless {
            return Ok(());
        }
        next = later(next, arguments.interval);
    }
}

/// The next moment of the rhythm; one that has passed is not made up for.
fn later(moment: Instant, interval: Duration) -> Instant {
    (moment + interval).max(Instant::now())
}

/// Waits until somebody at the terminal wants to leave.
async fn quit(screen: &mut Option<Screen>) {
    match screen {
        Some(screen) => screen.quit().await,
        None => std::future::pending().await,
    }
}
