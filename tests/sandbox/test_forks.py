"""A process that is forked while a sandbox runs leaves that sandbox to its parent."""

import os
import signal
from pathlib import Path

import pytest

from requests_mentionme.sandbox import Sandbox

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),  # That is what is tested here.
]


def fork(call):
    """Make a call in a forked child, whose exit status is what the call returns. Return the number of the child."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # so that it ends even if it hangs, but not before a client has lost patience
        status = 99
        try:
            status = call()
        finally:
            os._exit(status)
    return child


@pytest.mark.parametrize("endings", [[Sandbox.__exit__], [Sandbox.stop, Sandbox.__exit__]], ids=["block", "stop"])
def test_forked_child_leaves_the_sandbox_to_its_parent(client, serve, endings):
    """By the end of the block or by `stop` before it, it only closes its copies of the sockets. The parent's stay."""

    def close_copies():
        before = [*Path("/dev/fd").iterdir()]
        for end in endings:
            end(client.sandbox)
        return len(before) - len([*Path("/dev/fd").iterdir()])

    client.new_token()
    closed = os.waitstatus_to_exitcode(os.waitpid(fork(close_copies), 0)[1])
    assert closed == 4  # the listener, the two ends that wake its thread, and the connection
    assert (client.ask_for_token().status, client.sandbox.connections) == (200, 1)
    assert serve(client.sandbox).ask_for_token().status == 200


def test_no_client_waits_for_a_forked_child(client, serve, start):
    """A child may go on without knowing that it has copies of the sockets. Connections end all the same."""
    other = serve(client.sandbox)
    for each in (client, other):
        each.new_token()
    child = fork(signal.pause)
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
