"""How long a token lives, and what a request does with it when: fresh, stale, or expired.

All of it is seen through the public class. The tables of the pure function behind it are in `test_token.py`.
"""

import threading
import time
from typing import Any

import pytest
import requests
from in_memory import STALE, Answer, TokenEndpoint, auth_with, token
from loopback import make_jwt

from requests_mentionme import MentionMeAuth

NOON = 1_767_268_800.0  # when the fixture `clock` begins
NOON_AS_DATE = "Thu, 01 Jan 2026 12:00:00 GMT"
MOMENT = 0.001  # seconds


def state_of(auth: MentionMeAuth, endpoint: TokenEndpoint) -> str:
    """Return the state of the token in hand, by what a request does with it while the endpoint is dead."""
    count = endpoint.count
    endpoint.script = [requests.ReadTimeout("dead")]
    try:
        auth.access_token()
    except requests.ReadTimeout:
        return "expired"
    return "fresh" if endpoint.count == count else "stale"


def states_at(clock: Any, ages: list[float], answer: object, **options: Any) -> list[str]:
    """Return the states of a token at these ages in seconds; each is looked at with an auth of its own."""
    states = []
    for age in ages:
        clock.move_to("2026-01-01T12:00:00Z")
        endpoint = TokenEndpoint(answer)
        auth = auth_with(endpoint, **options)
        auth.access_token()
        clock.tick(age)
        states.append(state_of(auth, endpoint))
    return states


@pytest.mark.parametrize(
    ("options", "lifetime", "stale", "expired"),
    [
        ({}, 3600, 3300, 3590),
        ({}, 1000, 800, 990),  # the margin is 20 % of the lifetime at most
        ({"refresh_margin": 6}, 100, 94, 95),  # the last moment is 5 % of the lifetime at most
        ({"refresh_margin": 0}, 3600, 3590, 3590),
        ({"refresh_margin": 10}, 1000, 990, 990),  # a margin not above the last moment means no stale state
    ],
)
def test_a_token_is_stale_within_the_margin_and_expired_within_the_last_moment(
    clock, options, lifetime, stale, expired
):
    """Each state begins exactly when so many seconds are left."""
    ages = [0, stale - MOMENT, stale, expired - MOMENT, expired, lifetime + 1]
    near_the_end = ["expired", "fresh"] if stale == expired else ["stale", "stale"]

    states = states_at(clock, ages, token("a-token", lifetime), **options)

    assert states == ["fresh", "fresh", *near_the_end, "expired", "expired"]


@pytest.mark.parametrize(
    ("date", "lifetime"), [(NOON_AS_DATE, 1800), (None, 3600)], ids=["exp - Date", "exp - the local clock"]
)
def test_the_answer_tells_the_lifetime_and_the_local_clock_only_where_it_does_not(clock, date, lifetime):
    """The whole table of measures is in `test_token.py`."""
    clock.tick(-1800)  # at which the fixture's noon is half an hour ahead
    answer = Answer(fields={"access_token": make_jwt(exp=NOON + 1800)}, headers={"Date": date} if date else {})
    endpoint = TokenEndpoint(answer)
    auth = auth_with(endpoint, refresh_margin=0)
    auth.access_token()
    clock.tick(lifetime - 10 - MOMENT)
    assert state_of(auth, endpoint) == "fresh"
    clock.tick(MOMENT)
    assert state_of(auth, endpoint) == "expired"


def test_a_life_counts_from_the_sending_of_the_try_that_brought_the_token(clock, monkeypatch):
    """The tries and waits before it are no part of it; the time that its own answer takes is."""
    monkeypatch.setattr(time, "sleep", clock.tick)

    def slow() -> Answer:
        clock.tick(5)
        return token("slow", 1000)

    endpoint = TokenEndpoint(Answer(503, headers={"Retry-After": "7"}), slow)
    auth = auth_with(endpoint)
    auth.access_token()
    assert time.time() == NOON + 7 + 5

    clock.tick(STALE - 5 - MOMENT)
    assert state_of(auth, endpoint) == "fresh"
    clock.tick(MOMENT)
    assert state_of(auth, endpoint) == "stale"


@pytest.mark.parametrize("moment", ["2026-01-01T11:59:59.999Z", "1999-01-01T00:00:00Z"])
def test_a_clock_that_was_set_back_makes_the_token_expired(clock, moment):
    """What is left can't be told any more; the next token counts by the clock as it is now."""
    endpoint = TokenEndpoint()
    auth = auth_with(endpoint)
    auth.access_token()
    clock.move_to(moment)
    assert state_of(auth, endpoint) == "expired"

    assert auth.access_token() == "token-3"
    clock.tick(STALE - MOMENT)
    assert state_of(auth, endpoint) == "fresh"


class CountedLock:
    """Stands for a lock where there is one thread, and counts how often any of them was taken."""

    taken = 0

    def acquire(self, *_: object, **__: object) -> bool:
        """Be taken."""
        CountedLock.taken += 1
        return True

    def release(self) -> None:
        """Be let go."""

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def test_a_fresh_token_is_used_without_a_lock(clock, monkeypatch):
    """A request with a fresh token waits for nobody; the renewal of a stale one takes a lock."""
    monkeypatch.setattr(threading, "Lock", CountedLock)
    monkeypatch.setattr(threading, "RLock", CountedLock)
    auth = auth_with(TokenEndpoint())
    auth.access_token()
    clock.tick(STALE - MOMENT)
    taken = CountedLock.taken
    assert auth.access_token() == "token-1"
    assert CountedLock.taken == taken

    clock.tick(MOMENT)
    assert auth.access_token() == "token-2"
    assert CountedLock.taken > taken
