"""A process that is forked while a sandbox runs leaves that sandbox to its parent."""

import os
import signal
from pathlib import Path

import pytest
from forks import exit_status, forked

from requests_mentionme.sandbox import Sandbox

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),  # that is what is tested here
]


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
