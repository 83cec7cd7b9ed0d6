//! Does with an event what its type says: `poison` traps, `stuck` never answers, everything else is taken.

use wasip2::clocks::monotonic_clock;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct EventTypes;

wasip2::http::proxy::export!(EventTypes);

impl Guest for EventTypes {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let kind = request.headers().get("ce-type").into_iter().next();
        match kind.as_deref() {
            Some(b"poison") => panic!("poisoned"),
            Some(b"stuck") => loop {
                monotonic_clock::subscribe_duration(3_600_000_000_000).block();
            },
            _ => reply::text(out, 200, "taken"),
        }
    }
}
