"""Who renews the token, who waits, and what each of them ends up with: the states, and the single flight.

The token endpoint is in memory and the time is frozen, so that what a second more or less does is exact. Threads meet
at gates. What an interrupt does at each moment is in `test_interrupts.py`.
"""

import gc
import logging
import random
import signal
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from traceback import walk_tb
from typing import Any

import pytest
import requests
import urllib3
from in_memory import EXPIRED, LONG, PATIENCE, STALE, Answer, Crowd, Gate, TokenEndpoint, auth_with

import requests_mentionme
from requests_mentionme import InvalidClientError, MentionMeAuth, TokenEndpointError, TokenResponseError

BRIEF = 0.02  # real seconds: the patience with the timeout SHORT
SHORT = 0.004  # seconds
AGES = pytest.mark.parametrize("age", [None, EXPIRED], ids=["no token", "an expired token"])
Futures = "list[Future[Any]]"


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries, which take no time."""
    taken: list[float] = []
    monkeypatch.setattr(time, "sleep", taken.append)
    return taken


def dead(text: str = "dead") -> requests.RequestException:
    """Return a failure of the network after which no other try is made."""
    return requests.ReadTimeout(text)


def aged(clock: Any, age: float | None, *script: object, **options: Any) -> tuple[MentionMeAuth, TokenEndpoint]:
    """Return an auth whose token is so old, or that has none, and its endpoint with this script."""
    endpoint = TokenEndpoint()
    auth = auth_with(endpoint, **options)
    if age is not None:
        auth.access_token()
        clock.tick(age)
    endpoint.script = list(script)
    return auth, endpoint


def after(clock: Any, seconds: float, outcome: object) -> Callable[[], object]:
    """Return an outcome that takes so many seconds."""
    return lambda: (clock.tick(seconds), outcome)[1]


def token(value: str, lifetime: float) -> Answer:
    """Return the answer with a token of this lifetime."""
    return Answer(fields={"access_token": value, "expires_in": lifetime})


def named(seconds: float) -> Answer:
    """Return the answer of an endpoint that asks to be tried again later."""
    return Answer(429, headers={"Retry-After": str(seconds)})


def values(futures: Futures) -> list[str]:
    """Return the tokens that the threads ended in."""
    return [future.result(LONG) for future in futures]


def errors(futures: Futures) -> list[Any]:
    """Return the exceptions that the threads ended in."""
    return [future.exception(LONG) for future in futures]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged by this package as a warning or worse."""
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


# A stale token


def test_of_threads_that_find_a_stale_token_one_renews_it_and_the_others_use_it(clock, crowd):
    """Nobody else is delayed, and nobody else asks, even if they all come at the same moment."""
    barrier = threading.Barrier(17)
    gate = Gate()
    auth, endpoint = aged(clock, STALE, gate)
    asked = set(crowd.ask(17, lambda: barrier.wait(LONG) >= 0 and auth.access_token()))
    others: set[Future[Any]] = set()
    while len(others) < 16:
        others |= wait(asked - others, LONG, FIRST_COMPLETED).done

    assert values(others) == ["token-1"] * 16
    assert endpoint.count == 2
    gate.open()
    assert values(asked - others) == ["token-2"]
    assert auth.access_token() == "token-2"
    assert endpoint.count == 2


def test_a_failed_stale_try_is_one_try_and_a_warning_and_the_token_in_hand_is_used(clock, caplog, naps):
    """The request goes on as if nothing had happened, without waits; the log says what did, and no token."""
    auth, endpoint = aged(clock, STALE, requests.ConnectionError("the line is dead"))

    assert auth.access_token() == "token-1"
    assert endpoint.count == 2
    assert naps == []
    (message,) = warnings(caplog)
    assert message.startswith("Renewal failed")
    assert "the line is dead" in message
    assert "30 s" in message
    assert "token-1" not in caplog.text


