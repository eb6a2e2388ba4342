"""How long a token lives, and what a request does with it when: fresh, stale, or expired.

All of it is seen through the public class. The tables of the pure function behind it are in `test_token.py`.
"""

import logging
import threading
import time
from typing import Any

import pytest
import requests
from in_memory import STALE, Answer, TokenEndpoint, auth_with
from loopback import make_jwt

from requests_mentionme import MentionMeAuth, TokenResponseError

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


def lives_for(seconds: float) -> Answer:
    """Return the answer with a token of this lifetime."""
    return Answer(fields={"access_token": "a-token", "expires_in": seconds})


# Three states


def test_constructing_asks_for_no_token(clock):
    """The first request that needs the token gets it."""
    endpoint = TokenEndpoint()
    auth = auth_with(endpoint)
    assert endpoint.count == 0

    assert auth.access_token() == "token-1"
    assert endpoint.count == 1


@pytest.mark.parametrize(
    ("lifetime", "margin", "stale", "expired"),
    [
        (3600, 300, 3300, 3590),
        (86_400, 3600, 82_800, 86_390),
        (1000, 300, 800, 990),  # the margin is 20 % of the lifetime at most
        (1000, 50, 950, 990),
        (100, 300, 80, 95),  # the last moment is 5 % of the lifetime at most
        (100, 6, 94, 95),
    ],
)
def test_a_token_is_stale_within_the_margin_and_expired_within_the_last_moment(clock, lifetime, margin, stale, expired):
    """Each state begins exactly when so many seconds are left."""
    ages = [0, stale - MOMENT, stale, expired - MOMENT, expired, lifetime + 1]

    states = states_at(clock, ages, lives_for(lifetime), refresh_margin=margin)

    assert states == ["fresh", "fresh", "stale", "stale", "expired", "expired"]


@pytest.mark.parametrize(("lifetime", "margin", "expired"), [(3600, 0, 3590), (1000, 10, 990), (100, 5, 95)])
def test_a_margin_that_is_not_above_the_last_moment_means_no_stale_state(clock, lifetime, margin, expired):
    """The token is fresh until it is expired."""
    ages = [0, expired - MOMENT, expired]

    assert states_at(clock, ages, lives_for(lifetime), refresh_margin=margin) == ["fresh", "fresh", "expired"]


def test_a_fresh_token_is_used_without_a_lock(clock, monkeypatch):
    """A request with a fresh token waits for nobody; the renewal of a stale one takes a lock."""
    taken: list[object] = []
    make_lock = threading.Lock
    make_reentrant_lock = threading.RLock

    class Watched:
        def __init__(self, lock: Any) -> None:
            self._lock = lock
            self.release = lock.release

        def acquire(self, *args: Any, **options: Any) -> bool:
            taken.append(self)
            return self._lock.acquire(*args, **options)

        def __enter__(self) -> None:
            self.acquire()

        def __exit__(self, *_: object) -> None:
            self.release()

    endpoint = TokenEndpoint()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Lock", lambda: Watched(make_lock()))
        patch.setattr(threading, "RLock", lambda: Watched(make_reentrant_lock()))
        auth = auth_with(endpoint)
        auth.access_token()
        taken.clear()
        clock.tick(STALE - MOMENT)
        assert auth.access_token() == "token-1"
        assert taken == []

        clock.tick(MOMENT)
        assert auth.access_token() == "token-2"
        assert taken != []


# The clock


def test_a_life_counts_from_the_sending_of_the_try_that_brought_the_token(clock, monkeypatch):
    """The tries and waits before it are no part of it; the time that its own answer takes is."""
    monkeypatch.setattr(time, "sleep", clock.tick)

    def slow() -> Answer:
        clock.tick(5)
        return lives_for(1000)

    endpoint = TokenEndpoint(Answer(503, headers={"Retry-After": "7"}), slow)
    auth = auth_with(endpoint)
    auth.access_token()
    assert time.time() == NOON + 7 + 5

    clock.tick(STALE - 5 - MOMENT)
    assert state_of(auth, endpoint) == "fresh"
    clock.tick(MOMENT)
    assert state_of(auth, endpoint) == "stale"


@pytest.mark.parametrize("moment", ["2026-01-01T11:59:59.999Z", "2026-01-01T03:00:00Z", "1999-01-01T00:00:00Z"])
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


# The lifetime


LIFETIMES = {  # expires_in, iat and exp after noon, Date, seconds to live
    "expires_in": (1800, None, None, None, 1800),
    "exp - iat is smaller": (3600, 0, 1800, None, 1800),
    "a token from the server's cache": (3600, -600, 1800, NOON_AS_DATE, 1800),
    "exp - Date": (None, None, 1800, NOON_AS_DATE, 1800),
    "exp - the local clock": (None, None, 1800, None, 1800),
    "a server ten hours behind": (None, -36_000, -34_200, None, 1800),
    "a past exp beside expires_in": (1800, None, -10, NOON_AS_DATE, 1800),
    "nothing is known": (None, None, None, None, 300),
    "a day at most": (999_999, None, None, None, 86_400),
}


@pytest.mark.parametrize("case", LIFETIMES.values(), ids=LIFETIMES)
def test_the_lifetime_is_the_smallest_positive_measure(clock, case):
    """Lengths of time count, and the local clock only where the server tells none."""
    expires_in, iat, exp, date, lifetime = case
    claims = {name: NOON + value for name, value in {"iat": iat, "exp": exp}.items() if value is not None}
    answer = Answer(
        fields={"access_token": make_jwt(**claims), **({} if expires_in is None else {"expires_in": expires_in})},
        headers={} if date is None else {"Date": date},
    )
    expired = lifetime - 10

    assert states_at(clock, [expired - MOMENT, expired], answer, refresh_margin=0) == ["fresh", "expired"]


def test_a_token_with_nothing_left_is_an_error(clock):
    """A token that has already expired is never sent."""
    answer = Answer(fields={"access_token": make_jwt(exp=NOON + 60), "expires_in": 0}, headers={"Date": NOON_AS_DATE})
    assert states_at(clock, [0], answer) == ["fresh"]

    clock.tick(60)
    with pytest.raises(TokenResponseError, match="already expired"):
        auth_with(TokenEndpoint(Answer(fields=answer.fields))).access_token()


def test_the_log_tells_how_long_a_new_token_lives(clock, caplog):
    """One line for each token, with the environment and without the token."""
    caplog.set_level(logging.INFO, "requests_mentionme")
    auth = auth_with(TokenEndpoint(lives_for(3600)))
    auth.access_token()
    auth.access_token()

    lines = [f"{each.levelname}: {each.getMessage()}" for each in caplog.records if each.name == "requests_mentionme"]
    assert lines == ["INFO: Token obtained: demo, 3600 s to live"]
