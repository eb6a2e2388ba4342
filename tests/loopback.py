"""A server on a loopback port that answers what a test scripts, faults of the wire included.

    with Loopback(token_answer(make_jwt())) as server:   # the last answer of the script is repeated
        ...                                              # talk to server.url
        assert server.requests[0].json() == {...}

An answer is an `Answer`, or a function of the `Request` that returns one. `Answer(fault=..., within=...)` is one that
goes wrong on its way. Nothing in here sleeps: a server that stops ends whatever it is at, and leaves no thread and no
socket behind.
"""

import itertools
import json
import selectors
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, BinaryIO, Literal

import jwt

PATIENCE = 10.0  # seconds after which a wait in a test has failed
_counter = itertools.count(1)


@dataclass
class Request:
    """What the server read.

    Attributes:
        target: The path and query, or what else stood in the request line: to a proxy, a whole URL.
        headers: By their names in lower case.
        connection: The number of the connection that it came by, from 1.
        sent: How many bytes of the answer the server got rid of.
        finished: Whether the server is done with it, or the client has left.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int
    sent: int = 0
    finished: bool = False

    def json(self) -> Any:
        """Return the value of the body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """An answer, and what goes wrong with it.

    Attributes:
        status: Of 100 to 999.
        body: Sent *times* times.
        headers: Added to the usual ones, which they replace; None leaves one out.
        times: How often the body is repeated.
        chunked: Whether the body goes in chunks, without a length.
        version: With `HTTP/1.0`, the answer has no length and ends with the connection.
        close: Whether the connection ends after it.
        fault: `reset` and `close` end the connection (with RST or FIN), `hang` says no more, `drip` sends a byte at
            a time.
        within: Where the fault begins: `nothing` (no byte is sent), half-way in the `head`, half-way in the `body`. A
            drip has all of that part.
        interval: Seconds between two bytes of a drip.
        raw: Bytes to send in place of the status line, headers and body; the connection ends after them.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    times: int = 1
    chunked: bool = False
    version: str = "HTTP/1.1"
    close: bool = False
    fault: Literal["reset", "close", "hang", "drip"] | None = None
    within: Literal["nothing", "head", "body"] = "nothing"
    interval: float = 0.05
    raw: bytes | None = None

    @property
    def last(self) -> bool:
        """Whether the connection ends after it."""
        return self.close or self.raw is not None or self.version == "HTTP/1.0"

    def head(self) -> bytes:
        """Return the status line and the headers."""
        usual: dict[str, str | None] = {"Content-Type": "application/json"}
        if self.chunked:
            usual["Transfer-Encoding"] = "chunked"
        elif self.version != "HTTP/1.0":
            usual["Content-Length"] = str(len(self.body) * self.times)
        if self.close:
            usual["Connection"] = "close"
        reason = HTTPStatus(self.status).phrase if self.status in HTTPStatus._value2member_map_ else "Odd"
        fields = [f"{name}: {value}" for name, value in {**usual, **self.headers}.items() if value is not None]
        return "\r\n".join([f"{self.version} {self.status} {reason}", *fields, "", ""]).encode("latin-1")

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it goes over the wire."""
        for _ in range(self.times if self.body else 0):
            yield b"%x\r\n%s\r\n" % (len(self.body), self.body) if self.chunked else self.body
        if self.chunked:
            yield b"0\r\n\r\n"


Step = Answer | Callable[[Request], Answer]


def make_jwt(**claims: Any) -> str:
    """Return a signed JWT with these claims, unlike any other."""
    return jwt.encode({"jti": str(next(_counter)), **claims}, "a key as long as the algorithm wants it", "HS256")


def token_answer(token: str, expires_in: object = 3600, **fields: Any) -> Answer:
    """Return the answer of a token endpoint; *fields* are added to its three."""
    content = {"access_token": token, "token_type": "bearer", "expires_in": expires_in, **fields}
    return Answer(body=json.dumps(content).encode())