@pytest.mark.parametrize(("pause", "tries"), [(0, 1), (29.999, 1), (30, 2), (31, 2)])
def test_after_a_failed_stale_try_no_request_tries_again_for_30_s(clock, caplog, pause, tries):
    """The pause counts from the end of the try, and while it lasts the token in hand is used without a word."""
    auth, endpoint = aged(clock, STALE, after(clock, 20, dead("first")), dead("second"))
    auth.access_token()
    clock.tick(pause)

    assert auth.access_token() == "token-1"
    assert endpoint.count == 1 + tries
    assert len(warnings(caplog)) == tries


@pytest.mark.parametrize("jump", [-1e8, 1e8, 31, -1], ids=["far back", "far ahead", "ahead", "back"])
def test_a_monotonic_clock_that_jumps_does_not_make_the_pause_last(clock, monkeypatch, jump):
    """The pause counts only while what is left of it lies between nothing and 30 s."""
    auth, _ = aged(clock, STALE, dead())
    auth.access_token()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + jump)

    assert auth.access_token() == "token-3"


def test_the_pause_is_none_for_an_expired_token_and_ends_with_the_next_one(clock):
    """A dead token is renewed, however short ago a try failed, and so is a new one whose life is short."""
    auth, endpoint = aged(clock, EXPIRED - 1, dead(), token("brief", 10))
    assert auth.access_token() == "token-1"
    clock.tick(1)
    assert auth.access_token() == "brief"
    clock.tick(8)

    assert auth.access_token() == "token-4"
    assert endpoint.count == 4


@pytest.mark.parametrize("outcome", [None, dead("full")], ids=["succeeds", "fails"])
def test_a_thread_whose_stale_try_failed_looks_at_the_state_again(clock, caplog, start, outcome):
    """A token that has expired meanwhile is renewed in full, which ends like any other renewal."""
    auth, endpoint = aged(clock, STALE, after(clock, EXPIRED - STALE, dead("stale")), outcome, timeout=(5, 200))
    asked = start(auth.access_token)

    assert asked.exception(LONG) is outcome
    assert outcome or asked.result() == "token-3"
    assert endpoint.count == 3
    assert len(warnings(caplog)) == 1


# No token, or an expired one


@AGES
def test_a_token_that_is_needed_is_asked_for_in_up_to_three_tries(clock, naps, age):
    """Without a token in hand, there is reason to try hard; an expired one is never handed out."""
    auth, endpoint = aged(clock, age, *(requests.ConnectionError("dead") for _ in range(3)))
    count = endpoint.count
    with pytest.raises(requests.ConnectionError, match="dead"):
        auth.access_token()

    assert endpoint.count == count + 3
    assert len(naps) == 2
    assert auth.access_token() == f"token-{count + 4}"


@AGES
@pytest.mark.parametrize("lifetime", [1000, 10], ids=["a live token", "one that arrives dead"])
def test_all_wait_for_one_renewal_and_take_its_token_without_judging_it(clock, crowd, age, lifetime):
    """Sixteen threads, one token request, one token; where that is of no use, there is no loop either."""
    gate = Gate(after(clock, 20, token("the-new-one", lifetime)))
    auth, endpoint = aged(clock, age, gate)
    count = endpoint.count
    asked = crowd.wait_behind(gate, 15, auth.access_token)
    assert not any(each.done() for each in asked)
    gate.open()

    assert values(asked) == ["the-new-one"] * 16
    assert endpoint.count == count + 1
    assert auth.access_token() == ("the-new-one" if lifetime == 1000 else f"token-{count + 2}")


