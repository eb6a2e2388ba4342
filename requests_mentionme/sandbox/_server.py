"""The HTTP server of the sandbox: one thread accepts connections, and each connection has a thread of its own."""

import os
import re
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

from requests_mentionme.sandbox._messages import Answer, HangUp, RefusalError, Request

if TYPE_CHECKING:
    from socketserver import BaseServer

_Respond = Callable[[Request], Answer | HangUp]

_BACKLOG = 512  # clients that connect at the same moment
_PAUSE = 0.05  # seconds between two tries to accept a connection for which there is no file descriptor
_LARGEST_BODY = 8 * 1024 * 1024
_LONGEST_LINE = 65_536
_BODILESS = (204, 304)  # RFC 9110 §6.4.1
_DECIMAL = re.compile(r"[0-9]{1,16}")
_HEXADECIMAL = re.compile(r"[0-9A-Fa-f]{1,16}")
# poll() takes file descriptors of any number, select() does not; but Windows has only select().
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Server:
    """Serves HTTP on a port of 127.0.0.1, and knows all its connections, so that it can end them.

    The servers of the standard library are not used. They wake up all the time to see whether they are to stop, keep no
    account of their connections, and spin while there is no file descriptor for the next one.

    Attributes:
        port: The port that it listens on.
        connections: How many connections were accepted.
    """

    def __init__(self, port: int, respond: _Respond, stopping: threading.Event) -> None:
        """Listen. What arrives is served from `start` on; *stopping* is set by `stop`."""
        self._listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        try:
            # Made in advance, because there may be no free file descriptors when the server is to stop.
            self._alarm, self._waker = socket.socketpair()
        except OSError:
            self._listener.close()
            raise
        self._listener.settimeout(0)  # A client may have gone again before it is accepted.
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._respond = respond
        self._stopping = stopping
        # The connections by their threads. An entry disappears when its thread has ended.
        self._workers = WeakKeyDictionary[threading.Thread, socket.socket]()
        self._acceptor = threading.Thread(target=self._accept_until_stopped, daemon=True)
        self._owner = os.getpid()

    def start(self) -> None:
        """Start to serve."""
        try:
            self._acceptor.start()
        except RuntimeError:  # The system has no thread to spare.
            self._close()
            raise

    def stop(self) -> None:
        """End all connections and threads. A second call does nothing more."""
        if os.getpid() != self._owner:
            self._leave_to_the_parent()
            return
        self._stopping.set()
        with suppress(OSError):  # It is closed already if this is a second call.
            # A close would not do: a forked child may have a copy of this end.
            self._waker.send(b"\0")
        self._acceptor.join()
        with suppress(OSError):
            # A forked child may have a copy of the listener too. Without this, clients would go on waiting there.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._close()
        left = list(self._workers.items())
        for _, connection in left:
            # Its thread closes it. A close from here could hit another file, opened with the same descriptor since.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for worker, _ in left:
            worker.join()

    def _close(self) -> None:
        for end in (self._listener, self._alarm, self._waker):
            end.close()

    def _leave_to_the_parent(self) -> None:
        """Close the copies that a forked child has of all sockets.

        A shutdown would end the parent's connections. No lock is taken and no thread waited for: the threads of the
        parent are not in this process, and what they held at the fork stays held.
        """
        for end in (self._listener, self._alarm, self._waker, *self._workers.values()):
            # `end.close()` would wait for the files that the handlers opened on the connection.
            descriptor = end.detach()
            if descriptor != -1:
                os.close(descriptor)

    def _accept_until_stopped(self) -> None:
        with _Selector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._alarm, selectors.EVENT_READ)
            while not self._stopping.is_set():
                selector.select()
                self._accept_one()

    def _accept_one(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            # The client has gone, or there is no free file descriptor. In the second case it goes on waiting in the
            # queue, and the selector would report it again and again.
            self._stopping.wait(_PAUSE)
            return
        connection.settimeout(None)  # On some systems a connection takes after the listener.
        self.connections += 1
        worker = threading.Thread(target=self._serve, args=(connection,), daemon=True)
        self._workers[worker] = connection
        try:
            worker.start()
        except RuntimeError:  # The system has no thread to spare.
            _end(connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            # Clients come and go as they like, so network faults are no news. Any other exception is a mistake of the
            # sandbox itself, which `threading.excepthook` shows.
            with suppress(OSError):
                _Handler(connection, self._respond)
        finally:
            _end(connection)


class _Handler(BaseHTTPRequestHandler):
    """Serves HTTP/1.1 (RFC 9112) on one connection, from its construction until its end."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # A client of HTTP/0.9 would get errors without a head.
    disable_nagle_algorithm = True
    error_content_type = "application/json"
    error_message_format = '{"code": "%(code)d", "message": "This request can\'t be read."}'

    def __init__(self, connection: socket.socket, respond: _Respond) -> None:
        self._respond = respond
        # The base class only keeps the address and the server for subclasses.
        super().__init__(connection, None, cast("BaseServer", None))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Write nothing."""

    def _handle(self) -> None:
        try:
            body = self._read_body()
        except RefusalError as refusal:
            # Where this request ends is not known. So it is not known either where the next one starts.
            self.close_connection = True
            self._send(refusal.answer)
            return
        headers = {name.lower(): ", ".join(self.headers.get_all(name, ())) for name in self.headers}
        answer = self._respond(Request(self.command, self.path, headers, body))
        if isinstance(answer, HangUp):
            self._hang_up(answer)
        else:
            self._send(answer)

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
                raise RefusalError(400, "A chunk is longer than its size.")
        while self._read_line():
            pass
        return bytes(body)

    def _read(self, size: int, limit: int) -> bytes:
        if size > limit:
            raise RefusalError(413, f"A body has {_LARGEST_BODY} bytes at most.")
        data = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionAbortedError("the client went away in the middle of its request")
        return data

    def _read_line(self) -> str:
        return self.rfile.readline(_LONGEST_LINE).decode("latin-1").rstrip("\r\n")

    def _send(self, answer: Answer) -> None:
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

    def _hang_up(self, ending: HangUp) -> None:
        self.close_connection = True
        self.wfile.write(ending.data)
        if ending.reset:
            # A socket that lingers for no time is closed with an RST. It is closed here, because the server would send
            # a FIN first, and the client might see nothing but that.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        # A close alone would not reach the client while a forked child has a copy.
        connection.shutdown(socket.SHUT_WR)
    connection.close()


def _size(digits: str, base: int) -> int:
    """Return a length on the wire. `int` alone would take signs and underscores too."""
    form = _DECIMAL if base == 10 else _HEXADECIMAL
    if not form.fullmatch(digits):
        raise RefusalError(400, "The length of the body is not a number.")
    return int(digits, base)
