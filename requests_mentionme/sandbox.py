"""A stand-in for Mention Me on a loopback socket, for demos and tests.

Imitates the token endpoint and the Merchant API as they are documented, keeps what it saw, and
plays faults on request. Needs nothing but the standard library, listens on 127.0.0.1 alone, and
shares no code with the client side beyond the `Environment`, so that each checks the other.
"""

from __future__ import annotations

import base64
import hmac
import json
import math
import os
import re
import secrets
import socket
import socketserver
import struct
import sys
import threading
import time
import zlib
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, cast, final
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from requests_mentionme._environment import Environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    _Respond = Callable[[str, str, Mapping[str, str], bytes], "_Answer"]

__all__ = ["Sandbox", "SeenRequest"]

_T = TypeVar("_T")

_TOKEN_PATH = "/api/oauth/token"  # noqa: S105 - a path, not a password
_API_PATH = "/api/merchant/v2/"
_COUPON_PATH = re.compile(r"coupons/validate/([^/]+)")
_KNOWN_SCOPES = "customers:read customers:write customers:delete rewards:read"
_LARGEST_BATCH = 100  # identifiers
_WINDOW = 300  # seconds, the same for every documented group
_KEPT = 1_000  # the requests, and the tokens, that a sandbox remembers
_LARGEST_BODY = 8 * 1024 * 1024
_LONGEST_LINE = 65_536
_BODILESS = (204, 304)  # RFC 9110 §6.4.1
_FIELD_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # RFC 9110 §5.1
_FIELD_VALUE = re.compile(r"[ -~]*")
_SIZES = {10: re.compile(r"[0-9]{1,16}"), 16: re.compile(r"[0-9A-Fa-f]{1,16}")}  # by base

# The types an argument may have, the least and the most it may be; of text, the length.
_LIMITS: Mapping[str, tuple[tuple[type, ...], float, float]] = {
    "client_id": ((str,), 1, math.inf),
    "client_secret": ((str,), 1, math.inf),
    "env": ((str,), 1, math.inf),
    "scope": ((str,), 0, math.inf),
    "merchant_id": ((int,), 0, math.inf),
    "rate_limit": ((int,), 1, math.inf),
    "port": ((int,), 0, 65_535),
    "lifetime": ((int, float), 0.001, 1e9),
    "times": ((int,), 1, math.inf),
    "status": ((int,), 200, 599),
    "header": ((str,), 0, math.inf),
    "body": ((str, bytes), 0, math.inf),
    "delay": ((int, float), 0, 1e6),  # threading.TIMEOUT_MAX is not much more everywhere
}


