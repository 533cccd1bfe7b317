"""An HTTP service: answers GET /greet-py/NAME with a greeting."""

import json
from urllib.parse import unquote

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        path = (request.path_with_query() or "/").split("?")[0]
        parts = [unquote(part) for part in path.split("/") if part]
        name = parts[1] if len(parts) > 1 else "world"
        answer = json.dumps({"language": "Python", "hello": name}) + "\n"
        response = OutgoingResponse(Fields.from_list([("content-type", b"application/json")]))
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(answer.encode())
        OutgoingBody.finish(body, None)
