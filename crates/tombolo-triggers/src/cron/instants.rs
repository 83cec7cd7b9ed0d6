//! From local times to instants: what a schedule means where clocks change.
//!
//! The rule is that of Vixie's cron. A schedule of times of the day ([`Schedule::is_fixed`]) ticks once for each
//! such time: one that clocks jump over ticks at the moment of the jump, one that comes twice ticks the first
//! time. Every other schedule follows the time that passes: it ticks whenever the local time matches, so never
//! in an hour that does not exist, and in both of an hour that comes twice.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use tombolo_manifest::{Schedule, Zone};

/// The first instant later than this one at which the schedule ticks.
pub(super) fn next(schedule: &Schedule, zone: &Zone, after: Timestamp) -> Option<Timestamp> {
    let rules = zone.rules();
    if schedule.is_fixed() {
        let mut local = rules.to_datetime(after);
        loop {
            local = schedule.next_local(local)?;
            // Times that came before in the first of two equal hours are left behind.
            let instant = once(rules, local)?;
            if instant > after {
                return Some(instant);
            }
        }
    }
    let mut offset = rules.to_offset(after);
    let mut local = offset.to_datetime(after);
    for change in rules.following(after) {
        let found = instant(schedule.next_local(local), offset);
        if found.is_some_and(|found| found < change.timestamp()) {
            return found;
        }
        // On the other side of the change, the moment of the change included.
        offset = change.offset();
        let start = offset.to_datetime(change.timestamp());
        local = start.checked_sub(SignedDuration::from_secs(1)).ok()?;
        if start.year() > YEAR_MAX {
            return None;
        }
    }
    instant(schedule.next_local(local), offset)
}

/// The last instant earlier than this one at which the schedule ticked.
pub(super) fn previous(schedule: &Schedule, zone: &Zone, before: Timestamp) -> Option<Timestamp> {
    let rules = zone.rules();
    if schedule.is_fixed() {
        let mut local = last_local(rules, before);
        loop {
            local = schedule.previous_local(local)?;
            let instant = once(rules, local)?;
            if instant < before {
                return Some(instant);
            }
        }
    }
    let mut end = before;
    for change in rules.preceding(before) {
        let offset = change.offset();
        let found = instant(schedule.previous_local(offset.to_datetime(end)), offset);
        if found.is_some_and(|found| found >= change.timestamp()) {
            return found;
        }
        end = change.timestamp();
    }
    let offset = rules.to_offset(end.checked_sub(SignedDuration::from_nanos(1)).ok()?);
    instant(schedule.previous_local(offset.to_datetime(end)), offset)
}

/// Schedules are searched up to here; the rules of time zones go on for ever.
const YEAR_MAX: i16 = 5000;

fn instant(local: Option<DateTime>, offset: Offset) -> Option<Timestamp> {
    offset.to_timestamp(local?).ok()
}

/// The one instant of a local time: of two the first, of none the moment at which clocks jump over it.
fn once(rules: &TimeZone, local: DateTime) -> Option<Timestamp> {
    match rules.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok(),
        AmbiguousOffset::Gap { before, .. } => {
            // With the offset of before, the time is at the jump or behind it.
            let behind = before.to_timestamp(local).ok()?;
            let end = behind.checked_add(SignedDuration::from_nanos(1)).ok()?;
            rules.preceding(end).next().map(|jump| jump.timestamp())
        }
    }
}

/// The latest local time that clocks had shown by then: while an hour comes again, the end of the first.
fn last_local(rules: &TimeZone, instant: Timestamp) -> DateTime {
    let now = rules.to_datetime(instant);
    let shown = rules.preceding(instant).next().and_then(|change| {
        let at = change.timestamp();
        let before = at.checked_sub(SignedDuration::from_nanos(1)).ok()?;
        Some(rules.to_offset(before).to_datetime(at))
    });
    shown.map_or(now, |shown| shown.max(now))
}

#[cfg(test)]
mod tests;
