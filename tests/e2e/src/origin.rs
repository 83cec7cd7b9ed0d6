//! A server on loopback that functions may try to reach, and that remembers who did.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Answers every connection with `hello from outside`, for as long as the process lives.
pub struct Origin {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    pub fn start() -> std::io::Result<Self> {
        Self::refusing(0)
    }

    /// The same, but the first so many requests are answered 503.
    pub fn refusing(refused: usize) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let origin = Self {
            address: listener.local_addr()?,
            connections: Arc::default(),
            requests: Arc::default(),
        };
        let (counter, requests) = (origin.connections.clone(), origin.requests.clone());
        // Ends with the test process: nothing depends on when.
        thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let request = read(&connection);
                let mut requests = requests.lock().expect("no holder of the lock panics");
                requests.push(request);
                drop(requests);
                let status = match number < refused {
                    true => "503 Service Unavailable",
                    false => "200 OK",
                };
                let head =
                    format!("HTTP/1.1 {status}\r\ncontent-length: 18\r\nconnection: close\r\n\r\n");
                connection.write_all(head.as_bytes()).ok();
                connection.write_all(b"hello from outside").ok();
            }
        });
        Ok(origin)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections there were so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The requests so far, as they came.
    pub fn requests(&self) -> Vec<String> {
        let requests = self.requests.lock().expect("no holder of the lock panics");
        requests.clone()
    }
}

/// The head of a request, and as much of a body as it announces.
fn read(connection: &TcpStream) -> String {
    let mut reader = BufReader::new(connection);
    let (mut request, mut length) = (String::new(), 0);
    loop {
        let start = request.len();
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return request;
        }
        let line = request[start..].trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        // The head ends with an empty line.
        if line.is_empty() {
            break;
        }
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body).ok();
    request + &String::from_utf8_lossy(&body)
}
