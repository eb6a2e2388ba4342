"""Who renews the token, who waits, and what each of them ends up with: the single flight.

The token endpoint is in memory and the time is frozen, so that what a second more or less does is exact. What an
interrupt does is in `test_interrupts.py`; what one thread meets, one thing after the other, in `proofs/test_model.py`.
"""

import copy
import gc
import itertools
import random
import re
import time
import weakref
from concurrent.futures import as_completed, wait
from traceback import walk_tb
from unittest import mock

import pytest
import requests
import urllib3
from in_memory import API, EXPIRED, LONG, STALE, Answer, Gate, TokenEndpoint, aged, auth_with, token, warnings

from requests_mentionme import InvalidClientError, MentionMeAuth, TokenEndpointError, TokenResponseError

BRIEF = 0.02  # real seconds: the patience with the timeout SHORT
SHORT = 0.004  # seconds
AGES = pytest.mark.parametrize("age", [None, STALE, EXPIRED], ids=["no token", "stale", "expired"])


def named(seconds):
    return Answer(429, headers={"Retry-After": str(seconds)})


def values(futures):
    return [future.result(LONG) for future in futures]


def errors(futures):
    return [future.exception(LONG) for future in futures]


def test_of_threads_that_find_a_stale_token_one_renews_it_and_the_others_use_it(clock, start):
    gate = Gate()
    auth, endpoint = aged(clock, STALE, gate)
    leader = start(auth.access_token)
    gate.wait_until_reached()
    assert values([start(auth.access_token) for _ in range(16)]) == ["old"] * 16
    assert start(lambda: auth.access_token(refused="an older one")).result(LONG) == "old"
    gate.open()
    assert (leader.result(LONG), auth.access_token(), endpoint.count) == ("token-1", "token-1", 1)


def test_a_failed_stale_try_is_one_try_and_a_warning_and_the_next_is_30_s_later_or_at_the_end(clock, caplog):
    """The pause counts from the end of the try, and ends with the next token. A lost CA bundle is no outage either."""

    def die_slowly():
        clock.tick(20)
        raise requests.ConnectionError("the line\n is\x1b dead, café")

    no_bundle = OSError("Could not find a suitable TLS CA certificate bundle")
    auth, endpoint = aged(clock, EXPIRED - 60, die_slowly, no_bundle, token("brief", 10))
    steps = ((0, "old", 1), (29.999, "old", 1), (0.001, "old", 2), (10, "brief", 3), (8, "token-4", 4))  # count in all
    for seconds, value, count in steps:
        clock.tick(seconds)
        assert (auth.access_token(), endpoint.count) == (value, count)
    reasons = [re.sub(r"Renewal failed\..* 30 s .*\. ", "", text) for text in warnings(caplog)]
    assert reasons == [r"the line is\x1b dead, café", str(no_bundle)]


@pytest.mark.parametrize(("age", "lifetime", "times"), [(EXPIRED, 1000, 2), (None, 10, 1)], ids=["live", "nearly dead"])
def test_all_wait_for_one_renewal_and_take_its_token_without_judging_it(*, clock, crowd, age, lifetime, times):
    """The token is in hand before they are freed: however quick they are to ask again, they find it."""
    gate = Gate(token("new", lifetime))
    auth, endpoint = aged(clock, age, gate)
    asked = crowd.wait_behind(gate, 15, lambda: [auth.access_token() for _ in range(times)])
    assert not any(each.done() for each in asked)
    clock.tick(20)
    gate.open()
    assert values(asked) == [["new"] * times] * 16
    assert (endpoint.count, auth.access_token()) == (1, "new" if lifetime == 1000 else "token-2")


