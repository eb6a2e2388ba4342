"""A fleet of processes that share a token over two renewals: `fleet.py`. Without a store it takes 3 × 16 requests."""

import subprocess
import time

import pytest

pytest.importorskip("diskcache", reason="diskcache is not installed")

PROCESSES = 16
LIFETIME = 20  # seconds; each process renews a token between 16 and 18 seconds after it was issued
TWO_RENEWALS = 40  # seconds; the first token, two renewals, and 8 seconds to the earliest third
LONG = 90  # seconds


@pytest.mark.slow
def test_few_of_a_fleet_renew_the_token_for_all(sandbox, start_program, report, tmp_path):
    """A token request takes 0.2 seconds, in which others may find that it is time to ask as well."""
    folder = tmp_path / "tokens"
    sandbox.lifetime = LIFETIME
    sandbox.fail_token_requests(times=1000, delay=0.2)
    first = start_program("fleet.py", folder, 0.1, stdout=subprocess.PIPE)
    assert first.wait(LONG) == 0
    began_at = time.monotonic()
    fleet = [
        start_program(
            *("fleet.py", folder, TWO_RENEWALS - (time.monotonic() - began_at)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(PROCESSES)
    ]
    ended = [process.communicate(timeout=LONG) for process in fleet]
    report["processes"] = PROCESSES
    report["requests"] = sandbox.api_requests
    report["token requests"] = sandbox.token_requests
    assert [process.returncode for process in fleet] == [0] * PROCESSES, ended
    assert {complaints for _, complaints in ended} == {""}
    assert all(int(printed) > 0 for printed, _ in ended)
    assert sandbox.rejections == 0
    assert 3 <= sandbox.token_requests <= PROCESSES