@pytest.mark.parametrize("way", ["the token expires", "invalidate", "a refused token"])
@pytest.mark.parametrize("full", ["not needed", "succeeds", "fails"])
def test_a_request_that_needs_a_token_waits_for_a_stale_try_and_then_for_one_full_renewal(clock, crowd, way, full):
    """A renewal under way is kept, whatever becomes of the old token; a third one does not follow."""
    stale_gate = Gate(None if full == "not needed" else dead("stale"))
    full_gate = Gate(dead("full") if full == "fails" else None)
    auth, endpoint = aged(clock, STALE, stale_gate, full_gate, timeout=(5, 200))
    leader = crowd.ask(1, auth.access_token)
    stale_gate.wait_until_reached()
    if way == "the token expires":
        clock.tick(EXPIRED - STALE)
    if way == "invalidate":
        auth.invalidate()
    options = {"refused": "token-1"} if way == "a refused token" else {}
    waiting = crowd.ask(4, lambda: auth.access_token(**options))
    crowd.expect(4)
    stale_gate.open()
    if full != "not needed":
        full_gate.wait_until_reached()
        crowd.expect(4 if way != "a refused token" else 3)  # without a token in hand, the first leader waits as well
        full_gate.open()

    if full == "fails":
        assert {str(error) for error in errors(waiting)} == {"full"}
    else:
        assert set(values(waiting)) == {auth.access_token()}
    assert str(errors(leader)[0]) == "full" if full == "fails" and not options else values(leader)
    assert endpoint.count == (2 if full == "not needed" else 3)


# Whose exception is it


class _OddError(Exception):  # whose constructor wants something else than what it passes on
    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"{code}: {hint}")
        self.code = code


class _OddNetworkError(requests.ConnectionError):  # the same, of the kind whose arguments Python looks at
    def __init__(self, *, host: str) -> None:
        super().__init__(f"no way to {host}")
        self.host = host


class _DisguisedError(Exception):  # that is copied as one of another type
    def __reduce__(self) -> tuple[Any, ...]:
        return RuntimeError, self.args


class _ShoutingError(Exception):  # that makes something of its argument, and would do so again
    def __init__(self, message: str) -> None:
        super().__init__(message.upper() + "!")
        self.message = message


class _BareError(Exception):  # that keeps its arguments from its base
    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.sum = first + second


class _PickyError(Exception):  # that can't be made without what it does not keep
    def __new__(cls, *, reason: str) -> "_PickyError":
        return super().__new__(cls, reason)

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)


PROVIDED = {
    "wrong credentials": InvalidClientError("POST /token answered 401.", response=requests.Response()),
    "a fault of the network": requests.ConnectTimeout("slow", request=requests.Request("POST", "https://h.example")),
    "JSON in a response": requests.JSONDecodeError("Expecting value", "x", 0, response=requests.Response()),
    "keyword-only arguments": _OddError(5, hint="mind the step"),
    "keyword-only arguments in the network": _OddNetworkError(host="h.example"),
    "no arguments": _BareError(2, 3),
    "an argument that is changed": _ShoutingError("stop"),
    "a copy of another type": _DisguisedError("who is it?"),
    "what can't be copied": _PickyError(reason="no way"),
    "an error of the system with a file": OSError(2, "No such file", "key.txt"),
    "text that can't be decoded": UnicodeDecodeError("ascii", b"\xff", 0, 1, "ordinal not in range"),
    "a time that ran out": TimeoutError("the vault is slow"),
    "a bug": RuntimeError("the vault is broken"),
    "nothing": None,
    "no secret": ("an-id", ""),
}
SHARED = {
    "an endpoint that names a time": (named(50), TokenEndpointError),
    "wrong credentials": (Answer(401), InvalidClientError),
    "an answer of no use": (Answer(200), TokenResponseError),
    "a fault of the network": (requests.ReadTimeout("slow"), requests.ReadTimeout),
    "a fault of TLS": (requests.exceptions.SSLError("whose certificate is it?"), requests.exceptions.SSLError),
    "a fault of urllib3": (urllib3.exceptions.DecodeError("gibberish"), urllib3.exceptions.HTTPError),
    "a missing CA bundle": (OSError("Could not find a suitable TLS CA certificate bundle"), OSError),
    "a CA bundle that can't be read": (PermissionError(13, "Permission denied"), PermissionError),
}
OWN = {
    "a bug in the adapter": RuntimeError("the adapter is broken"),
    "another bug": KeyError("pool"),
    "a time that ran out": TimeoutError("the task took too long"),
}
DEATHS = {"Ctrl-C": KeyboardInterrupt(), "exit": SystemExit(1), "a closed generator": GeneratorExit()}
OWN_OR_DEATH = pytest.mark.parametrize("error", [*OWN.values(), *DEATHS.values()], ids=[*OWN, *DEATHS])


