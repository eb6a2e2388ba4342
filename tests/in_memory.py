"""A token endpoint in memory, for rules that need no sockets: the adapter of a session that is lent to the auth.

    endpoint = TokenEndpoint("token-1", requests.ConnectionError("dead"), Gate("token-2"))
    auth = auth_with(endpoint)           # its environment is demo, its patience PATIENCE seconds
    assert auth.access_token() == "token-1"
    assert endpoint.count == 1

An outcome of the script is the text of a token, an `Answer`, an exception to raise, a `Gate` before one of these, or
a callable that returns one of these. When the script is used up, each further request gets a new token: `token-N` for
the Nth request. Tokens live for `LIFETIME` seconds: they are stale from `STALE` on and expired from `EXPIRED` on.
"""

import io
import itertools
import json
import logging
import sys
import threading
from dataclasses import dataclass, field
from time import sleep as real_sleep  # tests replace `time.sleep`

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3 import HTTPResponse

from requests_mentionme import MentionMeAuth

API = "https://demo.mention-me.com/api/merchant/v2/customers"
SIBLING = "https://api-demo.mention-me.com/v2/customers"
LIFETIME = 1000.0  # seconds
STALE = 800.0  # seconds after it was obtained; what remains is 20 % of the lifetime
EXPIRED = 990.0  # seconds after it was obtained; what remains is the last moment
TIMEOUT = (5.0, 10.0)  # seconds, (connect, read)
PATIENCE = 40.0  # seconds that a waiter waits with this timeout: the budget of 2 x (5 + 10), and one read timeout
LONG = 10.0  # real seconds after which something hangs


@dataclass
class Answer:
    status: int = 200
    fields: dict = field(default_factory=dict)
    headers: dict = field(default_factory=dict)


class Gate:
    """An outcome that does not come before the gate is opened."""

    def __init__(self, outcome=None):
        self.outcome = outcome
        self._reached = threading.Event()
        self._opened = threading.Event()
        self.open = self._opened.set  # lets the token request through

    def wait_until_reached(self):
        assert self._reached.wait(LONG), "no token request arrived here"

    def pass_through(self):
        self._reached.set()
        assert self._opened.wait(LONG), "nobody opened the gate"
        return self.outcome


class TokenEndpoint(BaseAdapter):
    def __init__(self, *script, lifetime=LIFETIME):
        super().__init__()
        self.script = list(script)  # may be extended at any time
        self.lifetime = lifetime
        self.requests = []  # those that arrived, in order
        self._lock = threading.Lock()

    @property
    def count(self):
        return len(self.requests)

    def send(self, request, *_, **__):
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
            outcome = self.script.pop(0) if self.script else None
        while isinstance(outcome, Gate) or (callable(outcome) and not isinstance(outcome, BaseException)):
            outcome = outcome.pass_through() if isinstance(outcome, Gate) else outcome()
        if isinstance(outcome, BaseException):
            raise outcome
        answer = outcome if isinstance(outcome, Answer) else token(str(outcome or f"token-{number}"), self.lifetime)
        return self._response(request, answer)

    def close(self):
        pass

    def _response(self, request, answer):
        body = io.BytesIO(json.dumps(dict(answer.fields)).encode())
        raw = HTTPResponse(body, answer.headers, answer.status, preload_content=False)
        response = HTTPAdapter().build_response(request, raw)
        response.connection = self
        return response


def token(value, lifetime):
    return Answer(fields={"access_token": value, "token_type": "bearer", "expires_in": lifetime})


def session_with(endpoint):
    session = requests.Session()
    session.trust_env = False
    session.mount("https://", endpoint)
    session.mount("http://", endpoint)
    return session


def auth_with(endpoint, **options):
    """Return an auth for the demo environment whose token requests go to *endpoint*."""
    settings = {"environment": "demo", "session": session_with(endpoint), "timeout": TIMEOUT, **options}
    return MentionMeAuth("an-id", "the-s3cret", **settings)


