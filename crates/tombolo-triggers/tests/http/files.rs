//! Static folders.

use std::path::Path;

use http::Request;
use tombolo_core::{Body, Code};

use crate::support::*;

struct Site {
    server: Server,
    folder: tempfile::TempDir,
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let public = folder.path().join("public");
        std::fs::create_dir_all(public.join("css")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(public.join(name), text).unwrap();
        write("index.html", "<h1>home</h1>");
        write("css/index.html", "<h1>styles</h1>");
        write("css/site.css", "body {}");
        write("css/site.css.br", "brotli");
        write("css/site.css.gz", "gzip");
        write("digits.bin", "0123456789");
        write(".env", "SECRET=1");
        std::fs::write(folder.path().join("secret.txt"), "secret").unwrap();
        let routes = vec![
            static_route("/", &public),
            static_route("/assets/{*rest}", &public),
            function_route("/hello"),
        ];
        Self {
            server: Server::with_routes(config(), routes, false),
            folder,
        }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request: Request<Body> = get("/");
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = path.parse().unwrap();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        self.server.http1().await.send(request).await.unwrap()
    }

    fn public(&self) -> std::path::PathBuf {
        self.folder.path().join("public")
    }
}

#[tokio::test]
async fn files_have_types_and_folders_have_pages() {
    let site = Site::start();
    for (path, kind, body) in [
        ("/", "text/html; charset=utf-8", "<h1>home</h1>"),
        ("/css/site.css", "text/css; charset=utf-8", "body {}"),
        ("/css/site.css?v=1", "text/css; charset=utf-8", "body {}"),
        ("/assets/css/site.css", "text/css; charset=utf-8", "body {}"),
        (
            "/assets/css/",
            "text/html; charset=utf-8",
            "<h1>styles</h1>",
        ),
        ("/digits.bin", "application/octet-stream", "0123456789"),
    ] {
        let answer = site.ask("GET", path, &[]).await;
        assert_eq!((answer.status, answer.text()), (200, body), "{path}");
        assert_eq!(answer.header("content-type"), kind, "{path}");
    }
    for (path, location) in [("/assets", "/assets/"), ("/assets/css", "/assets/css/")] {
        let answer = site.ask("GET", path, &[]).await;
        assert_eq!((answer.status, answer.header("location")), (307, location));
    }
    assert_eq!(
        site.ask("GET", "/hello", &[]).await.text(),
        "hello",
        "functions stand beside"
    );
    let head = site.ask("HEAD", "/digits.bin", &[]).await;
    assert_eq!((head.status, head.header("content-length")), (200, "10"));
    assert!(head.body.is_empty());
}

#[tokio::test]
async fn other_methods_and_missing_files_are_refused() {
    let site = Site::start();
    let answer = site.ask("POST", "/css/site.css", &[]).await;
    answer.problem(405, Code::MethodNotAllowed);
    assert_eq!(answer.header("allow"), "GET, HEAD");
    site.ask("GET", "/missing", &[])
        .await
        .problem(404, Code::NotFound);
    site.ask("GET", "/digits.bin/x", &[])
        .await
        .problem(404, Code::NotFound);
}

#[tokio::test]
async fn nothing_outside_the_folder_is_served() {
    let site = Site::start();
    let secret = site.folder.path().join("secret.txt");
    let link = |target: &Path, name: &str| {
        std::os::unix::fs::symlink(target, site.public().join(name)).unwrap();
    };
    link(&secret, "leak.txt");
    link(site.folder.path(), "up");
    link(&site.public().join("digits.bin"), "inside.bin");
    for path in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/css/..%2f..%2fsecret.txt",
        "/css/%2e%2e/%2e%2e/secret.txt",
        "/..%5csecret.txt",
        "/%00",
        "/.env",
        "/%2eenv",
        "/leak.txt",
        "/up/secret.txt",
        "//secret.txt",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let answer = site.server.raw(&request).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
        assert!(!answer.to_lowercase().contains("secret=") && !answer.ends_with("secret"));
    }
    assert_eq!(
        site.ask("GET", "/inside.bin", &[]).await.text(),
        "0123456789"
    );
}

#[tokio::test]
async fn a_client_that_has_the_file_gets_it_no_second_time() {
    let site = Site::start();
    let first = site.ask("GET", "/digits.bin", &[]).await;
    let (etag, modified) = (first.header("etag"), first.header("last-modified"));
    assert!(etag.starts_with('"'), "a strong validator: {etag}");
    for condition in [("if-none-match", etag), ("if-modified-since", modified)] {
        let answer = site.ask("GET", "/digits.bin", &[condition]).await;
        assert_eq!(
            (answer.status, answer.body.len()),
            (304, 0),
            "{condition:?}"
        );
        assert!(!answer.header("traceparent").is_empty());
    }
    std::fs::write(site.public().join("digits.bin"), "changed").unwrap();
    let answer = site
        .ask("GET", "/digits.bin", &[("if-none-match", etag)])
        .await;
    assert_eq!((answer.status, answer.text()), (200, "changed"));
}

#[tokio::test]
async fn a_part_of_a_file_can_be_asked_for() {
    let site = Site::start();
    let etag = site
        .ask("GET", "/digits.bin", &[])
        .await
        .header("etag")
        .to_owned();
    for (range, status, body) in [
        ("bytes=2-4", 206, "234"),
        ("bytes=-3", 206, "789"),
        ("bytes=7-", 206, "789"),
        ("bytes=0-1,3-4", 200, "0123456789"),
        ("bytes=10-", 416, ""),
    ] {
        let answer = site.ask("GET", "/digits.bin", &[("range", range)]).await;
        assert_eq!(answer.status, status, "{range}");
        if status != 416 {
            assert_eq!(answer.text(), body, "{range}");
        }
    }
    let range = ("range", "bytes=7-");
    let resumed = site
        .ask("GET", "/digits.bin", &[range, ("if-range", &etag)])
        .await;
    assert_eq!((resumed.status, resumed.text()), (206, "789"));
    assert_eq!(resumed.header("content-range"), "bytes 7-9/10");
    for other in ["\"other\"", "W/\"other\"", "Thu, 01 Jan 1970 00:00:00 GMT"] {
        let answer = site
            .ask("GET", "/digits.bin", &[range, ("if-range", other)])
            .await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, "0123456789"),
            "{other}"
        );
    }
}

#[tokio::test]
async fn a_precompressed_variant_is_sent_to_who_takes_it() {
    let site = Site::start();
    let mut tags = Vec::new();
    for (accepted, encoding, body) in [
        ("br, gzip", "br", "brotli"),
        ("gzip", "gzip", "gzip"),
        ("br;q=0, gzip", "gzip", "gzip"),
        ("identity", "", "body {}"),
    ] {
        let answer = site
            .ask("GET", "/css/site.css", &[("accept-encoding", accepted)])
            .await;
        assert_eq!(
            (answer.header("content-encoding"), answer.text()),
            (encoding, body)
        );
        assert_eq!(answer.header("vary"), "accept-encoding");
        assert_eq!(answer.header("content-type"), "text/css; charset=utf-8");
        tags.push(answer.header("etag").to_owned());
    }
    assert!(
        tags[0] != tags[1] && tags[1] != tags[3],
        "each variant has a tag: {tags:?}"
    );
}
