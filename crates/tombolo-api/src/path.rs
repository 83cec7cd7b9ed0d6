//! The paths of the API, relative to the admin listener.

use tombolo_core::{FunctionId, QueueId};

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
/// `GET`: a [`List`](crate::List) of [`Queue`](crate::Queue).
pub const QUEUES: &str = "/_tombolo/api/v1/queues";
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

/// `POST`: CloudEvents in any mode of HTTP, for the function to receive later; 202 and a [`Receipt`](crate::Receipt).
pub fn function_events(id: &FunctionId) -> String {
    format!("{APPS}/{}/functions/{}/events", id.app, id.function)
}

/// `GET`: a [`Queue`](crate::Queue).
pub fn queue(id: &QueueId) -> String {
    format!("{APPS}/{}/queues/{}", id.app, id.queue)
}

/// `GET`: a [`List`](crate::List) of [`QueuedEvent`](crate::QueuedEvent), oldest first; the query is `from`, a number
/// (0), and `limit` (20, at most 1000). A page ends early when it is long.
/// `POST`: CloudEvents in any mode of HTTP; 202 and a [`Receipt`](crate::Receipt).
pub fn queue_events(id: &QueueId) -> String {
    format!("{}/events", queue(id))
}

/// `GET`: a [`QueuedEvent`](crate::QueuedEvent).
pub fn queue_event(id: &QueueId, sequence: u64) -> String {
    format!("{}/events/{sequence}", queue(id))
}

/// `GET`: a [`List`](crate::List) of [`DroppedEvent`](crate::DroppedEvent), the last 1000.
pub fn queue_drops(id: &QueueId) -> String {
    format!("{}/drops", queue(id))
}

/// `POST`: a [`Selection`](crate::Selection) of dead letters, which are published again where they came from; the
/// queue is theirs or that one. A [`Selected`](crate::Selected).
pub fn queue_redrive(id: &QueueId) -> String {
    format!("{}/redrive", queue(id))
}

/// `POST`: a [`Selection`](crate::Selection) of events to remove. A [`Selected`](crate::Selected).
pub fn queue_purge(id: &QueueId) -> String {
    format!("{}/purge", queue(id))
}

/// Where a path of the API leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint<'a> {
    Node,
    Apps,
    App(&'a str),
    Functions,
    Function {
        app: &'a str,
        function: &'a str,
    },
    Invoke {
        app: &'a str,
        function: &'a str,
    },
    FunctionEvents {
        app: &'a str,
        function: &'a str,
    },
    Triggers,
    Queues,
    Queue {
        app: &'a str,
        queue: &'a str,
        what: QueueEndpoint<'a>,
    },
    Logs,
}

/// What of a queue a path means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueEndpoint<'a> {
    Figures,
    Events,
    Event(&'a str),
    Drops,
    Redrive,
    Purge,
}

/// Most segments of a path below [`PREFIX`].
const SEGMENTS_MAX: usize = 6;

/// The endpoint that a path names, if it names one.
pub fn parse(path: &str) -> Option<Endpoint<'_>> {
    let rest = path.strip_prefix(PREFIX)?.strip_prefix('/')?;
    let segments: Vec<&str> = rest.split('/').take(SEGMENTS_MAX + 1).collect();
    Some(match *segments.as_slice() {
        ["node"] => Endpoint::Node,
        ["apps"] => Endpoint::Apps,
        ["apps", app] => Endpoint::App(app),
        ["apps", app, "functions", function, "events"] => {
            Endpoint::FunctionEvents { app, function }
        }
        ["apps", app, "queues", queue, ref what @ ..] => Endpoint::Queue {
            app,
            queue,
            what: match *what {
                [] => QueueEndpoint::Figures,
                ["events"] => QueueEndpoint::Events,
                ["events", sequence] => QueueEndpoint::Event(sequence),
                ["drops"] => QueueEndpoint::Drops,
                ["redrive"] => QueueEndpoint::Redrive,
                ["purge"] => QueueEndpoint::Purge,
                _ => return None,
            },
        },
        ["functions"] => Endpoint::Functions,
        ["functions", app, function] => Endpoint::Function { app, function },
        ["functions", app, function, "invoke"] => Endpoint::Invoke { app, function },
        ["triggers"] => Endpoint::Triggers,
        ["queues"] => Endpoint::Queues,
        ["logs"] => Endpoint::Logs,
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
        assert_eq!(parse(QUEUES), Some(Endpoint::Queues));
        let of_function = Some(Endpoint::FunctionEvents {
            app: "hello",
            function: "api",
        });
        assert_eq!(parse(&function_events(&id)), of_function);
        let id = QueueId {
            app: "hello".parse().unwrap(),
            queue: "api.cron.dead".parse().unwrap(),
        };
        for (path, what) in [
            (queue(&id), QueueEndpoint::Figures),
            (queue_events(&id), QueueEndpoint::Events),
            (queue_event(&id, 7), QueueEndpoint::Event("7")),
            (queue_drops(&id), QueueEndpoint::Drops),
            (queue_redrive(&id), QueueEndpoint::Redrive),
            (queue_purge(&id), QueueEndpoint::Purge),
        ] {
            let (app, queue) = ("hello", "api.cron.dead");
            assert_eq!(parse(&path), Some(Endpoint::Queue { app, queue, what }));
        }
        for other in [
            "/",
            PREFIX,
            "/_tombolo/api/v1/",
            "/_tombolo/api/v1/functions/a",
            "/_tombolo/api/v1/functions/a/b/invoke/c",
            "/_tombolo/api/v1/apps/a/queues",
            "/_tombolo/api/v1/apps/a/queues/b/",
            "/_tombolo/api/v1/apps/a/queues/b/events/1/2",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    fn path_parts(path: &str) -> String {
        format!("{:?}", parse(path))
    }
}