def functions_in_traceback(error: BaseException) -> set[str]:
    """Return the names of the functions that *error* came through."""
    return {frame.f_code.co_name for frame, _ in walk_tb(error.__traceback__)}


@pytest.mark.parametrize("outcome", PROVIDED.values(), ids=PROVIDED)
def test_what_the_provider_raises_or_wrongly_returns_is_shared(clock, crowd, outcome):
    """Each thread has a copy of its own: what one does to the exception it caught is not seen by another."""
    gate = Gate(outcome)

    def provide() -> Any:
        provided = gate.pass_through()
        if isinstance(provided, Exception):
            raise provided
        return provided

    raised = errors_of(crowd, gate, MentionMeAuth.from_provider(provide))
    error = raised[0]
    if isinstance(outcome, Exception):
        assert error is outcome
    else:
        assert type(error) is (TypeError if outcome is None else ValueError)
    if isinstance(error, _PickyError):
        return  # one object for all is better than another error in its place
    assert len({id(each) for each in raised}) == len({id(vars(each)) for each in raised}) == 5
    assert all(each.args == error.args and vars(each) == vars(error) for each in raised)


def errors_of(crowd: Crowd, gate: Gate, auth: MentionMeAuth) -> list[Any]:
    """Return what the leader and four who waited for it raised, which is all of one type and says the same."""
    asked = crowd.wait_behind(gate, 4, auth.access_token)
    gate.open()
    raised = errors(asked)
    assert {type(each) for each in raised} == {type(raised[0])}
    assert {str(each) for each in raised} == {str(raised[0])}
    return raised


@pytest.mark.parametrize(("outcome", "kind"), SHARED.values(), ids=SHARED)
def test_a_failure_of_the_token_request_is_shared_and_not_remembered(clock, crowd, outcome, kind):
    """No copy leads to the frames of the leader. The next request asks again, unless the endpoint named a time."""
    gate = Gate(outcome)
    auth, endpoint = aged(clock, None, gate)
    raised = errors_of(crowd, gate, auth)

    assert isinstance(raised[0], kind)
    assert len({id(each) for each in raised}) == 5
    assert endpoint.count == 1
    assert "send" in functions_in_traceback(raised[0]) or raised[0] is not outcome
    assert not any("send" in functions_in_traceback(each) or each.__context__ for each in raised[1:])
    if not getattr(raised[0], "retry_after", None):
        assert auth.access_token() == "token-2"


@pytest.mark.parametrize("outcome", [outcome for outcome, _ in SHARED.values()], ids=SHARED)
def test_a_failure_of_the_token_request_is_a_warning_while_a_stale_token_lives(clock, caplog, outcome):
    """A lost CA bundle does not become an outage either; for 30 s no request tries again."""
    auth, endpoint = aged(clock, STALE, outcome)

    assert [auth.access_token(), auth.access_token()] == ["token-1", "token-1"]
    assert endpoint.count == 2
    assert len(warnings(caplog)) == 1


@OWN_OR_DEATH
def test_any_other_exception_is_the_leaders_alone_and_one_of_those_who_wait_leads_next(clock, crowd, naps, error):
    """It reaches its thread unchanged. The others share what the next renewal, of one try, ends in."""
    first = Gate(error)
    second = Gate(requests.ConnectionError("dead"))
    auth, endpoint = aged(clock, None, first, second)
    leader, *waiting = crowd.wait_behind(first, 4, auth.access_token)
    first.open()
    second.wait_until_reached()
    crowd.expect(3)
    second.open()

    assert leader.exception(LONG) is error
    assert {str(each) for each in errors(waiting)} == {"dead"}
    assert endpoint.count == 2
    assert naps == []