@dataclass(frozen=True)
class SeenRequest:
    """A request as it reached the sandbox, and how it was answered.

    Its `repr` leaves out what may hold a secret.

    Attributes:
        method: The method.
        path: The request target as sent: percent-encoded, with the query.
        headers: Read-only, names in lower case; the values of a repeated one joined by commas.
        body: The whole body, whether it was sent in chunks or not.
        token: What stood behind `Authorization: Bearer`; None without it.
        status: The status of the answer; None where the connection was cut instead.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    token: str | None = field(repr=False)
    status: int | None


@final
class Sandbox:
    """A Mention Me of your own, on a loopback port.

    The token endpoint issues JWTs, no two alike. The six documented endpoints of the Merchant API
    check them, and answer with made-up data that depends on the request alone: customers whose
    address ends in `@unknown.example` are not found; of the coupon codes, `SAMPLE` is redeemable,
    `USED` is not, and there are no others. What the documentation leaves open is settled like
    this: a missing scope is a 403, validating a coupon takes none, and a request that got a 401
    counts against the rate limit of its token.

    Safe to use from many threads, and serves many clients at a time.

    Example:
        with Sandbox() as sandbox:
            session.auth = MentionMeAuth(
                sandbox.client_id, sandbox.client_secret, environment=sandbox.environment
            )

    Attributes:
        client_id: The id of the API key it starts with.
        client_secret: The secret of that key.
        token_requests: How many requests for a token arrived, faults included.
        api_requests: How many other requests arrived, faults included.
        rejections: How many of `api_requests` got a 401, faults included.
    """

    def __init__(
        self,
        *,
        client_id: str = "sandbox-id",
        client_secret: str = "sandbox-secret",  # noqa: S107 - opens nothing but this sandbox
        lifetime: float = 3600,
        scope: str = _KNOWN_SCOPES,
        merchant_id: int = 4259,
        env: str = "demo",
        rate_limit: int = 300,
        port: int = 0,
    ) -> None:
        """Take the options. Nothing is listened on before `start`.

        Args:
            client_id: The id of the API key to start with.
            client_secret: The secret of that key.
            lifetime: Seconds that a token lives: see `Sandbox.lifetime`.
            scope: The scopes of that key, separated by spaces (RFC 6749 §3.3); by default all
                whose names are documented.
            merchant_id: The claim `claims.merchantId`.
            env: The claim `claims.env`.
            rate_limit: Requests in five minutes, for each token and group of endpoints
                (customers, rewards, referee, coupons).
            port: The port to listen on; 0 takes a free one.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value is empty or out of range.
        """
        _check(client_id=client_id, client_secret=client_secret, scope=scope, env=env)
        _check(merchant_id=merchant_id, rate_limit=rate_limit, port=port)
        self.client_id: Final = client_id
        self.client_secret: Final = client_secret
        self.lifetime = lifetime
        self.token_requests = self.api_requests = self.rejections = 0
        self._claims = {"env": env, "merchantId": merchant_id}
        self._scope, self._rate_limit, self._port = scope, rate_limit, port
        self._signing_key = secrets.token_bytes(32)
        self._lock = threading.Lock()  # guards the counters above and the collections below
        self._clients = {client_id: (client_secret, scope)}
        self._grants: dict[str, _Grant] = {}  # by token, oldest first
        self._requests: deque[SeenRequest] = deque(maxlen=_KEPT)
        self._token_faults: deque[_Fault] = deque()
        self._api_faults: deque[_Fault] = deque()
        self._server: _Server | None = None
        self._stopped = threading.Event()

    def __repr__(self) -> str:
        """Show the address and the state, and no secret."""
        if self._server is None:
            return "<Sandbox, not started>"
        return f"<Sandbox {self.url}, {'stopped' if self._stopped.is_set() else 'running'}>"

    def __enter__(self) -> Sandbox:
        """Start."""
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop."""
        self.stop()

    def start(self) -> None:
        """Listen on 127.0.0.1 and serve, in threads of its own.

        Raises:
            OSError: The port is taken.
            RuntimeError: It was started before; a sandbox starts once.
        """
        if self._server is not None:
            raise RuntimeError("a sandbox starts only once: make a new one")
        self._server = _Server(self._port, self._respond)
        self._server.start()

    def stop(self) -> None:
        """Close all connections and wait for the threads; what was seen stays readable.

        Does nothing where nothing runs.
        """
        with self._lock:
            server = None if self._stopped.is_set() else self._server
            if server is not None:
                self._stopped.set()
        if server is not None:
            server.stop()

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end.

        Raises:
            RuntimeError: It was never started, and so has no port.
        """
        if self._server is None:
            raise RuntimeError("a sandbox has no URL before it is started")
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> Environment:
        """The `environment=` for `MentionMeAuth`. Raises as `url` does."""
        return Environment.at(self.url)

    @property
    def lifetime(self) -> float:
        """Seconds that tokens issued from now on live; an hour in the documentation.

        May be set at any time, below 1 too.

        Raises:
            TypeError: Set to something that is no number.
            ValueError: Set to less than a millisecond or more than 1e9.
        """
        return self._lifetime

    @lifetime.setter
    def lifetime(self, seconds: float) -> None:
        _check(lifetime=seconds)
        self._lifetime = seconds

    @property
    def connections(self) -> int:
        """How many TCP connections were accepted."""
        return self._server.connections if self._server else 0

    @property
    def tokens(self) -> tuple[str, ...]:
        """The newest 1,000 tokens issued, oldest first; any older one is refused as unknown."""
        with self._lock:
            return tuple(self._grants)

    @property
    def requests(self) -> tuple[SeenRequest, ...]:
        """The newest 1,000 requests, in the order of their answers."""
        with self._lock:
            return tuple(self._requests)

    def add_client(self, client_id: str, client_secret: str, scope: str | None = None) -> None:
        """Create another API key, valid beside the others.

        This is how keys are rotated: Mention Me doesn't change the secret of a key. Create a new
        key, switch the application over, delete the old one.

        Args:
            client_id: The id of the key.
            client_secret: The secret of the key.
            scope: Its scopes; by default those of the sandbox.

        Raises:
            TypeError: A value is no string.
            ValueError: A value is empty, or there is a key with that id.
        """
        scope = self._scope if scope is None else scope
        _check(client_id=client_id, client_secret=client_secret, scope=scope)
        with self._lock:
            if client_id in self._clients:
                raise ValueError(f"there is a client {client_id!r} already")
            self._clients[client_id] = client_secret, scope

    def remove_client(self, client_id: str) -> None:
        """Delete an API key: it gets no more tokens, and those it got die at once.

        Raises:
            ValueError: There is no key with that id.
        """
        with self._lock:
            if self._clients.pop(client_id, None) is None:
                raise ValueError(f"there is no client {client_id!r}")
            for grant in self._grants.values():
                if grant.client_id == client_id:
                    grant.refused = "Revoked token."

    def revoke(self, token: str | None = None) -> None:
        """Refuse a token from now on.

        Args:
            token: The token; by default all that were issued so far.

        Raises:
            ValueError: It is none of `tokens`.
        """
        with self._lock:
            if token is not None and token not in self._grants:
                raise ValueError("this sandbox knows no such token")
            for grant in self._grants.values() if token is None else [self._grants[token]]:
                grant.refused = "Revoked token."

    def fail_token_requests(
        self,
        times: int = 1,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: str | bytes | None = None,
        delay: float = 0.0,
        reset: bool = False,
        garbage: bool = False,
    ) -> None:
        """Let the next token requests go wrong, after those that earlier calls asked for.

        A fault acts before all else: nothing is checked, and no rate limit counts it.

        Args:
            times: How many requests go wrong.
            status: Answer with this status, 200 to 599.
            headers: Sent with *status*, in place of the usual ones of the same name.
            body: Sent with *status* (but 204 and 304 have none); by default an error of the
                documented shape, `{"code": "503", "message": "…"}`.
            delay: Seconds to wait before, 1e6 at most. On its own, the request is served as usual
                afterwards. Ends at once when the sandbox stops.
            reset: Reset the connection (TCP RST).
            garbage: Answer something that is not HTTP, and close the connection.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value is out of range, nothing is asked for, or two things that exclude
                each other.
        """
        fault = _Fault(times, status, dict(headers or {}), body, delay, reset, garbage)
        with self._lock:
            self._token_faults.append(fault)

    def fail_api_requests(
        self,
        times: int = 1,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: str | bytes | None = None,
        delay: float = 0.0,
        reset: bool = False,
        garbage: bool = False,
    ) -> None:
        """Let the next requests other than for a token go wrong: see `fail_token_requests`."""
        fault = _Fault(times, status, dict(headers or {}), body, delay, reset, garbage)
        with self._lock:
            self._api_faults.append(fault)

    def clear_faults(self) -> None:
        """Forget the faults that have not happened yet."""
        with self._lock:
            self._token_faults.clear()
            self._api_faults.clear()

    def _respond(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> _Answer:
        """Return the answer to a request, which is among `requests` by then."""
        path = target.partition("?")[0]
        for_token = path == _TOKEN_PATH
        with self._lock:
            self.token_requests += for_token
            self.api_requests += not for_token
            fault = _next_fault(self._token_faults if for_token else self._api_faults)
        try:
            if fault and self._stopped.wait(fault.delay):
                answer = _Answer(None)
            elif fault and (planned := fault.answer()):
                answer = planned
            elif for_token:
                answer = self._issue(method, headers, body)
            else:
                answer = self._serve(method, path, headers, body)
        except _RefusalError as refusal:
            answer = refusal.answer
        seen = SeenRequest(method, target, headers, body, _bearer(headers), answer.status)
        with self._lock:
            self.rejections += answer.status == 401 and not for_token
            self._requests.append(seen)
        return answer

    def _issue(self, method: str, headers: Mapping[str, str], body: bytes) -> _Answer:
        """Return the token response (RFC 6749 §4.4.3)."""
        if method != "POST":
            raise _RefusalError(405, "Wrong method.", Allow="POST")
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise _RefusalError(400, "The content type must be application/json.")
        fields = _parsed(body)
        names = ("client_id", "client_secret", "grant_type")
        client_id, client_secret, grant_type = (_member(fields, name, str) for name in names)
        if grant_type != "client_credentials":
            raise _RefusalError(400, "The grant_type must be client_credentials.")
        now, lifetime = time.time(), self.lifetime
        with self._lock:
            secret, scope = self._clients.get(client_id, (None, ""))
            if client_secret != secret:
                raise _RefusalError(401, "Unknown client or wrong secret.")
            token = self._signed(scope, now, now + lifetime)
            self._grants[token] = _Grant(client_id, scope, now + lifetime)
            if len(self._grants) > _KEPT:
                del self._grants[next(iter(self._grants))]
        fields = {"access_token": token, "expires_in": lifetime, "token_type": "bearer"}
        return _json_answer(fields)

    def _signed(self, scope: str, issued: float, expires: float) -> str:
        """Return a JWT (RFC 7519), signed with HS256."""
        payload = {
            "claims": self._claims,
            "scope": scope,
            "iat": issued,  # with its fraction (RFC 7519 §2): a token may live less than a second
            "exp": expires,
            "jti": secrets.token_hex(8),  # no two tokens are alike
        }
        parts = ({"typ": "JWT", "alg": "HS256"}, payload)
        signing_input = b".".join(_base64url(json.dumps(part).encode()) for part in parts)
        signature = _base64url(hmac.digest(self._signing_key, signing_input, "sha256"))
        return b".".join([signing_input, signature]).decode()

    def _serve(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> _Answer:
        """Return the answer of the Merchant API, with its rate limit headers in any case."""
        if not path.startswith(_API_PATH):
            raise _RefusalError(404, "Not found.")
        path = path.removeprefix(_API_PATH)
        code = _COUPON_PATH.fullmatch(path)
        endpoints = _ENDPOINTS.get("coupons/validate/{coupon_code}" if code else path, {})
        token = _bearer(headers)
        with self._lock:
            # Looked up as a whole: a token with a wrong signature is one that was never issued.
            grant = self._grants.get(token or "") or _stranger(token)
            group = next((endpoint.group for endpoint in endpoints.values()), "")
            left, limits = grant.spend(group, self._rate_limit)
        subject = code[1].encode("latin-1") if code else body
        try:
            answer = _json_answer(_admitted(grant, left, endpoints, method).answer(subject))
        except _RefusalError as refusal:
            answer = refusal.answer
        return replace(answer, headers={**answer.headers, **limits})


class _Server(socketserver.ThreadingTCPServer):
    """Accepts connections and knows them all, so that it can end them.

    Not an HTTPServer, which looks up the name of its host; on some machines that takes seconds.
    """

    allow_reuse_address = os.name == "posix"  # elsewhere it would let two servers share a port
    request_queue_size = 512  # clients that connect at the same moment

    def __init__(self, port: int, respond: _Respond) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.respond = respond
        self.connections = 0
        self._workers = WeakKeyDictionary[threading.Thread, socket.socket]()
        self._stopping = False
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def start(self) -> None:
        self._acceptor.start()

    def stop(self) -> None:
        self._stopping = True
        socket.create_connection(("127.0.0.1", self.server_address[1])).close()  # wakes the acceptor
        self._acceptor.join()
        self.server_close()
        workers = list(self._workers.items())
        for _, connection in workers:
            # Its worker closes it: a close from here could hit a descriptor in use again.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for worker, _ in workers:
            worker.join()

    def _accept(self) -> None:
        # serve_forever() would wake up all the time to see whether it is to end, or end late.
        while not self._stopping:
            self.handle_request()

    def verify_request(self, request: object, client_address: object) -> bool:
        del request, client_address
        return not self._stopping

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        # As in the base class; but that one keeps no account of its daemon threads.
        args = (request, client_address)
        worker = threading.Thread(target=self.process_request_thread, args=args, daemon=True)
        self._workers[worker] = cast("socket.socket", request)
        self.connections += 1
        worker.start()

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        # Clients come and go as they like. All else is a fault of this module, to be seen.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 (RFC 9112) on one connection."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # an HTTP/0.9 client would get errors without a head
    disable_nagle_algorithm = True
    error_content_type = "application/json"
    error_message_format = '{"code": "%(code)d", "message": "This request can\'t be read."}'

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its given name
        """Write nothing."""

    def _handle(self) -> None:
        try:
            body = self._read_body()
        except _RefusalError as refusal:
            # Where this request ends is not known, so neither is where the next one starts.
            self.close_connection = True
            self._send(refusal.answer)
            return
        given = self.headers
        headers = {name.lower(): ", ".join(given.get_all(name, ())) for name in given}
        respond = cast("_Server", self.server).respond
        self._send(respond(self.command, self.path, MappingProxyType(headers), body))

    do_DELETE = do_GET = do_HEAD = do_OPTIONS = do_PATCH = do_POST = do_PUT = _handle  # noqa: N815

    def _read_body(self) -> bytes:
        if "Transfer-Encoding" in self.headers:
            return self._read_chunks()
        return self._read(_size(self.headers.get("Content-Length", "0"), 10), _LARGEST_BODY)

    def _read_chunks(self) -> bytes:
        """Return a chunked body, and pass over its trailer (RFC 9112 §7.1)."""
        body = bytearray()
        while size := _size(self._read_line().partition(";")[0].strip(), 16):
            body += self._read(size, _LARGEST_BODY - len(body))
            if self._read_line():
                raise _RefusalError(400, "A chunk is longer than its size.")
        while self._read_line():
            pass
        return bytes(body)

    def _read(self, size: int, limit: int) -> bytes:
        if size > limit:
            raise _RefusalError(413, f"A body has {_LARGEST_BODY} bytes at most.")
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionAbortedError("the client went away in the middle of its request")
        return data

    def _read_line(self) -> str:
        return self.rfile.readline(_LONGEST_LINE).decode("latin-1").rstrip("\r\n")

    def _send(self, answer: _Answer) -> None:
        if answer.status is None:
            self._hang_up(answer)
            return
        usual = {"Date": self.date_time_string(), "Content-Type": "application/json"}
        if answer.status not in _BODILESS:
            usual["Content-Length"] = str(len(answer.body))
        if self.close_connection:
            usual["Connection"] = "close"
        headers = {name.lower(): (name, value) for name, value in usual.items()}
        headers |= {name.lower(): (name, value) for name, value in answer.headers.items()}
        self.send_response_only(answer.status)
        for name, value in headers.values():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and answer.status not in _BODILESS:
            self.wfile.write(answer.body)

    def _hang_up(self, answer: _Answer) -> None:
        """End the connection without an answer in HTTP."""
        self.close_connection = True
        self.wfile.write(answer.body)
        if answer.reset:
            # To linger for no time turns the close into an RST. Closed here, as the server would
            # send a FIN first, and the client might see no more than that.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


@dataclass(frozen=True)
class _Answer:
    """What a client gets. Without a status: the bare *body*, and the end of the connection."""

    status: int | None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    reset: bool = False


def _json_answer(content: Mapping[str, object]) -> _Answer:
    return _Answer(200, json.dumps(content).encode())


class _RefusalError(Exception):
    """An error answer in the documented shape; raised, it ends a request at any depth."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        answer = _json_answer({"code": str(status), "message": message})
        self.answer = replace(answer, status=status, headers=headers)


