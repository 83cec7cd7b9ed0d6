//! The function: `GET /hello/NAME` greets by name, everything else is told how to ask.

use wstd::http::{Body, Error, Request, Response, StatusCode};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    // `tombolo logs` shows it, with the request that it belongs to.
    println!("{} {}", request.method(), request.uri().path());
    let (status, text) = match greeting(request.uri().path()) {
        Some(text) => (StatusCode::OK, text),
        None => (StatusCode::NOT_FOUND, "Try /hello/world\n".to_owned()),
    };
    Ok(Response::builder()
        .status(status)
        .header("content-type", "text/plain; charset=utf-8")
        .body(text.into())?)
}

/// The greeting for a path, if it is one that greets.
fn greeting(path: &str) -> Option<String> {
    let name = path.strip_prefix("/hello/")?;
    (!name.is_empty()).then(|| format!("Hello, {name}!\n"))
}

#[cfg(test)]
mod tests {
    use super::greeting;

    #[test]
    fn greets_by_name_and_nobody_else() {
        assert_eq!(greeting("/hello/world").as_deref(), Some("Hello, world!\n"));
        assert_eq!(greeting("/hello/"), None);
        assert_eq!(greeting("/"), None);
    }
}
