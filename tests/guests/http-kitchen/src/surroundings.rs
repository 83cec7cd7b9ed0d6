//! What the guest sees of its surroundings and tells them: environment, configuration, logs.

use std::collections::BTreeMap;

use wasip2::http::types::{IncomingRequest, ResponseOutparam};

mod current {
    wit_bindgen::generate!({
        path: ["../../../wit/config-rc1", "../../../wit/logging"],
        inline: "
            package guest:surroundings;
            world surroundings {
                import wasi:config/store@0.2.0-rc.1;
                import wasi:logging/logging@0.1.0-draft;
            }
        ",
        generate_all,
    });
}

mod draft {
    wit_bindgen::generate!({
        path: "../../../wit/config-draft",
        world: "wasi:config/imports",
        generate_all,
    });
}

use current::wasi::logging::logging::{Level, log as log_line};

/// Says something on each way that a function can.
pub fn log(out: ResponseOutparam) {
    println!("a line on stdout");
    eprintln!("a line on stderr");
    for (level, message) in [
        (Level::Trace, "a trace"),
        (Level::Debug, "a debug line"),
        (Level::Info, "an info line"),
        (Level::Warn, "a warning"),
        (Level::Error, "an error"),
        (Level::Critical, "a critical line"),
    ] {
        log_line(level, "kitchen", message);
    }
    reply::text(out, 200, "logged");
}

/// Writes `?kib=` KiB of lines on stdout.
pub fn big_log(request: &IncomingRequest, out: ResponseOutparam) {
    let line = "x".repeat(1023);
    for _ in 0..reply::number(request, "kib", 1024) {
        println!("{line}");
    }
    reply::text(out, 200, "logged");
}

pub fn env(out: ResponseOutparam) {
    let variables: BTreeMap<String, String> = std::env::vars().collect();
    let bytes = serde_json::json!(variables).to_string().into_bytes();
    reply::send(out, 200, "application/json", &bytes);
}

/// Answers with the value of `?key=`, or 404; `&version=draft` asks the older interface.
pub fn config(request: &IncomingRequest, out: ResponseOutparam) {
    let key = reply::query(request, "key").unwrap_or_default();
    let value = match reply::query(request, "version").as_deref() {
        Some("draft") => draft::wasi::config::store::get(&key).map_err(|error| error.to_string()),
        _ => current::wasi::config::store::get(&key).map_err(|error| error.to_string()),
    };
    match value {
        Ok(Some(value)) => reply::text(out, 200, &value),
        Ok(None) => reply::text(out, 404, "no such key"),
        Err(error) => reply::text(out, 500, &error),
    }
}

/// Hands the host an argument of `?kib=` KiB in one call.
pub fn host_call(request: &IncomingRequest, out: ResponseOutparam) {
    let kib = usize::try_from(reply::number(request, "kib", 1)).expect("fits in 32 bits");
    let key = "k".repeat(kib * 1024);
    current::wasi::config::store::get(&key).ok();
    reply::text(out, 200, "called");
}