@dataclass
class _Fault:
    """What goes wrong, for *times* more requests."""

    times: int
    status: int | None
    headers: Mapping[str, str]
    body: str | bytes | None
    delay: float
    reset: bool
    garbage: bool

    def __post_init__(self) -> None:
        """Check."""
        _check(times=self.times, delay=self.delay)
        kinds = (self.status is not None) + self.reset + self.garbage
        details = bool(self.headers) or self.body is not None
        mistakes = {
            "ask for a status, a delay, a reset or garbage": not kinds and not self.delay,
            "status, reset and garbage exclude each other": kinds > 1,
            "headers and body need a status": details and self.status is None,
        }
        for mistake, made in mistakes.items():
            if made:
                raise ValueError(mistake)
        if self.status is not None:
            _check(status=self.status)
        if self.body is not None:
            _check(body=self.body)
        for name, value in self.headers.items():
            _check(header=name)
            _check(header=value)
            if not (_FIELD_NAME.fullmatch(name) and _FIELD_VALUE.fullmatch(value)):
                raise ValueError(f"no header can be like {name!r}")

    def answer(self) -> _Answer | None:
        """Return what the client gets; None: what it would get anyhow."""
        if self.reset:
            return _Answer(None, reset=True)
        if self.garbage:
            return _Answer(None, b"\x16\x03\x01 not HTTP\r\n\r\n")
        if self.status is None:
            return None
        error = _RefusalError(self.status, "The sandbox was told to answer this.").answer
        body = self.body.encode() if isinstance(self.body, str) else self.body
        return replace(error, headers=self.headers, body=error.body if body is None else body)


