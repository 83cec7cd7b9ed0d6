//! What calls an app's functions.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tombolo_core::Name;

use crate::route::Route;
use crate::text::{NameText, PathText};

/// The triggers of an app, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Triggers {
    /// HTTP routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100_000))]
    pub http: Vec<HttpTrigger>,
}

/// A route of HTTP requests, and what answers them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "HttpTriggerKeys", into = "HttpTriggerKeys")]
pub struct HttpTrigger {
    /// Which paths.
    pub route: Route,
    /// What answers.
    pub target: HttpTarget,
}

/// What answers the requests of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpTarget {
    /// A function of the app.
    Function(Name),
    /// The files of a folder, relative to the manifest's folder.
    Static(PathBuf),
}

/// A trigger has both of `function` and `static`, or neither.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an HTTP trigger has exactly one of `function` and `static`")]
pub struct TargetError;

impl JsonSchema for HttpTrigger {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        HttpTriggerKeys::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        HttpTriggerKeys::json_schema(generator)
    }
}

/// A route of HTTP requests, and what answers them: exactly one of `function` and `static`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    rename = "HttpTrigger",
    extend("oneOf" = [{ "required": ["function"] }, { "required": ["static"] }])
)]
struct HttpTriggerKeys {
    /// The path, with `{name}` for one segment and, at the end, `{*rest}` for all that is left; the longest match wins.
    route: Route,
    /// The function that answers, one of this manifest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<NameText>")]
    function: Option<Name>,
    /// A folder of files that answer, with all that is below the route, relative to the manifest's folder.
    #[serde(default, rename = "static", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PathText>")]
    folder: Option<PathBuf>,
}

impl TryFrom<HttpTriggerKeys> for HttpTrigger {
    type Error = TargetError;

    fn try_from(keys: HttpTriggerKeys) -> Result<Self, TargetError> {
        let target = match (keys.function, keys.folder) {
            (Some(function), None) => HttpTarget::Function(function),
            (None, Some(folder)) => HttpTarget::Static(folder),
            _ => return Err(TargetError),
        };
        Ok(Self {
            route: keys.route,
            target,
        })
    }
}

impl From<HttpTrigger> for HttpTriggerKeys {
    fn from(trigger: HttpTrigger) -> Self {
        let (function, folder) = match trigger.target {
            HttpTarget::Function(function) => (Some(function), None),
            HttpTarget::Static(folder) => (None, Some(folder)),
        };
        Self {
            route: trigger.route,
            function,
            folder,
        }
    }
}
