//! The checks of a manifest across its tables: triggers and grants name what exists, and nothing is there twice that may be there once.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::check::{Checker, list, nearest};
use crate::route::{Route, Segment};

/// Checks the triggers and grants of a manifest against its functions, queues and stores, and against one another.
pub(crate) fn check(checker: &mut Checker<'_>, root: &DeTable<'_>) {
    let functions = Known::of(root, "functions", "function");
    let queues = Known::of(root, "queues", "queue");
    let mut routes = HashMap::new();
    for (table, span) in triggers(root, "http") {
        target(checker, table, span, (&functions, &queues));
        route(checker, table, &mut routes);
    }
    for kind in ["cron", "queue", "mqtt", "change"] {
        for (table, _) in triggers(root, kind) {
            functions.check(checker, table.get("function"));
        }
    }
    queue_settings(checker, root);
    queue_triggers(checker, root, &queues);
    transactional_triggers(checker, root);
    granted_queues(checker, root, &queues);
    changes(checker, root);
    twice(checker, root, "cron", &["schedule", "timezone", "function"]);
    twice(checker, root, "mqtt", &["topic", "broker", "function"]);
    twice(checker, root, "change", &["keyvalue", "prefix", "function"]);
}

/// The names of a kind of thing that the manifest defines.
struct Known<'d> {
    /// The table of the manifest, such as `functions`.
    table: &'static str,
    /// One of them, such as `function`.
    kind: &'static str,
    names: Vec<&'d str>,
}

impl<'d> Known<'d> {
    fn of(root: &'d DeTable<'_>, table: &'static str, kind: &'static str) -> Self {
        let names = tables(root, table).map(|(name, _)| name).collect();
        Self { table, kind, names }
    }

    /// Reports a name that is none of these. What is no text is reported by the check of its type.
    fn check(&self, checker: &mut Checker<'_>, value: Option<&Spanned<DeValue<'_>>>) {
        let Some((name, span)) = value.and_then(text) else {
            return;
        };
        let names = || self.names.iter().copied();
        if names().any(|known| known == name) {
            return;
        }
        let help = match nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if self.names.is_empty() => format!("add a table `[{}.{name}]`", self.table),
            None => format!("this manifest has {}", list(names())),
        };
        let message = format!("there is no {} `{name}`", self.kind);
        checker.report(checker.codes.reference, &message, span, Some(help));
    }
}

/// The tables within a table of the manifest, by name.
fn tables<'d>(
    root: &'d DeTable<'_>,
    name: &str,
) -> impl Iterator<Item = (&'d str, &'d Spanned<DeValue<'d>>)> {
    let table = root.get(name).and_then(|value| value.get_ref().as_table());
    let entries = table.into_iter().flatten();
    entries.map(|(name, value)| (name.get_ref().as_ref(), value))
}

/// The triggers of a kind.
fn triggers<'d>(
    root: &'d DeTable<'_>,
    kind: &str,
) -> impl Iterator<Item = (&'d DeTable<'d>, Range<usize>)> {
    let triggers = root.get("triggers").and_then(|all| all.get_ref().get(kind));
    let list = triggers.and_then(|list| list.get_ref().as_array());
    let all = list.into_iter().flatten();
    all.filter_map(|trigger| Some((trigger.get_ref().as_table()?, trigger.span())))
}

fn text<'d>(value: &'d Spanned<DeValue<'_>>) -> Option<(&'d str, Range<usize>)> {
    Some((value.get_ref().as_str()?, value.span()))
}

/// A queue that compacts needs to know by what.
fn queue_settings(checker: &mut Checker<'_>, root: &DeTable<'_>) {
    for (_, queue) in tables(root, "queues") {
        let full = queue.get_ref().get("full");
        if let Some(("compact", span)) = full.and_then(text)
            && queue.get_ref().get("order_by").is_none()
        {
            let message = "a queue that compacts needs `order_by`";
            let help = "`order_by` names the attribute of which each value keeps its newest event";
            checker.report(checker.codes.value, message, span, Some(help.into()));
        }
    }
}