@OWN_OR_DEATH
@pytest.mark.parametrize("age", [None, STALE, EXPIRED], ids=["no token", "stale", "expired"])
def test_such_an_exception_reaches_its_caller_who_can_ask_again(clock, caplog, age, error):
    """It is no failure of the endpoint, so nothing is logged. In a stale try it starts the 30 s without a try."""
    auth, endpoint = aged(clock, age, error)
    count = endpoint.count
    with pytest.raises(type(error)) as raised:
        auth.access_token()

    assert raised.value is error
    assert warnings(caplog) == []
    if age == STALE:
        clock.tick(29.999)
        assert auth.access_token() == "token-1"
        clock.tick(0.001)
    assert auth.access_token() == f"token-{count + 2}"


class SoftTimeLimitError(Exception):
    """What the signal handler of a task queue raises in the thread that takes too long."""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no signal to spare")
@pytest.mark.parametrize("age", [None, STALE, EXPIRED], ids=["no token", "stale", "expired"])
def test_an_exception_of_a_signal_handler_ends_its_own_task_alone(clock, crowd, caplog, age):
    """The other tasks have time left: a token in hand serves them, or one of them leads the next renewal."""
    others: list[Future[Any]] = []

    def handle(*_: object) -> None:
        raise SoftTimeLimitError

    def be_joined_and_run_out_of_time() -> None:
        others.extend(crowd.ask(4, auth.access_token))
        if age != STALE:
            crowd.expect(4)
        signal.raise_signal(signal.SIGUSR1)

    auth, endpoint = aged(clock, age, be_joined_and_run_out_of_time, "after-that")
    count = endpoint.count
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with pytest.raises(SoftTimeLimitError):
            auth.access_token()
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert set(values(others)) == {"token-1" if age == STALE else "after-that"}
    assert auth.access_token() == others[0].result()
    assert endpoint.count == count + (1 if age == STALE else 2)
    assert warnings(caplog) == []


# Patience


def test_a_waiter_gives_up_after_its_patience_and_the_next_request_begins_another_renewal(clock, start):
    """It raises one of our errors, which says what happened; one stuck thread does not keep all others out for good."""
    gate = Gate()
    auth, endpoint = aged(clock, None, gate, timeout=SHORT)
    leader = start(auth.access_token)
    gate.wait_until_reached()
    with pytest.raises(TokenEndpointError, match=r"Another thread's token request has not ended within 0\.02 s") as one:
        auth.access_token()

    assert one.value.retry_after is None
    assert endpoint.count == 1
    assert auth.access_token() == "token-2"
    gate.open()
    assert leader.result(LONG) == "token-1"


@pytest.mark.parametrize("first", [dead(), TimeoutError("not shared")], ids=["a stale try", "one that is not shared"])
@pytest.mark.parametrize("clocks", ["both", "the wall clock"])
def test_patience_is_counted_over_all_that_a_thread_waits_for(clock, crowd, monkeypatch, first, clocks):
    """Whoever waits for a second renewal has the rest of its patience for it; that one is not given up for others."""
    failing = Gate(first)
    full = Gate()
    auth, endpoint = aged(clock, STALE if first.args == ("dead",) else EXPIRED, failing, full)
    if clocks == "the wall clock":
        monkeypatch.setattr(time, "monotonic", lambda: 5.0)  # patience does not depend on the other one
    leader = crowd.ask(1, auth.access_token)
    failing.wait_until_reached()
    auth.invalidate()
    waiting = crowd.ask(4, auth.access_token)
    crowd.expect(4)
    clock.tick(PATIENCE - BRIEF if clocks == "both" else 3600)
    failing.open()
    full.wait_until_reached()  # one of the five threads is there; at least three of those who waited wait again
    given_up: set[Future[Any]] = set()
    while clocks == "both" and len(given_up) < 3:
        given_up |= wait(set(waiting) - given_up, LONG, FIRST_COMPLETED).done
    later = crowd.another()
    last = later.ask(1, auth.access_token)
    later.expect(1)
    full.open()

    assert {type(error) for error in errors(given_up)} <= {TokenEndpointError}
    assert values(last if clocks == "both" else [*last, *waiting])[-1] == "token-3"
    assert wait([*leader, *waiting], LONG).not_done == set()
    assert endpoint.count == 3


# A leader that comes late


