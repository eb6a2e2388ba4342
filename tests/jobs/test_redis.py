"""Processes that share a token through redis: `redis_store.py`."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

redis = pytest.importorskip("redis", reason="redis, the client for Python, is not installed")
ConstantBackoff = redis.backoff.ConstantBackoff
Retry = redis.retry.Retry

PROCESSES = 8
LONG = 30  # seconds
SERVER = shutil.which("redis-server")

pytestmark = pytest.mark.skipif(SERVER is None, reason="redis-server is not installed: apt-get install redis-server")


@pytest.fixture
def server(tmp_path: Path, variables: dict[str, str]) -> Iterator["redis.Redis"]:
    """A redis of its own on a loopback port, which keeps nothing; `variables` lead to it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables["REDIS_URL"] = f"redis://127.0.0.1:{port}"
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(tmp_path)]
    with (
        subprocess.Popen([str(SERVER), *options], stdout=subprocess.DEVNULL) as process,
        redis.Redis.from_url(variables["REDIS_URL"]) as client,
    ):
        try:
            wait_for(variables["REDIS_URL"])
            yield client
        finally:
            process.kill()


def wait_for(url: str) -> None:
    """Wait until the server answers."""
    retry = Retry(ConstantBackoff(0.1), int(LONG / 0.1))
    with redis.Redis.from_url(url, retry=retry) as patient:
        patient.ping()


@pytest.fixture
def run_processes(server, run_program) -> Callable[[int], str]:
    """Runs as many processes at the same time, all of which succeed; returns what they complained of."""

    def run(number: int) -> str:
        with ThreadPoolExecutor(number) as threads:
            runs = [threads.submit(run_program, "redis_store.py", "SAMPLE", "USED") for _ in range(number)]
        ended = [run.result() for run in runs]
        success = (0, ["FOUND_REDEEMABLE", "FOUND_NOT_REDEEMABLE"])
        assert [(one.returncode, one.stdout.split()) for one in ended] == [success] * number, ended
        return "".join(one.stderr for one in ended)

    return run


def test_processes_share_a_token(sandbox, server, run_processes, report):
    """The first one asks for it, and all others find it, as bytes."""
    assert run_processes(1) == ""
    assert run_processes(PROCESSES) == ""
    (key,) = server.keys()
    report["processes"] = 1 + PROCESSES
    assert sandbox.tokens[0].encode() in server[key]
    assert sandbox.token_requests == 1


def test_processes_that_start_together_without_a_token_may_each_ask(sandbox, run_processes, report):
    """Nobody waits for another process. From then on, there is a token for all."""
    assert run_processes(PROCESSES) == ""
    report["processes"] = PROCESSES
    report["token requests"] = together = sandbox.token_requests
    assert 1 <= together <= PROCESSES
    assert run_processes(1) == ""
    assert sandbox.token_requests == together


def test_a_revoked_token_is_replaced_for_all(sandbox, run_processes, report):
    """Each process that meets the refused token, or comes while it is being replaced, asks the token endpoint."""
    assert run_processes(1) == ""
    sandbox.revoke()
    assert run_processes(PROCESSES) == ""
    report["processes"] = 1 + PROCESSES
    report["healed 401s"] = sandbox.rejections
    report["token requests"] = until_then = sandbox.token_requests
    assert 2 <= until_then <= 1 + PROCESSES
    assert run_processes(1) == ""
    assert sandbox.token_requests == until_then


def test_a_token_that_has_expired_does_no_harm_where_it_stays(sandbox, server, run_processes):
    """No time to live is needed: the next token takes its place."""
    sandbox.lifetime = 0.1
    assert run_processes(1) == ""
    expired = server.mget(server.keys())
    time.sleep(0.1)
    sandbox.lifetime = 3600
    assert run_processes(1) == ""
    (key,) = server.keys()
    assert server.ttl(key) == -1
    assert [server[key]] != expired
    before = sandbox.token_requests
    assert run_processes(1) == ""
    assert sandbox.token_requests == before


def shut_down(server: "redis.Redis") -> None:
    """End the server."""
    server.shutdown(nosave=True)


def stop_answering(server: "redis.Redis") -> None:
    """Let the server accept connections, and no more than that."""
    os.kill(server.info("server")["process_id"], signal.SIGSTOP)


@pytest.mark.parametrize(
    ("disturb", "error"),
    [(shut_down, "ConnectionError"), (stop_answering, "TimeoutError")],
    ids=["it is down", "it hangs"],
)
def test_a_redis_that_fails_costs_a_warning_and_a_token_request(sandbox, server, run_processes, disturb, error):
    """The warning says why. It is on stderr, as the program sets up no logging."""
    disturb(server)
    complaints = run_processes(1)
    assert f"The token store can't be read: {error}" in complaints
    assert f"The token store can't be written: {error}" in complaints
    assert sandbox.token_requests == 1
