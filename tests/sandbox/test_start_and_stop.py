"""The life of a sandbox: its threads, sockets and forked children, and a lack of what the system has to give."""

import contextlib
import gc
import os
import signal
import socket
import threading
import time
import weakref
from pathlib import Path
from unittest.mock import Mock

import pytest
from forks import exit_status, forked, forks

from requests_mentionme.sandbox import Sandbox


@contextlib.contextmanager
def descriptors(free):
    """Leave this process only so many free file descriptors."""
    resource = pytest.importorskip("resource", reason="this system does not limit file descriptors")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()  # Otherwise a file that an earlier test left could be closed meanwhile.
    lowest = os.dup(1)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_sandbox_starts_once_serves_until_its_block_ends_tells_what_it_saw_and_leaves_its_port_to_another_one(serve):
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
        second = Sandbox(port=client.address[1])
        with pytest.raises(OSError, match=r"in use|usage"):
            second.start()
        assert repr(second) == "<Sandbox, not started>"
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
    assert [seen.path for seen in sandbox.requests] == ["/api/oauth/token"]
    with second:
        assert (second.url, serve(second).ask_for_token().status) == (sandbox.url, 200)


def test_many_that_connect_before_the_first_accept_are_all_served_and_nothing_is_left_of_them(serve, monkeypatch):
    """They wait in a long queue. Nagle's algorithm, which delays answers, is off. An ended connection is forgotten."""
    accept = socket.socket.accept
    all_wait = threading.Event()
    accepted = weakref.WeakSet()

    def accept_late(listener):
        assert all_wait.wait(10)
        connection, address = accept(listener)
        accepted.add(connection)
        return connection, address

    monkeypatch.setattr(socket.socket, "accept", accept_late)
    before = set(threading.enumerate())
    with Sandbox() as sandbox:
        clients = [serve(sandbox) for _ in range(260)]
        for client in clients:
            client.connection.connect()
        all_wait.set()
        assert {client.new_token() for client in clients} == set(sandbox.tokens)
        counts = (sandbox.token_requests, sandbox.connections, len(sandbox.requests))
        assert {*counts, len(accepted), len(sandbox.tokens)} == {260}
        assert all(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for end in accepted)
        for client in clients[:130]:
            client.connection.close()
        assert any(len(accepted) == 130 or threading.Event().wait(0.001) for _ in range(5_000))
    assert set(threading.enumerate()) <= before
    gc.collect()  # A socket that is open would be a warning now, and so an error.


def test_lack_of_file_descriptors_or_threads_does_no_harm(serve, monkeypatch):
    """Clients wait for descriptors, and are sent away without threads. A sandbox can stop. None can start half."""
    client, other, new = serve(), serve(), Sandbox()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("no more threads")))
        with pytest.raises(RuntimeError, match="no more threads"):
            new.start()
        with pytest.raises(ConnectionError):
            client.ask_for_token()
    assert (repr(new), client.ask_for_token().status) == ("<Sandbox, not started>", 200)
    tries = []
    accept = socket.socket.accept
    monkeypatch.setattr(socket.socket, "accept", lambda self: tries.append(time.monotonic()) or accept(self))
    with socket.socket() as waiting:
        waiting.settimeout(10)
        with descriptors(0):
            waiting.connect(client.address)
            assert any(len(tries) >= 3 or threading.Event().wait(0.001) for _ in range(5_000))
            other.sandbox.stop()
        assert min(tries[1] - tries[0], tries[2] - tries[1]) >= 0.02
        waiting.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert waiting.recv(12) == b"HTTP/1.1 404"
    with pytest.raises(ConnectionRefusedError):
        other.ask_for_token()
    client.sandbox.stop()  # Otherwise its thread could close its end of the connection meanwhile.
    for free in range(3):
        with descriptors(free), pytest.raises(OSError, match="open files"):
            Sandbox().start()
    gc.collect()  # A socket that is open would be a warning now, and so an error.


@forks
def test_forked_child_can_close_its_copies_of_sockets_and_no_client_waits_for_one_that_keeps_them(client, serve, start):
    def close_copies(endings):
        before = [*Path("/dev/fd").iterdir()]
        for end in endings:
            end(client.sandbox)
        return len(before) - len([*Path("/dev/fd").iterdir()])

    client.new_token()
    for endings in ([Sandbox.__exit__], [Sandbox.stop, Sandbox.__exit__]):
        # Four: the listener, two ends that wake its thread, and the connection.
        assert exit_status(forked(lambda: close_copies(endings))) == 4  # noqa: B023 - called at once, in the child
    assert (client.ask_for_token().status, client.sandbox.connections) == (200, 1)
    other = serve(client.sandbox)
    assert other.ask_for_token().status == 200
    child = forked(signal.pause)
    try:
        other.connection.sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"".join(iter(lambda: other.connection.sock.recv(4096), b"")).startswith(b"HTTP/1.1 404")
        start(client.sandbox.stop).result(10)
        assert client.connection.sock.recv(1) == b""
        client.connection.close()
        with pytest.raises(ConnectionRefusedError):
            client.ask_for_token()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
