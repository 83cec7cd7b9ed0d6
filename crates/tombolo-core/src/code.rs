//! The one table of error codes: number, exit code, HTTP status, title and explanation.

use std::fmt;
use std::str::FromStr;

use http::StatusCode;

/// Exit codes of the command line (CONTRACTS of the project; `124` follows `timeout(1)`).
pub mod exit {
    pub const DONE: u8 = 0;
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const INVALID: u8 = 3;
    pub const NOT_FOUND: u8 = 4;
    pub const NOT_ALLOWED: u8 = 5;
    pub const UNREACHABLE: u8 = 6;
    pub const CONFLICT: u8 = 7;
    pub const TIMEOUT: u8 = 124;
    pub const INTERRUPTED: u8 = 130;
}

macro_rules! codes {
    ($($variant:ident = $number:literal, $exit:expr, $status:ident, $title:literal, $explanation:literal;)*) => {
        /// A kind of error, written `TB0123`. Numbers are never used again for another meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = $title] $variant,)* }

        impl Code {
            /// Every code, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The number behind `TB`.
            pub fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)* }
            }

            /// What a command that fails with this code exits with.
            pub fn exit_code(self) -> u8 {
                match self { $(Self::$variant => $exit,)* }
            }

            /// What an HTTP request that fails with this code is answered with.
            pub fn http_status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// A short title, without a full stop.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// What the error means and what to do, for `tombolo explain`.
            pub fn explanation(self) -> &'static str {
                match self { $(Self::$variant => $explanation,)* }
            }
        }
    };
}

