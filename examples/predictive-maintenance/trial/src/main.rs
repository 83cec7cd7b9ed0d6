//! `trial [FOLDER]`: prints what the analysis finds in the bearing recordings of FOLDER and in the temperature series.

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use analysis::temperature::{Settings, Side};
use analysis::verdict::{Basis, Part, Verdict};
use trial::recording::{self, FOLDER_VARIABLE, Sensor, WINDOW_SAMPLES};
use trial::table::Table;
use trial::temperature::{self, Raised, Score, Series};
use trial::vibration::{self, Judged, Outcome};

/// Where the temperature series is cut in two to see whether a choice on its first part holds in the second.
const YEAR_END: &str = "2014-01-01";

/// Standard output, and whether it is a terminal that wants bold heads.
struct Page<W> {
    out: W,
    bold: bool,
}

type Written = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    let stdout = std::io::stdout();
    let bold = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut page = Page {
        out: stdout.lock(),
        bold,
    };
    let argument = std::env::args_os().nth(1);
    if argument
        .as_ref()
        .is_some_and(|argument| argument.as_encoded_bytes().starts_with(b"-"))
    {
        eprintln!("usage: trial [FOLDER]   (or {FOLDER_VARIABLE}=FOLDER trial)");
        return ExitCode::from(2);
    }
    let folder = argument
        .or_else(|| std::env::var_os(FOLDER_VARIABLE))
        .map(PathBuf::from);
    match page.print(folder.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough.
        Err(error) if is_broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trial: {error}");
            let mut cause = error.source();
            while let Some(deeper) = cause {
                eprintln!("  because {deeper}");
                cause = deeper.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

impl<W: Write> Page<W> {
    fn print(&mut self, folder: Option<&Path>) -> Written {
        match folder {
            Some(folder) => {
                let near = vibration::hold(&recording::read_all(folder, Sensor::DriveEnd)?)?;
                self.title("Vibration: four states of one bearing, heard beside it")?;
                self.confusion(&near)?;
                self.figures(&near)?;
                let far = vibration::hold(&recording::read_all(folder, Sensor::FanEnd)?)?;
                self.title("The same rules, heard from the far end of the motor")?;
                self.confusion(&far)?;
            }
            None => writeln!(
                self.out,
                "Vibration: skipped. The recordings are not part of this project; name the folder that holds them\n\
                 as the argument or in {FOLDER_VARIABLE} (data/SOURCE.md says which files and whence).\n"
            )?,
        }
        let series = Series::load()?;
        self.title("Temperature: a machine up to its failure")?;
        self.alarms(&series)?;
        self.settings(&series)
    }

    fn title(&mut self, text: &str) -> Written {
        if self.bold {
            writeln!(self.out, "\u{1b}[1m{text}\u{1b}[0m\n")?;
        } else {
            writeln!(self.out, "{text}\n")?;
        }
        Ok(())
    }

    fn confusion(&mut self, outcome: &Outcome) -> Written {
        let head = [
            "true state ↓  judged →",
            "healthy",
            "inner race",
            "outer race",
            "ball",
        ];
        let mut table = Table::new(head, self.bold);
        for (truth, [healthy, inner, outer, ball]) in outcome.confusion() {
            let cell = |count: usize| match count {
                0 => "·".to_owned(),
                some => some.to_string(),
            };
            table.row([
                truth.to_string(),
                cell(healthy),
                cell(inner),
                cell(outer),
                cell(ball),
            ]);
        }
        let (right, all) = outcome.right_of();
        write!(self.out, "{table}")?;
        writeln!(
            self.out,
            "\n  {right} of {all} windows right, {WINDOW_SAMPLES} samples each, all from the second half of their recording.\n  \
             The limits were learnt from {} windows of the first half of the healthy recording;\n  \
             nothing was learnt from a damaged bearing.",
            outcome.learnt
        )?;
        let excluded: usize = outcome
            .judged
            .iter()
            .map(|judged| judged.count_by(Verdict::Ball, Basis::Exclusion))
            .sum();
        if excluded > 0 {
            writeln!(
                self.out,
                "  {excluded} times the ball was named by exclusion: far more noise than in health, and no line of a race."
            )?;
        }
        writeln!(self.out)?;
        Ok(())
    }

    fn figures(&mut self, outcome: &Outcome) -> Written {
        let head = [
            "median of the judged windows",
            "RMS",
            "crest",
            "kurtosis",
            "above 2 kHz",
            "inner line",
            "outer line",
            "ball line",
        ];
        let mut table = Table::new(head, self.bold);
        for judged in &outcome.judged {
            let line = |part| {
                format!(
                    "{:.1} dB",
                    median(judged, |one| one.line(part).prominence_db)
                )
            };
            table.row([
                judged.truth.to_string(),
                format!("{:.3} g", median(judged, |one| one.waveform.rms)),
                format!("{:.1}", median(judged, |one| one.waveform.crest)),
                format!("{:.1}", median(judged, |one| one.waveform.kurtosis)),
                format!("{:.1} dB", median(judged, |one| one.impact_level_db)),
                line(Part::InnerRace),
                line(Part::OuterRace),
                line(Part::Ball),
            ]);
        }
        let limits = &outcome.limits;
        table.row([
            "limit".into(),
            String::new(),
            String::new(),
            String::new(),
            format!("{:.1} dB", limits.impact_level_db),
            format!("{:.1} dB", limits.inner_race_db),
            format!("{:.1} dB", limits.outer_race_db),
            format!("{:.1} dB", limits.ball_db),
        ]);
        writeln!(
            self.out,
            "{table}\n  A line's figure: how far the fault frequency and two harmonics stand out of the envelope's spectrum.\n"
        )?;
        Ok(())
    }

    fn alarms(&mut self, series: &Series) -> Written {
        let settings = Settings::default();
        let raised = temperature::hold(series, &settings);
        let mut table = Table::new(
            [
                "alarm",
                "side",
                "recent",
                "usual",
                "spreads",
                "labelled window",
            ],
            self.bold,
        );
        for Raised {
            time,
            alarm,
            window,
        } in &raised
        {
            table.row([
                time.clone(),
                match alarm.side {
                    Side::Below => "below".into(),
                    Side::Above => "above".into(),
                },
                format!("{:.1}", alarm.recent),
                format!("{:.1}", alarm.usual),
                format!("{:.1}", alarm.spreads),
                window
                    .and_then(|index| series.windows.get(index))
                    .map_or("none: false alarm".into(), |window| {
                        format!("{} – {}", window.start(), window.end())
                    }),
            ]);
        }
        let Score {
            windows,
            found,
            false_alarms,
        } = temperature::score(series, &raised, |_| true);
        writeln!(
            self.out,
            "{table}\n  {found} of {windows} labelled windows found, {false_alarms} false alarms in {} readings. The first {} are the\n  \
             benchmark's probation, in which no detector is scored; here they only teach.\n",
            series.readings.len(),
            settings.learning
        )?;
        Ok(())
    }

    fn settings(&mut self, series: &Series) -> Written {
        let mut table = Table::new(
            [
                "smoothing",
                "usual",
                "limit",
                "found until New Year",
                "false",
                "found after",
                "false",
            ],
            self.bold,
        );
        let candidates = temperature::candidates();
        let mut chosen = 0;
        for settings in &candidates {
            let raised = temperature::hold(series, settings);
            let first = temperature::score(series, &raised, |time| time < YEAR_END);
            let second = temperature::score(series, &raised, |time| time >= YEAR_END);
            if first.found < first.windows || first.false_alarms > 0 {
                continue;
            }
            chosen += 1;
            let used = if *settings == Settings::default() {
                "  ← used"
            } else {
                ""
            };
            table.row([
                format!("{} h", settings.recent_hours),
                format!("{} d", settings.usual_hours / 24.0),
                format!("{:.1}", settings.limit),
                format!("{} of {}", first.found, first.windows),
                first.false_alarms.to_string(),
                format!("{} of {}", second.found, second.windows),
                format!("{}{used}", second.false_alarms),
            ]);
        }
        writeln!(
            self.out,
            "{table}\n  Of {} settings, the {chosen} that find both windows before New Year without a false alarm, and what they\n  \
             do after it. The one used was picked with the whole series in sight, and it is one machine: how well it\n  \
             carries over to another is not known.",
            candidates.len()
        )?;
        Ok(())
    }
}

fn median(judged: &Judged, figure: impl Fn(&analysis::features::Features) -> f64) -> f64 {
    let mut figures: Vec<f64> = judged
        .reports
        .iter()
        .map(|report| figure(&report.features))
        .collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