def _next_fault(faults: deque[_Fault]) -> _Fault | None:
    if not faults:
        return None
    fault = faults[0]
    fault.times -= 1
    if not fault.times:
        faults.popleft()
    return fault


@dataclass
class _Grant:
    """What the sandbox knows of a token. The lock of the sandbox guards it."""

    client_id: str
    scope: str
    expires: float
    refused: str = ""  # why, if not for its age
    windows: dict[str, tuple[float, int]] = field(default_factory=dict[str, "tuple[float, int]"])

    def spend(self, group: str, limit: int) -> tuple[int, dict[str, str]]:
        """Count a request; return how many are left, below zero if too many, and the headers."""
        now = time.time()
        started, spent = self.windows.get(group, (now, 0))
        if not 0 <= now - started < _WINDOW:  # below 0: the clock was set back
            started, spent = now, 0
        self.windows[group] = started, spent + 1
        left = limit - spent - 1
        return left, {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(max(left, 0)),
            "X-RateLimit-Reset": str(math.ceil(_WINDOW - (now - started))),  # a delta
        }


def _stranger(token: str | None) -> _Grant:
    return _Grant("", "", math.inf, "Unknown token." if token else "Missing token.")


def _bearer(headers: Mapping[str, str]) -> str | None:
    """Return the token of an Authorization header (RFC 6750 §2.1), whose scheme has no case."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _admitted(grant: _Grant, left: int, endpoints: Mapping[str, _Endpoint], method: str) -> _Endpoint:
    """Return the endpoint that is asked for, if nothing speaks against it."""
    if grant.refused or time.time() >= grant.expires:  # RFC 7519 §4.1.4: on or after
        raise _RefusalError(401, grant.refused or "Expired token.")
    if left < 0:
        raise _RefusalError(429, "Rate limit exceeded.")
    if not endpoints:
        raise _RefusalError(404, "Not found.")
    endpoint = endpoints.get("GET" if method == "HEAD" else method)
    if endpoint is None:
        raise _RefusalError(405, "Wrong method.", Allow=", ".join(endpoints))
    missing = set(endpoint.scopes.split()) - set(grant.scope.split())
    if missing:
        raise _RefusalError(403, f"Missing scope: {' '.join(sorted(missing))}.")
    return endpoint


def _get_customers(body: bytes) -> dict[str, object]:
    found, errors = _look_up(body)
    if not found:
        raise _RefusalError(404, "None of these customers was found.")
    return {"data": [_customer(**identifier) for identifier in found], "errors": errors}


def _queue_customers(body: bytes) -> dict[str, object]:
    accepted, errors = _look_up(body)
    return {"accepted": accepted, "errors": errors}


def _get_rewards(body: bytes) -> dict[str, object]:
    identifier = _identifier(cast("object", _member(_parsed(body), "identifier", dict)))
    if identifier["type"] != "email":
        raise _RefusalError(400, "The type must be email.")
    if _is_unknown(identifier):
        raise _RefusalError(404, "This customer was not found.")
    customer = _customer(**identifier)
    owner = {name: customer[name] for name in ("customerId", "email")}
    reward = {"id": customer["mentionMeCustomerId"], **json.loads(_REWARD)}
    return {"data": {"customer": owner, "rewards": [reward]}}


def _validate_coupon(code: bytes) -> dict[str, object]:
    validity = {"SAMPLE": "FOUND_REDEEMABLE", "USED": "FOUND_NOT_REDEEMABLE"}.get(unquote(code))
    if validity is None:
        return {"validityResponseCode": "NOT_FOUND"}
    return {"validityResponseCode": validity, **json.loads(_COUPON)}


_CUSTOMER = """{
  "firstname": "Ada", "surname": "Example", "phoneNumbers": ["+440000000000"],
  "profileUrl": "https://demo.mention-me.com/", "offers": {"active": []}, "nps": {"recent": []},
  "createdDate": "2026-01-02T03:04:05Z", "lastPurchaseDate": "2026-01-02T03:04:05Z",
  "receivingEmails": true, "suspectedOfGaming": false,
  "metrics": {"successfulReferrals": 0, "shareCount": {"all": 0}},
  "segments": {"ecrStatus": "high"}
}"""
_REWARD = """{
  "fulfilledBy": "merchant", "amount": 10, "description": "10 off", "beforePurchase": false,
  "minimumFriendsRequired": 1, "spendConstraint": 0, "callToActionUrl": "https://shop.example/",
  "couponCode": "SAMPLE", "couponLink": "https://shop.example/?c=SAMPLE", "securityCode": "0",
  "expiryDate": "2036-12-31T00:00:00Z"
}"""
_COUPON = """{
  "validityResponseDescription": null, "rewardType": "AMOUNT", "rewardAmount": 10.0,
  "currencyCode": "GBP", "description": null
}"""


def _customer(type: str, value: str) -> dict[str, object]:  # noqa: A002 - as in the API
    """Return the customer that goes by an identifier, always the same."""
    number = zlib.crc32(value.encode(errors="replace"))
    names = {"customerId": f"C-{number}", "email": f"customer-{number}@shop.example"}
    names["email" if type == "email" else "customerId"] = value
    return {**names, "mentionMeCustomerId": number, **json.loads(_CUSTOMER)}


def _look_up(body: bytes) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return the identifiers that were found, and an error for each of the others."""
    given = cast("list[object]", _member(_parsed(body), "identifiers", list))
    if len(given) > _LARGEST_BATCH:
        raise _RefusalError(400, f"There may be {_LARGEST_BATCH} identifiers at most.")
    identifiers = [_identifier(item) for item in given]
    unknown = [identifier for identifier in identifiers if _is_unknown(identifier)]
    errors = [{"value": identifier["value"], "reason": "notFound"} for identifier in unknown]
    return [identifier for identifier in identifiers if identifier not in unknown], errors


