//! `tombolo explain`: what an error code means and what to do, from the one table.

use serde::Serialize;
use tombolo_core::Code;

use crate::error::Error;
use crate::output::{Output, Row};

#[derive(Serialize)]
struct Explanation {
    code: String,
    title: &'static str,
    explanation: &'static str,
    exit_code: u8,
    http_status: u16,
}

impl From<Code> for Explanation {
    fn from(code: Code) -> Self {
        Self {
            code: code.to_string(),
            title: code.title(),
            explanation: code.explanation(),
            exit_code: code.exit_code(),
            http_status: code.http_status().as_u16(),
        }
    }
}

impl Row for Explanation {
    const COLUMNS: &'static [&'static str] = &["CODE", "EXIT", "HTTP", "TITLE"];
    const WIDE: &'static [&'static str] = &["EXPLANATION"];

    fn name(&self) -> String {
        self.code.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.code.clone(),
            self.exit_code.to_string(),
            self.http_status.to_string(),
            self.title.into(),
            self.explanation.into(),
        ]
    }
}

/// Explains one code, or lists all of them.
pub fn run(code: Option<Code>, output: &Output) -> Result<(), Error> {
    let Some(code) = code else {
        let all: Vec<Explanation> = Code::ALL.iter().map(|code| (*code).into()).collect();
        return output.list(&all);
    };
    let explanation = Explanation::from(code);
    output.one(
        &explanation,
        || explanation.code.clone(),
        || {
            format!(
                "{}: {}\n\n{}\n\nA command that fails with it exits with {}; a request is answered {}.\n",
                explanation.code,
                explanation.title,
                explanation.explanation,
                explanation.exit_code,
                explanation.http_status
            )
        },
    )
}
