"""The token in hand, and the policy: what a request that needs a token does. This module has the state and the clock.

| the token in hand is | a request that needs a token |
| --- | --- |
| fresh | uses it, without a lock |
| stale, a renewal is under way | uses it |
| stale, an early renewal failed in the last 30 s, or the time that the endpoint named is not over | uses it |
| stale, and another token than the one that a 401 has refused | uses it, so that its retry does not wait |
| stale otherwise | renews it early, in one try |
| expired, absent, or refused by a 401; a renewal is under way | waits for that renewal |
| expired, absent, or refused by a 401; the time that the endpoint named is not over | raises that error again |
| expired, absent, or refused by a 401 otherwise | leads a renewal, in up to three tries |

| a renewal ends in | its leader | those who wait for it |
| --- | --- | --- |
| a token | keeps it and uses it | use it, even if it is nearly dead |
| a failure, and it was early | logs a warning; looks at the first table again | look at the first table again |
| a failure otherwise | raises it | raise a copy each |
| no result: an interrupt, a bug in a lent adapter | raises that | look at the first table again, to lead in one try |

A 401 that a new token would not heal must not cause a renewal each time. So the token is *held off*: for 30 s, a 401
for it is passed on. All times are in seconds. Tokens end by the wall clock, waits and pauses by the monotonic clock.
"""

import logging
import threading
import time
from typing import NamedTuple

from requests_mentionme._errors import TokenEndpointError, copy_of, in_one_line, raise_again
from requests_mentionme._fork import tell_after_fork
from requests_mentionme._renewal import Renewal
from requests_mentionme._supply import SupplyFailed, TokenSupply
from requests_mentionme._token import Token

_logger = logging.getLogger("requests_mentionme")
_TRIES = 3
_EARLY_PAUSE = 30.0  # after an early renewal that failed
_HOLD_OFF = 30.0
_LONGEST_NAMED_PAUSE = 60.0


class Usable(NamedTuple):
    """What a request gets: a token, and whether it came straight from the token endpoint just now."""

    token: Token
    is_new: bool = False


class Failure(NamedTuple):
    """What a request gets where there is no token: the error to raise, which concerns all who need one."""

    error: Exception


class _Countdown:
    """A length of time that has begun.

    It is over once its length has passed, and also if the clock jumps back to before its beginning. A test suite that
    freezes the time moves the monotonic clock by years, and back again. That must not make a countdown last for years.
    """

    def __init__(self, length: float) -> None:
        self._length = length
        self._began_at = time.monotonic()

    def left(self) -> float:
        """Return how many seconds are left, 0 once it is over."""
        passed = time.monotonic() - self._began_at
        return self._length - passed if 0 <= passed < self._length else 0.0

    def is_running(self) -> bool:
        """Return whether it is not over yet."""
        return self.left() > 0


_NO_PAUSE = _Countdown(0.0)


class _NamedPause:
    """The time that the endpoint named together with an error, up to which it is not asked again."""

    def __init__(self, error: TokenEndpointError, seconds: float) -> None:
        self._error = copy_of(error)  # the traceback of the original would keep alive what that request was at
        self._named = seconds
        self._length = min(seconds, _LONGEST_NAMED_PAUSE)
        self._countdown = _Countdown(self._length)

    def is_running(self) -> bool:
        """Return whether it is not over yet."""
        return self._countdown.is_running()

    def error(self) -> Exception:
        """Return the error to raise, with what is left of the named time."""
        passed = self._length - self._countdown.left()
        return copy_of(self._error, retry_after=self._named - passed)


class _RecentToken:
    """A token of which something is remembered for 30 seconds. None: there is no such token."""

    def __init__(self, token: Token | None) -> None:
        self._token = token
        self._countdown = _Countdown(_HOLD_OFF)

    def is_it(self, value: str) -> bool:
        """Return whether it is the token with this value, and is still remembered."""
        return self._token is not None and self._token.value == value and self._countdown.is_running()