class Loopback:
    """The server; a context manager.

    Attributes:
        script: Answers to come, one per request; the last one stays. May be changed at any time, as by `play`.
        requests: What was read, in order.
        connections: How many connections were accepted.
        open: The numbers of those that have not ended.
        tls: For the next connections; None speaks plain HTTP.
        port, host, url: Where it is. With *tls*, the host is `localhost`.
    """

    def __init__(self, *script: Step, tls: ssl.SSLContext | None = None) -> None:
        """Take the script, which must not run out before the requests do."""
        self.script: deque[Step] = deque(script)
        self.tls = tls
        self.requests: list[Request] = []
        self.connections = 0
        self.open: dict[int, socket.socket] = {}
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        # Keeps the port while nobody listens on it.
        self._placeholder = _bound(0)
        self.host, self.port = "127.0.0.1" if tls is None else "localhost", self._placeholder.getsockname()[1]
        self.url = f"{'http' if tls is None else 'https'}://{self.host}:{self.port}"
        self._listener: socket.socket | None = None
        self._wake, self._woken = socket.socketpair()

    def __enter__(self) -> "Loopback":
        """Listen."""
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        """End all connections and threads."""
        self._stopping.set()
        self.refuse()
        self.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE)
        for each in (self._placeholder, self._wake, self._woken):
            each.close()
        assert not any(thread.is_alive() for thread in self._threads), "a thread of the server did not end"

    def play(self, *script: Step) -> None:
        """Replace the rest of the script."""
        self.script = deque(script)

    def listen(self) -> None:
        """Accept connections, again."""
        self._listener = listener = _bound(self.port)
        listener.listen(128)
        self._start(self._accept, listener)

    def refuse(self) -> None:
        """Refuse connections, as if no server was there; those that are open stay."""
        listener, self._listener = self._listener, None
        if listener is not None:
            self._wake.send(b"!")
            assert self.until(lambda: listener.fileno() == -1)

    def hang_up(self) -> None:
        """End the open connections."""
        with self._changed:
            for connection in self.open.values():
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)  # the plain one: TLS may be in use

    def until(self, holds: Callable[[], bool]) -> bool:
        """Wait until *holds* does, and return whether it did; it is looked at whenever something happens here."""
        with self._changed:
            return self._changed.wait_for(holds, PATIENCE)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _accept(self, listener: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not any(key.fileobj is self._woken for key, _ in selector.select()):
                connection, _ = listener.accept()
                with self._changed:
                    self.connections += 1
                    number, tls = self.connections, self.tls
                    self.open[number] = connection
                self._start(self._serve, number, connection, tls)
        self._woken.recv(1)
        listener.close()
        self._notify()

    def _serve(self, number: int, connection: socket.socket, tls: ssl.SSLContext | None) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with suppress(OSError):  # the client left, or refused the certificate
                if tls is not None:
                    with self._changed:
                        connection = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                        self.open[number] = connection
                        stopping = self._stopping.is_set()
                    if not stopping:
                        connection.do_handshake()
                with connection.makefile("rb") as stream:
                    while not self._stopping.is_set() and self._exchange(number, connection, stream):
                        pass
        finally:
            with self._changed:
                connection.close()
                del self.open[number]
                self._changed.notify_all()

    def _exchange(self, number: int, connection: socket.socket, stream: BinaryIO) -> bool:
        """Read a request and answer it; return whether another one may follow."""
        request = _read(number, stream)
        if request is None:
            return False
        with self._changed:
            self.requests.append(request)
            step = self.script.popleft() if len(self.script) > 1 else self.script[0]
            self._changed.notify_all()
        try:
            answer = step if isinstance(step, Answer) else step(request)
            return self._send(answer, request, connection) and not answer.last
        finally:
            request.finished = True
            self._notify()

    def _send(self, answer: Answer, request: Request, connection: socket.socket) -> bool:
        """Send an answer; return whether it went as it should."""
        parts = {"head": answer.head(), "body": b""} if answer.raw is None else {"head": answer.raw, "body": b""}
        if answer.fault in (None, "drip"):
            dripping = answer.fault and answer.within
            self._emit(parts["head"], request, connection, answer.interval if dripping == "head" else None)
            for piece in () if answer.raw is not None else answer.pieces():
                self._emit(piece, request, connection, answer.interval if dripping == "body" else None)
            return True
        head, body = parts["head"], b"".join(answer.pieces()) if answer.raw is None else b""
        said = {"nothing": b"", "head": head[: len(head) // 2], "body": head + body[: len(body) // 2]}[answer.within]
        self._emit(said, request, connection)
        if answer.fault == "reset":
            # To linger for no time turns the close into an RST.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif answer.fault == "hang":
            connection.recv(1)  # ends when the client leaves, or the server stops
        return False

    def _emit(self, data: bytes, request: Request, connection: socket.socket, interval: float | None = None) -> None:
        for piece in [data] if interval is None else [data[at : at + 1] for at in range(len(data))]:
            if interval is not None and self._stopping.wait(interval):
                return
            connection.sendall(piece)
            request.sent += len(piece)


def _bound(port: int) -> socket.socket:
    """Return a socket bound to a port, which it may share with another one that does not listen."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_REUSEPORT", socket.SO_REUSEADDR), 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _read(number: int, stream: BinaryIO) -> Request | None:
    """Read a whole request; None where the client has left."""
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(stream.readline() or b"0", 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    else:
        body = stream.read(int(headers.get("content-length", 0)))
    return Request(method, target, headers, body, number)
