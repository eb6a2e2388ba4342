"""Interrupts at any moment: a renewal that is broken off leaves nobody hanging, and the auth works on.

First at each moment at which Python may handle a signal: where a function begins, and where the call of a built-in one
returns. Then real signals arrive at moments of their own choice.
"""

import concurrent.futures
import contextlib
import faulthandler
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import types
from itertools import count, takewhile
from pathlib import Path
from unittest import mock

import in_memory
import pytest
import requests
from in_memory import EXPIRED, STALE, Crowd, Gate, TokenEndpoint, aged, auth_with, in_thread

import requests_mentionme
from requests_mentionme import MentionMeAuth
from requests_mentionme._renewal import Renewal

SOON = 5.0  # real seconds: far less than the patience of those who wait, far more than what takes no time
WATCHED = (requests_mentionme.__path__[0], threading.__file__)  # whose frames are interrupted


def spawn(call):
    """Make a call in a thread that no one has to wait for, should it hang."""
    future = concurrent.futures.Future()

    def run():
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - an interrupt is what these tests are about
            future.set_exception(error)

    threading.Thread(target=in_thread(run), daemon=True).start()
    return future


def interrupt():
    raise KeyboardInterrupt


def at_moment(number, act, call, on_wait=lambda: None):
    """Make *call*, and do *act* at its moment with this number, from 1; return whether there was such a moment."""
    moments = count(1)
    found = False

    def profile(frame, event, function):
        nonlocal found
        if not frame.f_code.co_filename.startswith(WATCHED) or in_memory.leads(frame):
            return
        if event == "c_call" and in_memory.begins_to_wait(function):
            on_wait()
        if event in {"call", "c_return"} and next(moments) == number:
            found = True
            act()

    gc.disable()  # what it collects may have finalizers that use `threading`, and would be interrupted instead
    sys.setprofile(profile)
    try:
        call()
    except KeyboardInterrupt:
        assert found
    finally:
        sys.setprofile(None)
        gc.enable()
    return found


def moments_of(broken, every=1):
    """Interrupt at the first moment and at each *every*-th after it; return about how many moments there were."""
    return every * len(list(takewhile(broken, count(1, every))))


STATES = {  # that lead to a renewal: the age of the token in hand, and what was refused
    "no token": (None, None),
    "expired": (EXPIRED, None),
    "stale": (STALE, None),
    "invalidated while stale": (STALE, None),
    "refused": (0, "old"),
}
EVERY = pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 7], ids=["each", "every seventh"])


def scene(clock, state):
    """Return an auth in one of the states, its endpoint, and how its token is asked for then."""
    clock.move_to("2026-01-01T12:00:00Z")
    age, refused = STATES[state]
    auth, endpoint = aged(clock, age)
    return auth, endpoint, lambda: auth.access_token(refused=refused)


def break_leader(clock, state, number):
    """Interrupt the leader of a renewal, in which two others wait, at one moment."""
    auth, endpoint, ask = scene(clock, state)
    crowd = Crowd(spawn)
    others = []

    def be_joined():
        if state == "invalidated while stale":
            spawn(auth.invalidate).result(SOON)
        others.extend(crowd.ask(2, ask))
        if state != "stale":  # in which they go on with the token in hand
            crowd.expect(2)

    def lead():
        found = at_moment(number, interrupt, ask)
        assert auth.access_token()
        return found

    endpoint.script = [be_joined]
    found = spawn(lead).result(SOON)
    assert all(other.result(SOON) for other in others)
    assert spawn(auth.access_token).result(SOON)
    assert endpoint.count <= 2
    return found


@pytest.mark.parametrize("state", STATES)
@EVERY
def test_an_interrupt_at_any_moment_of_the_leader_leaves_nobody_behind(clock, state, every):
    """Those who wait are served at once, and the auth works, in one more token request at most."""
    assert moments_of(lambda number: break_leader(clock, state, number), every) > 20


