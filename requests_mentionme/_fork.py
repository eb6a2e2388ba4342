"""What must start anew in a forked child.

A fork copies the memory, but only the thread that forks. A lock that another thread holds at that moment stays locked
in the child for ever, and a renewal that another thread leads never ends there. So each object with such state is
known here, and is told.
"""

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """An object with locks or with other state of one process."""

    def start_anew_after_fork(self) -> None:
        """Make new locks, and drop what another thread of the parent was at."""
        ...


_objects = weakref.WeakSet[Forkable]()


def tell_after_fork(forkable: Forkable) -> None:
    """Have `start_anew_after_fork` of *forkable* called in each forked child. The object is held weakly."""
    _objects.add(forkable)


def _start_anew() -> None:
    for forkable in _objects:
        forkable.start_anew_after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_start_anew)
