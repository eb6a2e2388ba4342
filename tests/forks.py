"""Forked children that make one call and end."""

import os
import signal
import traceback

import pytest


def forks(test):
    test = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")(test)
    return pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")(test)  # that is what is tested


def forked(work):
    """Do *work* in a forked child, and return its process id; its exit status is what *work* returns, 0 for None."""
    if child := os.fork():
        return child
    signal.alarm(60)  # ends a child that hangs, but not before a client of it has lost patience
    try:
        os._exit(int(work() or 0))
    except BaseException:  # noqa: BLE001 - whatever it is, it must not go on as if it were the parent
        traceback.print_exc()
    finally:
        os._exit(99)


def exit_status(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])  # once it has ended; below 0 if it hung
