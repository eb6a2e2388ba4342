"""Many threads in continuous use, with short-lived tokens, revocations and faults: nothing fails, nothing grows.

The long form (`pytest -m slow tests/proofs/test_soak.py -s`) makes 200,000 requests, or as many as ten minutes allow,
and prints its figures. The short form waits for a second and a half of real time.
"""

import gc
import os
import random
import threading
import time
from pathlib import Path
from typing import NamedTuple

import jwt
import pytest
import requests

from requests_mentionme import MentionMeAuth
from requests_mentionme.sandbox import Sandbox

LIFETIME = 2.0
THREADS = 32
COUPON = "/api/merchant/v2/coupons/validate/SAMPLE"


class Figures(NamedTuple):
    """What must not grow."""

    requests: int
    memory: float  # MiB, resident
    files: int  # open descriptors, sockets among them
    threads: int


class Soak:
    """Threads that send requests as fast as they can until told to stop, and what became of the requests."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.auth = MentionMeAuth(sandbox.client_id, sandbox.client_secret, environment=sandbox.environment)
        self.over = threading.Event()
        self.failures: list[str] = []
        self.done = [0] * THREADS
        self.figures: list[Figures] = []
        self.revocations = 0
        self.faults = 0

    @property
    def requests(self) -> int:
        """How many requests came back."""
        return sum(self.done)

    def measure(self) -> None:
        """Keep what must not grow."""
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        memory = resident * os.sysconf("SC_PAGE_SIZE") / 2**20
        files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a Path for each would be one more thing that grows
        self.figures.append(Figures(self.requests, memory, files, threading.active_count()))

    def use(self, number: int) -> None:
        """Send requests one after the other."""
        with requests.Session() as session:
            session.auth = self.auth
            while not self.over.is_set():
                try:
                    response = session.get(self.sandbox.url + COUPON, timeout=30)
                    if response.status_code != 200:
                        self.failures.append(f"{response.status_code} {response.text}")
                except requests.RequestException as error:
                    self.failures.append(repr(error))
                self.done[number] += 1

    def disturb(self, chance: random.Random) -> None:
        """Revoke the token in one of two cases, and let about one token request of 20 fail."""
        # A token that has only just come may be what a refused request is being retried with. No client with one
        # retry could do anything about the loss of that one.
        newest = jwt.decode(self.sandbox.tokens[-1], options={"verify_signature": False})
        if chance.random() < 0.5 and time.time() - newest["iat"] >= 0.3:
            self.sandbox.revoke()
            self.revocations += 1
        if chance.random() < 0.05:
            self.sandbox.fail_token_requests(**chance.choice([{"status": 503}, {"reset": True}]))
            self.faults += 1

    def run(self, seconds: float, most: int, chance: random.Random) -> float:
        """Soak until *most* requests or *seconds*; measure at 10 %, 50 % and the end, and return the seconds."""
        threads = [threading.Thread(target=self.use, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        started = time.monotonic()
        try:
            while (spent := time.monotonic() - started) < seconds and self.requests < most:
                progress = max(spent / seconds, self.requests / most)
                if len(self.figures) < (progress > 0.1) + (progress > 0.5):
                    self.measure()
                self.over.wait(chance.uniform(0.3, 1.5))
                self.disturb(chance)
            self.measure()
            return time.monotonic() - started
        finally:
            self.over.set()
            for thread in threads:
                thread.join(60)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its memory and sockets from /proc")
@pytest.mark.parametrize("seconds", [1.5, pytest.param(600, marks=pytest.mark.slow)], ids=["short", "long"])
def test_nothing_fails_and_nothing_grows_in_continuous_use(seconds):
    """Each request gets its 200, with no more token requests than lifetimes, revocations and faults ask for."""
    with Sandbox(lifetime=LIFETIME, rate_limit=10**9) as sandbox:
        soak = Soak(sandbox)
        spent = soak.run(seconds, 200_000, random.Random(20_261_124))
    print(f"\n{soak.requests} requests in {spent:.0f} s by {THREADS} threads, {len(soak.failures)} failed")
    print(f"{sandbox.token_requests} token requests, {len(sandbox.tokens)} tokens")
    print(f"{soak.revocations} revocations, {soak.faults} faults")
    print(f"{sandbox.rejections} requests were refused and healed, {sandbox.connections} connections")
    for when, row in zip(("start", "middle", "end"), soak.figures, strict=False):
        print(f"{when}: after {row.requests} requests {row.memory:.1f} MiB, {row.files} files, {row.threads} threads")
    assert soak.failures == []
    assert soak.requests > 100
    # A token is renewed in the last fifth of its life at the earliest.
    assert sandbox.token_requests <= spent / (0.8 * LIFETIME) + 1 + soak.revocations + soak.faults
    first, last = soak.figures[0], soak.figures[-1]
    assert last.files <= first.files + 5
    assert last.threads <= first.threads + 5
    assert last.memory <= first.memory + 8