@pytest.mark.parametrize("way", ["the token expires", "invalidate", "a refused token"])
@pytest.mark.parametrize("full", ["not needed", "succeeds", "fails"])
def test_who_needs_a_token_waits_for_a_stale_try_then_for_one_renewal(*, clock, crowd, caplog, monkeypatch, way, full):
    """The thread whose stale try failed looks at the state again, so it waits as well if the token is no more."""
    monkeypatch.setattr(time, "sleep", mock.Mock())
    stale_gate = Gate(None if full == "not needed" else requests.ReadTimeout("stale"))
    full_gate = Gate(requests.ReadTimeout("full") if full == "fails" else requests.ConnectionError("once"))
    auth, endpoint = aged(clock, STALE, stale_gate, full_gate, timeout=(5, 200))
    leader = crowd.ask(1, auth.access_token)
    stale_gate.wait_until_reached()
    if way == "the token expires":
        clock.tick(EXPIRED - STALE)
    if way == "invalidate":
        auth.invalidate()
    refused = "old" if way == "a refused token" else None
    waiting = crowd.ask(4, lambda: auth.access_token(refused=refused))
    crowd.expect(4)
    stale_gate.open()
    if full != "not needed":
        full_gate.wait_until_reached()
        crowd.expect(3 if refused else 4)  # without a token in hand, the first leader waits as well
        full_gate.open()
    if full == "fails":
        assert {str(error) for error in errors(waiting)} == {"full"}
        assert [str(error) for error in errors(leader)] == ["None" if refused else "full"]  # or it goes on with "old"
    else:
        assert set(values(waiting if refused else leader + waiting)) == {auth.access_token()}
    counts = {"not needed": (1, 0), "fails": (2, 1), "succeeds": (3, 1)}
    assert (endpoint.count, len(warnings(caplog))) == counts[full]


class _OddNetworkError(requests.ConnectionError):  # whose constructor wants something else than what it passes on
    def __init__(self, *, host):
        super().__init__(f"no way to {host}")
        self.host = host


class _DisguisedError(Exception):  # that is copied as one of another type
    def __reduce__(self):
        return RuntimeError, self.args


class _ShoutingError(Exception):  # that makes something of its argument, and would do so again
    def __init__(self, message):
        super().__init__(message.upper() + "!")


class _PickyError(Exception):  # that can't be made without what it does not keep
    def __new__(cls, *, reason):
        return super().__new__(cls, reason)

    def __init__(self, *, reason):
        super().__init__(reason)


PROVIDED = {
    "JSON in a response": requests.JSONDecodeError("Expecting value", "x", 0, response=requests.Response()),
    "keyword-only arguments": _OddNetworkError(host="h.example"),
    "an argument that is changed": _ShoutingError("stop"),
    "a copy of another type": _DisguisedError("who is it?"),
    "what can't be copied": _PickyError(reason="no way"),
    "an error of the system with a file": OSError(2, "No such file", "key.txt"),
    "a time that ran out": TimeoutError("the vault is slow"),
    "no secret": ("an-id", ""),
}
SHARED = {
    "a dead endpoint": (requests.ReadTimeout("dead"), requests.ReadTimeout),
    "an endpoint that names a time": (named(50), TokenEndpointError),
    "wrong credentials": (Answer(401), InvalidClientError),
    "an answer of no use": (Answer(200), TokenResponseError),
    "a fault of urllib3": (urllib3.exceptions.DecodeError("gibberish"), urllib3.exceptions.HTTPError),
    "a CA bundle that can't be read": (PermissionError(13, "Permission denied"), PermissionError),
}


def leads_to_token_request(error):
    return "send" in {frame.f_code.co_name for frame, _ in walk_tb(error.__traceback__)}


def errors_of(crowd, gate, auth):
    """Return what the leader and four who waited for it raised, which is all of one type and says the same."""
    asked = crowd.wait_behind(gate, 4, auth.access_token)
    gate.open()
    raised = errors(asked)
    assert {(type(each), str(each)) for each in raised} == {(type(raised[0]), str(raised[0]))}
    return raised


@pytest.mark.parametrize("outcome", PROVIDED.values(), ids=PROVIDED)
def test_what_the_provider_raises_or_wrongly_returns_is_shared(clock, crowd, outcome):
    """Each thread has a copy of its own: what one does to the exception it caught is not seen by another."""
    provider = mock.Mock(side_effect=[outcome])
    gate = Gate()
    raised = errors_of(crowd, gate, MentionMeAuth.from_provider(lambda: gate.pass_through() or provider()))
    error = raised[0]
    assert provider.call_count == 1
    assert error is outcome or (type(error) is ValueError and outcome == ("an-id", ""))
    if isinstance(error, _PickyError):
        return  # one object for all is better than another error in its place
    assert len({id(each) for each in raised}) == len({id(vars(each)) for each in raised}) == 5
    assert all(each.args == error.args and vars(each) == vars(error) for each in raised)


