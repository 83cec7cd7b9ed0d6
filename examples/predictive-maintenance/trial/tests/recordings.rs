//! What the analysis must find in the real recordings.

use std::error::Error;
use std::path::PathBuf;

use analysis::temperature::Settings;
use trial::recording::{FOLDER_VARIABLE, Sensor, read_all};
use trial::temperature::{self, Score, Series};
use trial::vibration;

type Tested = Result<(), Box<dyn Error>>;

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: {FOLDER_VARIABLE} names no folder of recordings");
    }
    folder
}

#[test]
fn the_four_states_are_told_apart_in_windows_that_taught_nothing() -> Tested {
    let Some(folder) = folder() else {
        return Ok(());
    };
    let outcome = vibration::hold(&read_all(&folder, Sensor::DriveEnd)?)?;
    let (right, all) = outcome.right_of();
    assert_eq!((right, all), (75, 75), "{:?}", outcome.confusion());
    Ok(())
}

#[test]
fn the_far_sensor_hears_most_of_it() -> Tested {
    let Some(folder) = folder() else {
        return Ok(());
    };
    let outcome = vibration::hold(&read_all(&folder, Sensor::FanEnd)?)?;
    let (right, all) = outcome.right_of();
    assert!(10 * right >= 9 * all, "{:?}", outcome.confusion());
    Ok(())
}

#[test]
fn every_labelled_window_has_an_alarm_and_nothing_else_has() -> Tested {
    let series = Series::load()?;
    assert_eq!(series.readings.len(), 22_695);
    let raised = temperature::hold(&series, &Settings::default());
    assert_eq!(
        temperature::score(&series, &raised, |_| true),
        Score {
            windows: 4,
            found: 4,
            false_alarms: 0
        }
    );
    Ok(())
}

#[test]
fn no_alarm_depends_on_what_comes_after_it() -> Tested {
    let mut series = Series::load()?;
    let settings = Settings::default();
    let times = |series: &Series| -> Vec<String> {
        temperature::hold(series, &settings)
            .into_iter()
            .map(|raised| raised.time)
            .collect()
    };
    let whole = times(&series);
    for (index, time) in whole.iter().enumerate() {
        series.readings.retain(|(reading, _)| reading <= time);
        assert_eq!(times(&series), whole[..=index]);
        series = Series::load()?;
    }
    Ok(())
}