fn queue_triggers(checker: &mut Checker<'_>, root: &DeTable<'_>, queues: &Known<'_>) {
    let mut consumed: HashMap<&str, usize> = HashMap::new();
    for (table, _) in triggers(root, "queue") {
        queues.check(checker, table.get("queue"));
        queues.check(checker, table.get("reply"));
        if let Some((name, span)) = table.get("queue").and_then(text) {
            match consumed.get(name) {
                None => {
                    consumed.insert(name, span.start);
                }
                Some(first) => {
                    let message = format!("the queue `{name}` has a trigger already");
                    let line = line_of(checker.text, *first);
                    let help = format!(
                        "it is in line {line}; to reach two functions, send the event to two queues"
                    );
                    checker.report(checker.codes.value, &message, span, Some(help));
                }
            }
        }
        let batch = table
            .get("batch")
            .and_then(|batch| batch.get_ref().get("max"));
        let single = match batch.map(Spanned::get_ref) {
            Some(DeValue::Integer(max)) => max.as_str() == "1",
            _ => true,
        };
        if let Some(reply) = table.get("reply").filter(|_| !single) {
            let message = "a trigger with batches has no `reply`";
            let help = "a reply answers one event; leave `batch.max` at 1";
            checker.report(
                checker.codes.value,
                message,
                reply.span(),
                Some(help.into()),
            );
        }
    }
}

/// What a function does is collected for one invocation, so its instances have to know which that is.
fn transactional_triggers(checker: &mut Checker<'_>, root: &DeTable<'_>) {
    for (table, _) in triggers(root, "queue") {
        let Some(key) = table.get("transactional") else {
            continue;
        };
        let named = table.get("function").and_then(text).map(|(name, _)| name);
        let function = tables(root, "functions").find(|(name, _)| Some(*name) == named);
        let isolation = function.and_then(|(_, function)| {
            let isolation = function.get_ref().get("isolation")?;
            isolation.get_ref().as_str()
        });
        if key.get_ref().as_bool() == Some(true) && isolation == Some("concurrent") {
            let message =
                "a function with `isolation = \"concurrent\"` has no transactional triggers";
            let help = "which of its invocations did what cannot be told; use `fresh` or `serial`";
            checker.report(checker.codes.value, message, key.span(), Some(help.into()));
        }
    }
}

/// The values of a list of grants, of all functions.
fn granted<'d>(
    root: &'d DeTable<'_>,
    kind: &'static str,
) -> impl Iterator<Item = &'d Spanned<DeValue<'d>>> {
    tables(root, "functions")
        .filter_map(move |(_, function)| {
            let grants = function.get_ref().get("grants")?;
            grants.get_ref().get(kind)?.get_ref().as_array()
        })
        .flatten()
}

fn granted_queues(checker: &mut Checker<'_>, root: &DeTable<'_>, queues: &Known<'_>) {
    for value in granted(root, "queues") {
        queues.check(checker, Some(value));
    }
}

/// A store that no function may write never changes.
fn changes(checker: &mut Checker<'_>, root: &DeTable<'_>) {
    let stores: BTreeSet<&str> = granted(root, "keyvalue")
        .filter_map(|value| value.get_ref().as_str())
        .collect();
    for (table, _) in triggers(root, "change") {
        let Some((name, span)) = table.get("keyvalue").and_then(text) else {
            continue;
        };
        if stores.contains(name) {
            continue;
        }
        let message = format!("no function is granted the key-value store `{name}`");
        let help = match nearest(name, stores.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("`grants = {{ keyvalue = [\"{name}\"] }}` of a function allows it"),
        };
        checker.report(checker.codes.reference, &message, span, Some(help));
    }
}

