"""The errors of this library, and what makes any exception fit to leave it.

The classes are split by what their reader does: correct the API key, try again later, or find out who answered.
An exception keeps the frames that it came through alive, with their local variables, and error reporters send those
off. The frames of a token request hold the client secret. So there are two rules. A public method runs its work within
`FramesCleared`, which empties the frames below it. And what a public method itself was given, and must not show, it
puts into a `Hidden` before anything can fail, since its own frame can't be emptied while it runs.
"""

import copy
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, NoReturn, cast

from requests import RequestException

# Flags of code objects, as in `inspect`, which is slow to import.
_CO_GENERATOR = 0x20
_CO_COROUTINE = 0x80
_CO_ASYNC_GENERATOR = 0x200
_CLEAR_CLOSES_GENERATORS = sys.version_info < (3, 13)
_PACKAGES_SAFE_TO_CLOSE = sys.stdlib_module_names | {"requests_mentionme", "requests", "urllib3"}


class MentionMeAuthError(RequestException):
    """No token could be obtained. This is the base of the three errors below.

    Faults of the network on the way to the token endpoint stay the exceptions of `requests`, such as `ConnectTimeout`.
    """


class InvalidClientError(MentionMeAuthError):
    """The token endpoint refused the credentials (400, 401 or 403; RFC 6749 §5.2). Another try does not help."""


class TokenEndpointError(MentionMeAuthError):
    """The token endpoint gave no token this time, or the wait for another thread's token request took too long.

    Attributes:
        retry_after: The number of seconds after which the endpoint asked to be tried again. None if it did not ask.
    """

    retry_after: float | None = None

    def __str__(self) -> str:
        if self.retry_after is None:
            return super().__str__()
        return f"{super().__str__()} Try again in {self.retry_after:.0f} s."


class TokenResponseError(MentionMeAuthError):
    """The token endpoint answered with a 2xx status, but the answer can't be used as a token."""


class Hidden:
    """Holds a value that must not show in the local variables of a frame. The `repr` does not tell what it is."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "<hidden>"


def copy_of(error: Exception, **changes: Any) -> Exception:
    """Return a copy of *error* for another thread to raise, without traceback, cause or context.

    Args:
        error: Any exception, also one whose constructor does not take the arguments that it keeps in `args`.
        changes: Attributes that differ in the copy.

    Returns:
        What `copy.copy` makes of it. Where that fails or makes another type: a new object with the same arguments and
        attributes. Where even that fails: *error* itself, since to raise one object twice is better than to lose it.
    """
    twin = _copied(error)
    if twin is None:
        twin = _made_anew(error)
    if twin is None:
        return error
    twin.args = error.args  # a constructor may have changed them
    vars(twin).update(vars(error), **changes)
    return twin


def _copied(error: Exception) -> Exception | None:
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001 - the constructor of a foreign class may raise anything
        return None
    return twin if type(twin) is type(error) else None


def _made_anew(error: Exception) -> Exception | None:
    try:
        return type(error).__new__(type(error), *error.args)
    except Exception:  # noqa: BLE001 - likewise
        return None


def in_one_line(error: BaseException) -> str:
    """Return the text of *error*, fit for a log: what others wrote can't break out of the line."""
    text = " ".join(str(error).split())
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def raise_again(error: BaseException) -> NoReturn:
    """Raise *error*, and keep the context that it has.

    A plain `raise` would put the exception that the caller of this library is just handling in the place of it.
    """
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context


def chain_of(error: BaseException | None) -> list[BaseException]:
    """Return *error*, its causes and contexts, and the members of groups among them.

    Each is there once, even if they form a cycle. They are compared by identity, since some can't be hashed.
    """
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        link = waiting.pop()
        if link is None or any(link is known for known in found):
            continue
        found.append(link)
        waiting += [link.__cause__, link.__context__]
        waiting += _members_of(link)
    return found


def _members_of(group: BaseException) -> list[BaseException]:
    """Return the members of an `ExceptionGroup`, which came with Python 3.11; none for any other exception."""
    members = getattr(group, "exceptions", ())
    if not isinstance(members, tuple):  # an attribute of this name that is something else
        return []
    return [member for member in cast("tuple[object, ...]", members) if isinstance(member, BaseException)]


class FramesCleared:
    """A context manager for a public method: what is raised through it keeps no local variables of the frames below.

    It does so for whatever is raised, a `KeyboardInterrupt` too, and for its causes and contexts. Files and line
    numbers stay readable. Three kinds of frames are left alone:

    - the frame of the public method, since it still runs;
    - the frames of an exception that the caller was handling when it called, since they are the caller's;
    - before Python 3.13, the frame of a foreign generator or coroutine: see `_may_be_cleared`.
    """

    __slots__ = ("_frames_of_caller",)

    def __enter__(self) -> None:
        self._frames_of_caller = set(_frames_of(sys.exc_info()[1]))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for frame in _frames_of(error):
            if frame not in self._frames_of_caller and _may_be_cleared(frame):
                _clear(frame)


def _frames_of(error: BaseException | None) -> Iterator[FrameType]:
    for link in chain_of(error):
        traceback = link.__traceback__
        while traceback is not None:
            yield traceback.tb_frame
            traceback = traceback.tb_next


def _may_be_cleared(frame: FrameType) -> bool:
    """Return whether clearing *frame* does no harm.

    Before Python 3.13, to clear the frame of a suspended generator or coroutine closes it. The code that stored its
    exception may still resume it. Those of this package and of what it is built on are known not to be resumed.
    """
    can_be_suspended = frame.f_code.co_flags & (_CO_GENERATOR | _CO_COROUTINE | _CO_ASYNC_GENERATOR)
    top_package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return not _CLEAR_CLOSES_GENERATORS or not can_be_suspended or top_package in _PACKAGES_SAFE_TO_CLOSE


def _clear(frame: FrameType) -> None:
    with suppress(RuntimeError):  # it still runs, or is suspended
        frame.clear()
