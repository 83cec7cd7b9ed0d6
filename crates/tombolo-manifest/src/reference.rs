//! The checks of a manifest across its tables: triggers name functions that exist, and no two have the same route.

use std::collections::HashMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::check::{Checker, list, nearest};
use crate::route::{Route, Segment};

/// Checks the triggers of a manifest against its functions and against one another.
pub(crate) fn check(checker: &mut Checker<'_>, root: &DeTable<'_>) {
    let functions: Vec<&str> = root
        .get("functions")
        .and_then(|functions| functions.get_ref().as_table())
        .into_iter()
        .flatten()
        .map(|(name, _)| name.get_ref().as_ref())
        .collect();
    let triggers = root
        .get("triggers")
        .and_then(|triggers| triggers.get_ref().get("http"))
        .and_then(|http| http.get_ref().as_array());
    let mut seen = HashMap::new();
    for trigger in triggers.into_iter().flatten() {
        if let DeValue::Table(table) = trigger.get_ref() {
            target(checker, table, trigger.span(), &functions);
            route(checker, table, &mut seen);
        }
    }
}

fn target(checker: &mut Checker<'_>, table: &DeTable<'_>, span: Range<usize>, functions: &[&str]) {
    let code = checker.codes.value;
    match (table.get("function"), table.get("static")) {
        (None, None) => {
            let help = "`function` names a function of this manifest, `static` a folder of files";
            let message = "the trigger has neither `function` nor `static`";
            checker.report(code, message, span, Some(help.into()));
        }
        (Some(_), Some(folder)) => {
            let help = "use two triggers with different routes";
            let message = "the trigger has both `function` and `static`";
            checker.report(code, message, folder.span(), Some(help.into()));
        }
        (None, Some(_)) => {}
        (Some(function), None) => {
            let Some(name) = function.get_ref().as_str() else {
                return;
            };
            if functions.contains(&name) {
                return;
            }
            let help = match nearest(name, functions.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if functions.is_empty() => format!("add a table `[functions.{name}]`"),
                None => format!("this manifest has {}", list(functions.iter().copied())),
            };
            let message = format!("there is no function `{name}`");
            checker.report(
                checker.codes.reference,
                &message,
                function.span(),
                Some(help),
            );
        }
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
            let before = checker.text.get(..*at).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
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
