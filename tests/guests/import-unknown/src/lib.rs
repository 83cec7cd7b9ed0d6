//! Imports an interface that no host has, and calls it.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

wit_bindgen::generate!({
    inline: "
        package nowhere:absent@1.2.3;
        interface oracle {
            ask: func(question: string) -> string;
        }
        world asker {
            import oracle;
        }
    ",
});

struct Asker;

wasip2::http::proxy::export!(Asker);

impl Guest for Asker {
    fn handle(_request: IncomingRequest, out: ResponseOutparam) {
        reply::text(out, 200, &nowhere::absent::oracle::ask("why?"));
    }
}