@pytest.mark.parametrize(("copying", "making"), [(KeyboardInterrupt, TypeError), (TypeError, KeyboardInterrupt)])
def test_an_interrupt_while_an_error_is_copied_is_raised(monkeypatch, copying, making):
    auth = MentionMeAuth.from_provider(mock.Mock(side_effect=_PickyError(reason="no way")))
    monkeypatch.setattr(copy, "copy", mock.Mock(side_effect=copying))
    monkeypatch.setattr(_PickyError, "__new__", mock.Mock(side_effect=making))
    with pytest.raises(KeyboardInterrupt):
        auth.access_token()


@pytest.mark.parametrize(("outcome", "kind"), SHARED.values(), ids=SHARED)
def test_a_failed_token_request_is_shared_and_not_remembered_unless_a_time_was_named(clock, crowd, outcome, kind):
    """No copy leads to the frames of the leader."""
    gate = Gate(outcome)
    auth, endpoint = aged(clock, None, gate)
    raised = errors_of(crowd, gate, auth)
    assert isinstance(raised[0], kind)
    assert (len({id(each) for each in raised}), endpoint.count) == (5, 1)
    assert raised[0] is not outcome or leads_to_token_request(raised[0])  # the leader's keeps its own traceback
    assert not any(leads_to_token_request(each) or each.__context__ for each in raised[1:])
    if not getattr(raised[0], "retry_after", None):
        assert auth.access_token() == "token-2"


@AGES
@pytest.mark.parametrize("error", [RuntimeError("a bug"), TimeoutError("an alarm"), KeyboardInterrupt()], ids=repr)
def test_any_other_exception_is_its_threads_alone(*, clock, crowd, caplog, age, error):
    """Nothing is logged. The others use a token in hand, or share what comes of one try that one of them leads."""
    others = []

    def be_joined_and_interrupted():
        others.extend(crowd.ask(4, auth.access_token))
        if age != STALE:
            crowd.expect(4)
        raise error

    following = Gate(requests.ConnectionError("dead"))
    auth, endpoint = aged(clock, age, be_joined_and_interrupted, following)
    with pytest.raises(type(error)) as raised:
        auth.access_token()
    assert raised.value is error
    if age == STALE:
        assert values(others) == ["old"] * 4
        clock.tick(29.999)
        assert (auth.access_token(), endpoint.count) == ("old", 1)
        clock.tick(0.001)
        following.open()
        assert auth.access_token() == "old"
    else:
        following.wait_until_reached()
        crowd.expect(3)
        following.open()
        assert {str(each) for each in errors(others)} == {"dead"}
        assert auth.access_token() == "token-3"
    assert (endpoint.count, len(warnings(caplog))) == ((2, 1) if age == STALE else (3, 0))