codes! {
    Usage = 1, exit::USAGE, BAD_REQUEST, "The arguments do not fit together",
        "The command was called with arguments that cannot be used together, or without one that it needs. `tombolo COMMAND --help` lists them.";
    NotFound = 2, exit::NOT_FOUND, NOT_FOUND, "There is no such thing",
        "What the command or the manifest names does not exist: an app or a function on the node, or a file or a folder on this machine. `tombolo get apps`, `tombolo get functions` and `tombolo get triggers` list what the node has.";
    Unreachable = 3, exit::UNREACHABLE, SERVICE_UNAVAILABLE, "The node does not answer",
        "No node runs in this folder, or it does not answer. Start one with `tombolo up` in the app's folder, or name the folder of a running one with `-C DIR`.";
    NotAllowed = 4, exit::NOT_ALLOWED, FORBIDDEN, "Not allowed",
        "The node refused the caller: the token is missing or wrong, or a grant does not cover what was asked.";
    Io = 5, exit::FAILED, INTERNAL_SERVER_ERROR, "A file could not be read or written",
        "The operating system refused to read or write a file; the message names the file and the cause. Check its path, its permissions and the free space.";
    Timeout = 6, exit::TIMEOUT, GATEWAY_TIMEOUT, "Time ran out",
        "The command did not finish in the time given by `--timeout`.";
    Failed = 7, exit::FAILED, INTERNAL_SERVER_ERROR, "The command failed",
        "The command could not do its work; the message says why.";
    Conflict = 8, exit::CONFLICT, CONFLICT, "Something else is in the way",
        "What the command would make exists already, and it overwrites nothing. Choose another name or folder, or move what is there. Of a request with an idempotency key: an earlier one with this key is still being worked on. Try again after `Retry-After`.";

    ManifestSyntax = 101, exit::INVALID, BAD_REQUEST, "The manifest is not TOML",
        "`tombolo.toml` breaks the grammar of TOML 1.1 at the place that is shown. Common causes: a missing quote, a table header written twice, a comma missing in an inline table.";
    ManifestKey = 102, exit::INVALID, BAD_REQUEST, "The manifest has an unknown key",
        "Unknown keys are errors, so that a misspelt limit or grant is never ignored. The reference of the manifest lists every key; the message names the nearest.";
    ManifestValue = 103, exit::INVALID, BAD_REQUEST, "The manifest has a value that is not valid",
        "The value at the place that is shown has the wrong type or is out of bounds; the message says what is accepted.";
    ManifestReference = 104, exit::INVALID, BAD_REQUEST, "The manifest names something it does not define",
        "A trigger or a grant refers to a function or a store by a name that the manifest does not define.";
    NodeConfig = 105, exit::INVALID, BAD_REQUEST, "The node's config is not valid",
        "The operator's config file (`--config`, by default `node.toml`) cannot be used; the message shows the place.";
    ManifestMissing = 106, exit::NOT_FOUND, NOT_FOUND, "There is no manifest here",
        "The command works on an app, and this folder has no `tombolo.toml`. Go to the app's folder, name it with `-C DIR`, or make an app with `tombolo new`.";

    ComponentMissing = 201, exit::NOT_FOUND, NOT_FOUND, "The component file is missing",
        "The file named by `component` does not exist. `tombolo build` makes it when the function has a `build` command.";
    ComponentInvalid = 202, exit::INVALID, UNPROCESSABLE_ENTITY, "The file is not a WebAssembly component",
        "Functions are WebAssembly components (the target `wasm32-wasip2` of Rust makes them). A core module can only be run as a command, with `tombolo run`.";
    ImportUnknown = 203, exit::INVALID, UNPROCESSABLE_ENTITY, "The component imports something this host does not have",
        "The component needs an interface, or a version of one, that this version of Tombolo does not offer. The reference lists the interfaces that functions may import.";
    ImportNotGranted = 204, exit::NOT_ALLOWED, FORBIDDEN, "The component imports something it was not granted",
        "A function may import the interface of key-value stores or of messaging only when its manifest grants it at least one store, queue or topic: `grants = { keyvalue = [\"NAME\"] }` in the function's table, for instance. The message names the interface.";
    IsolationUnsupported = 205, exit::INVALID, UNPROCESSABLE_ENTITY, "The component cannot run with this isolation",
        "`isolation = \"concurrent\"` lets one instance serve several invocations at once, which only components of wasi:http 0.3 can do. Use `fresh` or `serial` for components of 0.2.";
    HandlerMissing = 206, exit::INVALID, UNPROCESSABLE_ENTITY, "The component handles no events",
        "A function exports `wasi:http/incoming-handler` 0.2 or `wasi:http/handler` 0.3. A component that exports `wasi:cli/run` is a command: run it with `tombolo run`.";
    CompileFailed = 207, exit::FAILED, INTERNAL_SERVER_ERROR, "The component could not be compiled",
        "The component is valid but machine code could not be made for it; the message has the compiler's reason.";

    Trap = 301, exit::FAILED, BAD_GATEWAY, "The function trapped",
        "The function's code stopped at an instruction that cannot go on, for instance a panic, an unreachable instruction or an access out of bounds. The log of the invocation has the backtrace.";
    WallExceeded = 302, exit::TIMEOUT, GATEWAY_TIMEOUT, "The function ran longer than its wall time",
        "The invocation did not finish within `limits.wall`. It may wait for something that does not answer.";
    CpuExceeded = 303, exit::TIMEOUT, GATEWAY_TIMEOUT, "The function used more than its CPU time",
        "The invocation used more CPU time than `limits.cpu`. It may be in an endless loop.";
    MemoryExceeded = 304, exit::FAILED, BAD_GATEWAY, "The function ran out of memory",
        "The function asked for more linear memory than `limits.memory` and did not cope with the refusal.";
    HostcallExceeded = 305, exit::FAILED, BAD_GATEWAY, "A host call was larger than allowed",
        "The function passed more bytes to one host call than `limits.hostcall` allows. Pass them in parts, or raise the limit.";
    ResponseTooLong = 306, exit::FAILED, BAD_GATEWAY, "The response was longer than allowed",
        "The function's response body was longer than `limits.response`. What was sent already has been cut.";
    NoAnswer = 307, exit::FAILED, BAD_GATEWAY, "The function did not answer",
        "The function returned without setting a response.";
    Busy = 308, exit::UNREACHABLE, TOO_MANY_REQUESTS, "The function is busy",
        "As many invocations run as `limits.concurrency` or the node allows, and as many wait as `limits.waiting` allows. Try again after `Retry-After`.";
    Loop = 309, exit::FAILED, LOOP_DETECTED, "Functions call one another in a loop",
        "More than 16 functions called one another for one request, or published events for one another, each for the next.";
    HostError = 310, exit::FAILED, INTERNAL_SERVER_ERROR, "The node failed",
        "The node could not run the function, through no fault of the function. The node's log says why.";
    AnswerInvalid = 311, exit::FAILED, BAD_GATEWAY, "The function answered with an error",
        "The function set an error instead of a response, or a response that is not valid HTTP.";
    Compiling = 312, exit::UNREACHABLE, SERVICE_UNAVAILABLE, "The function is being compiled again",
        "The function's compiled code was missing on the node's disk, or was refused because it was not genuine. It is compiled again now. Try again after `Retry-After`.";

    NoRoute = 401, exit::NOT_FOUND, NOT_FOUND, "No route matches",
        "No trigger of an app on this node has a route that matches the path of the request. `tombolo get triggers` lists the routes.";
    BodyTooLong = 402, exit::FAILED, PAYLOAD_TOO_LARGE, "The request body is too long",
        "The body of the request is longer than the listener accepts (`http.body_bytes_max` in the node's config).";
    HeadersTooLong = 403, exit::FAILED, REQUEST_HEADER_FIELDS_TOO_LARGE, "The request headers are too long",
        "The headers of the request are more or longer than the listener accepts.";
    ClientTooSlow = 404, exit::TIMEOUT, REQUEST_TIMEOUT, "The client is too slow",
        "The client did not send the whole request in the time that the listener allows.";
    Draining = 405, exit::UNREACHABLE, SERVICE_UNAVAILABLE, "The node is shutting down",
        "The node finishes what it has begun and takes nothing new. Try another node, or this one after its restart.";
    MethodNotAllowed = 406, exit::FAILED, METHOD_NOT_ALLOWED, "The method is not allowed here",
        "Static files answer GET and HEAD only.";
    BadRequest = 407, exit::USAGE, BAD_REQUEST, "The request is not valid",
        "The request breaks a rule of HTTP or of the interface; the message says which.";
    KeyReused = 408, exit::CONFLICT, UNPROCESSABLE_ENTITY, "The idempotency key was used for another request",
        "A request or an event had this idempotency key before, with another method, path, query or body. Its answer is not given for this one, and the function has not run. A new request needs a new key; a repeated one has to be the same.";
    TokenWrong = 409, exit::NOT_ALLOWED, UNAUTHORIZED, "The token is missing or wrong",
        "Events come in by this route only with its token, as `Authorization: Bearer TOKEN` or, for senders that cannot set headers, as the parameter `access_token` of the URL. The manifest names the secret that holds it.";

    StoreLocked = 501, exit::CONFLICT, CONFLICT, "Another process uses this store",
        "A store folder belongs to one process at a time. Another `tombolo` holds the lock; stop it, or give this one a folder of its own with `--store DIR`.";
    StoreDamaged = 502, exit::FAILED, INTERNAL_SERVER_ERROR, "The store is damaged",
        "A file of the store does not pass its checks. Nothing of it was served. Restore the folder from a copy, or move it away to start empty.";
    AddressInUse = 503, exit::CONFLICT, CONFLICT, "The address cannot be listened on",
        "Another process listens at this address, or this machine does not have it. Choose another with `--listen`, or `--mqtt-listen` for the broker; port 0 picks a free one.";
    Tls = 504, exit::INVALID, INTERNAL_SERVER_ERROR, "The certificate or key cannot be used",
        "The files of `http.tls`, of a listener in `mqtt` or of `mqtt.remote_authorities` could not be read, or the key does not fit the certificate.";
    SecretMissing = 505, exit::NOT_FOUND, NOT_FOUND, "A secret is missing on this node",
        "A function was granted a secret, or a route has a token, that this node has neither as a file in its secrets folder nor as an environment variable. The message names both places.";
    StoreFull = 506, exit::FAILED, INSUFFICIENT_STORAGE, "The disk of the store is full",
        "Nothing can be written to the store until there is free space again; what it has can still be read. Free some, or move the store to a larger disk.";
    StoreFormat = 507, exit::FAILED, INTERNAL_SERVER_ERROR, "The store was written by another version",
        "The file `format` in the store's folder names a version of the format that this version of Tombolo does not read. Use the version that wrote it, or another folder.";

    KeysFull = 508, exit::FAILED, INSUFFICIENT_STORAGE, "The app's key-value stores are full",
        "The keys and values of all stores of an app have as many bytes together as `[keyvalue] app_bytes_max` in the node's config allows. Writes that make them larger are refused until some are deleted; reads and smaller values go on.";

    BuildFailed = 601, exit::FAILED, INTERNAL_SERVER_ERROR, "The build command failed",
        "The function's `build` command exited with an error; its own output is shown above as it came.";
    ToolMissing = 602, exit::FAILED, INTERNAL_SERVER_ERROR, "A tool that the build needs is missing",
        "The build command starts a program that this machine does not have. The message names the command that installs it.";

    EventInvalid = 701, exit::INVALID, BAD_REQUEST, "The event is not valid",
        "The event breaks a rule of CloudEvents 1.0; the message names the attribute and the rule. Nothing of the request was kept.";
    EventFormat = 702, exit::INVALID, UNSUPPORTED_MEDIA_TYPE, "The event's format is not understood",
        "Events are sent with attributes in `ce-*` headers, or as `application/cloudevents+json` or `application/cloudevents-batch+json` in UTF-8.";
    EventTooLong = 703, exit::INVALID, PAYLOAD_TOO_LARGE, "The event is too long",
        "The event, one of its attributes, or the batch is larger than the node or the queue accepts; the message names the bound. Put large data elsewhere and send its address.";
    QueueFull = 704, exit::UNREACHABLE, TOO_MANY_REQUESTS, "The queue is full",
        "The queue has as many bytes or events as it may, and its manifest says `full = \"refuse\"`. Try again after `Retry-After`.";
    QueueMissing = 705, exit::NOT_FOUND, NOT_FOUND, "There is no such queue",
        "The app has no queue of this name. Queues are the tables `[queues.NAME]` of its manifest.";
    PublishUnavailable = 706, exit::UNREACHABLE, SERVICE_UNAVAILABLE, "Events are not accepted now",
        "The node cannot make events durable at the moment, so it accepts none. Its log says why. Send the same event again later: its `source` and `id` make a duplicate harmless.";
    TransactionTooLong = 707, exit::FAILED, PAYLOAD_TOO_LARGE, "The invocation does too much for one transaction",
        "The trigger says `transactional = true`, so all that the function reads, writes and publishes for one delivery is committed at once. It has more keys, events or bytes than one commit takes; the message names the bounds. Let the trigger deliver smaller batches, or do the work in several events.";
    TransactionConflict = 708, exit::CONFLICT, CONFLICT, "What the invocation had read was changed by others",
        "The trigger says `transactional = true`. Each time that the function had run, a key that it had read had been changed by somebody else, so nothing was committed; the message names the key. Give events that work on the same key one order key (`order_by`), deliver them in batches, or keep others from writing it.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TB{:04}", self.number())
    }
}

/// There is no error code of this spelling.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no error code `{0}`; they look like TB0101, and `tombolo explain` lists them")]
pub struct CodeError(String);

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let upper = text.trim().to_ascii_uppercase();
        // Whoever types a code may leave out the letters and the zeros.
        let digits = upper.strip_prefix("TB").unwrap_or(&upper);
        let number = digits.parse::<u16>().ok();
        Self::ALL
            .iter()
            .copied()
            .find(|code| Some(code.number()) == number)
            .ok_or_else(|| CodeError(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_are_unique_and_ascending_and_texts_round_trip() {
        let numbers: Vec<u16> = Code::ALL.iter().map(|code| code.number()).collect();
        assert!(numbers.is_sorted());
        assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), numbers.len());
        for &code in Code::ALL {
            assert_eq!(code.to_string().to_lowercase().parse(), Ok(code));
            assert_eq!(code.number().to_string().parse(), Ok(code));
        }
        assert!("TB9999".parse::<Code>().is_err());
    }
}
