"""A fleet: processes that share a token through a store. How many token requests does each renewal cost?

All of them get the same token, so all would find it stale at the same moment, and ask for the next one at once. The
store spreads their moments. Both measures can be taken without that spread as well, for comparison.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from stand_ins import TokenServer

from requests_mentionme import Environment, MentionMeAuth, _store
from requests_mentionme._credentials import ClientCredentials
from requests_mentionme._errors import Hidden
from requests_mentionme._store import StoredTokens
from requests_mentionme._token import Token, make_token

_TOKEN_REQUEST = 0.2  # seconds that one takes
_MARGIN = 300.0
_CREDENTIALS = ClientCredentials("client-id", Hidden("client-secret"))

PROCESSES = 16
_LIFETIME = 20  # seconds: stale after 16, so the moments of the processes are spread over half of 4
_TWO_RENEWALS = 40.0  # seconds from the first token: they are over after 35, and the third begins after 48
_WORKER = """
from diskcache import Cache
auth = fleet.auth_at(sys.argv[1], Cache(sys.argv[2]))
with fleet.spread(is_on=sys.argv[3] == "True"):
    while time.time() < float(sys.argv[4]):
        auth.access_token()
        time.sleep(random.uniform(0, 0.1))
"""


def spread(*, is_on: bool) -> AbstractContextManager[object]:
    """Leave the spread as it is, or switch it off."""
    return nullcontext() if is_on else patch.object(StoredTokens, "with_own_moment", lambda _, token: token)


class Simulation:
    """Processes at real lifetimes, in simulated time: a queue of events in the place of threads.

    The tokens, the store and the moments are the library's own. Each process looks at its token at random times, every
    few seconds. What it finds while the token is fresh changes nothing, so only the first look after that is an event.
    """

    def __init__(self, processes: int, *, is_shared: bool = True, lifetime: float = 3600.0, looks_every: float = 5.0):
        self.token_requests = 0
        self._now = 0.0
        self._lifetime = lifetime
        self._looks_every = looks_every
        self._random = random.Random(1)
        self._order = count()  # of events at the same moment
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        shared: dict[str, str] = {}
        stores = [StoredTokens(shared if is_shared else {}, "token-url", _MARGIN) for _ in range(processes)]
        first = self._new_token()
        for stored in stores:
            stored.write(_CREDENTIALS, first)
            self._take(stored, stored.with_own_moment(first))

    def run(self, lifetimes: int) -> float:
        """Return how many token requests there are in each of so many lifetimes, in the mean. It can be run once."""
        end = (lifetimes + 0.5) * (self._lifetime - _MARGIN)  # when all have renewed so many times, and none once more
        with patch.object(_store, "time", SimpleNamespace(time=lambda: self._now)):
            while self._events[0][0] < end:
                self._now, _, act, arguments = heappop(self._events)
                act(*arguments)
        return self.token_requests / lifetimes

    def _at(self, moment: float, act: Callable[..., None], *arguments: object) -> None:
        heappush(self._events, (moment, next(self._order), act, arguments))

    def _new_token(self) -> Token:
        value = f"token-{self.token_requests}"
        return make_token(value, self._now, self._lifetime, _MARGIN)

    def _take(self, stored: StoredTokens, token: Token) -> None:
        """Let a process use *token* until its first look at which it is stale."""
        self._at(token.stale_at + self._random.expovariate(1 / self._looks_every), self._renew, stored, token)

    def _renew(self, stored: StoredTokens, in_hand: Token) -> None:
        token = stored.read(_CREDENTIALS, but_not=in_hand)
        if token is not None:
            self._take(stored, token)
            return
        self.token_requests += 1
        self._at(self._now + _TOKEN_REQUEST, self._store, stored, self._new_token())

    def _store(self, stored: StoredTokens, token: Token) -> None:
        stored.write(_CREDENTIALS, token)
        self._take(stored, stored.with_own_moment(token))


def auth_at(url: str, store: _store.TokenStore) -> MentionMeAuth:
    """Return the auth of one process."""
    return MentionMeAuth("client-id", "client-secret", environment=Environment.at(url), store=store)


def two_renewals(*, is_spread: bool) -> int:
    """Return the token requests of two renewals in real processes that share a `diskcache`, the first one left out."""
    from diskcache import Cache  # noqa: PLC0415 - it may not be installed

    server = TokenServer()
    server.behave(delay=_TOKEN_REQUEST, lifetime=_LIFETIME)
    url = f"http://127.0.0.1:{server.server_port}"
    with tempfile.TemporaryDirectory() as folder:
        with Cache(folder) as cache:
            auth_at(url, cache).access_token()
        end = time.time() + _TWO_RENEWALS
        code = f"import random, sys, time\nimport fleet\n{_WORKER}"
        command = [sys.executable, "-c", code, url, folder, str(is_spread), str(end)]
        workers = [subprocess.Popen(command, cwd=Path(__file__).parent, env=os.environ) for _ in range(PROCESSES)]
        failed = [worker for worker in workers if worker.wait() != 0]
    server.shutdown()
    server.server_close()
    if failed:
        raise RuntimeError(f"{len(failed)} of {PROCESSES} processes failed")
    return next(server.asked) - 1
