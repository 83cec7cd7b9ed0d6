//! The routing table: a trie by path segment in which the most specific route wins and lookup does not depend on the number of routes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use tombolo_core::{FunctionId, Name};
use tombolo_manifest::{Route, Segment};

use crate::ingress::Entrance;

/// What answers the requests of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// A function is called.
    Function(FunctionId),
    /// The files below this folder are served. Such a route takes every path below it, with or without `{*rest}`.
    Static(PathBuf),
    /// Events go into a queue.
    Queue(Box<Entrance>),
}

/// One route of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// Which paths.
    pub route: Route,
    /// Whose route it is.
    pub app: Name,
    /// What answers.
    pub target: RouteTarget,
}

impl RouteEntry {
    /// How many segments stand before the part that a static folder looks up.
    pub(super) fn fixed_segments(&self) -> usize {
        let rest = matches!(self.route.segments().last(), Some(Segment::Rest(_)));
        self.route.segments().len() - usize::from(rest)
    }

    fn takes_rest(&self) -> bool {
        matches!(self.target, RouteTarget::Static(_))
            || matches!(self.route.segments().last(), Some(Segment::Rest(_)))
    }
}

/// Two routes match the same paths, so neither can win.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the routes `{route}` of app `{app}` and `{other_route}` of app `{other_app}` match the same paths"
)]
pub struct RouteConflict {
    pub route: Route,
    pub app: Name,
    pub other_route: Route,
    pub other_app: Name,
}

/// The routing table of a node. It never changes; a new release brings a new table.
///
/// Segment by segment from the left, a literal wins over a parameter and a parameter over `{*rest}`.
/// A segment is compared after percent-decoding, and one slash at the end of a path does not matter.
#[derive(Debug)]
pub struct Routes {
    entries: Vec<RouteEntry>,
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, usize>,
    parameter: Option<usize>,
    /// The entry whose route ends here.
    end: Option<usize>,
    /// The entry that takes all that is left.
    rest: Option<usize>,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            nodes: vec![Node::default()],
        }
    }
}

impl Routes {
    /// Builds the table.
    ///
    /// # Errors
    /// Two entries match the same paths.
    pub fn new(entries: Vec<RouteEntry>) -> Result<Self, RouteConflict> {
        let mut routes = Self::default();
        for entry in entries {
            routes.insert(entry)?;
        }
        Ok(routes)
    }

    /// The entry that answers this path, when one does.
    pub fn find(&self, path: &str) -> Option<&RouteEntry> {
        let inner = path.strip_prefix('/')?;
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let entry = self.walk(0, Some(inner).filter(|inner| !inner.is_empty()))?;
        self.entries.get(entry)
    }

    /// Every entry, in the order in which they were given.
    pub fn entries(&self) -> &[RouteEntry] {
        &self.entries
    }

    fn walk(&self, node: usize, path: Option<&str>) -> Option<usize> {
        let node = self.nodes.get(node)?;
        let Some(path) = path else {
            return node.end.or(node.rest);
        };
        let (head, tail) = match path.split_once('/') {
            Some((head, tail)) => (head, Some(tail)),
            None => (path, None),
        };
        let literal = node.literals.get(decoded(head).as_ref());
        literal
            .and_then(|&child| self.walk(child, tail))
            .or_else(|| {
                let child = node.parameter.filter(|_| !head.is_empty())?;
                self.walk(child, tail)
            })
            .or(node.rest)
    }

    fn insert(&mut self, entry: RouteEntry) -> Result<(), RouteConflict> {
        let mut at = 0;
        for segment in entry.route.segments() {
            let next = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else {
                break;
            };
            at = match segment {
                Segment::Literal(text) => {
                    *node.literals.entry(text.as_str().into()).or_insert(next)
                }
                Segment::Parameter(_) => *node.parameter.get_or_insert(next),
                Segment::Rest(_) => break,
            };
            if at == next {
                self.nodes.push(Node::default());
            }
        }
        let index = self.entries.len();
        if let Some(node) = self.nodes.get_mut(at) {
            let place = if entry.takes_rest() {
                &mut node.rest
            } else {
                &mut node.end
            };
            let taken = place.and_then(|other| self.entries.get(other));
            if let Some(other) = taken {
                return Err(RouteConflict {
                    route: entry.route,
                    app: entry.app,
                    other_route: other.route.clone(),
                    other_app: other.app.clone(),
                });
            }
            *place = Some(index);
        }
        self.entries.push(entry);
        Ok(())
    }
}