def test_only_a_stale_try_that_ends_in_such_an_exception_starts_the_30_s(clock):
    auth, _ = aged(clock, STALE, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        auth.access_token(refused="old")
    assert auth.access_token() == "token-2"


def test_an_error_keeps_its_own_context_where_the_caller_is_handling_another():
    """What the caller is at would tell nothing of why there is no token."""

    def fail():
        try:
            int("inner")
        except ValueError:
            raise requests.ReadTimeout("outer")  # noqa: B904 - as `requests` does

    auth = auth_with(TokenEndpoint(fail))
    try:
        int("the caller's own")
    except ValueError:
        with pytest.raises(requests.ReadTimeout, match="outer") as raised:
            auth.access_token()
    assert "inner" in str(raised.value.__context__)


def stuck(clock, start, outcome, *script, age=None):
    """Return an auth whose leader is stuck at a gate and was given up; the leader, the gate and the endpoint."""
    gate = Gate(outcome)
    auth, endpoint = aged(clock, age, gate, *script, timeout=SHORT)
    leader = start(auth.access_token)
    gate.wait_until_reached()
    with pytest.raises(TokenEndpointError, match=r"Another thread's token request has not ended within 0\.02 s") as one:
        auth.access_token()
    assert (one.value.retry_after, endpoint.count) == (None, 1)
    return auth, leader, gate, endpoint


@pytest.mark.parametrize(
    ("patience", "first_wait"),
    [(40, 40 - BRIEF), (0.5 + BRIEF, 0.5), (40, 41), (40, None)],
    ids=["long", "short", "beyond it", "by the wall clock alone"],
)
def test_patience_is_counted_over_all_that_a_thread_waits_for(clock, crowd, monkeypatch, patience, first_wait):
    """Whoever waits for a second renewal has the rest of its patience for it; that one is not given up for others."""
    failing = Gate(TimeoutError("not shared"))
    full = Gate()
    auth, endpoint = aged(clock, EXPIRED, failing, full)
    if first_wait is None:
        monkeypatch.setattr(time, "monotonic", lambda: 5.0)  # patience does not depend on the other one
    _, *waiting = crowd.wait_behind(failing, 4, auth.access_token)
    clock.tick(3600 if first_wait is None else first_wait)
    auth._source._patience = patience  # private, and only now, so that no wait before this has to be a quick one
    failing.open()
    full.wait_until_reached()  # by one of those who waited; the others wait again
    if first_wait is not None:
        assert {type(it) for it in errors(itertools.islice(as_completed(waiting, LONG), 3))} == {TokenEndpointError}
    else:
        crowd.expect(3)
    auth._source._patience = LONG
    (last,) = crowd.ask(1, auth.access_token)
    crowd.expect(1)
    full.open()
    assert (last.result(LONG), endpoint.count) == ("token-2", 2)
    assert [each.exception(LONG) for each in waiting].count(None) == (4 if first_wait is None else 1)


LATE = {  # the age of the token in hand, what the late leader gets, and others after it; the token that stays
    "fails": (None, requests.ReadTimeout("late"), ["newer"], 0, "newer"),
    "succeeds at the same time": (None, "late", ["newer"], 0, "newer"),
    "succeeds later": (None, "late", ["newer"], 0.005, "newer"),
    "succeeds in a try sent last": (None, requests.ConnectionError(), ["newer", "late"], 0.005, "late"),
    "none is newer": (None, "late", [], 0, "late"),
    "the other one has expired": (EXPIRED, "late", [], 0, "late"),
}


@pytest.mark.parametrize(("age", "outcome", "others", "pause", "stays"), LATE.values(), ids=LATE)
def test_a_late_leader_serves_its_own_request_and_others_if_there_is_no_newer_token(
    *, clock, start, monkeypatch, age, outcome, others, pause, stays
):
    """One stuck thread does not keep all others out for good. Its token was paid for, so it is kept if it is of use."""
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)  # so that another try fits the short budget
    auth, leader, gate, endpoint = stuck(clock, start, outcome, *others, age=age)
    clock.tick(pause)
    assert not others or auth.access_token() == "newer"
    clock.tick(pause)
    gate.open()
    assert str(leader.exception(LONG) or leader.result(LONG)) == "late"
    assert (auth.access_token(), endpoint.count) == (stays, 1 + len(others))


@pytest.mark.parametrize("late_answer", [token("late", 1000), named(50)], ids=["succeeds", "names a time"])
def test_the_renewal_that_took_over_is_ended_by_its_own_leader_alone(clock, crowd, late_answer):
    """Neither the late leader, whatever it ends in, nor a waiter that gives up on that one later ends it for others."""
    first = Gate(late_answer)
    second = Gate("second")
    auth, endpoint = aged(clock, None, first, second, timeout=0.16)  # a patience of 0.8 s, in real time
    late_leader, late = crowd.wait_behind(first, 1, auth.access_token)
    auth._source._patience = BRIEF  # private, as no argument gives the waiters of one auth different ones
    with pytest.raises(TokenEndpointError):
        auth.access_token()  # gives up on the late leader before `late` does
    took_over = crowd.ask(1, auth.access_token)
    second.wait_until_reached()
    assert isinstance(late.exception(LONG), TokenEndpointError)
    auth._source._patience = LONG
    first.open()
    wait([late_leader], LONG)
    if late_leader.exception() is None:
        auth.invalidate()  # otherwise the late token would do
    waiting = crowd.ask(4, auth.access_token)
    crowd.expect(4)
    second.open()
    assert (values(took_over + waiting), endpoint.count) == (["second"] * 5, 2)


@AGES
def test_asking_from_within_the_token_request_raises_instead_of_waiting_for_itself(clock, age):
    """The error names the cause. It ends the renewal, unless it is caught; another auth may well be asked."""
    other, _ = aged(clock, None)

    def ask_from_within():
        assert other.access_token() == "token-1"
        with pytest.raises(RuntimeError, match="within the token request"):
            auth.access_token()

    auth, endpoint = aged(clock, age)
    endpoint.script = [ask_from_within, auth.access_token]
    assert auth.access_token() == "token-1"
    auth.invalidate()
    with pytest.raises(RuntimeError, match="within the token request"):
        auth.access_token()
    assert (auth.access_token(), endpoint.count) == ("token-3", 3)


