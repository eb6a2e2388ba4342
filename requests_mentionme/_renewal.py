"""One renewal under way: who leads it, who waits for it, and what it ends in.

A renewal ends by one call that no interrupt can split: its leader lets go of a lock that it has held from the start.
`threading.Event` and `Condition` would not do. They are written in Python, so an exception that a signal handler
raises can leave them locked half-way, and then all who wait hang. An `RLock` is written in C.
"""

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from requests_mentionme._token import Token


class Renewal:
    """A renewal. Each thread that needs one makes one, and leads it only if no other is under way.

    Attributes:
        held_by_leader: The leader holds this lock, by a `with` statement, from before anybody else can see the renewal
            until the renewal is over. So whatever ends the leader lets go of it.
        is_early: Whether it is made while the token in hand still lives. Nobody depends on it then.
        is_over: Whether it has ended, in whatever way. The leader says so just before it lets go of the lock.
        token: The token that it brought.
        is_from_store: Whether that token came from the store, and not straight from the token endpoint.
        error: The failure that all share who needed the token, without a traceback.
        has_no_result: Whether it is over without a token and without an error: an interrupt or a bug has ended its
            leader, and that concerns the leader alone.
    """

    def __init__(self) -> None:
        self.held_by_leader = threading.RLock()
        self.is_early = False
        self.is_over = False
        self.token: Token | None = None
        self.is_from_store = False
        self.error: Exception | None = None
        self._leader = threading.get_ident()

    @property
    def is_led_by_this_thread(self) -> bool:
        """Whether the thread that asks is the leader, which must not wait for itself."""
        return self._leader == threading.get_ident()

    @property
    def has_no_result(self) -> bool:
        """Whether it has brought neither a token nor an error."""
        return self.token is None and self.error is None

    def wait(self, seconds: float) -> bool:
        """Wait until the leader lets go, for so many seconds at most, and return whether it did."""
        try:
            has_ended = self.held_by_leader.acquire(timeout=max(seconds, 0.0))
            if has_ended:
                self.held_by_leader.release()
        except BaseException:
            # If the interrupt came while this thread held the lock, it lets go. If it came before or after, to let go
            # is a RuntimeError. `contextlib.suppress` would be one more call that a second interrupt could break.
            try:  # noqa: SIM105
                self.held_by_leader.release()
            except RuntimeError:
                pass
            raise
        return has_ended