def stuck(clock: Any, start: Any, outcome: object, *script: object, age: float | None = None) -> tuple[Any, ...]:
    """Return an auth whose leader is stuck at a gate and was given up; the leader, the gate and the endpoint."""
    gate = Gate(outcome)
    auth, endpoint = aged(clock, age, gate, *script, timeout=SHORT)
    leader = start(auth.access_token)
    gate.wait_until_reached()
    with pytest.raises(TokenEndpointError):
        auth.access_token()
    return auth, leader, gate, endpoint


@pytest.mark.parametrize("outcome", ["late", dead("late")], ids=["succeeds", "fails"])
@pytest.mark.parametrize("pause", [0, 0.005], ids=["at the same time", "later"])
def test_a_late_leader_does_not_throw_away_a_newer_token(clock, start, outcome, pause):
    """What a stuck leader ends in serves its own request; the newer token stays current."""
    auth, leader, gate, endpoint = stuck(clock, start, outcome, "newer")
    clock.tick(pause)
    assert auth.access_token() == "newer"
    gate.open()

    assert (str(leader.exception(LONG)) if leader.exception(LONG) else leader.result(LONG)) == "late"
    assert auth.access_token() == "newer"
    assert endpoint.count == 2


def test_a_late_leader_whose_token_was_obtained_last_is_not_late(clock, start, naps, monkeypatch):
    """Its last try may have been sent after the other token arrived: then its token is the newer one."""
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)  # so that another try fits the short budget
    auth, leader, gate, endpoint = stuck(clock, start, requests.ConnectionError(), "newer", "last")
    assert auth.access_token() == "newer"
    clock.tick(0.005)
    gate.open()

    assert leader.result(LONG) == "last"
    assert auth.access_token() == "last"
    assert endpoint.count == 3


@AGES
def test_the_token_of_a_late_leader_is_kept_where_there_is_no_newer_one(clock, start, age):
    """It was paid for, so the next request uses it."""
    auth, leader, gate, endpoint = stuck(clock, start, "late", age=age)
    count = endpoint.count
    gate.open()

    assert leader.result(LONG) == "late"
    assert auth.access_token() == "late"
    assert endpoint.count == count


@pytest.mark.parametrize("status", [200, 429], ids=["succeeds", "names a time"])
def test_the_renewal_that_took_over_is_ended_by_its_own_leader_alone(clock, crowd, status):
    """Neither the late leader, whatever it ends in, nor a waiter that gives up on that one later ends it for others."""
    first = Gate(token("late", 1000) if status == 200 else named(50))
    second = Gate("second")
    auth, endpoint = aged(clock, None, first, second, timeout=0.1)  # a patience of half a second
    late_leader, early = crowd.wait_behind(first, 1, auth.access_token)
    wait([early], 0.2)  # real time, as it is real time in which a waiter gives up
    (late,) = crowd.ask(1, auth.access_token)
    crowd.expect(1)
    assert isinstance(early.exception(LONG), TokenEndpointError)

    took_over = crowd.ask(1, auth.access_token)
    second.wait_until_reached()
    assert isinstance(late.exception(LONG), TokenEndpointError)
    first.open()
    assert (late_leader.exception(LONG) is None) == (status == 200)
    if status == 200:
        auth.invalidate()  # otherwise the late token would do
    waiting = crowd.ask(4, auth.access_token)
    crowd.expect(4)
    second.open()

    assert values(took_over + waiting) == ["second"] * 5
    assert endpoint.count == 2


# Whoever is freed finds the token kept


