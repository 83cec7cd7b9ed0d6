//! `tombolo get`: lists of apps, functions and triggers.

use serde::Serialize;
use tombolo_api::{App, FunctionSummary, Trigger};

use crate::app;
use crate::arguments::{Get, Global, Kind};
use crate::error::Error;
use crate::output::{Output, Row};

/// Lists what the node of the folder has.
pub async fn run(arguments: &Get, global: &Global, output: &Output) -> Result<(), Error> {
    let client = app::client(global, &arguments.files)?;
    match arguments.kind {
        Kind::Apps => output.list(&rows::<_, AppRow>(client.apps().await?.items)),
        Kind::Functions => output.list(&rows::<_, FunctionRow>(client.functions().await?.items)),
        Kind::Triggers => output.list(&rows::<_, TriggerRow>(client.triggers().await?.items)),
    }
}

fn rows<T, R: From<T>>(items: Vec<T>) -> Vec<R> {
    items.into_iter().map(R::from).collect()
}

macro_rules! row {
    ($row:ident, $item:ident) => {
        #[derive(Serialize)]
        #[serde(transparent)]
        struct $row($item);

        impl From<$item> for $row {
            fn from(item: $item) -> Self {
                Self(item)
            }
        }
    };
}

row!(AppRow, App);
row!(FunctionRow, FunctionSummary);
row!(TriggerRow, Trigger);

impl Row for AppRow {
    const COLUMNS: &'static [&'static str] = &["NAME", "VERSION", "FUNCTIONS", "TRIGGERS"];
    const WIDE: &'static [&'static str] = &["FOLDER", "DESCRIPTION"];

    fn name(&self) -> String {
        self.0.name.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let folder = self.0.folder.as_ref();
        vec![
            self.0.name.to_string(),
            self.0.version.clone(),
            self.0.functions.len().to_string(),
            self.0.triggers.to_string(),
            folder.map_or_else(dash, |folder| folder.display().to_string()),
            self.0.description.clone().unwrap_or_else(dash),
        ]
    }
}

impl Row for FunctionRow {
    const COLUMNS: &'static [&'static str] = &[
        "APP",
        "NAME",
        "ISOLATION",
        "INVOCATIONS",
        "ERRORS",
        "RUNNING",
        "WAITING",
    ];
    const WIDE: &'static [&'static str] = &["WORLD", "COLD STARTS", "CPU", "GB-SECONDS"];

    fn name(&self) -> String {
        format!("{}/{}", self.0.app, self.0.name)
    }

    fn cells(&self) -> Vec<String> {
        let usage = &self.0.usage;
        let mut cells = vec![
            self.0.app.to_string(),
            self.0.name.to_string(),
            self.0.isolation.clone(),
        ];
        cells.extend([usage.invocations, usage.errors].map(|count| count.to_string()));
        cells.extend([usage.running, usage.waiting].map(|count| count.to_string()));
        cells.extend([
            self.0.world.clone(),
            usage.cold_starts.to_string(),
            super::describe::nanoseconds(usage.cpu_ns),
            format!("{:.3}", usage.gb_seconds),
        ]);
        cells
    }
}

impl Row for TriggerRow {
    const COLUMNS: &'static [&'static str] = &["KIND", "ROUTE", "TARGET"];
    const WIDE: &'static [&'static str] = &["APP"];

    fn name(&self) -> String {
        super::describe::trigger_name(&self.0)
    }

    fn cells(&self) -> Vec<String> {
        vec![
            super::describe::kind(&self.0).into(),
            self.0.route.clone(),
            super::describe::target(&self.0),
            self.0.app.to_string(),
        ]
    }
}

fn dash() -> String {
    "-".into()
}
