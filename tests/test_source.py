"""The room with the state: which request uses, renews or waits for the token, in one thread and in many.

Tokens come from a scripted callable and the time is frozen, so what a second more or less does is exact. Threads meet
at barriers and gates.
"""

import gc
import itertools
import logging
import os
import signal
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory

from requests_mentionme import InvalidClientError, TokenEndpointError, TokenResponseError, _source
from requests_mentionme._source import TokenSource, _Renewal
from requests_mentionme._token import Token

NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z
LIFETIME, STALE, EXPIRED = 1000.0, 800.0, 990.0  # of each token: how long it lives, and when it is what
PATIENCE = 30.0
LONG = 10.0  # real seconds for what takes none, unless something hangs

Start = Callable[..., "Future[Any]"]


def make_token(value: str, obtained_at: float, stale: float = STALE, expired: float = EXPIRED) -> Token:
    """Return a token that is stale and expired so many seconds after it was obtained."""
    return Token(value, f"Bearer {value}", obtained_at, obtained_at + stale, obtained_at + expired, LIFETIME)


class Gate:
    """An outcome that does not come before the gate is opened."""

    def __init__(self, outcome: object = None) -> None:
        self.outcome, self.reached, self.opened = outcome, threading.Event(), threading.Event()

    def wait_until_reached(self) -> None:
        """Return once a token request stands before the gate."""
        assert self.reached.wait(LONG), "no token request arrived here"

    def open(self) -> None:
        """Let it through."""
        self.opened.set()

    def pass_through(self) -> object:
        """Stand before the gate until it is opened, and return what lies behind."""
        self.reached.set()
        assert self.opened.wait(LONG), "nobody opened the gate"
        return self.outcome


class Endpoint:
    """How tokens come to be here: the outcomes of a script, one after another, then a new token each time.

    An outcome is a token, an exception, a gate before one, a callable that returns one, or None for a new token.
    """

    def __init__(self, *script: object) -> None:
        self.script = list(script)
        self.tries: list[int] = []  # of each request
        self.anew: list[bool] = []  # whether each had to be one, since a token was refused
        self._lock = threading.Lock()

    def __call__(self, tries: int, anew: bool) -> Token:  # noqa: FBT001 - as the source calls it
        """Take the place of `obtain`."""
        with self._lock:
            self.tries.append(tries)
            self.anew.append(anew)
            number, outcome = len(self.tries), self.script.pop(0) if self.script else None
        if isinstance(outcome, Gate):
            outcome = outcome.pass_through()
        elif callable(outcome):
            outcome = outcome()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome if isinstance(outcome, Token) else make_token(f"token-{number}", time.time())


@pytest.fixture
def clock() -> Iterator[FrozenDateTimeFactory]:
    """A clock that stands still at noon, until it is told to tick; the monotonic one goes along, at another time."""
    with (
        freeze_time("2026-01-01T12:00:00Z", ignore=["_pytest.timing"]) as frozen,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(time, "monotonic", lambda: time.time() - NOON + 100_000)
        yield frozen


@pytest.fixture
def start(clock: FrozenDateTimeFactory) -> Iterator[Start]:
    """Starts a call in a thread of its own, at the frozen time, and returns its future."""

    def beyond_sight(frames: int, call: Callable[..., Any], *args: Any) -> Any:
        # freezegun gives the true time to code that has `threading` among the five frames above it.
        return beyond_sight(frames - 1, call, *args) if frames else call(*args)

    with ThreadPoolExecutor(64) as pool:
        yield lambda call, *args: pool.submit(beyond_sight, 5, call, *args)


class Waiters:
    """Tells when so many threads have begun to wait for a renewal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._arrivals = threading.Semaphore(0)
        self.after: Callable[[], object] = lambda: None  # what a thread does once it has waited
        wait_for = TokenSource._wait_for

        def announced(*args: Any) -> float:
            self._arrivals.release()
            deadline = wait_for(*args)
            self.after()
            return deadline

        monkeypatch.setattr(TokenSource, "_wait_for", announced)

    def expect(self, count: int) -> None:
        """Return once so many more threads wait."""
        for _ in range(count):
            assert self._arrivals.acquire(timeout=LONG), "fewer threads wait than expected"


@pytest.fixture
def waiters(monkeypatch: pytest.MonkeyPatch) -> Waiters:
    """Tells when threads wait for a renewal."""
    return Waiters(monkeypatch)


@contextmanager
def held(source: TokenSource, start: Start) -> Iterator[None]:
    """Have another thread hold the lock of *source*."""
    gate = Gate()

    def hold() -> None:
        with source._lock:
            gate.pass_through()

    holder = start(hold)
    gate.wait_until_reached()
    try:
        yield
    finally:
        gate.open()
        holder.result(LONG)


def source_of(endpoint: Endpoint, patience: float = PATIENCE) -> TokenSource:
    """Return a source that has one token, except where the endpoint's script says otherwise."""
    source = TokenSource(endpoint, patience)
    source.token()
    return source


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged by this package as a warning or worse."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "requests_mentionme" and record.levelno >= logging.WARNING
    ]


def named(seconds: float) -> TokenEndpointError:
    """Return the error of an endpoint that asked to be tried again later."""
    error = TokenEndpointError("POST /token answered 429.")
    error.retry_after = seconds
    return error


# Fresh


def test_making_a_source_obtains_nothing(clock):
    """Nothing is asked for before somebody needs it."""
    endpoint = Endpoint()
    TokenSource(endpoint, PATIENCE)

    assert endpoint.tries == []


def test_the_first_token_is_obtained_in_up_to_three_tries(clock):
    """Without a token in hand, there is reason to try hard."""
    endpoint = Endpoint()

    assert TokenSource(endpoint, PATIENCE).token().value == "token-1"
    assert endpoint.tries == [3]


@pytest.mark.parametrize("age", [0, STALE / 2, STALE - 0.001], ids=["new", "in between", "about to be stale"])
def test_a_fresh_token_is_used_as_it_is(clock, age):
    """No token request is made while the token is fresh."""
    endpoint = Endpoint()
    source = source_of(endpoint)
    clock.tick(age)

    assert source.token().value == "token-1"
    assert endpoint.tries == [3]


def test_a_fresh_token_is_read_without_the_lock(clock, start):
    """A request with a fresh token waits for nobody, not even for the lock."""
    source = source_of(Endpoint())

    with held(source, start):
        assert start(source.token).result(LONG).value == "token-1"
        assert start(source.is_held_off, "token-1").result(LONG) is False


def test_a_stale_token_is_not_read_without_the_lock(clock, start):
    """The lock that the fresh path does without is one that the other paths take."""
    source = source_of(Endpoint())
    clock.tick(STALE)

    with held(source, start):
        waiting = start(source.token)
        assert not wait([waiting], 0.05).done
    assert waiting.result(LONG).value == "token-2"


# Stale


def test_a_stale_token_is_renewed_in_one_try(clock):
    """The request that finds the token stale renews it, once, and takes the new one."""
    endpoint = Endpoint()
    source = source_of(endpoint)
    clock.tick(STALE)

    assert source.token().value == "token-2"
    assert endpoint.tries == [3, 1]


def test_while_one_thread_renews_a_stale_token_the_others_use_it(clock, start):
    """Nobody else is delayed, and nobody else asks."""
    gate = Gate()
    endpoint = Endpoint(None, gate)
    source = source_of(endpoint)
    clock.tick(STALE)

    leader = start(source.token)
    gate.wait_until_reached()
    others = [start(source.token) for _ in range(16)]

    assert {other.result(LONG).value for other in others} == {"token-1"}
    assert endpoint.tries == [3, 1]
    gate.open()
    assert leader.result(LONG).value == "token-2"
    assert source.token().value == "token-2"
    assert endpoint.tries == [3, 1]


