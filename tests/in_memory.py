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
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

from requests_mentionme import MentionMeAuth

LIFETIME = 1000.0  # seconds
STALE = 800.0  # seconds after it was obtained; what remains is 20 % of the lifetime
EXPIRED = 990.0  # seconds after it was obtained; what remains is the last moment
TIMEOUT = (5.0, 10.0)  # seconds, (connect, read)
PATIENCE = 40.0  # seconds that a waiter waits with this timeout: the budget of 2 x (5 + 10), and one read timeout
LONG = 10.0  # real seconds after which something hangs


@dataclass
class Answer:
    """An answer of the token endpoint."""

    status: int = 200
    fields: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class Gate:
    """An outcome that does not come before the gate is opened."""

    def __init__(self, outcome: object = None) -> None:
        self.outcome = outcome
        self._reached = threading.Event()
        self._opened = threading.Event()

    def wait_until_reached(self) -> None:
        """Return once a token request stands before the gate."""
        assert self._reached.wait(LONG), "no token request arrived here"

    def open(self) -> None:
        """Let the token request through."""
        self._opened.set()

    def pass_through(self) -> object:
        """Stand before the gate until it is opened, and return what lies behind."""
        self._reached.set()
        assert self._opened.wait(LONG), "nobody opened the gate"
        return self.outcome


class TokenEndpoint(BaseAdapter):
    """Plays the token endpoint by a script.

    Attributes:
        script: The outcomes to come; may be extended at any time.
        requests: The prepared token requests that arrived, in order.
    """

    def __init__(self, *script: object, lifetime: float = LIFETIME) -> None:
        super().__init__()
        self.script = list(script)
        self.lifetime = lifetime
        self.requests: list[requests.PreparedRequest] = []
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many token requests arrived."""
        return len(self.requests)

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Take the place of a connection."""
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
            outcome = self.script.pop(0) if self.script else None
        while isinstance(outcome, Gate) or (callable(outcome) and not isinstance(outcome, BaseException)):
            outcome = outcome.pass_through() if isinstance(outcome, Gate) else outcome()
        if isinstance(outcome, BaseException):
            raise outcome
        if outcome is None:
            outcome = f"token-{number}"
        answer = outcome if isinstance(outcome, Answer) else Answer(fields=self._fields(str(outcome)))
        return self._response(request, answer)

    def close(self) -> None:
        """Have nothing to close."""

    def _fields(self, token: str) -> dict[str, Any]:
        return {"access_token": token, "token_type": "bearer", "expires_in": self.lifetime}

    def _response(self, request: requests.PreparedRequest, answer: Answer) -> requests.Response:
        response = requests.Response()
        response.status_code = answer.status
        response.headers.update(answer.headers)
        response.raw = HTTPResponse(io.BytesIO(json.dumps(dict(answer.fields)).encode()), preload_content=False)
        response.url = str(request.url)
        response.request = request
        response.connection = self  # type: ignore[assignment]
        return response


def session_with(endpoint: BaseAdapter) -> requests.Session:
    """Return a session whose requests all go to *endpoint*."""
    session = requests.Session()
    session.trust_env = False
    session.mount("https://", endpoint)
    session.mount("http://", endpoint)
    return session


def auth_with(endpoint: BaseAdapter, **options: Any) -> MentionMeAuth:
    """Return an auth for the demo environment whose token requests go to *endpoint*."""
    settings = {"environment": "demo", "session": session_with(endpoint), "timeout": TIMEOUT, **options}
    return MentionMeAuth("an-id", "the-s3cret", **settings)


def in_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """Return *call*, wrapped so that freezegun's time reaches it in a thread.

    freezegun gives the true time to code that has `threading` among the five frames above it.
    """

    def beyond_sight(frames: int) -> Any:
        return beyond_sight(frames - 1) if frames else call()

    return lambda: beyond_sight(5)
