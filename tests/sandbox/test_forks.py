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


@pytest.mark.parametrize("leave", ["with an error", "at the end", "by stop"])
def test_forked_child_leaves_the_sandbox_to_its_parent(serve, leave):
    """However the child leaves the block, it only closes its copies of the sockets. The parent's connection stays."""
    child = -1
    try:
        with Sandbox() as sandbox:
            client = serve(sandbox)
            client.new_token()
            before = [*Path("/dev/fd").iterdir()]
            child = os.fork()
            if child == 0:
                signal.alarm(10)  # so that it ends even if it hangs
                if leave == "by stop":
                    sandbox.stop()
                if leave == "with an error":
                    raise LookupError
            else:
                closed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                assert closed == 4  # the listener, the two ends that wake its thread, and the connection
                assert (client.ask_for_token().status, sandbox.connections) == (200, 1)
                assert serve(sandbox).ask_for_token().status == 200
    finally:
        if child == 0:
            os._exit(len(before) - len([*Path("/dev/fd").iterdir()]))


def test_no_client_waits_for_a_forked_child(client, serve, start):
    """A child may go on without knowing that it has copies of the sockets. Connections end all the same."""
    other = serve(client.sandbox)
    for each in (client, other):
        each.new_token()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # so that it ends even if nobody kills it
        signal.pause()
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
