//! The paths of the API, relative to the admin listener.

use tombolo_core::FunctionId;

/// Everything below this prefix needs the token.
pub const PREFIX: &str = "/_tombolo/api/v1";
/// `GET`: a [`Node`](crate::Node).
pub const NODE: &str = "/_tombolo/api/v1/node";
/// `GET`: a [`List`](crate::List) of [`App`](crate::App).
pub const APPS: &str = "/_tombolo/api/v1/apps";
/// `GET`: a [`List`](crate::List) of [`FunctionSummary`](crate::FunctionSummary).
pub const FUNCTIONS: &str = "/_tombolo/api/v1/functions";
/// `GET`: a [`List`](crate::List) of [`Trigger`](crate::Trigger).
pub const TRIGGERS: &str = "/_tombolo/api/v1/triggers";
/// `GET`: NDJSON, one [`LogEntry`](crate::LogEntry) a line; the query is a [`LogQuery`](crate::LogQuery).
pub const LOGS: &str = "/_tombolo/api/v1/logs";

/// `GET`: an [`App`](crate::App).
pub fn app(app: &str) -> String {
    format!("{APPS}/{app}")
}

/// `GET`: a [`Function`](crate::Function).
pub fn function(id: &FunctionId) -> String {
    format!("{FUNCTIONS}/{id}")
}

/// `POST`: an enveloped request ([`invocation::encode`](crate::invocation::encode)); the answer is the function's.
pub fn invoke(id: &FunctionId) -> String {
    format!("{FUNCTIONS}/{id}/invoke")
}

/// Where a path of the API leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint<'a> {
    Node,
    Apps,
    App(&'a str),
    Functions,
    Function { app: &'a str, function: &'a str },
    Invoke { app: &'a str, function: &'a str },
    Triggers,
    Logs,
}

/// The endpoint that a path names, if it names one.
pub fn parse(path: &str) -> Option<Endpoint<'_>> {
    let mut segments = path.strip_prefix(PREFIX)?.strip_prefix('/')?.split('/');
    let parts = (
        segments.next()?,
        segments.next(),
        segments.next(),
        segments.next(),
        segments.next(),
    );
    Some(match parts {
        ("node", None, ..) => Endpoint::Node,
        ("apps", None, ..) => Endpoint::Apps,
        ("apps", Some(app), None, ..) => Endpoint::App(app),
        ("functions", None, ..) => Endpoint::Functions,
        ("functions", Some(app), Some(function), None, _) => Endpoint::Function { app, function },
        ("functions", Some(app), Some(function), Some("invoke"), None) => {
            Endpoint::Invoke { app, function }
        }
        ("triggers", None, ..) => Endpoint::Triggers,
        ("logs", None, ..) => Endpoint::Logs,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_built_are_understood_and_others_are_not() {
        let id = FunctionId {
            app: "hello".parse().unwrap(),
            function: "api".parse().unwrap(),
        };
        let function = path_parts(&function(&id));
        assert_eq!(
            function,
            "Some(Function { app: \"hello\", function: \"api\" })"
        );
        let invoke = path_parts(&invoke(&id));
        assert_eq!(invoke, "Some(Invoke { app: \"hello\", function: \"api\" })");
        assert_eq!(parse(NODE), Some(Endpoint::Node));
        assert_eq!(parse(APPS), Some(Endpoint::Apps));
        assert_eq!(parse(&app("hello")), Some(Endpoint::App("hello")));
        assert_eq!(parse(FUNCTIONS), Some(Endpoint::Functions));
        assert_eq!(parse(TRIGGERS), Some(Endpoint::Triggers));
        assert_eq!(parse(LOGS), Some(Endpoint::Logs));
        for other in [
            "/",
            PREFIX,
            "/_tombolo/api/v1/",
            "/_tombolo/api/v1/functions/a",
            "/_tombolo/api/v1/functions/a/b/invoke/c",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    fn path_parts(path: &str) -> String {
        format!("{:?}", parse(path))
    }
}
