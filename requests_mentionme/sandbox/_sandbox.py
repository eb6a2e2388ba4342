"""The public face of the sandbox: it starts and stops the server, counts and keeps what it saw, and leads the rooms."""

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, final

from requests_mentionme._environment import Environment
from requests_mentionme.sandbox._arguments import check
from requests_mentionme.sandbox._faults import Fault, Faults
from requests_mentionme.sandbox._grants import Grants
from requests_mentionme.sandbox._merchant_api import answer_api_request
from requests_mentionme.sandbox._messages import Answer, HangUp, RefusalError, Request
from requests_mentionme.sandbox._server import Server

_TOKEN_PATH = "/api/oauth/token"  # noqa: S105 - a path, not a password
_KNOWN_SCOPES = "customers:read customers:write customers:delete rewards:read"
_KEPT_REQUESTS = 1_000


@dataclass(frozen=True)
class SeenRequest:
    """A request as it reached the sandbox, and how it was answered.

    It can be compared, hashed, copied and pickled. Its `repr` leaves out what may hold a secret.

    Attributes:
        method: The method.
        path: The request target as it was sent: percent-encoded, and with the query.
        headers: The headers, which can't be changed. The names are in lower case, and the values of a repeated header
            are joined by commas.
        body: The whole body. It makes no difference whether it was sent in chunks.
        token: What stood behind `Authorization: Bearer`; None if there was no such header.
        status: The status of the answer; None if the connection was cut instead.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    token: str | None = field(repr=False)
    status: int | None

    def __post_init__(self) -> None:
        """Make the headers read-only."""
        # A frozen dataclass sets its attributes like this too.
        object.__setattr__(self, "headers", MappingProxyType(dict(self.headers)))

    def __hash__(self) -> int:
        headers = frozenset(self.headers.items())
        return hash((self.method, self.path, headers, self.body, self.token, self.status))

    def __reduce__(self) -> tuple[object, ...]:
        # Read-only views can be neither pickled nor copied, so a dictionary goes in their place.
        fields = (self.method, self.path, dict(self.headers), self.body, self.token, self.status)
        return type(self), fields


@final
class Sandbox:
    """A Mention Me of your own, on a loopback port.

    The token endpoint issues JWTs, no two of which are alike. The six documented endpoints of the Merchant API check
    them, and answer with made-up data that depends on the request alone. Customers whose address ends in
    `@unknown.example` are not found. The coupon code `SAMPLE` can be redeemed, `USED` can't, and no other code exists.

    The documentation leaves three things open. Here a missing scope is a 403, the validation of a coupon needs no
    scope, and a request that gets a 401 counts against the rate limit of its token.

    A sandbox can be used from many threads, and it serves many clients at the same time. A process that is forked while
    it runs can send requests to it. There, `stop` and the end of the `with` block leave the sandbox to the parent.

    If `HTTP_PROXY` is set in the environment, set `NO_PROXY=127.0.0.1` too. Otherwise `requests` asks the proxy for
    the API requests, and the proxy can't reach the sandbox. The token requests of `MentionMeAuth` use no proxy for a
    loopback URL.

    Example:
        with Sandbox() as sandbox:
            session.auth = MentionMeAuth(
                sandbox.client_id, sandbox.client_secret, environment=sandbox.environment
            )

    Attributes:
        client_id: The id of the API key that exists from the start.
        client_secret: The secret of that key.
        token_requests: How many requests for a token have arrived. Faults are included.
        api_requests: How many other requests have arrived. Faults are included.
        rejections: How many of `api_requests` got a 401. Faults are included.
    """

    def __init__(
        self,
        *,
        client_id: str = "sandbox-id",
        client_secret: str = "sandbox-secret",  # noqa: S107 - opens nothing but this sandbox
        lifetime: float = 3600,
        scope: str = _KNOWN_SCOPES,
        merchant_id: int = 4259,
        env: str = "demo",
        rate_limit: int = 300,
        rate_window: float = 300,
        port: int = 0,
    ) -> None:
        """Take the options. The sandbox listens from `start` on, or inside a `with` block.

        Args:
            client_id: The id of the API key that exists from the start.
            client_secret: The secret of that key.
            lifetime: How many seconds a token lives, from 0.001 to 1e9. See `Sandbox.lifetime`.
            scope: The scopes of that key, separated by spaces (RFC 6749 §3.3). The default is all scopes whose names
                are documented.
            merchant_id: The claim `claims.merchantId`.
            env: The claim `claims.env`.
            rate_limit: How many requests each token may send to each group of endpoints (customers, rewards, referee,
                coupons) within one window.
            rate_window: How many seconds a window of the rate limit lasts, from 0.001 to 1e9. It starts with the first
                request. The documentation says five minutes; tests that wait for its end want a short one.
            port: The port to listen on. With 0 the system chooses a free one.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value is empty or out of range.
        """
        check(client_id=client_id, client_secret=client_secret, scope=scope, env=env)
        check(merchant_id=merchant_id, rate_limit=rate_limit, rate_window=rate_window, port=port, lifetime=lifetime)
        self.client_id: Final = client_id
        self.client_secret: Final = client_secret
        self.token_requests = 0
        self.api_requests = 0
        self.rejections = 0
        self._scope = scope
        self._port = port
        self._grants = Grants(
            lifetime=lifetime,
            claims={"env": env, "merchantId": merchant_id},
            rate_limit=rate_limit,
            rate_window=rate_window,
        )
        self._grants.add_key(client_id, client_secret, scope)
        self._token_faults = Faults()
        self._api_faults = Faults()
        self._lock = threading.Lock()  # guards the counters and the requests
        self._requests: deque[SeenRequest] = deque(maxlen=_KEPT_REQUESTS)
        self._server: Server | None = None
        self._stopping = threading.Event()

    def __repr__(self) -> str:
        """Show the address and the state, and no secret."""
        if self._server is None:
            return "<Sandbox, not started>"
        return f"<Sandbox {self.url}, {'stopped' if self._stopping.is_set() else 'running'}>"

    def __enter__(self) -> "Sandbox":
        """Start the sandbox."""
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop the sandbox."""
        self.stop()

    def start(self) -> None:
        """Listen on 127.0.0.1, and serve in threads of its own.

        Raises:
            OSError: The port is taken.
            RuntimeError: The sandbox was started before. It can be started only once.
        """
        if self._server is not None:
            raise RuntimeError("a sandbox starts only once: make a new one")
        server = Server(self._port, self._respond, self._stopping)
        server.start()
        self._server = server

    def stop(self) -> None:
        """Close all connections and wait for the threads. What was seen can still be read.

        The call does nothing if the sandbox does not run. In a forked child it only closes the child's copies of the
        sockets: the connections of the parent stay open, and the parent's sandbox goes on.
        """
        if self._server is not None:
            self._server.stop()

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end.

        Raises:
            RuntimeError: The sandbox was never started, and so it has no port.
        """
        if self._server is None:
            raise RuntimeError("a sandbox has no URL before it is started")
        return f"http://127.0.0.1:{self._server.port}"

    @property
    def environment(self) -> Environment:
        """The value for the option `environment` of `MentionMeAuth`.

        Raises:
            RuntimeError: The sandbox was never started, and so it has no port.
        """
        return Environment.at(self.url)

    @property
    def lifetime(self) -> float:
        """How many seconds a token lives that is issued from now on. The documentation says an hour.

        It may be set at any time, and to less than a second.

        Raises:
            TypeError: It is set to something that is not a number.
            ValueError: It is set to less than 0.001 or more than 1e9.
        """
        return self._grants.lifetime

    @lifetime.setter
    def lifetime(self, seconds: float) -> None:
        check(lifetime=seconds)
        self._grants.lifetime = seconds

    @property
    def connections(self) -> int:
        """How many TCP connections were accepted."""
        return 0 if self._server is None else self._server.connections

    @property
    def tokens(self) -> tuple[str, ...]:
        """The newest 1,000 tokens that were issued, oldest first. Any older token is refused as unknown."""
        return self._grants.tokens

    @property
    def requests(self) -> tuple[SeenRequest, ...]:
        """The newest 1,000 requests, in the order of their answers."""
        with self._lock:
            return tuple(self._requests)

    def add_client(self, client_id: str, client_secret: str, scope: str | None = None) -> None:
        """Create another API key, which is valid beside the others.

        This is how keys are rotated, because Mention Me does not change the secret of a key. You create a new key,
        switch the application over, and delete the old key.

        Args:
            client_id: The id of the key.
            client_secret: The secret of the key.
            scope: The scopes of the key, separated by spaces. The default is those of the sandbox.

        Raises:
            TypeError: A value is not a string.
            ValueError: A value is empty, or a key with that id exists.
        """
        if scope is None:
            scope = self._scope
        check(client_id=client_id, client_secret=client_secret, scope=scope)
        self._grants.add_key(client_id, client_secret, scope)

    def remove_client(self, client_id: str) -> None:
        """Delete an API key. It gets no more tokens, and all tokens that it got are refused from now on.

        Args:
            client_id: The id of the key.

        Raises:
            ValueError: No key has that id.
        """
        self._grants.remove_key(client_id)

    def revoke(self, token: str | None = None) -> None:
        """Refuse a token from now on.

        Args:
            token: The token. The default is all tokens that were issued so far.

        Raises:
            ValueError: The token is none of `tokens`.
        """
        self._grants.revoke(token)

    def fail_token_requests(
        self,
        times: int = 1,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: str | bytes | None = None,
        delay: float = 0.0,
        reset: bool = False,
        garbage: bool = False,
    ) -> None:
        """Let the next token requests go wrong. The faults of earlier calls come first.

        A fault acts before anything else: the request is not checked, and no rate limit counts it.

        Args:
            times: How many requests go wrong, 1 or more.
            status: The status to answer with, from 200 to 599.
            headers: Headers that are sent with *status*. They take the place of the usual ones of the same name.
            body: The body that is sent with *status*; a 204 and a 304 have none. The default is an error of the
                documented shape, such as `{"code": "503", "message": "…"}`.
            delay: How many seconds to wait before the fault, from 0 to 1e6. A delay alone is a fault too: afterwards
                the request is served as usual. It ends at once when the sandbox stops.
            reset: Whether to reset the connection (TCP RST).
            garbage: Whether to answer something that is not HTTP, and to close the connection.

        Raises:
            TypeError: A value is of the wrong type.
            ValueError: A value is out of range, nothing is asked for, or two things are that exclude each other.
        """
        fault = Fault(status=status, headers=headers, body=body, delay=delay, reset=reset, garbage=garbage)
        self._token_faults.add(fault, times)

    def fail_api_requests(
        self,
        times: int = 1,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: str | bytes | None = None,
        delay: float = 0.0,
        reset: bool = False,
        garbage: bool = False,
    ) -> None:
        """Let the next requests go wrong that are not for a token. All else is as for `fail_token_requests`."""
        fault = Fault(status=status, headers=headers, body=body, delay=delay, reset=reset, garbage=garbage)
        self._api_faults.add(fault, times)

    def clear_faults(self) -> None:
        """Forget all faults that have not happened yet."""
        self._token_faults.clear()
        self._api_faults.clear()

    def _respond(self, request: Request) -> Answer | HangUp:
        """Return the answer to a request, which is among `requests` by then."""
        for_token = request.path == _TOKEN_PATH
        with self._lock:
            if for_token:
                self.token_requests += 1
            else:
                self.api_requests += 1
        outcome = self._play_fault(self._token_faults if for_token else self._api_faults)
        if outcome is None:
            outcome = self._answer(request)
        status = outcome.status if isinstance(outcome, Answer) else None
        seen = SeenRequest(request.method, request.target, request.headers, request.body, request.token, status)
        with self._lock:
            if status == 401 and not for_token:
                self.rejections += 1
            self._requests.append(seen)
        return outcome

    def _play_fault(self, faults: Faults) -> Answer | HangUp | None:
        """Return what the next fault does to a request; None if the request is served as usual."""
        fault = faults.take()
        if fault is None:
            return None
        if self._stopping.wait(fault.delay):
            return HangUp()
        return fault.outcome

    def _answer(self, request: Request) -> Answer:
        try:
            if request.path == _TOKEN_PATH:
                return self._grants.issue(request)
            return answer_api_request(request, self._grants)
        except RefusalError as refusal:
            return refusal.answer