def paused_at_each_line(call: Callable[[], Any], pause: Callable[[], object]) -> Any:
    """Make a call that pauses at each line of this package, once its token request was answered."""
    answered = False

    def trace(frame: types.FrameType, event: str, _: object) -> Any:
        nonlocal answered
        if frame.f_code is TokenEndpoint.send.__code__:
            answered = answered or event == "return"
            return trace
        if not frame.f_code.co_filename.startswith(requests_mentionme.__path__[0]):
            return None
        if answered:
            pause()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return call()
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("then", ["ask again", "invalidate"])
def test_those_who_waited_are_freed_after_the_token_is_kept(clock, start, crowd, then):
    """They may be quicker than the leader: what they do next is neither too early for its token nor undone by it."""
    gate = Gate()
    auth, endpoint = aged(clock, None, gate)
    waiting: list[Future[Any]] = []

    def wait_and_go_on() -> str:
        first = auth.access_token()
        if then == "invalidate":
            auth.invalidate()
            return first
        return auth.access_token()

    def let_others_go_on() -> None:
        time.sleep(0.0005)
        if crowd.count == 0:
            wait(waiting, 1)

    leader = start(lambda: paused_at_each_line(auth.access_token, let_others_go_on))
    gate.wait_until_reached()
    waiting.extend(crowd.ask(1, wait_and_go_on))
    crowd.expect(1)
    gate.open()

    assert values([leader, *waiting]) == ["token-1", "token-1"]
    assert endpoint.count == 1
    assert auth.access_token() == ("token-2" if then == "invalidate" else "token-1")


# Asking from within


@pytest.mark.parametrize("age", [None, STALE, EXPIRED], ids=["no token", "stale", "expired"])
def test_asking_from_within_the_token_request_raises_instead_of_waiting_for_itself(clock, age):
    """The error names the cause, and the token request itself goes on."""
    caught: list[str] = []

    def ask_from_within() -> None:
        with pytest.raises(RuntimeError) as raised:
            auth.access_token()
        caught.append(str(raised.value))

    auth, endpoint = aged(clock, age, ask_from_within)
    count = endpoint.count

    assert auth.access_token() == f"token-{count + 1}"
    assert len(caught) == 1
    assert "within the token request" in caught[0]
    assert endpoint.count == count + 1


def test_an_error_of_asking_from_within_that_is_not_caught_ends_the_renewal(clock):
    """The next request can ask again. A token request may ask for the token of another auth."""
    other, _ = aged(clock, None)
    auth, _ = aged(clock, None, lambda: str(auth.access_token()), lambda: str(other.access_token()) and None)
    with pytest.raises(RuntimeError, match="within the token request"):
        auth.access_token()

    assert auth.access_token() == "token-2"


# A time that the endpoint named


@pytest.mark.parametrize(("seconds", "until"), [(50, 50), (61, 60), (86_400, 60)])
def test_until_the_time_that_was_named_the_same_error_is_raised_at_once(clock, seconds, until):
    """For 60 s at most. `retry_after` counts down, no two errors are one object, the endpoint is left in peace."""
    auth, endpoint = aged(clock, None, named(seconds))
    raised: list[TokenEndpointError] = []
    for waited in (0, 0, 5, until - 5.1):
        clock.tick(waited)
        with pytest.raises(TokenEndpointError) as caught:
            auth.access_token()
        raised.append(caught.value)

    left = [seconds, seconds, seconds - 5, seconds - until + 0.1]
    assert [each.retry_after for each in raised] == pytest.approx(left, abs=1e-5)
    assert {each.args for each in raised} == {raised[0].args}
    assert len({id(each) for each in raised}) == 4
    assert not any("send" in functions_in_traceback(each) for each in raised)
    assert endpoint.count == 1
    clock.tick(0.1)
    assert auth.access_token() == "token-2"


@pytest.mark.parametrize("jump", [-3650, 3650], ids=["set back", "set forward"])
def test_a_clock_that_jumps_does_not_make_a_named_time_last(clock, jump):
    """A test suite that froze a far day does not stop all token requests of the days after."""
    auth, _ = aged(clock, None, named(50))
    with pytest.raises(TokenEndpointError):
        auth.access_token()
    clock.tick(jump * 86_400.0)

    assert auth.access_token() == "token-2"


@pytest.mark.parametrize(("seconds", "until"), [(5, 30), (45, 45), (3600, 60)])
def test_a_named_time_keeps_stale_tries_off_too(clock, caplog, seconds, until):
    """With a token in hand there is even less reason to bother the endpoint; the pause of 30 s is the least."""
    auth, endpoint = aged(clock, STALE, named(seconds))
    assert auth.access_token() == "token-1"
    clock.tick(until - 0.1)
    assert auth.access_token() == "token-1"
    assert endpoint.count == 2
    assert len(warnings(caplog)) == 1

    clock.tick(0.1)
    assert auth.access_token() == "token-3"