def test_of_threads_that_find_a_stale_token_at_the_same_time_one_renews_it(clock, start):
    """Sixteen that start together make one token request between them."""
    barrier, gate = threading.Barrier(16), Gate()
    endpoint = Endpoint(None, gate)
    source = source_of(endpoint)
    clock.tick(STALE)

    def ask() -> str:
        barrier.wait(LONG)
        return source.token().value

    asked = [start(ask) for _ in range(16)]
    gate.wait_until_reached()
    gate.open()

    values = [each.result(LONG) for each in asked]
    assert set(values) <= {"token-1", "token-2"}
    assert "token-2" in values
    assert endpoint.tries == [3, 1]


def test_a_failed_stale_try_is_a_warning_and_the_token_in_hand_is_used(clock, caplog):
    """The request goes on as if nothing had happened; the log says what did, and no token."""
    endpoint = Endpoint(None, requests.ConnectionError("the line is dead"))
    source = source_of(endpoint)
    clock.tick(STALE)

    assert source.token().value == "token-1"
    assert endpoint.tries == [3, 1]
    (message,) = warnings(caplog)
    assert message.startswith("Renewal failed")
    assert "the line is dead" in message
    assert "30 s" in message
    assert "token-1" not in caplog.text


@pytest.mark.parametrize(
    ("pause", "tries"),
    [(0, [3, 1]), (29.9, [3, 1]), (29.999, [3, 1]), (30, [3, 1, 1]), (31, [3, 1, 1])],
    ids=["at once", "29.9 s", "29.999 s", "30 s", "31 s"],
)
def test_after_a_failed_stale_try_no_request_tries_again_for_30_s(clock, caplog, pause, tries):
    """The hold-off counts from the failure, and while it lasts the token in hand is used without a word."""
    endpoint = Endpoint(None, requests.ConnectionError("first"), requests.ConnectionError("second"))
    source = source_of(endpoint)
    clock.tick(STALE)
    source.token()
    clock.tick(pause)

    assert source.token().value == "token-1"
    assert endpoint.tries == tries
    assert len(warnings(caplog)) == len(tries) - 1


def test_the_hold_off_counts_from_the_end_of_the_failed_try(clock):
    """A try that takes its time does not use up the pause after it."""
    endpoint = Endpoint(None, lambda: clock.tick(20) and requests.ReadTimeout())
    source = source_of(endpoint)
    clock.tick(STALE)
    source.token()
    clock.tick(29.9)
    source.token()
    assert endpoint.tries == [3, 1]

    clock.tick(0.1)
    source.token()
    assert endpoint.tries == [3, 1, 1]


def test_a_token_that_expires_during_a_failed_stale_try_is_renewed_in_full(clock, caplog):
    """The thread whose try failed looks again, instead of using a dead token or failing."""
    endpoint = Endpoint(None, lambda: clock.tick(EXPIRED - STALE) and requests.ReadTimeout("slow"))
    source = source_of(endpoint)
    clock.tick(STALE)

    assert source.token().value == "token-3"
    assert endpoint.tries == [3, 1, 3]
    assert len(warnings(caplog)) == 1


def test_that_full_renewal_fails_like_any_other(clock):
    """What the second renewal raised reaches the request, not what the try before it raised."""
    late, last = requests.ReadTimeout("stale"), requests.ConnectionError("full")
    endpoint = Endpoint(None, lambda: clock.tick(EXPIRED - STALE) and late, last)
    source = source_of(endpoint)
    clock.tick(STALE)

    with pytest.raises(requests.ConnectionError, match="full") as raised:
        source.token()
    assert raised.value is last
    assert endpoint.tries == [3, 1, 3]


def test_a_stale_hold_off_is_not_one_for_expired_tokens(clock):
    """Once the token is dead, the next request renews it, however short ago a try failed."""
    endpoint = Endpoint(None, requests.ConnectionError())
    source = source_of(endpoint)
    clock.tick(EXPIRED - 1)
    source.token()
    clock.tick(1)

    assert source.token().value == "token-3"
    assert endpoint.tries == [3, 1, 3]


def test_a_stale_hold_off_ends_with_the_next_token(clock):
    """A token that came in meanwhile is renewed in time, even if its life is short."""
    brief = make_token("brief", NOON + STALE, stale=5, expired=9)
    endpoint = Endpoint(None, requests.ConnectionError(), brief)
    source = source_of(endpoint)
    clock.tick(STALE)
    source.token()
    assert source.replace("token-1") == (brief, True)
    clock.tick(5)

    assert source.token().value == "token-4"
    assert endpoint.tries == [3, 1, 3, 1]


def test_a_token_without_a_margin_has_no_stale_state(clock):
    """Where it is stale only when it is expired, it is renewed in full."""
    endpoint = Endpoint(make_token("sudden", NOON, stale=EXPIRED))
    source = source_of(endpoint)
    clock.tick(EXPIRED - 0.001)
    assert source.token().value == "sudden"
    clock.tick(0.001)

    assert source.token().value == "token-2"
    assert endpoint.tries == [3, 3]


# Expired, or none


@pytest.mark.parametrize(
    ("age", "value", "tries"),
    [(EXPIRED - 0.001, "token-2", [3, 1]), (EXPIRED, "token-2", [3, 3]), (LIFETIME + 1, "token-2", [3, 3])],
    ids=["a moment before", "at its end", "after it"],
)
def test_an_expired_token_is_renewed_in_up_to_three_tries(clock, age, value, tries):
    """From the last moment on, the token is as good as none."""
    endpoint = Endpoint()
    source = source_of(endpoint)
    clock.tick(age)

    assert source.token().value == value
    assert endpoint.tries == tries


def test_an_expired_token_is_never_handed_out_even_if_its_renewal_fails(clock):
    """A request fails with the reason, rather than with a token that the server refuses."""
    endpoint = Endpoint(None, requests.ConnectionError("dead"))
    source = source_of(endpoint)
    clock.tick(EXPIRED)

    with pytest.raises(requests.ConnectionError, match="dead"):
        source.token()


@pytest.mark.parametrize("age", [0, EXPIRED], ids=["no token", "an expired token"])
def test_all_wait_for_one_renewal_and_share_its_token(clock, start, waiters, age):
    """Sixteen threads, one token request, one token."""
    gate = Gate()
    endpoint = Endpoint(gate) if age == 0 else Endpoint(None, gate)
    source = TokenSource(endpoint, PATIENCE) if age == 0 else source_of(endpoint)
    clock.tick(age)

    asked = [start(source.token) for _ in range(16)]
    gate.wait_until_reached()
    waiters.expect(15)
    assert not any(each.done() for each in asked)
    gate.open()

    assert len({id(each.result(LONG)) for each in asked}) == 1
    assert endpoint.tries == [3] * (1 if age == 0 else 2)


class OddError(Exception):
    """An exception whose constructor wants something else than what it passes on."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"{code}: {hint}")
        self.code = code


class OddNetworkError(requests.ConnectionError):
    """The same, of the kind whose arguments Python looks at."""

    def __init__(self, *, host: str) -> None:
        super().__init__(f"no way to {host}")
        self.host = host


class DisguisedError(Exception):
    """An exception that is copied, or pickled, as one of another type."""

    def __reduce__(self) -> tuple[Any, ...]:
        return RuntimeError, self.args


class ShoutingError(Exception):
    """An exception that makes something of its argument, and would do so again."""

    def __init__(self, message: str) -> None:
        super().__init__(message.upper() + "!")
        self.message = message


class BareError(Exception):
    """An exception that keeps its arguments from its base."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.sum = first + second


