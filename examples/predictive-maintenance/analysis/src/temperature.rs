//! Watches one temperature: what has lately been usual against what was usual for a week, reading by reading.

use serde::{Deserialize, Serialize};

/// How a [`Monitor`] judges.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Time between two readings, in minutes.
    pub interval_minutes: f64,
    /// Half-life of the smoothing: shorter excursions are the machine's ordinary life.
    pub recent_hours: f64,
    /// Half-life of what counts as usual.
    pub usual_hours: f64,
    /// Alarm when the recent level is this many spreads away from the usual one.
    pub limit: f64,
    /// Readings before the first alarm may come.
    pub learning: u32,
}

impl Default for Settings {
    /// Three spreads of one week, over four hours, after 750 readings every five minutes (62.5 hours).
    fn default() -> Self {
        Self {
            interval_minutes: 5.0,
            recent_hours: 4.0,
            usual_hours: 168.0,
            limit: 3.0,
            learning: 750,
        }
    }
}

impl Settings {
    /// The weight of one reading for a half-life; that of a plain mean until the half-life's own is reached.
    fn weight(&self, half_life_hours: f64, readings: u32) -> f64 {
        let steady = 1.0 - 0.5_f64.powf(self.interval_minutes / 60.0 / half_life_hours);
        steady.max(1.0 / f64::from(readings.max(1)))
    }
}

/// A reading further than this many spreads from the usual counts as this far when the usual is learnt, so that a
/// fault does not become usual at once. Gelper, Fried and Croux, "Robust forecasting with exponential and
/// Holt–Winters smoothing", Journal of Forecasting 29 (2010) 285–300, propose Huber's function with this bound.
const BOUND: f64 = 2.0;
/// The mean absolute deviation of a normal distribution times this is its standard deviation: √(π/2).
const DEVIATION_RATIO: f64 = 1.253_314_137_315_500_3;
/// Readings that set the first usual level and spread as plain means: those of two hours.
const FIRST: u32 = 24;
/// A spread below this, in degrees, is the sensor's resolution and no reason for an alarm.
const SPREAD_MIN: f64 = 0.5;

/// On which side the recent level left the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    Below,
    Above,
}

/// The recent level has left the usual one. It is told once, when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    pub side: Side,
    pub recent: f64,
    pub usual: f64,
    /// Distance in spreads.
    pub spreads: f64,
}

/// The state of the watch: a handful of numbers, whatever the length of the series. It looks at nothing but the readings
/// so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Monitor {
    readings: u32,
    recent: f64,
    usual: f64,
    spread: f64,
    alarmed: bool,
}

impl Monitor {
    /// Takes the next reading. A reading that is not a finite number is passed over.
    ///
    /// `recent` and `usual` are exponentially weighted means (Roberts, Technometrics 1 (1959) 239–250), the spread is
    /// such a mean of the absolute deviations, all bounded by [`BOUND`]. After an alarm the next one can come once
    /// the recent level has come half-way back.
    pub fn take(&mut self, settings: &Settings, value: f64) -> Option<Alarm> {
        if !value.is_finite() {
            return None;
        }
        self.readings = self.readings.saturating_add(1);
        let weight = |half_life_hours| settings.weight(half_life_hours, self.readings);
        let (recent_weight, usual_weight) =
            (weight(settings.recent_hours), weight(settings.usual_hours));
        self.recent += recent_weight * (value - self.recent);
        let distance = (self.recent - self.usual) / self.spread.max(SPREAD_MIN);
        self.learn(value, usual_weight);

        if distance.abs() < settings.limit / 2.0 {
            self.alarmed = false;
        }
        if self.readings <= settings.learning || self.alarmed || distance.abs() < settings.limit {
            return None;
        }
        self.alarmed = true;
        Some(Alarm {
            side: if distance < 0.0 {
                Side::Below
            } else {
                Side::Above
            },
            recent: self.recent,
            usual: self.usual,
            spreads: distance.abs(),
        })
    }

    /// Whether the last alarm still stands.
    pub fn alarmed(&self) -> bool {
        self.alarmed
    }

    fn learn(&mut self, value: f64, weight: f64) {
        let deviation = value - self.usual;
        let bounded = if self.readings <= FIRST {
            deviation
        } else {
            let bound = BOUND * self.spread.max(SPREAD_MIN);
            deviation.clamp(-bound, bound)
        };
        self.usual += weight * bounded;
        // The first reading deviates from nothing yet.
        if self.readings > 1 {
            self.spread += weight * (DEVIATION_RATIO * bounded.abs() - self.spread);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A day's swing of ±3 degrees about 85, every five minutes.
    fn ordinary(reading: u32) -> f64 {
        85.0 + 3.0 * (f64::from(reading) / 288.0 * std::f64::consts::TAU).sin()
    }

    fn alarms(readings: u32, value: impl Fn(u32) -> f64) -> Vec<(u32, Side)> {
        let mut monitor = Monitor::default();
        (0..readings)
            .filter_map(|reading| {
                Some((
                    reading,
                    monitor.take(&Settings::default(), value(reading))?.side,
                ))
            })
            .collect()
    }

    #[test]
    fn a_daily_swing_is_usual() {
        assert_eq!(alarms(8_000, ordinary), []);
    }

    #[test]
    fn a_lasting_drop_is_told_once_and_a_second_one_again() {
        let dropped = |reading: u32| {
            let drop = if (3_000..3_200).contains(&reading) || (6_000..6_200).contains(&reading) {
                25.0
            } else {
                0.0
            };
            ordinary(reading) - drop
        };
        let alarms = alarms(8_000, dropped);
        assert_eq!(alarms.len(), 2, "{alarms:?}");
        assert!((3_000..3_100).contains(&alarms[0].0) && (6_000..6_100).contains(&alarms[1].0));
        assert!(alarms.iter().all(|(_, side)| *side == Side::Below));
    }

    #[test]
    fn a_single_wild_reading_is_no_alarm_and_neither_is_a_broken_one() {
        let wild = |reading| match reading {
            3_000 => 400.0,
            4_000 => f64::NAN,
            _ => ordinary(reading),
        };
        assert_eq!(alarms(8_000, wild), []);
    }

    #[test]
    fn nothing_is_told_while_it_learns() {
        assert_eq!(alarms(750, |reading| f64::from(reading % 7) * 100.0), []);
    }

    #[test]
    fn the_state_is_small_and_goes_on_from_where_it_was_stored() {
        let mut whole = Monitor::default();
        let mut stored = whole;
        for reading in 0..2_000 {
            whole.take(&Settings::default(), ordinary(reading));
            let json = serde_json::to_vec(&stored).unwrap();
            assert!(json.len() < 512);
            stored = serde_json::from_slice(&json).unwrap();
            stored.take(&Settings::default(), ordinary(reading));
        }
        assert_eq!(stored, whole);
    }
}
