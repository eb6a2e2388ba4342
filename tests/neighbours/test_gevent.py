"""Beside `gevent`, in a process of its own where the standard library is patched: greenlets are the threads."""

import json
import subprocess
import sys
from typing import Any

import pytest

from requests_mentionme.sandbox import Sandbox

pytest.importorskip("gevent", reason="gevent is not installed")

PATCHED = """
from gevent import monkey
monkey.patch_all()

import json, sys
import gevent
import requests
from requests_mentionme import MentionMeAuth

base, *script = sys.argv[1:]
auth = MentionMeAuth("sandbox-id", "sandbox-secret", environment=base)

def call(patience=30):
    with gevent.Timeout(patience, False):
        return requests.get(f"{base}/api/merchant/v2/coupons/validate/SAMPLE", auth=auth).status_code

"""
SINGLE_FLIGHT = """
calls = [gevent.spawn(call) for _ in range(30)]
gevent.joinall(calls, timeout=30)
print(json.dumps([each.value for each in calls]))
"""
LEADER_DIES = """
leader = gevent.spawn(call, 1)
waiters = [gevent.spawn(call) for _ in range(5)]
gevent.sleep(0.5)
{death}
gevent.joinall([leader, *waiters], timeout=30)
print(json.dumps([each.value == 200 for each in [leader, *waiters]]))
"""
FORK = """
import os
before = call()
pid = os.fork()
if pid == 0:
    auth.invalidate()
    os._exit(0 if call() == 200 else 1)
print(json.dumps([before, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), call()]))
"""


def run(sandbox: Sandbox, script: str) -> Any:
    """Return what a script prints, run with the sandbox outside of its process."""
    command = [sys.executable, "-W", "error", "-c", PATCHED + script, sandbox.url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return json.loads(ended.stdout)


def test_many_greenlets_share_one_token_request(sandbox: Sandbox) -> None:
    """While one of them asks, the others wait without blocking it."""
    sandbox.fail_token_requests(delay=0.3)
    assert run(sandbox, SINGLE_FLIGHT) == [200] * 30
    assert sandbox.token_requests == 1


@pytest.mark.parametrize("death", ["leader.join()", "leader.kill()"], ids=["timed out", "killed"])
def test_a_greenlet_that_dies_while_it_renews_frees_the_others(sandbox: Sandbox, death: str) -> None:
    """A `gevent.Timeout` or `GreenletExit` is no `Exception`, and not their error either: one of them asks again."""
    sandbox.fail_token_requests(delay=600)
    assert run(sandbox, LEADER_DIES.format(death=death)) == [False, *[True] * 5]
    assert sandbox.token_requests == 2


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_process_goes_on_by_itself(sandbox: Sandbox) -> None:
    """As under a server that loads the application, forks, and serves with greenlets."""
    assert run(sandbox, FORK) == [200, 0, 200]
    assert sandbox.token_requests == 2
