//! Function `analyse`: the wasi shell around the watches; loads one, hands it a message, tells, stores it.

mod outside;

use analyse::commissioning::Commissioning;
use analyse::temperature;
use analyse::vibration;
use analysis::bearing::SKF_6205;
use analysis::features::Examiner;
use analysis::report::Report;
use analysis::window::Window;
use messages::{Action, Alarm, Channel, Command, Observed, Readings, Trend};
use wstd::http::{Body, Error, Request, Response, StatusCode};

use outside::{Loaded, Outside};

/// The header that has the topic of a message.
const TOPIC: &str = "ce-mqtttopic";
/// Where the store has what the healthy machine taught.
const COMMISSIONING: &str = "commissioning";

/// What becomes of a message.
enum Outcome {
    Taken,
    /// It will never be anything else.
    Refused(String),
    /// Another message of the same machine was stored first.
    Overtaken,
}

type Taken = Result<Outcome, Error>;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let topic = request
        .headers()
        .get(TOPIC)
        .and_then(|topic| topic.to_str().ok());
    let Some((machine, channel)) = topic.and_then(Channel::of_topic) else {
        return answer(StatusCode::BAD_REQUEST, "this is no message of a machine");
    };
    let machine = machine.to_owned();
    // The broker bounds what arrives.
    let bytes = request.into_body().contents().await?.to_vec();
    let outside = Outside::connect()?;
    let outcome = match channel {
        Channel::Commissioning => commission(&outside, &machine, &bytes),
        Channel::Vibration => judge(&outside, &machine, &bytes),
        Channel::Temperature => warm(&outside, &machine, &bytes),
        Channel::Inspection => Ok(Outcome::Refused("inspections are for `summarise`".into())),
    }?;
    match outcome {
        Outcome::Taken => answer(StatusCode::NO_CONTENT, ""),
        Outcome::Refused(why) => answer(StatusCode::UNPROCESSABLE_ENTITY, &why),
        Outcome::Overtaken => answer(
            StatusCode::CONFLICT,
            "another message of the same machine was stored first",
        ),
    }
}

/// A window of the healthy machine: it teaches.
fn commission(outside: &Outside, machine: &str, bytes: &[u8]) -> Taken {
    let report = match report(machine, bytes, None) {
        Ok(report) => report,
        Err(why) => return Ok(Outcome::Refused(why)),
    };
    let Loaded { mut state, handle } = outside.load::<Commissioning>(COMMISSIONING)?;
    state.take(machine, report.position, &report.features);
    let observed = Observed::Commissioning {
        windows: state.baseline.windows(),
    };
    outside.trend(
        "commissioning",
        report.position,
        &trend(machine, bytes, Vec::new(), observed),
    )?;
    let command = Command {
        position: report.position,
        action: Action::Learn,
        verdict: None,
    };
    outside.command(machine, &command)?;
    stored(Outside::store(handle, &state)?)
}

/// A window to be judged.
fn judge(outside: &Outside, machine: &str, bytes: &[u8]) -> Taken {
    let limits = outside
        .load::<Commissioning>(COMMISSIONING)?
        .state
        .baseline
        .limits();
    let report = match report(machine, bytes, limits.as_ref()) {
        Ok(report) => report,
        Err(why) => return Ok(Outcome::Refused(why)),
    };
    let Loaded { mut state, handle } =
        outside.load::<vibration::Watch>(&format!("vibration/{machine}"))?;
    let verdict = report.diagnosis.map(|diagnosis| diagnosis.verdict);
    let Some(step) = state.take(report.position, verdict) else {
        return Ok(Outcome::Taken);
    };
    // The machine waits; people and statistics have time.
    outside.command(machine, &step.command)?;
    let alarms: Vec<Alarm> = step
        .alarm
        .then_some(Alarm::Vibration(step.command))
        .into_iter()
        .collect();
    for alarm in &alarms {
        outside.alarm(machine, report.position, alarm)?;
    }
    let position = report.position;
    let observed = Observed::Vibration {
        report,
        action: step.command.action,
        limits,
    };
    outside.trend(
        "vibration",
        position,
        &trend(machine, bytes, alarms, observed),
    )?;
    stored(Outside::store(handle, &state)?)
}

/// Readings of a thermometer.
fn warm(outside: &Outside, machine: &str, bytes: &[u8]) -> Taken {
    let readings: Readings = match serde_json::from_slice(bytes) {
        Ok(readings) => readings,
        Err(error) => return Ok(Outcome::Refused(format!("not readings: {error}"))),
    };
    let Loaded { mut state, handle } =
        outside.load::<temperature::Watch>(&format!("temperature/{machine}"))?;
    let step = match state.take(&readings) {
        Ok(Some(step)) => step,
        Ok(None) => return Ok(Outcome::Taken),
        Err(refused) => return Ok(Outcome::Refused(refused.to_string())),
    };
    for alarm in &step.alarms {
        outside.alarm(machine, step.first, alarm)?;
    }
    let observed = Observed::Temperature {
        first: step.first,
        end: step.end,
        days: step.days,
    };
    outside.trend(
        "temperature",
        step.first,
        &trend(machine, bytes, step.alarms, observed),
    )?;
    stored(Outside::store(handle, &state)?)
}

/// What a window comes to; the reason in words if it says nothing.
fn report(
    machine: &str,
    bytes: &[u8],
    limits: Option<&analysis::baseline::Limits>,
) -> Result<Report, String> {
    let window = Window::decode(bytes).map_err(|why| why.to_string())?;
    if window.machine != machine {
        return Err(format!(
            "the window is of {}, and the topic of {machine}",
            window.machine
        ));
    }
    Report::on(&window, &mut Examiner::new(SKF_6205), limits).map_err(|why| why.to_string())
}

fn trend(machine: &str, bytes: &[u8], alarms: Vec<Alarm>, observed: Observed) -> Trend {
    Trend {
        machine: machine.to_owned(),
        bytes: bytes.len() as u64,
        alarms,
        observed,
    }
}

fn stored(stored: bool) -> Taken {
    Ok(if stored {
        Outcome::Taken
    } else {
        Outcome::Overtaken
    })
}

/// The message goes into the log too: whoever looks why an event is among the dead letters looks there.
fn answer(status: StatusCode, text: &str) -> Result<Response<Body>, Error> {
    if !text.is_empty() {
        eprintln!("{text}");
    }
    Ok(Response::builder()
        .status(status)
        .header("content-type", "text/plain; charset=utf-8")
        .body(text.to_owned().into())?)
}
