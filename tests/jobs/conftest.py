"""Jobs: small programs that use the library as its users do, each run for real against a sandbox.

The programs are the files without `test_` in their names. They read as examples, and are there to be copied. The tests
run them, beside `pip install --group jobs` (pip 25.1 or newer) and, for redis, Debian's package `redis-server`:

    pytest tests/jobs
    pytest tests/jobs -m slow    # a fleet of processes over two renewals, 45 seconds

A test whose library is not installed is skipped, and says which one it is.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from requests_mentionme.sandbox import Sandbox

JOBS = Path(__file__).parent
LONG = 60  # seconds; what takes longer hangs
GRACE = 20  # seconds in which a server ends once it is told to


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A running sandbox, with a rate limit that no job reaches."""
    with Sandbox(rate_limit=1_000_000) as running:
        yield running


@pytest.fixture
def variables(sandbox: Sandbox, tmp_path: Path) -> dict[str, str]:
    """The environment variables of a program that uses the sandbox, and has no other home than `tmp_path`."""
    return os.environ | {
        "HOME": str(tmp_path),
        "MENTIONME_CLIENT_ID": sandbox.client_id,
        "MENTIONME_CLIENT_SECRET": sandbox.client_secret,
        "MENTIONME_ENVIRONMENT": sandbox.url,
    }


@pytest.fixture
def start_program(variables: dict[str, str]) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts a program of Python in the folder of the jobs. When the test ends, so do its processes, children too."""
    with ExitStack() as ends:

        def start(*arguments: object, **options: Any) -> "subprocess.Popen[str]":
            program = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                cwd=JOBS,
                env=variables,
                text=True,
                start_new_session=True,
                **options,
            )
            ends.callback(end, program)
            return program

        yield start


def end(program: "subprocess.Popen[str]") -> None:
    """End a program, by force if it has to be, and whatever it left behind."""
    with program:
        program.terminate()
        with suppress(subprocess.TimeoutExpired):
            program.wait(GRACE)
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)


@pytest.fixture
def run_program(start_program) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs a program of Python to its end, and returns its status, what it printed and what it complained of."""

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        program = start_program(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        printed, complaints = program.communicate(timeout=LONG)
        return subprocess.CompletedProcess(program.args, program.returncode, printed, complaints)

    return run


@pytest.fixture
def report(request: pytest.FixtureRequest, record_property, sandbox: Sandbox) -> Iterator[dict[str, object]]:
    """The figures of a job, printed when it has ended: token requests and the duration, and what the test adds."""
    figures: dict[str, object] = {}
    began_at = time.monotonic()
    yield figures
    figures["seconds"] = round(time.monotonic() - began_at, 1)
    figures.setdefault("token requests", sandbox.token_requests)
    for name, value in figures.items():
        record_property(name, value)
    print(f"\n{request.node.name}:", ", ".join(f"{name} {value}" for name, value in figures.items()))
