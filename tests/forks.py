"""Forked children that make one call and end."""

import os
import signal
import traceback

import pytest


def forks(test):
    """Mark a test that forks."""
    test = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")(test)
    return pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")(test)  # that is what is tested


def forked(work):
    """Do *work* in a forked child, and return its process id; its exit status is what *work* returns, 0 for None."""
    child = os.fork()
    if child:
        return child
    signal.alarm(60)  # ends a child that hangs, but not before a client of it has lost patience
    status = 99
    try:
        status = int(work() or 0)
    except BaseException:  # noqa: BLE001 - whatever it is, it must not go on as if it were the parent
        traceback.print_exc()
    finally:
        os._exit(status)


def exit_status(child):
    """Return the exit status of a child once it has ended, below 0 if it hung."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