fn decoded(segment: &str) -> Cow<'_, str> {
    if segment.contains('%') {
        // Text that is no UTF-8 stays as it came: no literal of a route contains a `%`.
        percent_decode_str(segment)
            .decode_utf8()
            .unwrap_or(Cow::Borrowed(segment))
    } else {
        Cow::Borrowed(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(route: &str, function: &str) -> RouteEntry {
        let app: Name = "app".parse().unwrap();
        let function = function.parse().unwrap();
        RouteEntry {
            route: route.parse().unwrap(),
            app: app.clone(),
            target: RouteTarget::Function(FunctionId { app, function }),
        }
    }

    fn found(routes: &[&str], path: &str) -> Option<String> {
        let entries = routes.iter().map(|route| entry(route, "f")).collect();
        let routes = Routes::new(entries).unwrap();
        routes.find(path).map(|entry| entry.route.to_string())
    }

    #[test]
    fn the_most_specific_route_wins() {
        let routes = [
            "/",
            "/a",
            "/a/b",
            "/a/{x}",
            "/a/{x}/c",
            "/a/b/{*r}",
            "/{*all}",
            "/s/{id}/{*r}",
        ];
        for (path, route) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a"),
            ("/a/b", "/a/b"),
            ("/a/%62", "/a/b"),
            ("/a/z", "/a/{x}"),
            ("/a/z/c", "/a/{x}/c"),
            ("/a/b/c", "/a/b/{*r}"),
            ("/a/z/d", "/{*all}"),
            ("/a//c", "/{*all}"),
            ("/s/1", "/s/{id}/{*r}"),
            ("/s/1/2/3", "/s/{id}/{*r}"),
            ("/s", "/{*all}"),
            ("/%FF", "/{*all}"),
        ] {
            assert_eq!(found(&routes, path).as_deref(), Some(route), "{path}");
        }
        assert_eq!(found(&["/a"], "/b"), None);
        assert_eq!(found(&["/a"], "*"), None);
    }

    #[test]
    fn an_encoded_slash_does_not_divide_segments() {
        assert_eq!(
            found(&["/a/{x}", "/a/b/c"], "/a/b%2Fc").as_deref(),
            Some("/a/{x}")
        );
    }

    #[test]
    fn routes_of_one_shape_are_a_conflict() {
        let error = Routes::new(vec![entry("/a/{x}", "f"), entry("/a/{y}", "g")]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("`/a/{y}`") && text.contains("`/a/{x}`"),
            "{text}"
        );
        let folder = RouteEntry {
            target: RouteTarget::Static("p".into()),
            ..entry("/a", "f")
        };
        assert!(Routes::new(vec![folder.clone(), entry("/a/{*rest}", "f")]).is_err());
        assert!(Routes::new(vec![folder, entry("/a", "f")]).is_ok());
    }

    #[test]
    fn a_hundred_thousand_routes_are_found() {
        let entries = (0..100_000)
            .map(|n| entry(&format!("/apps/a{n}/{{id}}"), "f"))
            .collect();
        let routes = Routes::new(entries).unwrap();
        let found = routes.find("/apps/a77777/1").unwrap();
        assert_eq!(found.route.to_string(), "/apps/a77777/{id}");
        assert!(routes.find("/apps/a100000/1").is_none());
    }

    /// What the documentation says, without a trie: of the routes that match, the one whose
    /// segments are the most specific from left to right.
    fn naive(entries: &[RouteEntry], path: &str) -> Option<usize> {
        let inner = path.strip_prefix('/')?;
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let parts: Vec<&str> = if inner.is_empty() {
            Vec::new()
        } else {
            inner.split('/').collect()
        };
        let ranked = entries.iter().enumerate().filter_map(|(index, entry)| {
            rank(entry.route.segments(), &parts).map(|rank| (rank, index))
        });
        ranked.min().map(|(_, index)| index)
    }

    fn rank(segments: &[Segment], parts: &[&str]) -> Option<Vec<u8>> {
        match (segments.split_first(), parts.split_first()) {
            (None, None) => Some(Vec::new()),
            (Some((Segment::Rest(_), _)), _) => Some(vec![3]),
            (Some((Segment::Literal(text), tail)), Some((part, parts))) if text == part => {
                rank(tail, parts).map(|rank| [vec![1], rank].concat())
            }
            (Some((Segment::Parameter(_), tail)), Some((part, parts))) if !part.is_empty() => {
                rank(tail, parts).map(|rank| [vec![2], rank].concat())
            }
            _ => None,
        }
    }

    fn a_route() -> impl Strategy<Value = String> {
        let segment = prop_oneof![Just("a"), Just("b"), Just("{p}")];
        let segments = prop::collection::vec(segment, 0..5);
        (segments, any::<bool>()).prop_map(|(segments, rest)| {
            let mut route = String::new();
            for (index, segment) in segments.iter().enumerate() {
                route.push('/');
                route.push_str(&segment.replace('p', &format!("p{index}")));
            }
            if rest || route.is_empty() {
                route.push_str(if rest { "/{*rest}" } else { "/" });
            }
            route
        })
    }

    proptest! {
        #[test]
        fn the_trie_agrees_with_the_naive_matcher(
            texts in prop::collection::vec(a_route(), 0..20),
            path in prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c"), Just("")], 0..6),
        ) {
            let mut entries: Vec<RouteEntry> = texts.iter().map(|text| entry(text, "f")).collect();
            entries.sort_by_key(|entry| entry.route.shape());
            entries.dedup_by_key(|entry| entry.route.shape());
            let routes = Routes::new(entries.clone()).unwrap();
            let path = format!("/{}", path.join("/"));
            let expected = naive(&entries, &path).map(|index| entries[index].route.to_string());
            prop_assert_eq!(routes.find(&path).map(|entry| entry.route.to_string()), expected);
        }
    }
}
