//! Static folders: files with validators, ranges and precompressed variants, and nothing from outside the folder.
//!
//! The work is tower-http's `ServeDir`; what is ours is that symlinks do not lead out of the folder,
//! that names beginning with a dot are not served, `If-Range`, and refusals as problem+json.
//! An `ETag` is made of time of change (in nanoseconds) and size, and is sent as a strong one, as nginx and
//! Caddy do: it is wrong only if a file is changed twice within the clock's resolution and keeps its size,
//! and a weak one would forbid clients to resume a download.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use percent_encoding::percent_decode_str;
use tombolo_core::{Blame, Body, BodyError, Code, Failure};
use tower_http::services::ServeDir;
use tower_http::services::fs::{Backend, TokioBackend, TokioFile};

/// What of a request decides which file is answered, and how.
pub struct FileRequest<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    pub headers: &'a HeaderMap,
    /// How many leading segments of the path belong to the route.
    pub fixed_segments: usize,
}

/// Answers a request with a file of the folder.
///
/// # Errors
/// The method is neither GET nor HEAD (405), there is no such file (404), or it cannot be read (500).
pub async fn serve(folder: &Path, request: FileRequest<'_>) -> Result<Response<Body>, Failure> {
    if !matches!(*request.method, Method::GET | Method::HEAD) {
        let detail = "static files answer GET and HEAD only";
        return Err(Failure::new(Code::MethodNotAllowed, Blame::Caller, detail));
    }
    let (prefix, path) = split_path(request.uri.path(), request.fixed_segments);
    if has_hidden_segment(path) || path.starts_with('/') {
        return Err(not_found());
    }
    let query = request
        .uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    if !prefix.is_empty() && prefix == request.uri.path() {
        // Relative links of the folder's page count from the folder, not from its parent.
        return redirect(&format!("{prefix}/{query}"));
    }
    let uri: Uri = format!("/{path}{query}").parse().map_err(|_| not_found())?;
    let folder = Folder(folder.into());
    let mut conditional = request.headers.clone();
    let resumes = move_if_range(&mut conditional);
    let response = look_up(&folder, prefix, request.method, &uri, conditional).await?;
    if resumes && response.status() == StatusCode::PRECONDITION_FAILED {
        // The file has changed since the client's first part: it gets all of it (RFC 9110, 13.1.5).
        let mut whole = request.headers.clone();
        whole.remove(header::RANGE);
        return look_up(&folder, prefix, request.method, &uri, whole).await;
    }
    Ok(response)
}

async fn look_up(
    folder: &Folder,
    prefix: &str,
    method: &Method,
    uri: &Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Failure> {
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers;
    let mut files = ServeDir::with_backend(&folder.0, folder.clone())
        .redirect_path_prefix(prefix)
        .ignore_multi_range_requests(true)
        .precompressed_br()
        .precompressed_gzip();
    let response = files
        .try_call(request)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::InvalidFilename => not_found(),
            _ => {
                tracing::error!(folder = %folder.0.display(), %error, "static file not readable");
                Failure::new(Code::Io, Blame::Host, "the file cannot be read")
            }
        })?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(not_found());
    }
    let mut response = response.map(|body| {
        body.map_err(|error| BodyError::Cut(Box::new(error)))
            .boxed_unsync()
    });
    name_charset(response.headers_mut());
    Ok(response)
}

fn redirect(location: &str) -> Result<Response<Body>, Failure> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let location = HeaderValue::try_from(location).map_err(|_| not_found())?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

fn not_found() -> Failure {
    Failure::new(Code::NotFound, Blame::Caller, "there is no such file")
}

/// Splits `/assets/css/site.css` after its fixed segments: `/assets` and `css/site.css`.
fn split_path(path: &str, fixed_segments: usize) -> (&str, &str) {
    let mut slashes = path.match_indices('/').map(|(at, _)| at);
    let at = slashes.nth(fixed_segments).unwrap_or(path.len());
    let (prefix, rest) = path.split_at(at);
    (prefix, rest.strip_prefix('/').unwrap_or(rest))
}

/// Names that begin with a dot are for tools (`.git`, `.env`), or lead upwards; `.well-known` (RFC 8615) is meant to be seen.
fn has_hidden_segment(path: &str) -> bool {
    let path = percent_decode_str(path).decode_utf8_lossy();
    path.split(['/', '\\'])
        .any(|segment| segment.starts_with('.') && segment != ".well-known")
}

/// `ServeDir` does not know `If-Range`; with a range it means the same as a precondition whose failure is answered with all of the file.
fn move_if_range(headers: &mut HeaderMap) -> bool {
    let Some(validator) = headers.remove(header::IF_RANGE) else {
        return false;
    };
    if !headers.contains_key(header::RANGE) {
        return false;
    }
    let condition = if validator.as_bytes().starts_with(b"\"") {
        header::IF_MATCH
    } else if validator.as_bytes().starts_with(b"W/") {
        // A weak validator never matches here.
        headers.remove(header::RANGE);
        return false;
    } else {
        header::IF_UNMODIFIED_SINCE
    };
    headers.insert(condition, validator);
    true
}

/// The texts of a web page are UTF-8 (as HTML demands); without a charset browsers guess.
fn name_charset(headers: &mut HeaderMap) {
    let Some(kind) = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
    else {
        return;
    };
    if kind.starts_with("text/")
        && !kind.contains("charset")
        && let Ok(kind) = HeaderValue::try_from(format!("{kind}; charset=utf-8"))
    {
        headers.insert(header::CONTENT_TYPE, kind);
    }
}

/// The file system below one folder: what lies outside, also by way of a symlink, does not exist.
#[derive(Clone, Debug)]
struct Folder(PathBuf);

type Opening<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl Folder {
    async fn contained(self, path: PathBuf) -> io::Result<PathBuf> {
        let look = move || {
            let real = path.canonicalize()?;
            let kind = real.metadata()?.file_type();
            // Opening a pipe or a device could block, or worse.
            if real.starts_with(self.0.canonicalize()?) && (kind.is_file() || kind.is_dir()) {
                Ok(real)
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        };
        tokio::task::spawn_blocking(look)
            .await
            .map_err(io::Error::other)?
    }
}

impl Backend for Folder {
    type File = TokioFile;
    type Metadata = std::fs::Metadata;
    type OpenFuture = Opening<TokioFile>;
    type MetadataFuture = Opening<std::fs::Metadata>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let folder = self.clone();
        Box::pin(async move { TokioBackend.open(folder.contained(path).await?).await })
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let folder = self.clone();
        Box::pin(async move { TokioBackend.metadata(folder.contained(path).await?).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_split_after_the_fixed_segments() {
        assert_eq!(split_path("/", 0), ("", ""));
        assert_eq!(split_path("/a/b", 0), ("", "a/b"));
        assert_eq!(split_path("/assets/css/a.css", 1), ("/assets", "css/a.css"));
        assert_eq!(split_path("/assets", 1), ("/assets", ""));
        assert_eq!(split_path("/assets/", 1), ("/assets", ""));
    }

    #[test]
    fn hidden_names_are_seen_through_encoding() {
        for path in [
            ".git/config",
            "a/.env",
            "..",
            "a/%2e%2e/b",
            "%2Egit",
            "a%2f..%2fb",
            "a\\..\\b",
        ] {
            assert!(has_hidden_segment(path), "{path}");
        }
        for path in ["", "a.b", ".well-known/security.txt", "a/b..c"] {
            assert!(!has_hidden_segment(path), "{path}");
        }
    }
}
