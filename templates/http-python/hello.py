"""The function: `GET /hello/NAME` greets by name, everything else is told how to ask."""

from urllib.parse import urlsplit

from componentize_py_types import Ok
from greeting import greeting
from wit_world import exports
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)


class IncomingHandler(exports.IncomingHandler):
    """Called once for each request."""

    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        path = urlsplit(request.path_with_query() or "/").path
        # `tombolo logs` shows it, with the request that it belongs to.
        print(f"asked for {path}", flush=True)
        text = greeting(path)
        headers = Fields.from_list([("content-type", b"text/plain; charset=utf-8")])
        response = OutgoingResponse(headers)
        if text is None:
            response.set_status_code(404)
            text = "Try /hello/world\n"
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(text.encode())
        OutgoingBody.finish(body, None)
