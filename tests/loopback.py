"""A server on a loopback port that answers what a test scripts, faults of the wire included.

    with Loopback(token_answer(make_jwt())) as server:   # the last answer of the script is repeated
        ...                                              # talk to server.url
        assert server.requests[0].json() == {...}

An answer is an `Answer`, or a function of the `Request` that returns one. `Answer(fault=..., within=...)` is one that
goes wrong on its way. Nothing in here sleeps: a server that stops ends whatever it is at, and leaves no thread and no
socket behind.
"""

import http.client
import itertools
import json
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

import jwt

PATIENCE = 10.0  # seconds after which a wait in a test has failed
BREAKS = ("reset", "close", "hang")  # the faults that end an answer
_counter = itertools.count(1)


@dataclass
class Request:
    """What the server read."""

    method: str
    target: str  # the path and query, or what else stood in the request line: to a proxy, a whole URL
    headers: dict[str, str]  # by their names in lower case
    body: bytes
    sent: int = 0  # how many bytes of the answer the server got rid of

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """An answer, and what goes wrong with it."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str | None] = field(default_factory=dict)  # replace the usual ones; None leaves one out
    times: int = 1  # how often the body is repeated
    chunked: bool = False  # whether the body goes in chunks, without a length
    version: str = "HTTP/1.1"  # with HTTP/1.0, there is no length, and the connection ends
    # RST or FIN, silence, or a byte at a time with the interval between two.
    fault: Literal["reset", "close", "hang", "drip"] | None = None
    # Where the fault begins: before all, half-way in the head or in the body. A drip has all of that part.
    within: Literal["nothing", "head", "body"] = "nothing"
    interval: float = 0.05  # seconds

    @property
    def is_last(self) -> bool:
        """Whether the connection ends after it."""
        return self.fault in BREAKS or self.version == "HTTP/1.0"

    def pieces(self) -> Iterator[tuple[float, bytes]]:
        """Yield what goes over the wire until the fault ends it, each piece after the seconds to wait before it."""
        if self.fault in BREAKS and self.within == "nothing":
            return
        for part, pieces in {"head": [self._head()], "body": self._body()}.items():
            if self.fault is None or part != self.within:
                yield from ((0, piece) for piece in pieces)
            elif self.fault == "drip":
                yield from ((self.interval, bytes([byte])) for piece in pieces for byte in piece)
            else:
                whole = b"".join(pieces)
                yield 0, whole[: len(whole) // 2]
                return

    def _head(self) -> bytes:
        usual: dict[str, str | None] = {"Content-Type": "application/json"}
        if self.chunked:
            usual["Transfer-Encoding"] = "chunked"
        elif self.version != "HTTP/1.0":
            usual["Content-Length"] = str(len(self.body) * self.times)
        reason = http.client.responses.get(self.status, "Odd")
        fields = [f"{name}: {value}" for name, value in {**usual, **self.headers}.items() if value is not None]
        return "\r\n".join([f"{self.version} {self.status} {reason}", *fields, "", ""]).encode("latin-1")

    def _body(self) -> Iterator[bytes]:
        for _ in range(self.times if self.body else 0):
            yield b"%x\r\n%s\r\n" % (len(self.body), self.body) if self.chunked else self.body
        if self.chunked:
            yield b"0\r\n\r\n"


Step = Answer | Callable[[Request], Answer]


def make_jwt(**claims: Any) -> str:
    """Return a signed JWT with these claims, unlike any other."""
    return jwt.encode({"jti": str(next(_counter)), **claims}, "a key as long as the algorithm wants it", "HS256")


def token_answer(token: str, expires_in: object = 3600, **fields: Any) -> Answer:
    content = {"access_token": token, "token_type": "bearer", "expires_in": expires_in, **fields}
    return Answer(body=json.dumps(content).encode())


class Loopback:
    """The server; a context manager.

    Attributes:
        requests: What was read, in order.
        connections: How many connections were accepted.
        open: Those that have not ended.
        tls: For the next connections; None speaks plain HTTP.
        port, host, url: Where it is. With *tls*, the host is `localhost`.
    """

    def __init__(self, *script: Step, tls: ssl.SSLContext | None = None) -> None:
        self.play(*script)
        self.tls = tls
        self.requests: list[Request] = []
        self.connections = 0
        self.open: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._placeholder = _bound(0)  # keeps the port while nobody listens on it
        self.host, self.port = "127.0.0.1" if tls is None else "localhost", self._placeholder.getsockname()[1]
        self.url = f"{'http' if tls is None else 'https'}://{self.host}:{self.port}"

    def __enter__(self) -> "Loopback":
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.refuse()
        self.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._placeholder.close()
        assert not any(thread.is_alive() for thread in self._threads), "a thread of the server did not end"

    def play(self, *script: Step) -> None:
        """Replace the rest of the script, which must not run out before the requests do."""
        self._script = deque(script)

    def listen(self) -> None:
        """Accept connections, again."""
        self._listener = _bound(self.port)
        self._listener.listen(128)
        self._start(self._accept, self._listener)

    def refuse(self) -> None:
        """Refuse connections, as if no server was there; those that are open stay."""
        listener, self._listener = self._listener, None
        if listener is not None:
            socket.create_connection(listener.getsockname()).close()  # wakes its thread, which closes it
            assert self.until(lambda: listener.fileno() == -1)

    def hang_up(self) -> None:
        """End the open connections."""
        with self._changed:
            for connection in self.open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def until(self, holds: Callable[[], bool]) -> bool:
        """Wait until *holds* does, and return whether it did; it is looked at whenever something happens here."""
        with self._changed:
            return self._changed.wait_for(holds, PATIENCE)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            if listener is not self._listener:
                break
            opened = connection.dup()  # for `hang_up`: the thread below may wrap the other one in TLS
            with self._changed:
                self.connections += 1
                self.open.add(opened)
            self._start(self._serve, connection, opened, self.tls)
        connection.close()
        with self._changed:
            listener.close()
            self._changed.notify_all()

    def _serve(self, connection: socket.socket, opened: socket.socket, tls: ssl.SSLContext | None) -> None:
        try:
            with suppress(OSError):  # the client left, or refused the certificate
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if tls is not None:
                    connection = tls.wrap_socket(connection, server_side=True)
                with connection, connection.makefile("rb") as stream:
                    while self._exchange(connection, stream):
                        pass
        finally:
            with self._changed:
                opened.close()
                self.open.remove(opened)
                self._changed.notify_all()

    def _exchange(self, connection: socket.socket, stream: BinaryIO) -> bool:
        """Read a request and answer it; return whether another one may follow."""
        request = _read(stream)
        if request is None:
            return False
        with self._changed:
            self.requests.append(request)
            step = self._script.popleft() if len(self._script) > 1 else self._script[0]
            self._changed.notify_all()
        answer = step if isinstance(step, Answer) else step(request)
        for seconds, piece in answer.pieces():
            self._stopping.wait(seconds)
            connection.sendall(piece)
            request.sent += len(piece)
        if answer.fault == "reset":
            # To linger for no time turns the close into an RST.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif answer.fault == "hang":
            connection.recv(1)  # ends when the client leaves, or the server stops
        return not answer.is_last


def _bound(port: int) -> socket.socket:
    """Return a socket bound to a port, which it may share with another one that does not listen."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_REUSEPORT", socket.SO_REUSEADDR), 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _read(stream: BinaryIO) -> Request | None:
    """Read a whole request; None where the client has left."""
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers = {name.lower(): value for name, value in http.client.parse_headers(stream).items()}
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(stream.readline() or b"0", 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    else:
        body = stream.read(int(headers.get("content-length", 0)))
    return Request(method, target, headers, body)