@pytest.mark.parametrize("state", [state for state in STATES if state != "stale"])
@pytest.mark.parametrize("outcome", [None, RuntimeError("own")], ids=["that is served", "that leads next"])
@EVERY
def test_an_interrupt_at_any_moment_of_a_waiter_leaves_nobody_behind(clock, state, outcome, every):
    """Neither the leader nor another who waits notice, before, within or after the wait, or where it takes over."""

    def broken(number):
        auth, endpoint, ask = scene(clock, state)
        crowd = Crowd(spawn)
        others = []

        def be_joined():
            others.extend(crowd.ask(1, ask))
            crowd.expect(1)

        gate = Gate(outcome)
        endpoint.script = [gate, be_joined]
        leader = spawn(ask)
        gate.wait_until_reached()
        if state == "invalidated while stale":
            spawn(auth.invalidate).result(SOON)
        if outcome is None:  # otherwise it joins whoever leads next, so that the interrupted one does
            be_joined()

        def wait():
            found = at_moment(number, interrupt, ask, on_wait=gate.open)
            gate.open()
            assert auth.access_token()
            return found

        found = spawn(wait).result(SOON)
        assert leader.exception(SOON) is outcome
        assert all(other.result(SOON) for other in others)
        assert spawn(auth.access_token).result(SOON)
        assert endpoint.count <= (2 if outcome is None else 3)  # where nothing was shared, a waiter leads a renewal
        return found

    assert moments_of(broken, every if outcome else 1) > (100 if outcome else 10)


@pytest.mark.parametrize("what", ["no token", "expired", "stale", "refused", "invalidate"])
@EVERY
def test_a_signal_handler_may_ask_for_a_token_wherever_it_interrupts_its_thread(clock, what, every):
    """It gets one, or is told that its own thread is at it: it does not wait for itself."""

    def asked_within(number):
        auth, endpoint, ask = scene(clock, "no token" if what == "invalidate" else what)
        answers = []

        def ask_too():
            try:
                answers.append(auth.access_token())
            except RuntimeError as error:
                answers.append(str(error))

        call = auth.invalidate if what == "invalidate" else ask
        found = spawn(lambda: at_moment(number, ask_too, call)).result(SOON)
        assert all(answer.startswith(("old", "token-", "A token was asked for")) for answer in answers)
        assert len(answers) == found
        assert spawn(auth.access_token).result(SOON)
        assert endpoint.count <= 2
        return found

    assert moments_of(asked_within, every) > (1 if what == "invalidate" else 20)


def test_a_signal_handler_may_send_a_request_elsewhere_wherever_it_interrupts_its_thread():
    """The warning that it gets no token does not wait for the one that it interrupts."""

    def sent_within(number):
        auth = auth_with(TokenEndpoint())
        here, there = (requests.Request("GET", f"https://{name}.example/").prepare() for name in ("here", "there"))
        return spawn(lambda: at_moment(number, lambda: auth(there), lambda: auth(here))).result(SOON)

    assert moments_of(sent_within) > 3