def _is_unknown(identifier: Mapping[str, str]) -> bool:
    return identifier["value"].lower().endswith("@unknown.example")


def _identifier(value: object) -> dict[str, str]:
    """Return an identifier; of any type, as the documentation names only one of them."""
    return {name: _member(value, name, str) for name in ("type", "value")}


class _Endpoint(NamedTuple):
    """What answers a body (or a coupon code), whose rate limit counts, which scopes it takes."""

    answer: Callable[[bytes], dict[str, object]]
    group: str
    scopes: str = ""


_ENDPOINTS: Final = {
    "customers": {
        "POST": _Endpoint(_get_customers, "customers", "customers:read"),
        "DELETE": _Endpoint(_queue_customers, "customers", "customers:delete"),
    },
    "customers/lapse": {"POST": _Endpoint(_queue_customers, "customers", "customers:write")},
    "customers/rewards": {"POST": _Endpoint(_get_rewards, "rewards", "customers:read rewards:read")},
    "referee/eligibility": {"POST": _Endpoint(_queue_customers, "referee", "customers:write")},
    "coupons/validate/{coupon_code}": {"GET": _Endpoint(_validate_coupon, "coupons")},
}


def _parsed(body: bytes) -> object:
    try:
        return cast("object", json.loads(body))
    except (ValueError, RecursionError):
        raise _RefusalError(400, "The body must be JSON.") from None


