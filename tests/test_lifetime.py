"""How long a token lives, and what a request does with it when. The tables of lifetimes are in `test_token.py`."""

import threading
import time
from unittest import mock

import pytest
import requests
from in_memory import STALE, Answer, TokenEndpoint, auth_with, token
from loopback import make_jwt

MOMENT = 0.001  # seconds


def state_of(auth, endpoint):
    """Return the state of the token in hand, by what a request does with it while the endpoint is dead."""
    count = endpoint.count
    endpoint.script = [requests.ReadTimeout("dead")]
    try:
        auth.access_token()
    except requests.ReadTimeout:
        return "expired"
    return "fresh" if endpoint.count == count else "stale"


@pytest.mark.parametrize(
    ("options", "lifetime", "edges"),
    [
        ({}, 3600, {3300 - MOMENT: "fresh", 3300: "stale", 3590 - MOMENT: "stale", 3590: "expired"}),
        ({"refresh_margin": 6}, 100, {94 - MOMENT: "fresh", 94: "stale", 95 - MOMENT: "stale", 95: "expired"}),
        ({"refresh_margin": 10}, 1000, {990 - MOMENT: "fresh", 990: "expired"}),  # not above the last moment
    ],
)
def test_a_token_is_stale_within_the_margin_and_expired_at_the_end_or_before_its_life(clock, options, lifetime, edges):
    expected = {-3600: "expired", -MOMENT: "expired", 0: "fresh", **edges, lifetime + 1: "expired"}
    for age, state in expected.items():
        clock.move_to("2026-01-01T12:00:00Z")
        endpoint = TokenEndpoint(token("a-token", lifetime))
        auth = auth_with(endpoint, **options)
        auth.access_token()
        clock.tick(age)
        assert (age, state_of(auth, endpoint)) == (age, state)


def test_a_life_counts_from_the_sending_of_the_try_that_brought_the_token(clock, monkeypatch):
    """The tries and waits before it are no part of it; the time that its own answer takes is."""
    monkeypatch.setattr(time, "sleep", clock.tick)

    def slow():
        clock.tick(5)

    endpoint = TokenEndpoint(Answer(503, headers={"Retry-After": "7"}), slow)
    auth = auth_with(endpoint)
    begun = time.time()
    auth.access_token()
    assert time.time() == begun + 7 + 5
    clock.tick(STALE - 5 - MOMENT)
    assert state_of(auth, endpoint) == "fresh"
    clock.tick(MOMENT)
    assert state_of(auth, endpoint) == "stale"


def test_a_life_is_measured_by_the_clock_of_the_endpoint(clock):
    value = make_jwt(exp=time.time() + 3600 + 1000)
    answer = Answer(fields={"access_token": value}, headers={"Date": "Thu, 01 Jan 2026 13:00:00 GMT"})
    endpoint = TokenEndpoint(answer)
    auth = auth_with(endpoint)
    auth.access_token()
    clock.tick(STALE - MOMENT)
    assert state_of(auth, endpoint) == "fresh"
    clock.tick(MOMENT)
    assert state_of(auth, endpoint) == "stale"


def test_a_fresh_token_is_used_without_a_lock(clock, monkeypatch):
    locks = mock.MagicMock()
    monkeypatch.setattr(threading, "Lock", locks)
    monkeypatch.setattr(threading, "RLock", locks)
    auth = auth_with(TokenEndpoint())
    auth.access_token()
    for seconds, value in ((0, "token-1"), (STALE - MOMENT, "token-1"), (MOMENT, "token-2")):
        clock.tick(seconds)
        locks.reset_mock()
        assert (auth.access_token(), bool(locks.mock_calls)) == (value, value == "token-2")  # a renewal alone locks
