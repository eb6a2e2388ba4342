"""The life of a sandbox: its options, threads and sockets, and a lack of what the system has to give."""

import contextlib
import gc
import os
import socket
import threading
import time

import pytest

from requests_mentionme.sandbox import Sandbox
from requests_mentionme.sandbox._server import Server

SECONDS = "must be from 0.001 to 1000000000.0"


def until(condition):
    """Return as soon as it is so. Fail after a few seconds."""
    assert any(condition() or threading.Event().wait(0.001) for _ in range(5_000))


@contextlib.contextmanager
def descriptors(free):
    """Leave this process only so many free file descriptors."""
    resource = pytest.importorskip("resource", reason="this system does not limit file descriptors")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(1)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize(
    ("names", "values", "error", "message"),
    [
        ("client_id client_secret env scope", [7, None], TypeError, "must be str, not "),
        ("merchant_id rate_limit port", ["7", True], TypeError, "must be int, not "),
        ("lifetime rate_window", ["7", True], TypeError, "must be int or float, not "),
        ("client_id client_secret env", [""], ValueError, "must be 1 or more"),
        ("lifetime rate_window", [0, float("nan"), float("inf")], ValueError, SECONDS),
        ("merchant_id", [-1], ValueError, "must be 0 or more"),
        ("rate_limit", [0], ValueError, "must be 1 or more"),
        ("port", [-1, 65_536], ValueError, "must be from 0 to 65535"),
    ],
)
def test_option_of_the_wrong_type_or_size_is_refused(names, values, error, message):
    """The message names the option and what it must be, but never its value."""
    for name, value in ((name, value) for name in names.split() for value in values):
        with pytest.raises(error) as raised:
            Sandbox(**{name: value})
        what = f"the length of {name}" if value == "" else name
        assert str(raised.value) == f"{what} {message}" + (type(value).__name__ if error is TypeError else "")


def test_sandbox_serves_until_its_block_ends(serve):
    """Afterwards nobody listens on its port, but what was seen can still be read. It starts only once."""
    sandbox = Sandbox(client_secret="hush")
    sandbox.stop()  # too early, so it does nothing
    assert (repr(sandbox), sandbox.connections) == ("<Sandbox, not started>", 0)
    for name in ("url", "environment"):
        with pytest.raises(RuntimeError, match="before it is started"):
            getattr(sandbox, name)
    with sandbox:
        assert repr(sandbox) == f"<Sandbox {sandbox.url}, running>"
        assert sandbox.environment.token_url == f"{sandbox.url}/api/oauth/token"
        assert sandbox.environment.origins == {sandbox.url}
        client = serve(sandbox)
        token = client.new_token(client_secret="hush")
        with pytest.raises(OSError):  # noqa: PT011 - refused or unreachable, as the system likes
            socket.create_connection(("127.0.0.2", client.address[1]), timeout=1)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="only once"):
                sandbox.start()
            sandbox.stop()
        assert client.connection.sock.recv(1) == b""
    for error in (ConnectionError, ConnectionRefusedError):  # for the old connection, and for a new one
        with pytest.raises(error):
            client.ask_for_token()
    assert repr(sandbox) == f"<Sandbox {sandbox.url}, stopped>"
    assert (sandbox.token_requests, sandbox.connections, sandbox.tokens) == (1, 1, (token,))
    assert len(sandbox.requests) == 1


def test_sandbox_takes_the_port_that_it_is_given(client, serve):
    """A taken port is an OSError. A port can be used again at once, whatever lingers of its connections."""
    client.new_token()
    second = Sandbox(port=client.address[1])
    with pytest.raises(OSError, match=r"in use|usage"):
        second.start()
    assert repr(second) == "<Sandbox, not started>"
    client.sandbox.stop()
    with second:
        assert second.url == client.sandbox.url
        assert serve(second).ask_for_token().status == 200


def test_many_clients_can_connect_at_the_same_moment():
    """They wait in a long queue. Nagle's algorithm, which delays answers, is off. Ended connections are forgotten."""
    # A sandbox accepts too fast for the length of its queue to be seen, and shows nothing of its own sockets.
    server = Server(0, lambda _: None, threading.Event())
    with contextlib.ExitStack() as stack:
        for _ in range(260):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=1))
        server.start()
        until(lambda: server.connections == 260)
        until(
            lambda: all(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for end in [*server._workers.values()])
        )
    until(lambda: len(server._workers) == 0)
    server.stop()


def test_64_threads_that_connect_at_once_are_all_served(serve, start):
    """No cold start is refused or delayed. Afterwards no thread and no socket is left, although the clients are."""
    before = set(threading.enumerate())
    sandbox = serve().sandbox
    barrier = threading.Barrier(64)
    futures = [start(lambda own: barrier.wait(10) + 1 and own.new_token(), serve(sandbox)) for _ in range(64)]
    tokens = {future.result(10) for future in futures}
    assert (len(tokens), set(sandbox.tokens)) == (64, tokens)
    assert sandbox.token_requests == sandbox.connections == len(sandbox.requests) == 64
    sandbox.stop()
    assert [each for each in set(threading.enumerate()) - before if "ThreadPool" not in each.name] == []
    gc.collect()  # A socket that is open would be a warning now, and so an error.


def test_stop_ends_a_delay(client, start):
    """A request in the middle of a long delay is dropped without an answer."""
    client.sandbox.fail_token_requests(delay=600)
    asked = start(client.ask_for_token)
    until(lambda: client.sandbox.token_requests)
    client.sandbox.stop()
    assert isinstance(asked.exception(10), ConnectionError)
    assert [seen.status for seen in client.sandbox.requests] == [None]


def test_lack_of_file_descriptors_does_no_harm(serve, monkeypatch):
    """Clients wait until there are some again, without a busy loop. A sandbox can stop. None can start half."""
    tries = []
    accept = socket.socket.accept
    monkeypatch.setattr(socket.socket, "accept", lambda self: tries.append(time.monotonic()) or accept(self))
    client, other = serve(), serve()
    with socket.socket() as waiting:
        waiting.settimeout(10)
        with descriptors(0):
            waiting.connect(client.address)
            until(lambda: len(tries) >= 3)
            other.sandbox.stop()
        assert min(tries[1] - tries[0], tries[2] - tries[1]) >= 0.02
        waiting.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert waiting.recv(12) == b"HTTP/1.1 404"
    with pytest.raises(ConnectionRefusedError):
        other.ask_for_token()
    for free in range(3):
        with descriptors(free), pytest.raises(OSError, match="open files"):
            Sandbox().start()
    gc.collect()  # A socket that is open would be a warning now, and so an error.


def test_client_is_sent_away_while_there_are_no_free_threads(client, monkeypatch):
    """A new sandbox can't start then, and leaves nothing open. The one that runs serves the next client again."""
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda _: (_ for _ in ()).throw(RuntimeError("no more threads")))
        sandbox = Sandbox()
        with pytest.raises(RuntimeError, match="no more threads"):
            sandbox.start()
        assert repr(sandbox) == "<Sandbox, not started>"
        with pytest.raises(ConnectionError):
            client.ask_for_token()
    assert client.ask_for_token().status == 200
    gc.collect()  # A socket that is open would be a warning now, and so an error.
