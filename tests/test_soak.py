"""Many threads in continuous use, with short-lived tokens, revocations and faults: nothing fails, nothing grows.

The long form (`pytest -m slow tests/test_soak.py -s`) makes 200,000 requests, or as many as ten minutes allow, and
prints its figures.
"""

import gc
import os
import random
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from requests_mentionme import MentionMeAuth
from requests_mentionme._wire import jwt_claims
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

    def __init__(self, sandbox: Sandbox, auth: MentionMeAuth) -> None:
        """Start nothing yet."""
        self.sandbox = sandbox
        self.auth = auth
        self.over = threading.Event()
        self.failures: list[str] = []
        self.done = [0] * THREADS

    @property
    def requests(self) -> int:
        """How many requests came back."""
        return sum(self.done)

    def figures(self) -> Figures:
        """Measure."""
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        memory = resident * os.sysconf("SC_PAGE_SIZE") / 2**20
        return Figures(self.requests, memory, len(os.listdir("/proc/self/fd")), threading.active_count())  # noqa: PTH208

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


def run(seconds: float, most: int, seed: int) -> tuple[Soak, list[Figures], int, int, float]:
    """Soak until *most* requests or *seconds*; return what happened: figures, revocations, faults, seconds."""
    chance = random.Random(seed)
    with Sandbox(lifetime=LIFETIME, rate_limit=10**9) as sandbox:
        auth = MentionMeAuth(sandbox.client_id, sandbox.client_secret, environment=sandbox.environment)
        soak = Soak(sandbox, auth)
        threads = [threading.Thread(target=soak.use, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        started, revocations, faults, figures = time.monotonic(), 0, 0, []
        try:
            while (spent := time.monotonic() - started) < seconds and soak.requests < most:
                progress = max(spent / seconds, soak.requests / most)
                if len(figures) < (progress > 0.1) + (progress > 0.5):
                    figures.append(soak.figures())
                soak.over.wait(chance.uniform(0.3, 1.5))
                # Not a token that has only just come: it may be what a refused request is being retried with, and no
                # client with one retry could do anything about that.
                just_came = time.time() - jwt_claims(sandbox.tokens[-1])["iat"] < 0.3
                if chance.random() < 0.5 and not just_came:
                    sandbox.revoke()
                    revocations += 1
                # About one token request of 20 fails.
                if chance.random() < 0.05:
                    sandbox.fail_token_requests(**chance.choice([{"status": 503}, {"reset": True}]))
                    faults += 1
            figures.append(soak.figures())
            spent = time.monotonic() - started
        finally:
            soak.over.set()
            for thread in threads:
                thread.join(60)
        return soak, figures, revocations, faults, spent


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its memory and sockets from /proc")
@pytest.mark.parametrize(
    ("seconds", "most"),
    [
        pytest.param(3, 200_000, id="short"),
        pytest.param(600, 200_000, id="long", marks=pytest.mark.slow),
    ],
)
def test_nothing_fails_and_nothing_grows_in_continuous_use(seconds: float, most: int) -> None:
    """Each request gets its 200, with no more token requests than lifetimes, revocations and faults ask for."""
    soak, figures, revocations, faults, spent = run(seconds, most, seed=20_261_124)
    issued, asked = len(soak.sandbox.tokens), soak.sandbox.token_requests
    print(f"\n{soak.requests} requests in {spent:.0f} s by {THREADS} threads, {len(soak.failures)} failed")
    print(f"{asked} token requests, {issued} tokens, {revocations} revocations, {faults} faults")
    print(f"{soak.sandbox.rejections} requests were refused and healed, {soak.sandbox.connections} connections")
    for when, row in zip(("start", "middle", "end"), figures, strict=False):
        print(f"{when}: after {row.requests} requests {row.memory:.1f} MiB, {row.files} files, {row.threads} threads")
    assert soak.failures == []
    assert soak.requests > 100
    # A token is renewed in the last fifth of its life at the earliest.
    assert asked <= spent / (0.8 * LIFETIME) + 1 + revocations + faults
    first, last = figures[0], figures[-1]
    assert last.files <= first.files + 5
    assert last.threads <= first.threads + 5
    assert last.memory <= first.memory + 8