PAUSES = {  # the age of the token in hand, what the renewal ends in, what was refused, and the length in seconds
    "after a stale try": (STALE, requests.ReadTimeout("dead"), None, 30),
    "that the endpoint named": (STALE, named(50), None, 50),
    "of 401s": (0, "old", "old", 30),
}


@pytest.fixture(params=PAUSES.values(), ids=PAUSES)
def paused(clock, request):
    """An auth in one of the pauses, a call that returns the token in hand until the pause is over, and its length."""
    age, outcome, refused, length = request.param
    auth, endpoint = aged(clock, age, outcome)
    assert ([auth.access_token(refused=refused) for _ in range(2)], endpoint.count) == (["old", "old"], 1)
    return auth, lambda: auth.access_token(refused=refused), length


@pytest.mark.parametrize("end", [1, -0.01], ids=["its end", "a jump back"])
def test_a_pause_lasts_its_length_and_does_not_outlast_a_jump_of_the_clock(paused, monkeypatch, end):
    """A test suite that froze a far day, and so moved the monotonic clock, does not stop the renewals after it."""
    _, ask, length = paused
    now = time.monotonic()
    for passed, value in ((0.99, "old"), (end, "token-2")):
        monkeypatch.setattr(time, "monotonic", lambda passed=passed: now + passed * length)
        assert ask() == value


@pytest.mark.parametrize("value", [None, "old", "another"])
def test_invalidate_ends_every_pause(paused, value):
    """Somebody who knows better has the last word, whether or not a token is dropped."""
    auth, ask, _ = paused
    auth.invalidate(value)
    assert ask() == "token-2"


def test_a_late_refusal_of_a_token_that_replaced_another_one_holds_nothing_off(clock, caplog):
    auth = auth_with(TokenEndpoint(lifetime=20))
    auth.access_token()
    assert auth.access_token(refused="token-1") == "token-2"
    clock.tick(19.5)
    assert [auth.access_token(), auth.access_token(refused="token-2")] == ["token-3", "token-3"]
    assert warnings(caplog) == []
    assert auth.access_token(refused="token-3") == "token-4"


def test_a_token_that_is_invalidated_during_its_retry_is_not_held_off(web, caplog):
    auth = auth_with(TokenEndpoint())

    def refuse(_):
        auth.invalidate()
        return 401, {}, "refused"

    web.add_callback("GET", API, refuse)
    assert requests.get(API, auth=auth).status_code == 401
    assert (warnings(caplog), auth.access_token()) == ([], "token-3")


def test_a_named_time_ends_with_a_token(clock, start):
    """Where a late leader brought one, nobody is told to wait any more."""
    auth, leader, gate, endpoint = stuck(clock, start, token("late", 10), named(50))
    with pytest.raises(TokenEndpointError):
        auth.access_token()
    gate.open()
    leader.result(LONG)
    clock.tick(9.5)
    assert (auth.access_token(), endpoint.count) == ("token-3", 3)


def test_the_error_that_is_remembered_until_a_named_time_keeps_nothing_alive(clock):
    """Its traceback would hold all that the request which met it was at, for as long as no other token comes."""
    auth, _ = aged(clock, None, named(50))
    with pytest.raises(TokenEndpointError) as met:
        auth.access_token()
    reference = weakref.ref(met.value)
    del met
    gc.collect()
    assert reference() is None
    with pytest.raises(TokenEndpointError) as again:
        auth.access_token()
    assert not leads_to_token_request(again.value)


@pytest.mark.parametrize(("value", "dropped"), [(None, True), ("old", True), ("another", False), ("", False)])
def test_invalidate_drops_the_current_token_or_only_the_one_it_names(clock, value, dropped):
    """If it was dropped, the next request obtains another. Where there is none, nothing happens."""
    auth, _ = aged(clock, 0)
    auth.invalidate(value)
    assert auth.access_token() == ("token-1" if dropped else "old")
    auth.invalidate()
    auth.invalidate("old")
    assert auth.access_token() == ("token-2" if dropped else "token-1")


def test_an_auth_that_nobody_uses_is_freed(clock):
    """What must be told of forks is not kept alive for that."""
    reference = weakref.ref(aged(clock, 0)[0])
    gc.collect()
    assert reference() is None
