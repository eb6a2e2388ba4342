"""Fixtures for all tests.

What lies where: `test_*.py` hold the rules, one file for each, through the public class wherever that shows the thing;
`test_token.py` and `test_wire.py` hold the tables of the pure rooms; `sandbox/` is about the sandbox; `proofs/` try all
rules at once, over many faults, schedules and threads. `neighbours/` and `jobs/` want other libraries. Helpers:
`in_memory.py` (a token endpoint without sockets), `loopback.py` (a server with faults of the wire), `stores`, `forks`.

A new test has a sentence of behaviour for a name, and a docstring where that does not say why. It stands in the file of
its rule, and in a table where it differs from others in its data alone. It waits for events or sets the clock; it does
not sleep.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from freezegun import freeze_time
from in_memory import Crowd, TokenEndpoint, in_thread

from requests_mentionme import MentionMeAuth
from requests_mentionme.sandbox import Sandbox


@pytest.fixture(autouse=True)
def _no_surprises(monkeypatch, tmp_path):
    """Keep the settings of the machine that runs the tests out of them."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("CLIENT_ID", "CLIENT_SECRET", "ENVIRONMENT"):
        monkeypatch.delenv(f"MENTIONME_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.fixture
def sandbox():
    with Sandbox() as running:
        yield running


@pytest.fixture
def auth(sandbox):
    return MentionMeAuth(sandbox.client_id, sandbox.client_secret, environment=sandbox.environment)


@pytest.fixture
def endpoint():
    return TokenEndpoint()


@pytest.fixture
def web():
    """All hosts but the token endpoint in memory: a `responses.RequestsMock`, which a test tells what to answer."""
    import responses  # noqa: PLC0415 - it can't be imported beside niquests, where no test needs it

    with responses.RequestsMock(assert_all_requests_are_fired=False) as playing:
        yield playing


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still at noon until a test calls `clock.tick(seconds)`.

    The monotonic clock goes along, but shows another time, so that to mix up the two clocks is noticed.
    """
    noon = 1_767_268_800.0  # 2026-01-01T12:00:00Z
    with freeze_time("2026-01-01T12:00:00Z", ignore=["_pytest.timing"]) as frozen:
        monkeypatch.setattr(time, "monotonic", lambda: time.time() - noon + 100_000)
        yield frozen
        monkeypatch.undo()  # before the freeze ends: a later undo would put a frozen clock back for the next test


@pytest.fixture
def start():
    """Starts a call in a thread of its own, at the frozen time if there is one, and returns its future."""
    with ThreadPoolExecutor(64) as pool:
        yield lambda call, *args: pool.submit(in_thread(lambda: call(*args)))


@pytest.fixture
def crowd(start):
    """Starts threads that ask for a token, and tells when they wait."""
    return Crowd(start)
