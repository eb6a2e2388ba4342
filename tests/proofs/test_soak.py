"""Many threads in continuous use, with short-lived tokens, revocations and faults: nothing fails, nothing grows.

The short form waits for a second of real time. The long one (`pytest -m slow -s`) makes up to 200,000 requests in ten
minutes at most, and prints its figures.
"""

import faulthandler
import gc
import itertools
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from requests_mentionme import MentionMeAuth
from requests_mentionme.sandbox import Sandbox

LIFETIME = 2.0
THREADS = 32


def measure():
    """Return what must not grow: MiB of resident memory, open descriptors (sockets among them), and threads."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resident, len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def disturb(sandbox, chance, *, may_revoke):
    """Revoke the token in one of two cases, let about one token request of 20 fail, and return how often it did so."""
    revokes = chance.random() < 0.5 and may_revoke
    fails = chance.random() < 0.05
    if revokes:
        sandbox.revoke()
    if fails:
        sandbox.fail_token_requests(**chance.choice([{"status": 503}, {"reset": True}]))
    return revokes + fails


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its memory and sockets from /proc")
@pytest.mark.parametrize("seconds", [1, pytest.param(600, marks=pytest.mark.slow)])
def test_nothing_fails_and_nothing_grows_in_continuous_use(seconds):
    """Each request gets its 200, with no more token requests than lifetimes, revocations and faults ask for."""
    faulthandler.cancel_dump_traceback_later()  # the limit that pytest has for each test, which is shorter
    chance = random.Random(20_261_124)
    over = threading.Event()
    done = [0] * THREADS
    figures = []
    disturbances = 0

    def failures_of(number):
        failures = []
        with requests.Session() as session:
            session.auth = auth
            while not over.is_set():
                try:
                    session.get(f"{sandbox.url}/api/merchant/v2/coupons/validate/SAMPLE", timeout=30).raise_for_status()
                except requests.RequestException as error:
                    failures.append(repr(error))
                done[number] += 1
        return failures

    with Sandbox(lifetime=LIFETIME, rate_limit=10**9) as sandbox, ThreadPoolExecutor(THREADS) as pool:
        auth = MentionMeAuth(sandbox.client_id, sandbox.client_secret, environment=sandbox.environment)
        started = time.monotonic()
        auth.access_token()  # `disturb` wants one
        failures = pool.map(failures_of, range(THREADS))
        try:
            while (spent := time.monotonic() - started) < seconds and sum(done) < 200_000:
                # Not before each thread has its connection.
                if not figures and all(done) and max(spent / seconds, sum(done) / 200_000) > 0.1:
                    figures.append(measure())
                newest = sandbox.tokens[-1]
                before = list(done)
                over.wait(chance.uniform(0.2, 0.6))
                # A token that has only just come may be what a refused request is retried with: nobody can mend that.
                is_settled = newest == sandbox.tokens[-1] and all(b - a >= 3 for a, b in zip(before, done, strict=True))
                disturbances += disturb(sandbox, chance, may_revoke=is_settled)
            figures.append(measure())
        finally:
            over.set()
        failures = list(itertools.chain.from_iterable(failures))
        spent = time.monotonic() - started
    print(f"\n{sum(done)} requests in {spent:.0f} s, {len(failures)} failed, {sandbox.rejections} healed")
    print(f"{disturbances} revocations and faults, {sandbox.token_requests} token requests", *figures, sep="\n")
    assert failures == []
    assert sum(done) > THREADS
    # A token is renewed in the last fifth of its life at the earliest.
    assert sandbox.token_requests <= spent / (0.8 * LIFETIME) + 1 + disturbances
    assert all(last - first <= most for first, last, most in zip(figures[0], figures[-1], (16, 20, 20), strict=True))
