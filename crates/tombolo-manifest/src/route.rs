//! Routes of HTTP triggers: literal segments, `{name}` for one segment, `{*rest}` for all that is left.

use std::fmt;
use std::str::FromStr;

use crate::text::text_type;

/// The longest route, in bytes.
pub const ROUTE_BYTES_MAX: usize = 1024;
/// The most segments of a route.
pub const SEGMENTS_MAX: usize = 32;

/// A pattern of paths, such as `/signals/{id}/{*rest}`. The route `/` has no segments.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route(Vec<Segment>);

/// One part of a route between slashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// This text, compared exactly.
    Literal(String),
    /// Any one segment that is not empty.
    Parameter(String),
    /// All that is left, which may be nothing.
    Rest(String),
}

/// Why a text is no route.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RouteError {
    #[error("a route begins with `/`")]
    Start,
    #[error("a route has at most {ROUTE_BYTES_MAX} bytes and {SEGMENTS_MAX} segments")]
    Length,
    #[error("a route has no empty segment, nor a slash at its end")]
    Empty,
    #[error("a route has no segment `{0}`")]
    Dots(String),
    #[error("a segment has letters, digits and `-._~!$&'()*+,;=:@`, not `{0}`")]
    Character(char),
    #[error("a parameter is a whole segment, written `{{name}}` or `{{*name}}`")]
    Braces,
    #[error("a parameter's name has letters, digits and `_`, and does not begin with a digit")]
    ParameterName,
    #[error("the parameter `{0}` is there twice")]
    Twice(String),
    #[error("`{{*{0}}}` takes all that is left, so nothing can follow it")]
    RestNotLast(String),
    #[error("the paths below `/_tombolo` belong to the node")]
    Reserved,
}

impl Route {
    /// The parts between the slashes.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// The route with its parameters unnamed: two routes of one shape match the same paths.
    pub fn shape(&self) -> String {
        if self.0.is_empty() {
            return "/".into();
        }
        let mut shape = String::new();
        for segment in &self.0 {
            shape.push('/');
            match segment {
                Segment::Literal(text) => shape.push_str(text),
                Segment::Parameter(_) => shape.push_str("{}"),
                Segment::Rest(_) => shape.push_str("{*}"),
            }
        }
        shape
    }
}

impl FromStr for Route {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        let rest = text.strip_prefix('/').ok_or(RouteError::Start)?;
        if rest.is_empty() {
            return Ok(Self(Vec::new()));
        }
        if text.len() > ROUTE_BYTES_MAX || rest.split('/').count() > SEGMENTS_MAX {
            return Err(RouteError::Length);
        }
        let segments: Vec<Segment> = rest.split('/').map(segment).collect::<Result<_, _>>()?;
        let mut names: Vec<&str> = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            let name = match segment {
                Segment::Literal(_) => continue,
                Segment::Rest(name) if index + 1 < segments.len() => {
                    return Err(RouteError::RestNotLast(name.clone()));
                }
                Segment::Parameter(name) | Segment::Rest(name) => name.as_str(),
            };
            if names.contains(&name) {
                return Err(RouteError::Twice(name.into()));
            }
            names.push(name);
        }
        if segments.first() == Some(&Segment::Literal("_tombolo".into())) {
            return Err(RouteError::Reserved);
        }
        Ok(Self(segments))
    }
}

fn segment(text: &str) -> Result<Segment, RouteError> {
    if text.is_empty() {
        return Err(RouteError::Empty);
    }
    if matches!(text, "." | "..") {
        return Err(RouteError::Dots(text.into()));
    }
    if let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        return match inner.strip_prefix('*') {
            Some(name) => parameter(name).map(Segment::Rest),
            None => parameter(inner).map(Segment::Parameter),
        };
    }
    if text.contains(['{', '}']) {
        return Err(RouteError::Braces);
    }
    // The characters of RFC 3986's `pchar`, without percent-encoding.
    match text
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@".contains(*c)))
    {
        Some(bad) => Err(RouteError::Character(bad)),
        None => Ok(Segment::Literal(text.into())),
    }
}

fn parameter(name: &str) -> Result<String, RouteError> {
    let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if good {
        Ok(name.into())
    } else {
        Err(RouteError::ParameterName)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        for segment in &self.0 {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Parameter(name) => write!(f, "/{{{name}}}")?,
                Segment::Rest(name) => write!(f, "/{{*{name}}}")?,
            }
        }
        Ok(())
    }
}

text_type!(Route, "route");
