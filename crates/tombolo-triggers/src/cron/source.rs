//! One cron trigger as a state machine: at a time of the wall clock, which ticks to publish and when to look again.

use jiff::{SignedDuration, Timestamp};
use tombolo_core::event::Event;
use tombolo_core::{Feed, Name, Publication, QueueId, QueueName};
use tombolo_manifest::{CronTrigger, Missed};

use super::instants;
use super::settled::{Settled, Span};

/// A tick is missed when it is published later than this; sooner, it is on time.
pub const ON_TIME_MS: u64 = 60_000;
/// Ticks that are published at once at most, the newest ones.
pub const MADE_UP_MAX: usize = 1000;
/// Dropped ticks are counted up to here.
const COUNTED_MAX: u64 = 10_000;

/// A cron trigger of an app.
#[derive(Clone, Debug)]
pub struct CronSource {
    app: Name,
    trigger: CronTrigger,
}

/// A moment at which the schedule says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// The scheduled time, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Whether it is made up for.
    pub missed: bool,
}

/// Ticks that are not published, as the trigger's `missed` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// How many were counted.
    pub ticks: u64,
    /// Whether there are more than were counted.
    pub more: bool,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wake {
    /// The ticks to publish, oldest first, each once.
    pub ticks: Vec<Tick>,
    /// What is not published, to be logged and counted.
    pub dropped: Dropped,
    /// The state to keep once the ticks are published, with them or after them. A crash between the two
    /// publishes ticks again, under the same ids.
    pub settled: Settled,
    /// When the next tick is due; none when there is none before the year 5000. A clock may jump, so look again
    /// within a minute all the same.
    pub next_wall_ms: Option<u64>,
}

impl CronSource {
    /// A trigger of an app.
    pub fn new(app: Name, trigger: CronTrigger) -> Self {
        Self { app, trigger }
    }

    /// What the wall clock's time means. `settled` is the state of the call before, the default for a new trigger.
    ///
    /// A clock that jumps ahead has missed the time between, unless it was not set before; a clock that jumps back ticks
    /// on from where it is, without the ticks that were published before.
    pub fn wake(&self, settled: &Settled, now_ms: u64) -> Wake {
        let mut settled = settled.clone();
        let mut wake = Wake {
            ticks: Vec::new(),
            dropped: Dropped::default(),
            settled: Settled::default(),
            next_wall_ms: None,
        };
        let end_ms = settled.end_before(now_ms);
        // Time between a clock that nobody has set yet and the one that it is set to was not missed.
        match end_ms.filter(|end_ms| is_set(*end_ms) || !is_set(now_ms)) {
            // Nothing is known of this time or an earlier one: ticks begin here.
            None => settled.add(Span {
                from_ms: now_ms,
                to_ms: now_ms,
            }),
            Some(end_ms) if end_ms < now_ms => self.settle(&mut wake, &mut settled, end_ms, now_ms),
            Some(_) => {}
        }
        wake.next_wall_ms = self.next_unsettled(&settled, now_ms);
        wake.settled = settled;
        wake
    }

    /// Decides about the ticks later than `end_ms`, up to now.
    fn settle(&self, wake: &mut Wake, settled: &mut Settled, end_ms: u64, now_ms: u64) {
        let mut ticks = Vec::new();
        let mut past = self.before(now_ms.saturating_add(1));
        while let Some(wall_ms) = past.next().filter(|wall_ms| *wall_ms > end_ms) {
            let missed = now_ms - wall_ms > ON_TIME_MS;
            let kept = match self.trigger.missed {
                Missed::Skip => !missed,
                Missed::Once => !missed || ticks.is_empty(),
                Missed::All => true,
            };
            if kept && ticks.len() < MADE_UP_MAX {
                ticks.push(Tick { wall_ms, missed });
            } else if wake.dropped.ticks < COUNTED_MAX {
                wake.dropped.ticks += 1;
            } else {
                wake.dropped.more = true;
                break;
            }
        }
        ticks.reverse();
        let from_ms = match (wake.dropped.ticks, ticks.first()) {
            (0, None) => return,
            (0, Some(_)) => end_ms,
            (_, Some(first)) => first.wall_ms,
            (_, None) => now_ms,
        };
        settled.add(Span {
            from_ms,
            to_ms: now_ms,
        });
        wake.ticks = ticks;
    }

    /// The scheduled times before this one, latest first.
    fn before(&self, before_ms: u64) -> impl Iterator<Item = u64> {
        let mut before = timestamp(before_ms);
        std::iter::from_fn(move || {
            before = instants::previous(&self.trigger.schedule, &self.trigger.timezone, before)?;
            u64::try_from(before.as_millisecond()).ok()
        })
    }

    fn next_unsettled(&self, settled: &Settled, now_ms: u64) -> Option<u64> {
        let mut after_ms = now_ms;
        loop {
            let after = timestamp(after_ms);
            let next = instants::next(&self.trigger.schedule, &self.trigger.timezone, after)?;
            let next_ms = u64::try_from(next.as_millisecond()).ok()?;
            match settled.end_around(next_ms) {
                Some(end_ms) => after_ms = end_ms,
                None => return Some(next_ms),
            }
        }
    }

    /// What the state of this trigger is remembered by. Another schedule or zone is another trigger.
    pub fn key(&self) -> String {
        let CronTrigger {
            schedule,
            timezone,
            function,
            ..
        } = &self.trigger;
        format!("{}/{function}/{schedule} {timezone}", self.app)
    }

    /// The queue that the trigger's ticks go through.
    pub fn queue(&self) -> QueueId {
        QueueId {
            app: self.app.clone(),
            queue: QueueName::of_function(&self.trigger.function, Feed::Cron),
        }
    }

    /// The event of a tick. Its id is the schedule, its zone and the scheduled time, so that a tick is one event
    /// however often it is published.
    pub fn publication(&self, tick: Tick) -> Publication {
        let CronTrigger {
            schedule,
            timezone,
            function,
            ..
        } = &self.trigger;
        let instant = timestamp(tick.wall_ms);
        let local = instant.display_with_offset(timezone.rules().to_offset(instant));
        let data = serde_json::json!({
            "schedule": schedule.as_str(),
            "timezone": timezone.as_str(),
            "scheduled": local.to_string(),
            "missed": tick.missed,
        });
        let mut event = Event::new(
            format!("{schedule} {timezone} {instant}"),
            format!("/tombolo/cron/{}/{function}", self.app),
            "tombolo.cron.tick",
        )
        .with_data("application/json", data.to_string());
        event.time = Some(instant.to_string());
        event.subject = Some(schedule.to_string());
        Publication::new(self.queue(), event)
    }
}

/// Whether a wall clock shows a time to which somebody may have set it. Machines without a battery wake up in 1970, 1980 or
/// 2000.
fn is_set(wall_ms: u64) -> bool {
    /// 2001-01-01T00:00:00Z
    const SET_MS: u64 = 978_307_200_000;
    wall_ms >= SET_MS
}

/// The instant of a wall clock's time; what lies beyond the year 9999 is taken for its end.
fn timestamp(wall_ms: u64) -> Timestamp {
    // The very end is left free, so that what is computed with an instant stays within the range.
    let last = Timestamp::MAX.saturating_sub(SignedDuration::from_hours(48));
    let last = last.unwrap_or(Timestamp::UNIX_EPOCH);
    let found = i64::try_from(wall_ms).ok();
    let found = found.and_then(|wall_ms| Timestamp::from_millisecond(wall_ms).ok());
    found.map_or(last, |found| found.min(last))
}

#[cfg(test)]
mod tests;