def aged(clock, age, *script, **options):
    """Return an auth whose token `old` is so old, or that has none, and its endpoint, which counts from here on."""
    endpoint = TokenEndpoint("old")
    auth = auth_with(endpoint, **options)
    if age is not None:
        auth.access_token()
        clock.tick(age)
    endpoint.requests.clear()
    endpoint.script = list(script)
    return auth, endpoint


def accept(web, *tokens, url=API):
    """Have *url* on `web`, a fixture, answer 200 to these tokens from now on, and 401 to all else."""

    def judge(request):
        accepted = request.headers.get("Authorization") in {f"Bearer {token}" for token in tokens}
        return (200, {}, "fine") if accepted else (401, {}, "refused")

    for method in ("GET", "POST"):
        web.remove(method, url)
        web.add_callback(method, url, judge)


def sent(web, url=API):
    """Return the tokens that *url* got, in order; None for a request that carried none."""
    headers = [call.request.headers.get("Authorization") for call in web.calls if call.request.url == url]
    return [header and header.removeprefix("Bearer ") for header in headers]


def warnings(caplog):
    """Return the texts of all warnings, and fail if there was an error, or a warning of another logger."""
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert {(record.name, record.levelname) for record in records} <= {("requests_mentionme", "WARNING")}
    return [record.getMessage() for record in records]


def in_thread(call):
    """Return *call* five frames further down, as freezegun gives the true time to code that is close to `threading`."""

    def beyond_sight(frames):
        return beyond_sight(frames - 1) if frames else call()

    return lambda: beyond_sight(5)


class Crowd:
    """Threads that ask for a token; it tells when they wait for the renewal that another one leads.

        asked = crowd.ask(4, auth.access_token)      # four futures; `crowd` is a fixture
        crowd.expect(3)                              # returns once three of the four wait

    What counts as waiting is to acquire a lock that another thread holds. What a thread does within a token request
    or before a gate does not count, so the leader is not one of those who wait.
    """

    def __init__(self, start):
        self._start = start
        self._waits = itertools.count(1)
        self._waiting = {}  # the thread, and the number of its wait
        self._expected = 0  # the number of the last wait that was expected

    def ask(self, count, call):
        return [self._start(lambda: self._watched(call)) for _ in range(count)]

    def wait_behind(self, gate, count, call):
        """Start a thread whose token request stands before the gate, and so many others, who wait for that."""
        leader = self.ask(1, call)
        gate.wait_until_reached()
        waiting = self.ask(count, call)
        self.expect(count)
        return leader + waiting

    def expect(self, count):
        """Return once so many threads wait that have not been expected before."""
        for _ in range(int(LONG * 1000)):
            waits = [number for number in list(self._waiting.values()) if number > self._expected]
            if len(waits) >= count:
                self._expected = max(waits, default=self._expected)
                return
            real_sleep(0.001)
        raise AssertionError("fewer threads wait than expected")

    def _watched(self, call):
        sys.setprofile(self._profile)
        try:
            return call()
        finally:
            sys.setprofile(None)
            self._waiting.pop(threading.get_ident(), None)

    def _profile(self, frame, event, function):
        if event == "c_call" and begins_to_wait(function) and not leads(frame):
            self._waiting[threading.get_ident()] = next(self._waits)
        elif event == "c_return":
            self._waiting.pop(threading.get_ident(), None)


def begins_to_wait(function):
    """Return whether a call of *function* waits for a lock that is held: what a profiler sees before the call."""
    return getattr(function, "__name__", "") == "acquire" and repr(function.__self__).startswith("<locked")


def leads(frame):
    """Return whether *frame* is called by the endpoint in memory, or by a gate elsewhere."""
    while frame is not None and frame.f_code not in {TokenEndpoint.send.__code__, Gate.pass_through.__code__}:
        frame = frame.f_back
    return frame is not None
