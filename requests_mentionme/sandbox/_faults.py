"""The faults that the sandbox plays on request."""

import re
import threading
from collections import deque
from collections.abc import Mapping

from requests_mentionme.sandbox._arguments import check
from requests_mentionme.sandbox._messages import Answer, HangUp, error_answer

_FIELD_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)  # RFC 9110 §5.1
_FIELD_VALUE = re.compile(r"[ -~]*")
_GARBAGE = b"\x16\x03\x01 not HTTP\r\n\r\n"


class Fault:
    """What goes wrong with the next requests.

    Attributes:
        delay: How many seconds to wait before anything else happens.
        outcome: What the client gets after the delay. None means: what it would have got without the fault.
    """

    def __init__(
        self,
        *,
        status: int | None,
        headers: Mapping[str, str] | None,
        body: str | bytes | None,
        delay: float,
        reset: bool,
        garbage: bool,
    ) -> None:
        check(delay=delay)
        kinds = [status is not None, bool(reset), bool(garbage)].count(True)
        if kinds == 0 and delay == 0:
            raise ValueError("ask for a status, a delay, a reset or garbage")
        if kinds > 1:
            raise ValueError("status, reset and garbage exclude each other")
        if status is None and (headers or body is not None):
            raise ValueError("headers and body need a status")
        self.delay = delay
        self.outcome: Answer | HangUp | None = None
        if reset:
            self.outcome = HangUp(reset=True)
        elif garbage:
            self.outcome = HangUp(_GARBAGE)
        elif status is not None:
            self.outcome = _planned_answer(status, headers or {}, body)


class Faults:
    """The faults that are still to come, for one kind of request. Each acts in the order in which it was added."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Fault, int]] = deque()  # each with how many requests it is still for

    def add(self, fault: Fault, times: int) -> None:
        """Let a fault act on so many requests, after all that were added before."""
        check(times=times)
        with self._lock:
            self._waiting.append((fault, times))

    def take(self) -> Fault | None:
        """Return the fault that acts on a request that has just arrived."""
        with self._lock:
            if not self._waiting:
                return None
            fault, times = self._waiting.popleft()
            if times > 1:
                self._waiting.appendleft((fault, times - 1))
            return fault

    def clear(self) -> None:
        """Forget all faults that have not acted yet."""
        with self._lock:
            self._waiting.clear()


def _planned_answer(status: int, headers: Mapping[str, str], body: str | bytes | None) -> Answer:
    check(status=status)
    for name, value in headers.items():
        check(header=name)
        check(header=value)
        if not (_FIELD_NAME.fullmatch(name) and _FIELD_VALUE.fullmatch(value)):
            raise ValueError(f"no header can be like {name!r}")
    # The headers are copied, because the caller may change its own later.
    answer = error_answer(status, "The sandbox was told to answer this.")._replace(headers=dict(headers))
    if body is None:
        return answer
    check(body=body)
    return answer._replace(body=body.encode() if isinstance(body, str) else body)
