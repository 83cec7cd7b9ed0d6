//! A server on loopback that functions may try to reach, and that counts who did.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Answers every connection with `hello from outside`, for as long as the process lives.
pub struct Origin {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Origin {
    pub fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        // Ends with the test process: nothing depends on when.
        thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                // The head of a request ends with an empty line.
                let lines = BufReader::new(&connection).lines();
                lines
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .count();
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 18\r\nconnection: close\r\n\r\n";
                connection.write_all(head.as_bytes()).ok();
                connection.write_all(b"hello from outside").ok();
            }
        });
        Ok(Self {
            address,
            connections,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections there were so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}