/// The same trigger again would make each event twice.
fn twice(checker: &mut Checker<'_>, root: &DeTable<'_>, kind: &str, keys: &[&str]) {
    let mut seen: HashMap<Vec<String>, usize> = HashMap::new();
    for (table, span) in triggers(root, kind) {
        let value = |key: &&str| table.get(*key).map(|value| written(checker.text, value));
        let identity = keys
            .iter()
            .map(|key| value(key).unwrap_or_default())
            .collect();
        match seen.get(&identity) {
            None => {
                seen.insert(identity, span.start);
            }
            Some(first) => {
                let line = line_of(checker.text, *first);
                let help = format!("it is in line {line} as well");
                let message = format!("the {kind} trigger is there twice");
                checker.report(checker.codes.value, &message, span, Some(help));
            }
        }
    }
}

/// A value as it means: a text without its quotes, anything else as it is written.
fn written(text: &str, value: &Spanned<DeValue<'_>>) -> String {
    let plain = value.get_ref().as_str();
    plain
        .or_else(|| text.get(value.span()))
        .unwrap_or_default()
        .to_owned()
}

fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or_default().matches('\n').count() + 1
}

fn target(
    checker: &mut Checker<'_>,
    table: &DeTable<'_>,
    span: Range<usize>,
    (functions, queues): (&Known<'_>, &Known<'_>),
) {
    let code = checker.codes.value;
    let kinds = ["function", "static", "queue"];
    let mut found = kinds
        .iter()
        .filter_map(|kind| Some((*kind, table.get(*kind)?)));
    match (found.next(), found.next()) {
        (None, _) => {
            let help = "`function` names a function of this manifest, `static` a folder of files, `queue` a queue for events";
            let message = "the trigger has none of `function`, `static` and `queue`";
            checker.report(code, message, span.clone(), Some(help.into()));
        }
        (Some((first, _)), Some((second, value))) => {
            let help = "use two triggers with different routes";
            let message = format!("the trigger has both `{first}` and `{second}`");
            checker.report(code, &message, value.span(), Some(help.into()));
        }
        (Some(_), None) => {
            functions.check(checker, table.get("function"));
            queues.check(checker, table.get("queue"));
        }
    }
    match (table.get("queue"), table.get("token")) {
        (Some(_), None) => {
            let help = "`token` names the secret that senders have to know";
            checker.report(
                code,
                "the trigger of a queue has no `token`",
                span,
                Some(help.into()),
            );
        }
        (None, Some(token)) => {
            let help = "the requests of functions and files are not checked";
            let message = "only the trigger of a queue has a `token`";
            checker.report(code, message, token.span(), Some(help.into()));
        }
        _ => {}
    }
}

fn route(
    checker: &mut Checker<'_>,
    table: &DeTable<'_>,
    seen: &mut HashMap<String, (String, usize)>,
) {
    let Some(value) = table.get("route") else {
        return;
    };
    // A route that cannot be read is reported by the check of its format.
    let Some(Ok(route)) = value.get_ref().as_str().map(str::parse::<Route>) else {
        return;
    };
    let shape = paths(&route, table.get("static").is_some());
    let start = value.span().start;
    match seen.get(&shape) {
        None => {
            seen.insert(shape, (route.to_string(), start));
        }
        Some((first, at)) => {
            let line = line_of(checker.text, *at);
            let message = format!("the route `{route}` is taken");
            let help = format!("`{first}` in line {line} matches the same paths");
            checker.report(checker.codes.value, &message, value.span(), Some(help));
        }
    }
}

/// The paths of a route, the same text for the same paths. A folder also has what is below its route.
fn paths(route: &Route, folder: bool) -> String {
    let shape = route.shape();
    let open = matches!(route.segments().last(), Some(Segment::Rest(_)));
    match folder && !open {
        true => format!("{}/{{*}}", shape.trim_end_matches('/')),
        false => shape,
    }
}