class PickyError(Exception):
    """An exception that can't be made without what it does not keep."""

    def __new__(cls, *, reason: str) -> "PickyError":
        """Want a reason by name."""
        return super().__new__(cls, reason)

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)


ERRORS = {
    "an endpoint that names a time": named(7),
    "wrong credentials": InvalidClientError("POST /token answered 401.", response=requests.Response()),
    "an answer of no use": TokenResponseError("no access_token"),
    "a fault of the network": requests.ConnectTimeout(
        "too slow", request=requests.Request("POST", "https://h.example")
    ),
    "JSON": requests.JSONDecodeError("Expecting value", "x", 0),
    "JSON in a response": requests.JSONDecodeError("Expecting value", "x", 0, response=requests.Response()),
    "keyword-only arguments": OddError(5, hint="mind the step"),
    "keyword-only arguments in the network": OddNetworkError(host="h.example"),
    "no arguments": BareError(2, 3),
    "an argument that is changed": ShoutingError("stop"),
    "a copy of another type": DisguisedError("who is it?"),
    "an error of the system": OSError(2, "No such file"),
    "an error of the system with a file": OSError(2, "No such file", "key.txt"),
    "text that can't be decoded": UnicodeDecodeError("ascii", b"\xff", 0, 1, "ordinal not in range"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_all_share_the_error_of_one_renewal_each_with_a_copy_of_its_own(clock, start, waiters, error):
    """What one thread does to the exception it caught is not seen by another."""
    gate = Gate(error)
    source = TokenSource(Endpoint(gate), PATIENCE)

    asked = [start(source.token) for _ in range(8)]
    gate.wait_until_reached()
    waiters.expect(7)
    gate.open()
    raised = [each.exception(LONG) for each in asked]

    assert len({id(each) for each in raised}) == 8
    assert sum(each is error for each in raised) == 1
    assert {type(each) for each in raised} == {type(error)}
    assert all(each.args == error.args for each in raised)
    assert {str(each) for each in raised} == {str(error)}
    assert all(vars(each) == vars(error) for each in raised)
    assert len({id(vars(each)) for each in raised}) == 8


def test_the_error_that_is_remembered_until_a_named_time_keeps_nothing_alive(clock):
    """Its traceback would hold all that the request which met it was at, for as long as no other token comes."""

    class Held:
        """What a request was at."""

    def obtain(*_: object) -> Token:
        raise named(20)

    source = TokenSource(obtain, PATIENCE)

    def request() -> weakref.ref[Held]:
        held = Held()
        with pytest.raises(TokenEndpointError):
            source.token()
        return weakref.ref(held)

    reference = request()
    gc.collect()
    assert reference() is None
    with pytest.raises(TokenEndpointError):
        source.token()


def test_an_error_that_can_not_be_copied_is_raised_for_all(clock, start, waiters):
    """Another one in its place would be worse than one object for all."""
    gate = Gate(PickyError(reason="no way"))
    source = TokenSource(Endpoint(gate), PATIENCE)

    asked = [start(source.token) for _ in range(3)]
    gate.wait_until_reached()
    waiters.expect(2)
    gate.open()

    assert [(type(each.exception(LONG)), str(each.exception(LONG))) for each in asked] == [(PickyError, "no way")] * 3


def functions_in_traceback(error: BaseException) -> set[str]:
    """Return the names of the functions that *error* came through."""
    names, traceback = set(), error.__traceback__
    while traceback is not None:
        names.add(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    return names


def test_those_who_waited_do_not_share_the_traceback(clock, start, waiters):
    """A copy tells where it was raised; the frames of the leader, which hold the secret, are not its own."""
    gate = Gate(requests.ConnectionError("dead"))
    source = TokenSource(Endpoint(gate), PATIENCE)

    leader = start(source.token)
    gate.wait_until_reached()
    waiter = start(source.token)
    waiters.expect(1)
    gate.open()

    assert "pass_through" not in functions_in_traceback(waiter.exception(LONG))
    assert "__call__" in functions_in_traceback(leader.exception(LONG))
    assert "__call__" not in functions_in_traceback(waiter.exception(LONG))
    assert waiter.exception(LONG).__context__ is None


@pytest.mark.parametrize(
    "error",
    [requests.ConnectionError(), InvalidClientError(), TokenResponseError(), TokenEndpointError(), named(0)],
    ids=["network", "credentials", "answer", "endpoint", "endpoint, to be tried at once"],
)
def test_a_failure_without_a_named_time_is_not_remembered(clock, error):
    """The next request that needs a token asks for it."""
    endpoint = Endpoint(error)
    source = TokenSource(endpoint, PATIENCE)
    with pytest.raises(type(error)):
        source.token()

    assert source.token().value == "token-2"
    assert endpoint.tries == [3, 3]


@pytest.mark.parametrize("stored", [False, True], ids=["from the endpoint", "from a store"])
def test_who_waited_takes_the_token_without_judging_it(clock, start, waiters, stored):
    """A token that arrives dead is tried by those who waited for it: no loop, one token request."""
    gate = Gate(make_token("dead", NOON - LIFETIME)._replace(stored=stored))
    endpoint = Endpoint(gate)
    source = TokenSource(endpoint, PATIENCE)

    asked = [start(source.token) for _ in range(8)]
    gate.wait_until_reached()
    waiters.expect(7)
    gate.open()

    assert {each.result(LONG).value for each in asked} == {"dead"}
    assert endpoint.tries == [3]


# Who needs a token while a stale try is under way


@pytest.mark.parametrize("way", ["the token expires", "a 401", "invalidate"])
def test_a_request_that_needs_a_token_waits_for_a_stale_try(clock, start, waiters, way):
    """It shares what that brings, and makes no request of its own."""
    gate = Gate()
    endpoint = Endpoint(None, gate)
    source = source_of(endpoint)
    clock.tick(STALE)
    leader = start(source.token)
    gate.wait_until_reached()

    asked = needers(source, start, clock, way)
    waiters.expect(len(asked))
    gate.open()

    assert {each.result(LONG).value for each in asked} == {"token-2"}
    assert leader.result(LONG).value == "token-2"
    assert endpoint.tries == [3, 1]


def needers(source: TokenSource, start: Start, clock: FrozenDateTimeFactory, way: str) -> "list[Future[Any]]":
    """Start four threads that can't go on with the stale token-1."""
    if way == "the token expires":
        clock.tick(EXPIRED - STALE)
    if way == "invalidate":
        source.invalidate(None)
    if way == "a 401":
        return [start(lambda: source.replace("token-1")[0]) for _ in range(4)]
    return [start(source.token) for _ in range(4)]


@pytest.mark.parametrize("way", ["the token expires", "a 401", "invalidate"])
def test_if_that_stale_try_fails_one_full_renewal_follows_and_is_shared(clock, start, waiters, way):
    """One token request with all tries for all that waited."""
    stale, full = Gate(requests.ReadTimeout("stale")), Gate()
    endpoint = Endpoint(None, stale, full)
    source = source_of(endpoint)
    clock.tick(STALE)
    leader = start(source.token)
    stale.wait_until_reached()

    asked = needers(source, start, clock, way)
    waiters.expect(4)
    stale.open()
    full.wait_until_reached()
    waiters.expect(3)
    full.open()

    assert {each.result(LONG).value for each in asked} == {"token-3"}
    assert leader.result(LONG).value in {"token-1", "token-3"}
    assert endpoint.tries == [3, 1, 3]


def test_if_the_full_renewal_fails_too_all_share_its_error(clock, start, waiters):
    """Each thread gets the error of the second renewal, and a third one does not follow."""
    stale, full = Gate(requests.ReadTimeout("stale")), Gate(requests.ConnectionError("full"))
    endpoint = Endpoint(None, stale, full)
    source = source_of(endpoint)
    clock.tick(STALE)
    asked = [start(source.token)]
    stale.wait_until_reached()

    asked += needers(source, start, clock, "the token expires")
    waiters.expect(4)
    stale.open()
    full.wait_until_reached()
    waiters.expect(4)
    full.open()

    assert {str(each.exception(LONG)) for each in asked} == {"full"}
    assert endpoint.tries == [3, 1, 3]


# Patience


def test_a_waiter_gives_up_after_its_patience(clock, start):
    """It raises one of our errors, which says what happened; nobody waits for ever."""
    gate = Gate()
    endpoint = Endpoint(gate)
    source = TokenSource(endpoint, 0.02)
    leader = start(source.token)
    gate.wait_until_reached()

    with pytest.raises(
        TokenEndpointError, match=r"^Another thread's token request has not ended within 0\.02 s\.$"
    ) as raised:
        source.token()
    assert raised.value.retry_after is None
    assert endpoint.tries == [3]
    gate.open()
    assert leader.result(LONG).value == "token-1"


def test_patience_counts_from_the_request_not_from_the_renewal_it_waits_for(clock, start, waiters):
    """Whoever waits for a second renewal has only the rest of its patience for it."""
    stale, full = Gate(requests.ReadTimeout()), Gate()
    source = source_of(Endpoint(None, stale, full), patience=100)
    clock.tick(STALE)
    leader = start(source.token)
    stale.wait_until_reached()
    clock.tick(EXPIRED - STALE)
    waiters.after = full.wait_until_reached  # the leader leads the second one too
    waiter = start(source.token)
    waiters.expect(1)
    clock.tick(99.98)
    stale.open()

    assert isinstance(waiter.exception(LONG), TokenEndpointError)
    full.open()
    assert leader.result(LONG).value == "token-3"


@pytest.mark.parametrize(("left", "wait"), [(7, 7), (0, 0), (-3, 0)])
def test_a_waiter_waits_for_the_rest_of_its_patience_and_no_longer(clock, monkeypatch, left, wait):
    """If that has passed meanwhile, it gives up at once."""
    renewal, waits = _Renewal(), []
    monkeypatch.setattr(renewal.done, "wait", waits.append)

    with pytest.raises(TokenEndpointError):
        TokenSource(Endpoint(), PATIENCE)._wait_for(renewal, time.monotonic() + left)

    assert waits == [wait]


def test_a_waiter_that_gives_up_on_a_renewal_just_begun_does_not_let_another_begin(clock, start, waiters):
    """Only a renewal that has outlasted the patience itself is given up by all."""
    stale, full = Gate(requests.ReadTimeout()), Gate()
    endpoint = Endpoint(None, stale, full)
    source = source_of(endpoint, patience=100)
    clock.tick(STALE)
    leader = start(source.token)
    stale.wait_until_reached()
    clock.tick(EXPIRED - STALE)
    waiters.after = full.wait_until_reached
    waiter = start(source.token)
    waiters.expect(1)
    clock.tick(99.98)
    stale.open()
    assert isinstance(waiter.exception(LONG), TokenEndpointError)
    waiters.expect(1)

    later = start(source.token)
    waiters.expect(1)
    full.open()
    assert later.result(LONG) is leader.result(LONG)
    assert endpoint.tries == [3, 1, 3]


def stuck(clock: FrozenDateTimeFactory, start: Start, *script: object, age: float = 0) -> tuple[Any, ...]:
    """Return a source whose leader is stuck at a gate, and given up; the leader, the gate, the endpoint."""
    gate = Gate()
    endpoint = Endpoint(*([None] if age else []), gate, *script)
    source = source_of(endpoint, 0.02) if age else TokenSource(endpoint, 0.02)
    clock.tick(age)
    leader = start(source.token)
    gate.wait_until_reached()
    with pytest.raises(TokenEndpointError):
        source.token()
    return source, leader, gate, endpoint


def test_the_request_after_a_waiter_gave_up_begins_another_renewal(clock, start):
    """One stuck thread does not keep all others out for good."""
    source, leader, gate, endpoint = stuck(clock, start)

    assert source.token().value == "token-2"
    assert endpoint.tries == [3, 3]
    gate.open()
    assert leader.result(LONG).value == "token-1"


@pytest.mark.parametrize("pause", [0, 5], ids=["at the same time", "later"])
def test_a_late_leader_does_not_throw_away_a_newer_token(clock, start, pause):
    """What a stuck leader brings serves its own request; the newer token stays current."""
    source, leader, gate, endpoint = stuck(clock, start)
    gate.outcome = make_token("token-1", time.time())
    clock.tick(pause)
    newer = source.token()
    gate.open()

    assert leader.result(LONG).value == "token-1"
    assert source.token() is newer
    assert endpoint.tries == [3, 3]


def test_a_late_leader_whose_token_was_obtained_last_is_not_late(clock, start):
    """Its last try may have been sent after the other token arrived: then its token is the newer one."""
    source, leader, gate, endpoint = stuck(clock, start)
    source.token()
    clock.tick(5)
    gate.open()
    token = leader.result(LONG)

    assert source.token() is token
    assert endpoint.tries == [3, 3]


@pytest.mark.parametrize("age", [0, EXPIRED], ids=["no token", "an expired token"])
def test_the_token_of_a_late_leader_is_kept_where_there_is_no_newer_one(clock, start, age):
    """It was paid for, so the next request uses it."""
    source, leader, gate, endpoint = stuck(clock, start, age=age)
    gate.open()
    late = leader.result(LONG)

    assert source.token() is late
    assert len(endpoint.tries) == (2 if age else 1)


def test_a_late_leader_does_not_end_the_renewal_that_took_over(clock, start, waiters):
    """The others go on waiting for the second renewal: there is no third one."""
    second = Gate()
    source, leader, gate, endpoint = stuck(clock, start, second)
    waiters.expect(1)
    source._patience = PATIENCE
    takes_over = start(source.token)
    second.wait_until_reached()
    gate.open()
    assert leader.result(LONG).value == "token-1"
    source.invalidate(None)  # otherwise the late token would do

    asked = [start(source.token) for _ in range(4)]
    waiters.expect(4)
    second.open()
    assert {each.result(LONG).value for each in [takes_over, *asked]} == {"token-2"}
    assert endpoint.tries == [3, 3]


def test_a_waiter_that_gives_up_late_does_not_end_the_renewal_that_took_over(clock, start, waiters):
    """Whoever still waits for the first renewal has no say about the second."""
    first, second = Gate(), Gate()
    endpoint = Endpoint(first, second)
    source = TokenSource(endpoint, 0.3)
    stuck_leader = start(source.token)
    first.wait_until_reached()
    waiter = start(source.token)
    waiters.expect(1)
    source.forget_renewal()  # as a waiter does that came earlier
    source._patience = PATIENCE
    takes_over = start(source.token)
    second.wait_until_reached()
    assert isinstance(waiter.exception(LONG), TokenEndpointError)

    later = start(source.token)
    waiters.expect(1)
    second.open()
    first.open()
    assert later.result(LONG).value == takes_over.result(LONG).value == "token-2"
    assert stuck_leader.result(LONG).value == "token-1"
    assert endpoint.tries == [3, 3]


def test_a_late_leader_that_fails_raises_its_own_error_and_harms_nobody(clock, start):
    """The newer token goes on being used."""
    source, leader, gate, endpoint = stuck(clock, start)
    gate.outcome = requests.ConnectionError("late")
    newer = source.token()
    gate.open()

    assert str(leader.exception(LONG)) == "late"
    assert source.token() is newer
    assert endpoint.tries == [3, 3]


# A leader that dies


class GreenletExit(BaseException):
    """What ends a greenlet: no `Exception` either."""


DEATHS = pytest.mark.parametrize("death", [KeyboardInterrupt, SystemExit, GreenletExit, GeneratorExit])


@DEATHS
def test_a_leader_that_dies_frees_the_others_and_one_of_them_leads_next(clock, start, waiters, death):
    """Its death is its own: the others share the token of the next renewal."""
    first, second = Gate(death()), Gate()
    endpoint = Endpoint(first, second)
    source = TokenSource(endpoint, PATIENCE)
    leader = start(source.token)
    first.wait_until_reached()
    asked = [start(source.token) for _ in range(4)]
    waiters.expect(4)
    first.open()

    assert isinstance(leader.exception(LONG), death)
    second.wait_until_reached()
    waiters.expect(3)
    second.open()
    assert {each.result(LONG).value for each in asked} == {"token-2"}
    assert endpoint.tries == [3, 3]


@DEATHS
def test_after_a_leader_has_died_its_own_thread_can_ask_again(clock, death):
    """Whoever pressed Ctrl-C at a prompt just repeats the call."""
    source = TokenSource(Endpoint(death()), PATIENCE)
    with pytest.raises(death):
        source.token()

    assert source.token().value == "token-2"


@DEATHS
def test_a_death_in_a_stale_try_is_no_failure_of_the_endpoint(clock, caplog, death):
    """The token in hand stays, nothing is held off, and the next request tries."""
    endpoint = Endpoint(None, death())
    source = source_of(endpoint)
    clock.tick(STALE)
    with pytest.raises(death):
        source.token()

    assert source.token().value == "token-3"
    assert endpoint.tries == [3, 1, 1]
    assert warnings(caplog) == []


def interrupted(call: Callable[[], object], moment: int) -> bool:
    """Make a call with Ctrl-C at one of the moments, counted from 1, at which the source can be interrupted.

    Python handles signals where one of its functions begins, and where any call returns: not just before a built-in
    one, as that of a lock's `__exit__`. Return whether there is such a moment.
    """
    moments = itertools.count(1)

    def profile(frame: types.FrameType, event: str, _: object) -> None:
        if event != "c_call" and frame.f_code.co_filename == _source.__file__ and next(moments) == moment:
            raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


@pytest.mark.parametrize("age", [0, STALE, EXPIRED], ids=["no token", "a stale token", "an expired token"])
def test_ctrl_c_at_any_moment_of_a_renewal_leaves_nobody_behind(clock, start, waiters, age):
    """Neither those who wait nor the thread itself, which may ask again, suffer from where it was interrupted."""

    def there_is(moment: int) -> bool:
        others: list[Future[Any]] = []

        def be_joined() -> None:
            others.append(start(source.token))
            if age != STALE:
                waiters.expect(1)

        clock.move_to("2026-01-01T12:00:00Z")
        endpoint = Endpoint(*([None] if age else []), be_joined)
        source = source_of(endpoint) if age else TokenSource(endpoint, PATIENCE)
        clock.tick(age)
        was_interrupted = interrupted(source.token, moment)
        assert source.token().state(time.time()) == "fresh"
        assert all(other.result(LONG) for other in others)
        return was_interrupted

    moments = list(itertools.takewhile(there_is, itertools.count(1)))
    assert len(moments) > 10


# Re-entrancy


@pytest.mark.parametrize("age", [0, STALE, EXPIRED], ids=["no token", "a stale token", "an expired token"])
@pytest.mark.parametrize("question", ["token", "replace"])
def test_asking_from_within_the_token_request_raises_instead_of_waiting_for_itself(clock, age, question):
    """The error names the cause, and the token request itself goes on."""
    caught: list[RuntimeError] = []

    def ask_from_within() -> None:
        with pytest.raises(RuntimeError, match=r"^A token was asked for from within the token request") as raised:
            source.token() if question == "token" else source.replace("token-1")
        caught.append(raised.value)

    endpoint = Endpoint(*([None] if age else []), ask_from_within)
    source = source_of(endpoint) if age else TokenSource(endpoint, PATIENCE)
    clock.tick(age)

    assert source.token().value == f"token-{len(endpoint.tries)}"
    assert len(caught) == 1
    assert len(endpoint.tries) == (2 if age else 1)


def test_asking_from_within_a_renewal_after_a_401_raises_too(clock):
    """Replacing a refused token is a renewal like any other."""

    def ask_from_within() -> None:
        with pytest.raises(RuntimeError):
            source.replace("token-1")

    source = source_of(Endpoint(None, ask_from_within))

    assert source.replace("token-1")[0].value == "token-2"


def test_an_error_of_re_entrancy_that_is_not_caught_ends_the_renewal(clock):
    """It reaches the request that needs the token, and the next one can ask again."""
    source = TokenSource(Endpoint(lambda: source.token().value), PATIENCE)
    with pytest.raises(RuntimeError, match=r"^A token was asked for from within the token request"):
        source.token()

    assert source.token().value == "token-2"


def test_asking_another_source_from_within_a_token_request_is_no_re_entrancy(clock):
    """A token request may itself be authenticated by somebody else."""
    other = TokenSource(Endpoint(), PATIENCE)
    source = TokenSource(Endpoint(lambda: other.token() and None), PATIENCE)

    assert source.token().value == "token-1"


# A time that the endpoint named


def test_until_the_time_that_was_named_the_same_error_is_raised_at_once(clock):
    """`retry_after` counts down, and the endpoint is left in peace."""
    error = named(20)
    endpoint = Endpoint(error)
    source = TokenSource(endpoint, PATIENCE)
    with pytest.raises(TokenEndpointError) as first:
        source.token()
    assert first.value is error

    for waited, left in ((0, 20), (5, 15), (14.9, 0.1)):
        clock.tick(waited)
        with pytest.raises(TokenEndpointError) as again:
            source.token()
        assert again.value is not error
        assert again.value.args == error.args
        assert again.value.retry_after == pytest.approx(left, abs=1e-5)
        assert "__call__" not in functions_in_traceback(again.value)
    assert error.retry_after == 20
    assert endpoint.tries == [3]
    clock.tick(0.1)
    assert source.token().value == "token-2"


@pytest.mark.parametrize("seconds", [60.5, 3600, 86_400])
def test_a_named_time_is_kept_to_for_60_s_at_most(clock, seconds):
    """What the error says counts down from the time that was named all the same."""
    endpoint = Endpoint(named(seconds))
    source = TokenSource(endpoint, PATIENCE)
    with pytest.raises(TokenEndpointError):
        source.token()

    clock.tick(59.9)
    with pytest.raises(TokenEndpointError) as again:
        source.token()
    assert again.value.retry_after == pytest.approx(seconds - 59.9, abs=1e-5)
    assert endpoint.tries == [3]
    clock.tick(0.1)
    assert source.token().value == "token-2"


def test_those_who_meet_a_named_hold_off_together_each_have_their_own_error(clock, start):
    """No two requests raise the same object."""
    source = TokenSource(Endpoint(named(20)), PATIENCE)
    with pytest.raises(TokenEndpointError):
        source.token()

    raised = [start(source.token).exception(LONG) for _ in range(4)]
    assert len({id(each) for each in raised}) == 4


@pytest.mark.parametrize("value", [None, "token-1", "some other token"])
def test_invalidate_ends_a_named_hold_off(clock, value):
    """Somebody who knows better has the last word."""
    endpoint = Endpoint(named(20))
    source = TokenSource(endpoint, PATIENCE)
    with pytest.raises(TokenEndpointError):
        source.token()
    source.invalidate(value)

    assert source.token().value == "token-2"
    assert endpoint.tries == [3, 3]


@pytest.mark.parametrize(
    ("seconds", "until"),
    [(5, 30), (45, 45), (3600, 60)],
    ids=["shorter than the pause after a failure", "longer than it", "too long"],
)
def test_a_named_time_keeps_stale_tries_off_too(clock, caplog, seconds, until):
    """With a token in hand there is even less reason to bother the endpoint."""
    endpoint = Endpoint(None, named(seconds))
    source = source_of(endpoint)
    clock.tick(STALE)
    assert source.token().value == "token-1"
    clock.tick(until - 0.1)
    assert source.token().value == "token-1"
    assert endpoint.tries == [3, 1]
    assert len(warnings(caplog)) == 1

    clock.tick(0.1)
    assert source.token().value == "token-3"
    assert endpoint.tries == [3, 1, 1]


def test_a_time_named_to_a_renewal_after_a_401_keeps_stale_tries_off(clock):
    """It makes no difference for which reason the endpoint was asked."""
    endpoint = Endpoint(None, named(50))
    source = source_of(endpoint)
    clock.tick(STALE - 10)
    with pytest.raises(TokenEndpointError):
        source.replace("token-1")
    clock.tick(49.9)

    assert source.token().value == "token-1"
    assert endpoint.tries == [3, 3]
    clock.tick(0.1)
    assert source.token().value == "token-3"


def test_a_time_named_to_a_stale_try_is_kept_to_once_the_token_has_expired(clock):
    """A request that needs a token meanwhile raises, and says how long it will be."""
    endpoint = Endpoint(None, named(20))
    source = source_of(endpoint)
    clock.tick(EXPIRED - 5)
    assert source.token().value == "token-1"
    clock.tick(5)

    with pytest.raises(TokenEndpointError) as raised:
        source.token()
    assert raised.value.retry_after == pytest.approx(15)
    assert endpoint.tries == [3, 1]


def test_during_a_named_hold_off_a_401_raises_and_the_token_in_hand_is_used(clock):
    """Until a new token is there, the refused one stays current."""
    endpoint = Endpoint(None, named(20))
    source = source_of(endpoint)
    for _ in range(2):
        with pytest.raises(TokenEndpointError):
            source.replace("token-1")

    assert source.token().value == "token-1"
    assert source.replace("older") == (source.token(), False)
    assert endpoint.tries == [3, 3]


def test_a_named_hold_off_ends_with_a_token(clock, start):
    """Where a late leader brought one, a refusal of that is answered by a renewal again."""
    source, leader, gate, endpoint = stuck(clock, start, named(50))
    with pytest.raises(TokenEndpointError):
        source.token()
    gate.open()
    leader.result(LONG)

    assert source.replace("token-1")[0].value == "token-3"
    assert endpoint.tries == [3, 3, 3]


def test_a_renewal_under_way_is_waited_for_in_spite_of_a_named_hold_off(clock, start, waiters):
    """Where it may bring a token, nobody fails for what was said before it."""
    second = Gate()
    endpoint = Endpoint(named(50), second)
    source = TokenSource(endpoint, PATIENCE)
    with pytest.raises(TokenEndpointError):
        source.token()
    hold_off, source._named = source._named, None
    leader = start(source.token)
    second.wait_until_reached()
    source._named = hold_off

    waiter = start(source.token)
    waiters.expect(1)
    second.open()
    assert waiter.result(LONG) is leader.result(LONG)


def test_a_failed_renewal_after_a_401_keeps_no_stale_try_off(clock):
    """Only a failed stale try does, and a time that was named."""
    endpoint = Endpoint(None, requests.ConnectionError())
    source = source_of(endpoint)
    clock.tick(STALE - 1)
    with pytest.raises(requests.ConnectionError):
        source.replace("token-1")
    clock.tick(1)

    assert source.token().value == "token-3"
    assert endpoint.tries == [3, 3, 1]


# What a 401 leads to


def test_a_refused_token_that_is_no_longer_current_costs_no_token_request(clock):
    """Somebody has renewed already: the current token is the answer."""
    endpoint = Endpoint()
    source = source_of(endpoint)

    assert source.replace("older") == (source.token(), False)
    assert endpoint.tries == [3]


def test_not_even_if_the_current_token_is_stale(clock):
    """A late 401 for an old token does not renew the new one, the next request does."""
    endpoint = Endpoint()
    source = source_of(endpoint)
    clock.tick(STALE)

    assert source.replace("older")[0].value == "token-1"
    assert source.replace("older")[1] is False
    assert endpoint.tries == [3]
    assert source.token().value == "token-2"
    assert endpoint.tries == [3, 1]


def test_a_refused_token_that_is_current_is_renewed_in_up_to_three_tries(clock):
    """The new token comes with the news that it was just obtained."""
    endpoint = Endpoint()
    source = source_of(endpoint)
    token, renewed = source.replace("token-1")

    assert (token.value, renewed) == ("token-2", True)
    assert source.token() is token
    assert endpoint.tries == [3, 3]


def test_a_refused_stale_token_is_renewed_in_up_to_three_tries(clock):
    """It is not in hand any more, so one try is not enough; a hold-off of stale tries does not count either."""
    endpoint = Endpoint(None, requests.ConnectionError())
    source = source_of(endpoint)
    clock.tick(STALE)
    source.token()

    assert source.replace("token-1")[0].value == "token-3"
    assert endpoint.tries == [3, 1, 3]


@pytest.mark.parametrize("state", ["expired", "none"])
def test_without_a_live_token_a_401_for_an_older_one_leads_to_a_renewal(clock, state):
    """There is nothing to retry with."""
    endpoint = Endpoint()
    source = source_of(endpoint)
    if state == "expired":
        clock.tick(EXPIRED)
    else:
        source.invalidate(None)
    token, renewed = source.replace("older")

    assert (token.value, renewed) == ("token-2", True)
    assert endpoint.tries == [3, 3]


def test_threads_that_met_a_401_for_one_token_share_one_renewal(clock, start, waiters):
    """For each of them the token is one straight from the endpoint."""
    gate = Gate()
    endpoint = Endpoint(None, gate)
    source = source_of(endpoint)
    asked = [start(source.replace, "token-1") for _ in range(16)]
    gate.wait_until_reached()
    waiters.expect(15)
    gate.open()

    answers = {each.result(LONG) for each in asked}
    assert [(token.value, renewed) for token, renewed in answers] == [("token-2", True)]
    assert endpoint.tries == [3, 3]


def test_during_a_renewal_after_a_401_others_go_on_with_the_refused_token(clock, start):
    """Fresh or stale, it stays current; nobody else is delayed."""
    gate = Gate()
    endpoint = Endpoint(None, gate)
    source = source_of(endpoint)
    leader = start(source.replace, "token-1")
    gate.wait_until_reached()

    assert start(source.token).result(LONG).value == "token-1"
    clock.tick(STALE)
    assert start(source.token).result(LONG).value == "token-1"
    gate.open()
    leader.result(LONG)
    assert endpoint.tries == [3, 3]


def test_if_a_renewal_after_a_401_fails_its_error_is_raised_and_the_refused_token_stays(clock):
    """The next request tries its luck with it, and the next 401 renews."""
    endpoint = Endpoint(None, requests.ConnectionError("dead"))
    source = source_of(endpoint)
    with pytest.raises(requests.ConnectionError, match="dead"):
        source.replace("token-1")

    assert source.token().value == "token-1"
    assert not source.is_held_off("token-1")
    assert source.replace("token-1")[0].value == "token-3"


def test_a_renewal_that_brings_the_refused_token_holds_it_off(clock):
    """There is no point in a retry, nor in another renewal soon."""
    again = make_token("token-1", NOON + 1)
    endpoint = Endpoint(None, again)
    source = source_of(endpoint)
    clock.tick(1)

    assert source.replace("token-1")[0].value == "token-1"
    assert source.is_held_off("token-1")
    assert source.token() is again
    assert endpoint.tries == [3, 3]


def test_all_that_waited_for_the_refused_token_are_told_so(clock, start, waiters):
    """One token request, and the very token for each."""
    again = make_token("token-1", NOON + 1)
    gate = Gate(again)
    endpoint = Endpoint(None, gate)
    source = source_of(endpoint)
    asked = [start(source.replace, "token-1") for _ in range(4)]
    gate.wait_until_reached()
    waiters.expect(3)
    gate.open()

    assert [each.result(LONG) for each in asked] == [(again, True)] * 4
    assert endpoint.tries == [3, 3]


@pytest.mark.parametrize("age", [0, STALE, EXPIRED], ids=["fresh", "stale", "expired"])
def test_a_renewal_after_a_401_must_ask_the_endpoint(clock, age):
    """What somebody else keeps may be the very token that was refused; for any other renewal it will do."""
    endpoint = Endpoint()
    source = source_of(endpoint)
    clock.tick(age)
    source.replace("token-1")
    clock.tick(STALE)
    source.token()
    clock.tick(EXPIRED)
    source.token()
    clock.tick(EXPIRED)
    source.replace("token-1")
    source.invalidate(None)
    source.token()

    assert endpoint.anew == [False, True, False, False, True, True]  # nor is it what an invalidated token may be


def test_a_401_that_waited_for_a_failed_stale_try_must_ask_the_endpoint(clock, start, waiters):
    """That try need not have done so; the renewal that follows it must."""
    stale = Gate(requests.ReadTimeout())
    endpoint = Endpoint(None, stale)
    source = source_of(endpoint)
    clock.tick(STALE)
    leader = start(source.token)
    stale.wait_until_reached()
    refused = start(source.replace, "token-1")
    waiters.expect(1)
    stale.open()

    assert refused.result(LONG)[0].value == "token-3"
    leader.result(LONG)
    assert endpoint.anew == [False, False, True]


def test_a_stored_token_is_not_one_straight_from_the_endpoint(clock, start, waiters):
    """If it is refused too, that says nothing about the next one."""
    gate = Gate(make_token("stored", NOON + STALE)._replace(stored=True))
    source = source_of(Endpoint(None, gate))
    clock.tick(STALE)
    leader = start(source.token)
    gate.wait_until_reached()
    refused = start(source.replace, "token-1")
    waiters.expect(1)
    gate.open()

    token, from_endpoint = refused.result(LONG)
    assert token is leader.result(LONG)
    assert from_endpoint is False


def test_a_401_is_not_answered_with_the_same_token_out_of_a_store(clock, start, waiters):
    """One that waits while another thread reads the store asks the endpoint, and holds nothing off."""
    gate = Gate(make_token("token-1", NOON + STALE)._replace(stored=True))
    endpoint = Endpoint(None, gate)
    source = source_of(endpoint)
    clock.tick(STALE)
    leader = start(source.token)
    gate.wait_until_reached()
    refused = [start(source.replace, "token-1") for _ in range(4)]
    waiters.expect(4)
    gate.open()

    assert {each.result(LONG)[0].value for each in refused} == {"token-3"}
    assert leader.result(LONG).value == "token-1"
    assert endpoint.tries == [3, 1, 3]
    assert endpoint.anew == [False, False, True]


# Refused tokens that are held off


@pytest.mark.parametrize(
    ("pause", "held_off"), [(0, True), (29.9, True), (29.999, True), (30, False)], ids=["0", "29.9", "29.999", "30"]
)
def test_a_current_token_is_held_off_for_30_s(clock, pause, held_off):
    """The time counts from when it was told."""
    source = source_of(Endpoint())
    source.hold_off("token-1")
    clock.tick(pause)

    assert source.is_held_off("token-1") is held_off


def test_holding_off_again_starts_the_30_s_again(clock):
    """The newest refusal counts."""
    source = source_of(Endpoint())
    source.hold_off("token-1")
    clock.tick(20)
    source.hold_off("token-1")
    clock.tick(29.9)

    assert source.is_held_off("token-1")


def test_nothing_is_held_off_from_the_start(clock):
    """Neither a token nor the lack of one."""
    source = TokenSource(Endpoint(), PATIENCE)
    assert not source.is_held_off("")
    source.hold_off("token-1")
    assert not source.is_held_off("token-1")
    source.token()

    assert not source.is_held_off("token-1")
    assert not source.is_held_off("")


def test_a_late_hold_off_for_an_older_token_leaves_that_of_the_current_one(clock):
    """Only the current token can be held off."""
    source = source_of(Endpoint())
    source.replace("token-1")
    source.hold_off("token-2")
    source.hold_off("token-1")

    assert source.is_held_off("token-2")
    assert not source.is_held_off("token-1")


def test_a_token_obtained_since_is_not_held_off(clock):
    """What is held is one token by its value, neither its successor nor the predecessor that it has become."""
    source = source_of(Endpoint())
    source.hold_off("token-1")
    clock.tick(1)
    source.replace("token-1")

    assert not source.is_held_off("token-2")
    assert not source.is_held_off("token-1")


def test_a_held_off_token_that_comes_again_is_still_held_off(clock):
    """The server may hand out the same token twice: it is the value that was refused."""
    source = source_of(Endpoint(None, make_token("token-1", NOON + STALE)))
    clock.tick(STALE)
    source.hold_off("token-1")
    source.token()

    assert source.is_held_off("token-1")


@pytest.mark.parametrize("value", [None, "token-1", "some other token"])
def test_invalidate_ends_the_hold_off_of_a_refused_token(clock, value):
    """For the same token too, should it come again."""
    source = source_of(Endpoint(None, make_token("token-1", NOON)))
    source.hold_off("token-1")
    source.invalidate(value)

    assert source.token().value == "token-1"
    assert not source.is_held_off("token-1")


# Invalidate


@pytest.mark.parametrize(
    ("value", "dropped"),
    [(None, True), ("token-1", True), ("some other", False), ("", False)],
    ids=["any", "the current one", "another one", "an empty one"],
)
def test_invalidate_drops_the_current_token_or_only_the_one_it_names(clock, value, dropped):
    """It tells whether it did; if so, the next request obtains another."""
    endpoint = Endpoint()
    source = source_of(endpoint)

    assert source.invalidate(value) is dropped
    assert source.token().value == ("token-2" if dropped else "token-1")
    assert endpoint.tries == ([3, 3] if dropped else [3])


def test_after_the_token_was_invalidated_the_endpoint_must_be_asked(clock):
    """Until it has given another: a store may hold what was dropped."""
    endpoint = Endpoint(None, requests.ConnectionError())
    source = source_of(endpoint)
    source.invalidate(None)
    with pytest.raises(requests.ConnectionError):
        source.token()
    source.token()
    clock.tick(STALE)
    source.token()

    assert endpoint.anew == [False, True, True, False]


def test_where_nothing_was_dropped_a_stored_token_will_do(clock):
    """There is no reason to mistrust it."""
    endpoint = Endpoint()
    source = TokenSource(endpoint, PATIENCE)
    source.invalidate(None)
    source.token()
    source.invalidate("some other")
    clock.tick(EXPIRED)
    source.token()

    assert endpoint.anew == [False, False]


def test_invalidating_right_after_a_renewal_has_ended_is_not_undone(clock, monkeypatch):
    """Whoever was freed by its end may be quicker than its leader."""
    end, freed = TokenSource._end, []

    def end_and_invalidate(self: TokenSource, mine: Any) -> None:
        end(self, mine)
        if mine.token and not freed:
            freed.append(self.invalidate(None))

    endpoint = Endpoint()
    source = TokenSource(endpoint, PATIENCE)
    monkeypatch.setattr(TokenSource, "_end", end_and_invalidate)

    assert source.token().value == "token-1"
    assert freed == [True]
    assert source.token().value == "token-2"
    assert endpoint.anew == [False, True]


@pytest.mark.parametrize("value", [None, "token-1"], ids=["any", "one"])
def test_there_need_not_be_a_token_to_invalidate(clock, value):
    """Without one, nothing happens."""
    source = TokenSource(Endpoint(), PATIENCE)

    assert source.invalidate(value) is False
    assert source.token().value == "token-1"


def test_invalidate_ends_the_hold_off_of_stale_tries(clock):
    """Even where the token itself stays."""
    endpoint = Endpoint(None, requests.ConnectionError())
    source = source_of(endpoint)
    clock.tick(STALE)
    source.token()
    source.invalidate("some other token")

    assert source.token().value == "token-3"
    assert endpoint.tries == [3, 1, 1]


@pytest.mark.parametrize("age", [0, STALE, EXPIRED], ids=["no token", "a stale token", "an expired token"])
def test_a_renewal_under_way_is_kept_when_the_token_is_invalidated(clock, start, age):
    """Its token was issued after all that made somebody invalidate the one before."""
    gate = Gate()
    endpoint = Endpoint(*([None] if age else []), gate)
    source = source_of(endpoint) if age else TokenSource(endpoint, PATIENCE)
    clock.tick(age)
    leader = start(source.token)
    gate.wait_until_reached()
    source.invalidate(None)
    gate.open()
    token = leader.result(LONG)

    assert source.token() is token
    assert len(endpoint.tries) == (2 if age else 1)


# Clock, signals, forks, garbage


def test_a_clock_set_back_makes_the_token_expired(clock):
    """How much it has left can't be told any more."""
    endpoint = Endpoint()
    source = source_of(endpoint)
    clock.move_to("2026-01-01T11:59:59.999Z")

    assert source.token().value == "token-2"
    assert endpoint.tries == [3, 3]


def test_a_clock_set_back_does_not_throw_away_what_a_renewal_brought(clock):
    """The token counts from the clock as it is now."""
    endpoint = Endpoint()
    source = source_of(endpoint)
    clock.move_to("2026-01-01T03:00:00Z")
    source.token()
    clock.tick(STALE - 1)

    assert source.token().value == "token-2"
    assert endpoint.tries == [3, 3]


def test_patience_does_not_depend_on_the_wall_clock(clock, start, waiters):
    """Set forward while a thread waits, it does not make it give up."""
    stale, full = Gate(requests.ReadTimeout()), Gate()
    source = source_of(Endpoint(None, stale, full), patience=100)
    clock.tick(STALE)
    leader = start(source.token)
    stale.wait_until_reached()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: 5.0)
        clock.tick(EXPIRED - STALE)
        waiters.after = full.wait_until_reached  # the leader leads the second one too
        waiter = start(source.token)
        waiters.expect(1)
        clock.tick(3600)
        stale.open()
        waiters.expect(1)
        full.open()

        assert waiter.result(LONG) is leader.result(LONG)


class InterruptedLock:
    """A lock in whose critical section a signal arrives, once."""

    def __init__(self, lock: Any) -> None:
        self._lock, self.armed = lock, True

    def __enter__(self) -> None:
        self._lock.acquire()
        if self.armed:
            self.armed = False
            signal.raise_signal(signal.SIGUSR1)

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()


@pytest.fixture
def at_signal() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Sets what the next signal does; and ends what hangs."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("this system has no timer that could end a deadlock")

    def too_late(*_: object) -> None:
        raise AssertionError("deadlock")

    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN), signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, LONG)
    yield lambda call: signal.signal(signal.SIGUSR1, lambda *_: call()) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGUSR1, before[0])
    signal.signal(signal.SIGALRM, before[1])