class Storm(TokenEndpoint):
    """Real signals that interrupt the main thread, as it leads and waits among three others; and a token endpoint."""

    def __init__(self):
        super().__init__(lifetime=0.02)  # so that its tokens go through all the states
        self.auth = auth_with(self)
        self.asking = None  # the thread whose token request is under way
        self.leading = self.waiting = 0  # interrupts of the main thread, by what it was at
        self.asked_at = [time.monotonic()] * 3  # by each of the others
        self.is_over = False

    def send(self, *args, **options):
        self.asking = threading.current_thread()
        try:
            time.sleep(0.0005)
            return super().send(*args, **options)
        finally:
            self.asking = None
            self.requests.clear()  # they would grow without bounds

    def interrupt(self, _, frame):
        """Interrupt the main thread where it asks for a token, and not in this test itself."""
        while frame is not None and frame.f_code is not MentionMeAuth.access_token.__code__:
            frame = frame.f_back
        if frame is not None:
            asking = self.asking
            self.leading += asking is threading.main_thread()
            self.waiting += asking not in {None, threading.main_thread()}
            raise KeyboardInterrupt

    def work(self, number):
        while not self.is_over:
            self.asked_at[number] = time.monotonic()
            self.auth.access_token()
            time.sleep(0.001)

    def run(self, interrupts):
        """Interrupt the main thread so many times, half of them as it leads; raise if somebody hangs then or later."""
        faulthandler.dump_traceback_later(200, exit=True)
        others = [spawn(lambda number=number: self.work(number)) for number in range(3)]
        signal.signal(signal.SIGALRM, self.interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        try:
            while min(self.leading, self.waiting) < interrupts // 2:
                if time.monotonic() - min(self.asked_at) > SOON:
                    raise TimeoutError("one of the others hangs")
                if self.waiting < self.leading:
                    time.sleep(0.001)  # so that one of the others leads
                with contextlib.suppress(KeyboardInterrupt):
                    self.auth.access_token()
                    self.auth.invalidate()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.is_over = True
        assert [each.exception(SOON) for each in others] == [None] * 3
        assert spawn(self.auth.access_token).result(SOON)
        assert self.auth.access_token()


def run_storm(program):
    """Run a storm in a process of its own, whose main thread is free to be interrupted."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("this system has no interval timer")
    # Without coverage, whose own lock an interrupt can leave locked.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    call = [sys.executable, "-c", f"import jwt, test_interrupts as it; {program}"]  # jwt now, and not at a first token
    return subprocess.run(call, check=False, capture_output=True, env=environment, text=True, timeout=250)


@pytest.mark.parametrize("interrupts", [100, pytest.param(20_000, marks=pytest.mark.slow)])
def test_real_interrupts_of_the_main_thread_leave_nobody_behind(interrupts):
    """It leads and waits in turn among three others: nobody waits long, and the auth works."""
    ran = run_storm(f"it.Storm().run({interrupts})")
    assert ran.returncode == 0, ran.stderr


class EventInPlaceOfLock(threading.Event):
    """Ends a renewal by an `Event`, which is written in Python, so that an interrupt can split its end."""

    acquire = threading.Event.wait

    def __enter__(self):
        pass

    release = __enter__

    def __exit__(self, *_):
        self.set()


def end_renewals_by_events(patch):
    """Put the event in the place of the lock. Nothing public tells by what a renewal ends."""
    threads = types.SimpleNamespace(RLock=EventInPlaceOfLock, get_ident=threading.get_ident)
    patch.setattr("requests_mentionme._renewal.threading", threads)


def test_a_renewal_that_ends_by_an_event_is_broken_at_some_moment(clock, monkeypatch):
    """Those who wait hang, or sit out their patience."""
    monkeypatch.setattr(sys.modules[__name__], "SOON", 0.7)
    end_renewals_by_events(monkeypatch)
    with pytest.raises(concurrent.futures.TimeoutError):
        moments_of(lambda number: break_leader(clock, "no token", number), every=4)


@pytest.mark.slow
def test_a_renewal_that_ends_by_an_event_is_broken_by_real_interrupts():
    """One of thousands finds the moment."""
    ran = run_storm("it.end_renewals_by_events(it.pytest.MonkeyPatch()); it.Storm().run(100_000)")
    assert "one of the others hangs" in ran.stderr or "unlocked lock" in ran.stderr, ran.stderr


def test_a_waiter_that_is_interrupted_between_two_calls_lets_go_and_one_without_patience_does_not_wait():
    """Private, as that moment lies between two functions written in C, and a busy machine hides a second of waiting."""
    renewal = Renewal()
    lock = renewal.held_by_leader
    renewal.held_by_leader = mock.Mock(wraps=lock)
    renewal.held_by_leader.release.side_effect = [KeyboardInterrupt, mock.DEFAULT]
    with pytest.raises(KeyboardInterrupt):
        renewal.wait(-3.0)
    renewal.held_by_leader.acquire.assert_called_once_with(timeout=0.0)
    assert spawn(lambda: lock.acquire(blocking=False)).result(SOON)
