"""What the contestants talk to: a token endpoint on a loopback socket, and an API that is an adapter alone."""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from itertools import count
from threading import Barrier, Thread

from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

API = "https://mention-me.com/api/merchant/v2/coupons/validate/"
_numbers = count()


def new_url() -> str:
    """Return a URL that no request had before, so that nothing gains by remembering URLs."""
    return f"{API}{next(_numbers)}"


class TokenServer(ThreadingHTTPServer):
    """Answers any POST with a new JWT, after a *delay* in seconds; or, while it *fails*, with 503."""

    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/token"
        Thread(target=self.serve_forever, daemon=True).start()

    def behave(self, *, delay: float = 0.0, lifetime: int = 3600, fails: bool = False) -> None:
        """Behave so from now on, and count from zero."""
        self.delay = delay
        self.lifetime = lifetime
        self.fails = fails
        self.asked = count()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or the body waits for the acknowledgement of the headers
    server: TokenServer

    def do_POST(self) -> None:
        import jwt  # noqa: PLC0415 - not in the processes that measure their first token

        self.rfile.read(int(self.headers["Content-Length"]))
        next(self.server.asked)
        time.sleep(self.server.delay)
        now = int(time.time())
        lifetime = self.server.lifetime
        token = jwt.encode({"iat": now, "exp": now + lifetime, "jti": str(next(_numbers))}, "k" * 32)
        answer = {} if self.server.fails else {"access_token": token, "token_type": "bearer", "expires_in": lifetime}
        body = json.dumps(answer).encode()
        self.send_response_only(200 if answer else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Api(BaseAdapter):
    """Answers 200 after a *delay* in seconds, and sends nothing; 401 without a token or with the *revoked* one.

    The holders of that get their answers once all of them have come to the *gate*.
    """

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__()
        self.delay = delay
        self.revoked = ""
        self.gate = Barrier(1)

    def send(self, request: PreparedRequest, **_: object) -> Response:
        """Answer."""
        if self.delay:
            time.sleep(self.delay)
        authorization = request.headers.get("Authorization")
        response = Response()
        response.status_code = 401 if authorization in (None, self.revoked) else 200
        response.url = request.url
        response.request = request
        response.connection = self
        response.raw = HTTPResponse(BytesIO(), preload_content=False)  # without it, it would pass for made by hand
        response._content = b""
        response._content_consumed = True
        if authorization == self.revoked:
            self.gate.wait(30)
        return response
