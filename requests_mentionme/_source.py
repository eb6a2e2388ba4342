"""The current token and its renewal: the only part with state and locks.

A live token is read without a lock; what changes the state holds it, and does nothing slow meanwhile. Times are in
seconds: tokens end by the wall clock, waits and hold-offs by the monotonic one.
"""

import copy
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from requests_mentionme._errors import TokenEndpointError
from requests_mentionme._token import Token

_logger = logging.getLogger("requests_mentionme")
_TRIES, _HOLD_OFF, _LONGEST_NAMED_HOLD_OFF = 3, 30.0, 60.0


class _Renewal:
    """One renewal: who leads it, and what it ended in once it is done."""

    def __init__(self) -> None:
        self.leader, self.done = threading.get_ident(), threading.Event()
        self.while_stale = self.anew = False
        self.token: Token | None = None
        self.error: Exception | None = None


class TokenSource:
    """Hands out the current token, and renews it when it is due or was refused: one renewal at a time.

    It takes how to *obtain* a token (in how many tries, and whether a stored one won't do) and how long to wait for it.
    """

    def __init__(self, obtain: Callable[[int, bool], Token], patience: float) -> None:
        self._obtain, self._patience = obtain, patience
        self._token: Token | None = None
        self._next_anew = False  # whether the next renewal must ask the endpoint, not the store
        self._end_hold_offs()
        self.forget_renewal()
        _sources.add(self)

    def forget_renewal(self) -> None:
        """Drop a renewal under way: after a fork, the thread that led it is not in this process."""
        self._renewal: _Renewal | None = None
        self._lock = threading.RLock()  # reentrant: a signal handler or finalizer may ask while its thread is in here

    def _end_hold_offs(self) -> None:
        self._no_stale_try_before = 0.0
        self._named: tuple[float, float, Exception] | None = None  # until when, the time named, the error
        self._refused = ("", 0.0)  # the token, until when

    def token(self) -> Token:
        """Return a live token; raise what the renewal raised where there is none."""
        token = self._token
        if token is not None and token.obtained_at <= time.time() < token.stale_at:
            return token
        return self._settle(None)[0]

    def replace(self, refused: str) -> tuple[Token, bool]:
        """Return another token than *refused*, or the same, held off; and whether it is straight from the endpoint."""
        token, renewed = self._settle(refused)
        if token.value == refused:
            self.hold_off(refused)
        return token, renewed

    def hold_off(self, refused: str) -> None:
        """Let 401s for *refused*, if it is current, cause no renewal for a while: a new one would be refused too."""
        with self._lock:
            if self._token is not None and self._token.value == refused:
                self._refused = (refused, time.monotonic() + _HOLD_OFF)

    def is_held_off(self, refused: str) -> bool:
        """Return whether *refused* is current and held off."""
        token, (held, until) = self._token, self._refused
        return token is not None and token.value == refused == held and time.monotonic() < until

    def invalidate(self, value: str | None) -> bool:
        """Drop the current token, or only if it is *value*, and return whether it was; end every hold-off."""
        with self._lock:
            self._end_hold_offs()
            if self._token is None or value not in (None, self._token.value):
                return False
            self._token, self._next_anew = None, True
            return True

    def _settle(self, refused: str | None) -> tuple[Token, bool]:
        """Return a token to use, and whether it is straight from the endpoint; lead a renewal or wait for one."""
        deadline = None
        while True:
            mine = _Renewal()
            try:
                found = self._find(refused, mine)
                if found is mine:
                    self._lead(mine)
            finally:
                # Whatever happened, an interrupt in here too: a renewal that nobody leads would block all others.
                try:
                    self._end(mine)
                finally:
                    if not mine.done.is_set():
                        self._end(mine)
            if isinstance(found, Token):
                return found, False
            if found is not mine:
                deadline = self._wait_for(found, deadline)
            if found.token is not None and not (found.token.stored and found.token.value == refused):
                return found.token, not found.token.stored
            if found.error is not None and not found.while_stale:
                raise _copy_of(found.error)
            # A try with a token in hand failed, a leader was interrupted, or the store holds what was refused: again.

    def _find(self, refused: str | None, mine: _Renewal) -> Token | _Renewal:
        """Return the token to use, the renewal to wait for, or *mine*, which from now on is the one under way."""
        with self._lock:
            token, renewal, now = self._token, self._renewal, time.monotonic()
            if renewal is not None and renewal.leader == threading.get_ident():
                raise RuntimeError("A token was asked for from within the token request, by a lent session's hook?")
            if token is not None and token.value != refused:
                state = token.state(time.time())
                will_do = refused is not None or renewal is not None or now < self._no_stale_try_before
                if state == "fresh" or (state == "stale" and will_do):
                    return token
                mine.while_stale = state == "stale"
            if renewal is not None:
                return renewal
            if self._named is not None and now < self._named[0]:
                raise _copy_of(self._named[2], retry_after=self._named[1] - now)
            mine.anew, self._renewal = refused is not None or self._next_anew, mine
            return mine

    def _lead(self, mine: _Renewal) -> None:
        try:
            mine.token = self._obtain(1 if mine.while_stale else _TRIES, mine.anew)
        except Exception as error:
            mine.error = error
            if not mine.while_stale:
                raise
            _logger.warning("Renewal failed, next try in %.0f s; the token in hand is still used: %s", _HOLD_OFF, error)

    def _end(self, mine: _Renewal) -> None:
        """Keep what *mine* ended in, if it was led, and free those who wait for it."""
        with self._lock:
            now, under_way, new, current = time.monotonic(), self._renewal is mine, mine.token, self._token
            self._renewal = None if under_way else self._renewal
            # One that was given up may end after others have got a newer token.
            if new is not None and (under_way or current is None or current.obtained_at < new.obtained_at):
                self._token, self._no_stale_try_before, self._named, self._next_anew = new, 0.0, None, False
            if mine.while_stale and mine.error is not None:
                self._no_stale_try_before = now + _HOLD_OFF
            if isinstance(mine.error, TokenEndpointError) and mine.error.retry_after:
                until = now + min(mine.error.retry_after, _LONGEST_NAMED_HOLD_OFF)
                self._named = (until, now + mine.error.retry_after, _copy_of(mine.error))
                self._no_stale_try_before = max(self._no_stale_try_before, until)
        mine.done.set()

    def _wait_for(self, renewal: _Renewal, deadline: float | None) -> float:
        """Wait for *renewal*, and return until when this thread would have waited in all."""
        now = time.monotonic()
        until = now + self._patience if deadline is None else deadline
        if not renewal.done.wait(max(until - now, 0.0)):
            with self._lock:
                if self._renewal is renewal and deadline is None:  # not one that began while another was waited for
                    self._renewal = None  # the next request may begin another
            raise TokenEndpointError(f"Another thread's token request has not ended within {self._patience:g} s.")
        return until


def _copy_of(error: Exception, **changes: Any) -> Exception:
    """Return a copy of *error* without its traceback, whatever arguments its constructor wants."""
    twin = error
    with suppress(Exception):
        twin = type(error).__new__(type(error), *error.args)
    with suppress(Exception):
        copied = copy.copy(error)
        twin = copied if type(copied) is type(error) else twin
    twin.args = error.args
    vars(twin).update(vars(error), **changes)
    return twin


_sources = weakref.WeakSet[TokenSource]()


def _forget_renewals() -> None:
    for source in _sources:
        source.forget_renewal()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_forget_renewals)
