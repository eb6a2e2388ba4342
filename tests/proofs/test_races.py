"""Many threads at once, through the public class and over real sockets: how many token requests there are.

The sandbox counts them, and the wall clock is set forward. Each rule has its own tests in `test_renewal.py`.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from requests_mentionme import MentionMeAuth
from requests_mentionme.sandbox import Sandbox

LONG = 20.0  # seconds for what takes far less, unless something hangs
STALE = 3301.0  # seconds after which a token of the sandbox is stale, and not yet expired
EXPIRED = 3591.0  # seconds after which it is expired for the auth; the sandbox would still accept it


@pytest.fixture
def set_forward(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the wall clock forward, which goes on from there; the monotonic clock does not notice."""
    real = time.time
    leaps: list[float] = []
    monkeypatch.setattr(time, "time", lambda: real() + sum(leaps))
    return leaps.append


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads enough for each test."""
    with ThreadPoolExecutor(64) as threads:
        yield threads


def auth_for(sandbox: Sandbox, **options: Any) -> MentionMeAuth:
    """Return a new auth for *sandbox*."""
    return MentionMeAuth(sandbox.client_id, sandbox.client_secret, environment=sandbox.environment, **options)


def request_to(sandbox: Sandbox, auth: MentionMeAuth) -> requests.PreparedRequest:
    """Return a request that carries the current token, to be sent when that is no more what it was."""
    url = f"{sandbox.url}/api/merchant/v2/coupons/validate/SAMPLE"
    return requests.Request("GET", url, auth=auth).prepare()


def send(request: requests.PreparedRequest) -> int:
    """Send a prepared request, and return the final status."""
    with requests.Session() as session, session.send(request, timeout=LONG) as response:
        return response.status_code


def get(sandbox: Sandbox, auth: MentionMeAuth) -> int:
    """Make an API request, and return its status."""
    return send(request_to(sandbox, auth))


def together(pool: ThreadPoolExecutor, count: int, call: Callable[..., Any], *args: Any) -> "list[Future[Any]]":
    """Start *call* in so many threads, all at the same moment."""
    barrier = threading.Barrier(count)

    def at_once() -> Any:
        barrier.wait(LONG)
        return call(*args)

    return [pool.submit(at_once) for _ in range(count)]


def results(futures: "list[Future[Any]]") -> list[Any]:
    """Return what they ended in, once they have."""
    return [future.result(LONG) for future in futures]


HERDS = [  # threads, seconds between two switches of threads, rounds
    pytest.param((64, 0.005, 1), id="64 threads"),
    pytest.param((64, 0.005, 50), id="64 threads, 50 rounds", marks=pytest.mark.slow),
    pytest.param((16, 1e-6, 3), id="16 threads, switched all the time"),
    pytest.param((16, 1e-6, 100), id="16 threads, switched all the time, 100 rounds", marks=pytest.mark.slow),
]


@contextmanager
def switched_every(seconds: float) -> Iterator[None]:
    """Switch threads so often meanwhile."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("herd", HERDS)
def test_each_herd_makes_one_token_request(sandbox, auth, pool, set_forward, herd):
    """Without a token, with a stale or an expired one, which is not sent, and after a 401: all get their answer."""
    threads, interval, rounds = herd
    expected = rejections = 0

    def send_together(call: Callable[[], int]) -> None:
        nonlocal expected
        expected += 1
        assert results(together(pool, threads, call)) == [200] * threads
        assert sandbox.token_requests == expected
        assert sandbox.rejections == rejections

    with switched_every(interval):
        for _ in range(rounds):
            auth.invalidate()
            send_together(lambda: get(sandbox, auth))
            set_forward(STALE)
            send_together(lambda: get(sandbox, auth))
            set_forward(EXPIRED)
            old = sandbox.tokens[-1]
            seen = len(sandbox.requests)
            send_together(lambda: get(sandbox, auth))
            assert old not in {each.token for each in sandbox.requests[seen:]}
            refusable = [request_to(sandbox, auth) for _ in range(threads)]
            sandbox.revoke()
            rejections += threads
            send_together(lambda stack=refusable: send(stack.pop()))


def test_401s_of_two_generations_at_once_make_one_token_request(sandbox, auth, pool):
    """Half are refused for the current token; the others, for the one before it, may be retried with that."""
    older = [request_to(sandbox, auth) for _ in range(16)]
    sandbox.revoke()
    get(sandbox, auth)
    newer = [request_to(sandbox, auth) for _ in range(16)]
    sandbox.revoke()

    first = together(pool, 16, lambda: send(older.pop()))
    second = together(pool, 16, lambda: send(newer.pop()))
    assert set(results(first)) <= {200, 401}
    assert results(second) == [200] * 16
    assert sandbox.token_requests == 3


@pytest.mark.parametrize("timeout", [0.5, pytest.param(2.0, marks=pytest.mark.slow)])
def test_32_threads_at_an_endpoint_that_hangs_fail_together(sandbox, pool, timeout):
    """In one timeout, not one after another; each with an error of its own."""
    sandbox.fail_token_requests(times=100, delay=600)
    begun = time.monotonic()
    futures = together(pool, 32, get, sandbox, auth_for(sandbox, timeout=timeout))
    errors = [future.exception(LONG) for future in futures]
    taken = time.monotonic() - begun

    assert {type(error) for error in errors} == {requests.ReadTimeout}
    assert len({id(error) for error in errors}) == 32
    assert timeout <= taken < 4 * timeout
    assert sandbox.token_requests == 1
    assert sandbox.api_requests == 0
