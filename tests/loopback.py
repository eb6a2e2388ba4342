"""A server on a loopback port that answers what a test scripts, faults of the wire included.

An answer is an `Answer`, or a function of the `Request` that returns one; the last one of the script is repeated.
Nothing in here sleeps: a server that stops ends whatever it is at, and leaves no thread and no socket behind.
"""

import http.client
import json
import socket
import struct
import threading
import uuid
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

import jwt

PATIENCE = 10.0  # seconds after which a wait in a test has failed
BREAKS = ("reset", "close", "hang")  # the faults that end an answer


@dataclass
class Request:
    method: str
    target: str  # the path and query, or what else stood in the request line: to a proxy, a whole URL
    headers: dict[str, str]  # by their names in lower case
    body: bytes
    sent: int = 0  # how many bytes of the answer the server got rid of

    def json(self):
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str | None] = field(default_factory=dict)  # replace the usual ones; None leaves one out
    times: int = 1  # how often the body is repeated
    chunked: bool = False  # whether the body goes in chunks, without a length
    version: str = "HTTP/1.1"  # with HTTP/1.0, there is no length, and the connection ends
    fault: str | None = None  # reset or close (RST or FIN), hang, or drip: a byte at a time
    within: str = "nothing"  # nothing, head or body: half-way in it the fault begins. A drip has all of that part.
    interval: float = 0.05  # seconds

    def pieces(self):
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

    def _head(self):
        usual: dict[str, str | None] = {"Content-Type": "application/json"}
        if self.chunked:
            usual["Transfer-Encoding"] = "chunked"
        elif self.version != "HTTP/1.0":
            usual["Content-Length"] = str(len(self.body) * self.times)
        reason = http.client.responses.get(self.status, "Odd")
        fields = [f"{name}: {value}" for name, value in {**usual, **self.headers}.items() if value is not None]
        return "\r\n".join([f"{self.version} {self.status} {reason}", *fields, "", ""]).encode("latin-1")

    def _body(self):
        for _ in range(self.times if self.body else 0):
            yield b"%x\r\n%s\r\n" % (len(self.body), self.body) if self.chunked else self.body
        if self.chunked:
            yield b"0\r\n\r\n"


def make_jwt(**claims):
    """Return a signed JWT with these claims, unlike any other."""
    return jwt.encode({"jti": uuid.uuid4().hex, **claims}, "a key as long as the algorithm wants it", "HS256")


def token_answer(token, expires_in=3600, **fields):
    content = {"access_token": token, "token_type": "bearer", "expires_in": expires_in, **fields}
    return Answer(body=json.dumps(content).encode())


class Loopback:
    def __init__(self, *script, tls=None):
        self.play(*script)
        self.requests = []  # those that were read, in order
        self.connections = 0  # how many were accepted
        self.open = set()  # those of them that have not ended
        self._tls = tls
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.host, self.port = "127.0.0.1" if tls is None else "localhost", self._listener.getsockname()[1]
        self.url = f"{'http' if tls is None else 'https'}://{self.host}:{self.port}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        socket.create_connection(self._listener.getsockname()).close()  # wakes the thread that accepts
        self._threads[0].join(PATIENCE)
        with self._changed:
            for connection in self.open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()
        assert not any(thread.is_alive() for thread in self._threads), "a thread of the server did not end"

    def play(self, *script):
        """Replace the rest of the script, which must not run out before the requests do."""
        self._script = deque(script)

    def until(self, holds):
        """Wait until *holds* does, and return whether it did; it is looked at whenever something happens here."""
        with self._changed:
            return self._changed.wait_for(holds, PATIENCE)

    def _accept(self):
        while True:
            connection, _ = self._listener.accept()
            if self._stopping.is_set():
                connection.close()
                return
            opened = connection.dup()  # to end it by: the thread below may wrap the other one in TLS
            with self._changed:
                self.connections += 1
                self.open.add(opened)
            self._threads.append(threading.Thread(target=self._serve, args=(connection, opened), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection, opened):
        try:
            with suppress(OSError):  # the client left, or refused the certificate
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                with connection, connection.makefile("rb") as stream:
                    while self._exchange(connection, stream):
                        pass
        finally:
            with self._changed:
                opened.close()
                self.open.remove(opened)
                self._changed.notify_all()

    def _exchange(self, connection, stream):
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
        return answer.fault not in BREAKS and answer.version != "HTTP/1.0"


def _read(stream):
    """Read a whole request; None where the client has left."""
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers = {name.lower(): value for name, value in http.client.parse_headers(stream).items()}
    body = stream.read(int(headers.get("content-length", 0)))
    if headers.get("transfer-encoding") == "chunked":
        while size := int(stream.readline(), 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    return Request(method, target, headers, body)
