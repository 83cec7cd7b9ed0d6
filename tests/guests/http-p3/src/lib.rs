//! A `wasi:http` 0.3 service: one way of answering for each path.

use std::sync::atomic::{AtomicU32, Ordering};

use wasip3::clocks::monotonic_clock;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::{wit_bindgen, wit_future, wit_stream};

struct Service;

wasip3::http::service::export!(Service);

impl wasip3::exports::http::handler::Guest for Service {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let whole = request.get_path_with_query().unwrap_or_default();
        let (path, query) = whole.split_once('?').unwrap_or((&whole, ""));
        match path {
            "/" => Ok(text("hello, world".to_owned())),
            "/sleep" => {
                let milliseconds: u64 = query
                    .strip_prefix("ms=")
                    .and_then(|value| value.parse().ok())
                    .unwrap_or(10);
                monotonic_clock::wait_for(milliseconds * 1_000_000).await;
                Ok(text("slept".to_owned()))
            }
            "/leak" => Ok(text(count().to_string())),
            "/trap" => deliberately_broken(),
            "/spin" => loop {
                std::hint::black_box(());
            },
            "/echo" => Ok(echo(request)),
            "/call" => call(query).await,
            "/break" => Ok(break_off()),
            "/error" => Err(ErrorCode::InternalError(Some(
                "said by the guest".to_owned(),
            ))),
            "/log" => {
                println!("a line on stdout");
                eprintln!("a line on stderr");
                Ok(text("logged".to_owned()))
            }
            _ => {
                let response = text("no such path".to_owned());
                response.set_status_code(404).ok();
                Ok(response)
            }
        }
    }
}

/// Panics, which a backtrace shows under this name.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn deliberately_broken() -> ! {
    panic!("broken on purpose")
}

/// Counts in a global: what a fresh instance answers is always 1.
fn count() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed) + 1
}

fn text(text: String) -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(reader), trailers);
    wit_bindgen::spawn_local(async move {
        writer.write_all(text.into_bytes()).await;
    });
    response
}

/// Asks the function `back` after a while, and answers with its answer.
async fn call(query: &str) -> Result<Response, ErrorCode> {
    let (milliseconds, path) = query.split_once('&').unwrap_or(("0", "/"));
    monotonic_clock::wait_for(milliseconds.parse().unwrap_or(0) * 1_000_000).await;
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, trailers, None);
    let bad = |()| ErrorCode::HttpRequestUriInvalid;
    request.set_scheme(Some(&Scheme::Http)).map_err(bad)?;
    let authority = Some("back.fn.tombolo.internal");
    request.set_authority(authority).map_err(bad)?;
    request.set_path_with_query(Some(path)).map_err(bad)?;
    wasip3::http::client::send(request).await
}

/// Hands the request's own body and trailers back: nothing is copied.
fn echo(request: Request) -> Response {
    let (_, done) = wit_future::new(|| Ok(()));
    let (body, trailers) = Request::consume_body(request, done);
    let (response, _sent) = Response::new(Fields::new(), Some(body), trailers);
    response
}

/// Sends the head and some of the body, and traps.
fn break_off() -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(reader), trailers);
    wit_bindgen::spawn_local(async move {
        writer.write_all(b"the first half".to_vec()).await;
        deliberately_broken();
    });
    response
}