def test_a_time_named_to_a_stale_try_is_kept_to_once_the_token_has_expired(clock):
    """A request that needs a token meanwhile raises, and says how long it will be."""
    auth, _ = aged(clock, EXPIRED - 5, named(20))
    assert auth.access_token() == "token-1"
    clock.tick(5)
    with pytest.raises(TokenEndpointError, match=r"Try again in 15 s\.$"):
        auth.access_token()


@pytest.mark.parametrize(("outcome", "tries"), [(named(50), 1), (dead(), 2)], ids=["a named time", "another failure"])
def test_only_a_named_time_makes_a_failed_renewal_of_a_refused_token_keep_stale_tries_off(clock, outcome, tries):
    """Until a new token is there the refused one stays current."""
    auth, endpoint = aged(clock, STALE - 1, outcome)
    with pytest.raises(requests.RequestException):
        auth.access_token(refused="token-1")
    assert auth.access_token() == "token-1"
    clock.tick(1)

    assert auth.access_token() == f"token-{2 * tries - 1}"
    assert endpoint.count == 1 + tries


def test_a_named_time_ends_with_a_token(clock, start):
    """Where a late leader brought one, nobody is told to wait any more."""
    auth, leader, gate, endpoint = stuck(clock, start, token("late", 10), named(50))
    with pytest.raises(TokenEndpointError):
        auth.access_token()
    gate.open()
    leader.result(LONG)
    clock.tick(9.5)

    assert auth.access_token() == "token-3"
    assert endpoint.count == 3


def test_the_error_that_is_remembered_until_a_named_time_keeps_nothing_alive(clock):
    """Its traceback would hold all that the request which met it was at, for as long as no other token comes."""

    class Held:
        """What a request was at."""

    auth, _ = aged(clock, None, named(50))

    def request() -> weakref.ref[Held]:
        held = Held()
        with pytest.raises(TokenEndpointError):
            auth.access_token()
        return weakref.ref(held)

    reference = request()
    gc.collect()
    assert reference() is None
    with pytest.raises(TokenEndpointError):
        auth.access_token()


# Invalidate


@pytest.mark.parametrize(("value", "dropped"), [(None, True), ("token-1", True), ("another", False), ("", False)])
def test_invalidate_drops_the_current_token_or_only_the_one_it_names(clock, value, dropped):
    """If it was dropped, the next request obtains another."""
    auth, _ = aged(clock, 0)
    auth.invalidate(value)

    assert auth.access_token() == ("token-2" if dropped else "token-1")


@pytest.mark.parametrize("value", [None, "token-1", "some other token"])
@pytest.mark.parametrize("age", [None, STALE], ids=["a named time", "the 30 s after a stale try"])
def test_invalidate_ends_every_hold_off(clock, age, value):
    """Somebody who knows better has the last word, whether or not there is a token to drop."""
    auth, endpoint = aged(clock, age, named(50))
    if age is None:
        with pytest.raises(TokenEndpointError):
            auth.access_token()
    else:
        auth.access_token()
    count = endpoint.count
    auth.invalidate(value)

    assert auth.access_token() == f"token-{count + 1}"


@AGES
def test_a_renewal_under_way_is_kept_when_the_token_is_invalidated(clock, start, age):
    """Its token was issued after all that made somebody invalidate the one before."""
    gate = Gate("kept")
    auth, endpoint = aged(clock, age, gate)
    count = endpoint.count
    leader = start(auth.access_token)
    gate.wait_until_reached()
    auth.invalidate()
    gate.open()

    assert [leader.result(LONG), auth.access_token()] == ["kept", "kept"]
    assert endpoint.count == count + 1


def test_an_auth_that_nobody_uses_is_freed(clock):
    """What must be told of forks is not kept alive for that."""
    reference = weakref.ref(aged(clock, 0)[0])
    gc.collect()

    assert reference() is None