@pytest.mark.parametrize("where", ["token", "replace", "hold_off", "invalidate"])
def test_a_signal_handler_may_ask_for_a_token_wherever_it_interrupts_its_thread(clock, at_signal, where):
    """Inside the critical section too: the thread would wait for itself."""
    endpoint = Endpoint()
    source = source_of(endpoint)
    clock.tick(EXPIRED)
    source._lock = InterruptedLock(source._lock)
    seen: list[str] = []
    at_signal(lambda: seen.append(source.token().value))

    asked = {
        "token": source.token,
        "replace": lambda: source.replace("token-1"),
        "hold_off": lambda: source.hold_off("token-1"),
        "invalidate": lambda: source.invalidate("token-1"),
    }
    asked[where]()

    assert seen == ["token-2"]
    assert source.token().value == "token-2"
    assert endpoint.tries == [3, 3]


@pytest.mark.parametrize("change", ["invalidate", "hold_off", "the end of a renewal", "giving up"])
def test_whatever_changes_the_state_holds_the_lock(clock, start, waiters, change):
    """So it waits for whoever else does."""
    gate = Gate()
    source = source_of(Endpoint(None, gate), patience=0.02 if change == "giving up" else PATIENCE)
    clock.tick(EXPIRED)
    leader = start(source.token)
    gate.wait_until_reached()
    waiter = start(source.token) if change == "giving up" else None
    waiters.expect(1 if waiter else 0)

    with held(source, start):
        if change == "the end of a renewal":
            gate.open()
        changes = {
            "invalidate": lambda: start(source.invalidate, None),
            "hold_off": lambda: start(source.hold_off, "token-1"),
            "the end of a renewal": lambda: leader,
            "giving up": lambda: waiter,
        }
        waiting = changes[change]()
        assert not wait([waiting], 0.1).done
    assert wait([waiting], LONG).done
    gate.open()
    leader.result(LONG)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_source_is_told_of_forks(clock, start):
    """In the child of a real one, while a thread of the parent leads a renewal and another holds the lock."""
    gate = Gate()
    source = TokenSource(Endpoint(gate), PATIENCE)
    leader = start(source.token)
    gate.wait_until_reached()
    with held(source, start):
        child = os.fork()
        if not child:
            status = 1
            try:
                signal.alarm(int(LONG))  # ends a child that hangs
                status = source.token().value != "token-2"
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
    gate.open()

    assert status == 0
    assert leader.result(LONG).value == "token-1"


def test_a_process_forked_during_a_renewal_begins_its_own(clock, start):
    """The thread that leads it is not there, and a lock that was held would stay so: what a child does is done here."""
    gate = Gate()
    endpoint = Endpoint(gate)
    source = TokenSource(endpoint, PATIENCE)
    leader = start(source.token)
    gate.wait_until_reached()
    with held(source, start):
        _source._forget_renewals()
        assert start(source.token).result(LONG).value == "token-2"

    gate.open()
    leader.result(LONG)
    assert endpoint.tries == [3, 3]


def test_a_forked_process_keeps_the_token(clock):
    """It is as good there as it was in the parent."""
    endpoint = Endpoint()
    source = source_of(endpoint)
    _source._forget_renewals()

    assert source.token().value == "token-1"
    assert endpoint.tries == [3]


def test_a_source_that_nobody_uses_is_freed(clock):
    """What must be told of forks is not kept alive for that."""
    reference = weakref.ref(source_of(Endpoint()))
    gc.collect()

    assert reference() is None