def _member(value: object, name: str, kind: type[_T]) -> _T:
    """Return a member, which must be there and not be empty, of what must be a JSON object."""
    member = cast("dict[str, object]", value).get(name) if isinstance(value, dict) else None
    if not isinstance(member, kind) or not member:
        raise _RefusalError(400, f"{name} is missing, empty or of the wrong type.")
    return member


def _size(digits: str, base: int) -> int:
    """Return a length on the wire; int() alone would take signs and underscores too."""
    if not _SIZES[base].fullmatch(digits):
        raise _RefusalError(400, "The length of the body is not a number.")
    return int(digits, base)


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _check(**arguments: object) -> None:
    """Check arguments by their names; no message shows a value, as it may be a secret."""
    for name, value in arguments.items():
        types, least, most = _LIMITS[name]
        if isinstance(value, bool) or not isinstance(value, types):
            expected = " or ".join(kind.__name__ for kind in types)
            raise TypeError(f"{name} must be {expected}, not {type(value).__name__}")
        size = value if isinstance(value, (int, float)) else len(cast("str", value))
        if not least <= size <= most:
            what = f"the length of {name}" if isinstance(value, str) else name
            limits = f"{least} or more" if most == math.inf else f"from {least} to {most}"
            raise ValueError(f"{what} must be {limits}")
