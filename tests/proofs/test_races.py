"""Many threads at once, through the public class and over real sockets: how many token requests there are.

The sandbox counts them, and the wall clock is set forward. Each rule has its own tests in `test_renewal.py`.
"""

import itertools
import sys
import threading
import time
from functools import partial

import pytest
import requests

from requests_mentionme import MentionMeAuth

LONG = 20.0  # seconds for what takes far less, unless something hangs
STALE = 3301.0  # seconds after which a token of the sandbox is stale, and not yet expired
EXPIRED = 3591.0  # seconds after which it is expired for the auth; the sandbox would still accept it


def coupon(sandbox, auth):
    """Return a request that carries the current token, to be sent when that is no more what it was."""
    return requests.Request("GET", f"{sandbox.url}/api/merchant/v2/coupons/validate/SAMPLE", auth=auth).prepare()


def send_at_once(start, makers):
    """Send what each of these makes, in threads that set off together; return their futures, of the statuses."""
    barrier = threading.Barrier(len(makers))

    def send(make):
        barrier.wait(LONG)
        with requests.Session() as session, session.send(make(), timeout=LONG) as response:
            return response.status_code

    return [start(send, make) for make in makers]


@pytest.mark.parametrize(("threads", "interval"), [(64, 0.005), (16, 1e-6)])  # seconds between switches of threads
@pytest.mark.parametrize("rounds", [1, pytest.param(60, marks=pytest.mark.slow)])
def test_each_herd_makes_one_token_request(*, sandbox, auth, start, monkeypatch, request, threads, interval, rounds):
    """Without a token, with a stale or an expired one, which is not sent, and after a 401: all get their answer."""
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(interval)
    real_time = time.time
    leaps = []
    monkeypatch.setattr(time, "time", lambda: real_time() + sum(leaps))
    renewals = itertools.count(1)
    rejections = 0

    def send_together(make):
        assert [future.result(LONG) for future in send_at_once(start, [make] * threads)] == [200] * threads
        assert (sandbox.token_requests, sandbox.rejections) == (next(renewals), rejections)

    for _ in range(rounds):
        auth.invalidate()
        send_together(lambda: coupon(sandbox, auth))
        leaps.append(STALE)
        send_together(lambda: coupon(sandbox, auth))
        leaps.append(EXPIRED)
        old = sandbox.tokens[-1]
        send_together(lambda: coupon(sandbox, auth))
        assert old not in {each.token for each in sandbox.requests[-threads:]}
        refusable = [coupon(sandbox, auth) for _ in range(threads)]
        sandbox.revoke()
        rejections += threads
        send_together(refusable.pop)


def test_401s_of_two_generations_at_once_make_one_token_request(sandbox, auth, start):
    """Half are refused for the current token; the others, for the one before it, may be retried with that."""
    older = [coupon(sandbox, auth) for _ in range(16)]
    auth.invalidate()
    newer = [coupon(sandbox, auth) for _ in range(16)]
    sandbox.revoke()
    statuses = [future.result(LONG) for future in send_at_once(start, [older.pop] * 16 + [newer.pop] * 16)]
    assert set(statuses[:16]) <= {200, 401}
    assert statuses[16:] == [200] * 16
    assert sandbox.token_requests == 3


def test_32_threads_at_an_endpoint_that_hangs_fail_together(sandbox, start):
    """In one timeout, of real time, not one after another; each with an error of its own."""
    sandbox.fail_token_requests(times=100, delay=600)
    auth = MentionMeAuth(sandbox.client_id, sandbox.client_secret, environment=sandbox.environment, timeout=1.5)
    begun = time.monotonic()
    errors = [future.exception(LONG) for future in send_at_once(start, [lambda: coupon(sandbox, auth)] * 32)]
    assert 1.5 <= time.monotonic() - begun < 20
    assert {type(error) for error in errors} == {requests.ReadTimeout}
    assert len({id(error) for error in errors}) == 32
    assert (sandbox.token_requests, sandbox.api_requests) == (1, 0)
