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
    lowest = os.dup(1)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_sandbox_starts_once_and_serves_until_its_block_ends_and_then_tells_what_it_saw(serve):
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


def test_sandbox_takes_the_port_that_it_is_given_unless_another_one_has_it_at_the_moment(client, serve):
    client.new_token()
    second = Sandbox(port=client.address[1])
    with pytest.raises(OSError, match=r"in use|usage"):
        second.start()
    assert repr(second) == "<Sandbox, not started>"
    client.sandbox.stop()
    with second:
        assert second.url == client.sandbox.url
        assert serve(second).ask_for_token().status == 200


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
    sandbox = Sandbox()
    with sandbox:
        clients = [serve(sandbox) for _ in range(260)]
        for client in clients:
            client.connection.connect()
        all_wait.set()
        tokens = {client.new_token() for client in clients}
        assert (len(tokens), set(sandbox.tokens)) == (260, tokens)
        assert sandbox.token_requests == sandbox.connections == len(sandbox.requests) == len(accepted) == 260
        assert all(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for end in accepted)
        for client in clients[:130]:
            client.connection.close()
        assert any(len(accepted) == 130 or threading.Event().wait(0.001) for _ in range(5_000))
    assert set(threading.enumerate()) <= before
    gc.collect()  # A socket that is open would be a warning now, and so an error.


def test_lack_of_file_descriptors_does_no_harm(serve, monkeypatch):
    """Clients wait until there are some again. A sandbox can stop. None can start half."""
    tries = []
    accept = socket.socket.accept
    monkeypatch.setattr(socket.socket, "accept", lambda self: tries.append(time.monotonic()) or accept(self))
    client, other = serve(), serve()
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
    for free in range(3):
        with descriptors(free), pytest.raises(OSError, match="open files"):
            Sandbox().start()
    gc.collect()  # A socket that is open would be a warning now, and so an error.


def test_lack_of_threads_sends_clients_away_and_keeps_a_new_sandbox_from_its_start(client, monkeypatch):
    new = Sandbox()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("no more threads")))
        with pytest.raises(RuntimeError, match="no more threads"):
            new.start()
        with pytest.raises(ConnectionError):
            client.ask_for_token()
    assert repr(new) == "<Sandbox, not started>"
    assert client.ask_for_token().status == 200
    gc.collect()  # A socket that is open would be a warning now, and so an error.


@forks
@pytest.mark.parametrize("endings", [[Sandbox.__exit__], [Sandbox.stop, Sandbox.__exit__]], ids=["block", "stop"])
def test_forked_child_only_closes_its_copies_of_the_sockets(client, serve, endings):
    def close_copies():
        before = [*Path("/dev/fd").iterdir()]
        for end in endings:
            end(client.sandbox)
        return len(before) - len([*Path("/dev/fd").iterdir()])

    client.new_token()
    assert exit_status(forked(close_copies)) == 4  # the listener, two ends that wake its thread, and the connection
    assert (client.ask_for_token().status, client.sandbox.connections) == (200, 1)
    assert serve(client.sandbox).ask_for_token().status == 200


@forks
def test_no_client_waits_for_a_forked_child_that_holds_copies_of_the_sockets(client, serve, start):
    other = serve(client.sandbox)
    for each in (client, other):
        each.new_token()
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
