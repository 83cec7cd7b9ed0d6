//! Tries to connect to `?address=` over TCP, and to look up `?name=`, and tells how it went.

use std::net::{TcpStream, ToSocketAddrs};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Probe;

wasip2::http::proxy::export!(Probe);

impl Guest for Probe {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let result = match reply::query(&request, "name") {
            Some(name) => (name.as_str(), 80).to_socket_addrs().map(drop),
            None => {
                let address = reply::query(&request, "address").unwrap_or_default();
                TcpStream::connect(address).map(drop)
            }
        };
        match result {
            Ok(()) => reply::text(out, 200, "reached"),
            Err(error) => reply::text(out, 200, &format!("refused: {error}")),
        }
    }
}