class TokenSource:
    """Hands out the token in hand, and renews it when it is due or was refused: one renewal at a time."""

    def __init__(self, supply: TokenSupply, patience: float) -> None:
        """Begin without a token.

        Args:
            supply: How a token comes to be.
            patience: How many seconds a thread waits for the renewals of others, all in all.
        """
        self._supply = supply
        self._patience = patience
        self._token: Token | None = None
        # The token that `invalidate` has dropped, until there is another one: the store must not bring it back.
        self._dropped: Token | None = None
        self._renewal: Renewal | None = None  # the newest one; it may be over
        self._end_pauses()
        # Held while more than one attribute is read or set. It is reentrant, since a signal handler or a finalizer may
        # ask for a token while its own thread holds it.
        self._lock = threading.RLock()
        tell_after_fork(self)

    def start_anew_after_fork(self) -> None:
        """Drop the lock and the renewal, whose threads are not in this process."""
        self._lock = threading.RLock()
        self._renewal = None
        self._token = self._supply.with_moment_of_this_process(self._token)

    def _end_pauses(self) -> None:
        self._early_pause = _NO_PAUSE  # in which no early renewal is tried
        self._named_pause: _NamedPause | None = None  # up to the time that the endpoint named
        self._held_off = _RecentToken(None)  # the token that is held off
        self._replacement = _RecentToken(None)  # the token that has lately replaced one that a client said was refused

    def fresh_token(self) -> Token | None:
        """Return the token in hand if it is fresh. This is what nearly every request does, so it takes no lock."""
        token = self._token
        # As in `Token.state`, which would be one more call for each request.
        if token is not None and token.obtained_at <= time.time() < token.stale_at:
            return token
        return None

    def token(self) -> Token:
        """Return a live token; raise what the renewal raised where there is none."""
        token = self.fresh_token()
        if token is not None:
            return token
        return _token_or_error(self._settle(refused=None))

    def replace(self, refused: str) -> Usable | Failure:
        """Return another token than *refused*.

        It is the same where the endpoint returns that very token again. Then it is held off.
        """
        outcome = self._settle(refused)
        if isinstance(outcome, Usable) and outcome.token.value == refused:
            self.hold_off(refused, "The token endpoint returned the very token that was refused. Does it cache tokens?")
        return outcome

    def replace_for_client(self, refused: str) -> Token:
        """Return another token than *refused* for a client that does not say whether its retry went well.

        A token that has replaced a refused one, and is refused itself soon after, is held off. As long as it is, and
        has not expired, it is returned again.
        """
        if self._replacement.is_it(refused):
            self.hold_off(refused, "A token straight from the token endpoint was refused as well.")
        token = self._token
        if token is not None and self.is_held_off(refused) and token.state(time.time()) != "expired":
            return token
        outcome = self.replace(refused)
        if isinstance(outcome, Usable) and outcome.is_new:
            self._replacement = _RecentToken(outcome.token)
        return _token_or_error(outcome)

    def hold_off(self, refused: str, what_happened: str) -> None:
        """Hold *refused* off, if it is in hand, and warn of that once. The warning begins with *what_happened*."""
        with self._lock:
            token = self._token
            if token is None or token.value != refused or self._held_off.is_it(refused):
                return
            self._held_off = _RecentToken(token)
        _logger.warning(
            "%s Check the scopes and the environment of the API key. 401 answers are passed on for %.0f s.",
            what_happened,
            _HOLD_OFF,
        )

    def is_held_off(self, refused: str) -> bool:
        """Return whether *refused* is the token in hand, and is held off."""
        token = self._token
        return token is not None and token.value == refused and self._held_off.is_it(refused)

    def invalidate(self, value: str | None) -> None:
        """End every pause, and drop the token in hand; if a *value* is given, only if it is that token.

        A renewal that is under way goes on.
        """
        with self._lock:
            self._end_pauses()
            token = self._token
            if token is None or (value is not None and value != token.value):
                return
            self._dropped = token
            self._token = None
        self._supply.forget(token.value)

    def _settle(self, refused: str | None) -> Usable | Failure:
        """Do what the tables at the top say for a request. *refused* is None if no token of it was refused."""
        tries = _TRIES
        waited = 0.0
        while True:
            step = self._use_or_lead(refused, tries)
            if step is None:  # an early renewal of this thread has failed
                continue
            if not isinstance(step, Renewal):
                return step
            began_at = time.monotonic()
            has_waited_before = waited > 0
            if not step.wait(self._patience - waited):
                if not has_waited_before:  # otherwise this renewal may have begun just now
                    self._give_up(step)
                return Failure(self._out_of_patience())
            waited += time.monotonic() - began_at
            is_the_refused_one = step.is_from_store and step.token is not None and step.token.value == refused
            if step.token is not None and not is_the_refused_one:
                return Usable(step.token, is_new=not step.is_from_store)
            if step.error is not None and not step.is_early:
                return Failure(copy_of(step.error))
            if step.has_no_result:
                tries = 1

    def _use_or_lead(self, refused: str | None, tries: int) -> Usable | Failure | Renewal | None:
        """Use the token in hand or lead a renewal; or return the renewal that this thread has to wait for.

        None means that it has led an early renewal which failed, so that the first table is to be looked at again.
        """
        mine = Renewal()
        with mine.held_by_leader:  # from before others can see it: see the attribute
            try:
                step = self._next_step(refused, mine)
                if step is mine:
                    return self._lead(mine, refused, tries)
                return step
            finally:
                mine.is_over = True

    def _next_step(self, refused: str | None, mine: Renewal) -> Usable | Failure | Renewal:
        """Read the first table. *mine* is returned where it is to be led; from then on, others wait for it."""
        with self._lock:
            under_way = self._renewal
            if under_way is not None and under_way.is_over:
                under_way = None
            named_pause = self._named_pause
            if named_pause is not None and not named_pause.is_running():
                named_pause = None
            if under_way is not None and under_way.is_led_by_this_thread:
                raise RuntimeError(
                    "A token was asked for from within the token request itself. Does the provider of credentials, the "
                    "store, or a hook or an adapter of the lent session use the very MentionMeAuth that uses them?"
                )
            token = self._token
            if token is not None and token.value != refused:
                state = token.state(time.time())
                if state == "fresh":
                    return Usable(token)
                if state == "stale":
                    is_paused = named_pause is not None or self._early_pause.is_running()
                    if refused is not None or under_way is not None or is_paused:
                        return Usable(token)
                    mine.is_early = True
                    self._renewal = mine
                    return mine
            if under_way is not None:
                return under_way
            if named_pause is not None:
                return Failure(named_pause.error())
            self._renewal = mine
            return mine

    def _lead(self, mine: Renewal, refused: str | None, tries: int) -> Usable | Failure | None:
        """Lead a renewal to its end. Return what the leader gets of it; None after an early one that failed."""
        in_hand_or_dropped = self._token or self._dropped
        if mine.is_early:
            tries = 1
        try:
            supplied = self._supply.obtain(tries=tries, in_hand=in_hand_or_dropped, refused=refused)
        except SupplyFailed as failure:
            self._note_failure(mine, failure.reason)
            return None if mine.is_early else Failure(failure.reason)
        except BaseException:
            if mine.is_early:  # or the next request would run into the same bug
                self._early_pause = _Countdown(_EARLY_PAUSE)
            raise
        self._keep(mine, supplied.token, is_from_store=supplied.is_from_store)
        return Usable(supplied.token, is_new=not supplied.is_from_store)

    def _keep(self, mine: Renewal, token: Token, *, is_from_store: bool) -> None:
        """Take *token* in hand, and then show it to those who wait for *mine*."""
        with self._lock:
            # One that was given up may end after others have got a newer token.
            was_given_up = self._renewal is not mine
            if not was_given_up or self._token is None or self._token.obtained_at < token.obtained_at:
                self._token = token
                self._dropped = None
                self._early_pause = _NO_PAUSE
                self._named_pause = None
        mine.is_from_store = is_from_store
        mine.token = token  # now it has a result

    def _note_failure(self, mine: Renewal, error: Exception) -> None:
        """Show a copy of *error* to those who wait for *mine*, and note how long not to try again."""
        mine.error = copy_of(error)  # the traceback of the original would keep alive what the leader was at
        if isinstance(error, TokenEndpointError) and error.retry_after:
            self._named_pause = _NamedPause(error, error.retry_after)
        if mine.is_early:
            self._early_pause = _Countdown(_EARLY_PAUSE)
            _logger.warning(
                "Renewal failed. The token in hand still lives, and the next try is in %.0f s at the earliest. %s",
                _EARLY_PAUSE,
                in_one_line(error),
            )

    def _give_up(self, renewal: Renewal) -> None:
        """Let the next request begin another renewal, since *renewal* takes too long."""
        with self._lock:
            if self._renewal is renewal:
                self._renewal = None

    def _out_of_patience(self) -> TokenEndpointError:
        return TokenEndpointError(
            f"Another thread's token request has not ended within {self._patience:g} s. "
            "The next request that needs a token asks again."
        )


def _token_or_error(outcome: Usable | Failure) -> Token:
    if isinstance(outcome, Failure):
        raise_again(outcome.error)
    return outcome.token
