"""How long a token lives, and what a request does with it when: fresh, stale, or expired.

All of it is seen through the public class. The tables of the pure function behind it are in `test_token.py`.
"""

import threading
import time
from unittest import mock

import pytest
import requests
from in_memory import STALE, Answer, TokenEndpoint, auth_with, token

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
    ("options", "lifetime", "stale", "expired"),
    [
        ({}, 3600, 3300, 3590),
        ({"refresh_margin": 6}, 100, 94, 95),  # the last moment is 5 % of the lifetime at most
        ({"refresh_margin": 10}, 1000, 990, 990),  # a margin not above the last moment means no stale state
    ],
)
def test_a_token_is_stale_within_the_margin_and_expired_within_the_last_moment_or_before_its_beginning(
    clock, options, lifetime, stale, expired
):
    expected = {-3600: "expired", -MOMENT: "expired", 0: "fresh", stale - MOMENT: "fresh", stale: "stale"}
    expected[expired - MOMENT] = "fresh" if stale == expired else "stale"
    expected |= {expired: "expired", lifetime + 1: "expired"}
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
        return token("slow", 1000)

    endpoint = TokenEndpoint(Answer(503, headers={"Retry-After": "7"}), slow)
    auth = auth_with(endpoint)
    begun = time.time()
    auth.access_token()
    assert time.time() == begun + 7 + 5

    clock.tick(STALE - 5 - MOMENT)
    assert state_of(auth, endpoint) == "fresh"
    clock.tick(MOMENT)
    assert state_of(auth, endpoint) == "stale"


def test_a_fresh_token_is_used_without_a_lock(clock, monkeypatch):
    endpoint = TokenEndpoint()
    locks = mock.MagicMock()
    monkeypatch.setattr(threading, "Lock", locks)
    monkeypatch.setattr(threading, "RLock", locks)
    auth = auth_with(endpoint)
    auth.access_token()
    for seconds in (0, STALE - MOMENT):
        clock.tick(seconds)
        locks.reset_mock()
        assert auth.access_token() == "token-1"
        assert locks.mock_calls == []

    clock.tick(MOMENT)
    assert auth.access_token() == "token-2"
    assert locks.mock_calls != []
