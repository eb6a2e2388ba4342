"""Tasks of asyncio that share a client of httpx: `httpx_client.py`."""

import asyncio
import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("httpx", reason="httpx is not installed")

JOBS = Path(__file__).parent
TASKS = 50


@pytest.fixture
def example(monkeypatch, variables):
    """The module `httpx_client`, and the variables that it reads."""
    for name in ("MENTIONME_CLIENT_ID", "MENTIONME_CLIENT_SECRET", "MENTIONME_ENVIRONMENT"):
        monkeypatch.setenv(name, variables[name])
    spec = importlib.util.spec_from_file_location("httpx_client", JOBS / "httpx_client.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_program_with_many_tasks_makes_one_token_request(sandbox, run_program, report):
    """They all start without a token."""
    ended = run_program("httpx_client.py", *["SAMPLE"] * TASKS)
    report["tasks"] = TASKS
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split() == ["FOUND_REDEEMABLE"] * TASKS
    assert sandbox.token_requests == 1


def test_no_task_fails_when_the_token_is_revoked(sandbox, example, report):
    """All tasks have the refused token, and share one token request for the next."""

    async def work():
        async with example.new_client() as client:
            found = await asyncio.gather(*(example.validate(client, "SAMPLE") for _ in range(TASKS)))
            sandbox.revoke()
            return found + await asyncio.gather(*(example.validate(client, "SAMPLE") for _ in range(TASKS)))

    found = asyncio.run(work())
    report["requests"] = len(found)
    report["failed requests"] = sum(value != "FOUND_REDEEMABLE" for value in found)
    report["healed 401s"] = sandbox.rejections
    assert found == ["FOUND_REDEEMABLE"] * 2 * TASKS
    assert sandbox.rejections == TASKS
    assert sandbox.token_requests == 2
