"""The token endpoint: one POST, its faults, its tries and its budget of time.

The client secret travels in the body of the request. So no redirect is followed, and no exception leaves this module
with that body. A session that was lent is neither changed nor closed. All times are in seconds.
"""

import random
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MemberDescriptorType, new_class
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from requests import PreparedRequest, RequestException, Response, Session
from requests.cookies import RequestsCookieJar, merge_cookies

from requests_mentionme._answer import AnswerReader, may_pass
from requests_mentionme._credentials import ClientCredentials
from requests_mentionme._environment import Environment, is_on_this_machine
from requests_mentionme._errors import chain_of, raise_again
from requests_mentionme._token import Token
from requests_mentionme._version import __version__

_LARGEST_BODY = 64 * 1024  # bytes
_FIRST_BACKOFF = 0.5
_SHORTEST_TIMEOUT = 0.001  # what is left of the budget may be less, and 0 would mean not to wait at all
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # what is not compressed can't unpack to more than was read
    "Content-Type": "application/json",
    "User-Agent": f"requests-mentionme/{__version__}",
}


class TokenEndpoint:
    """The token endpoint of an environment.

    Attributes:
        environment: The environment.
        patience: How many seconds another thread may wait for a renewal: the budget and one read timeout, as the last
            read may begin just before the budget ends. With the default timeouts that is 40.
    """

    def __init__(
        self, environment: Environment, session: Session | None, timeout: tuple[float, float], refresh_margin: float
    ) -> None:
        """Take what does not change.

        Args:
            environment: Whose token endpoint is asked.
            session: The session to ask with. None makes a new one for each renewal, so that no connection is stale or
                shared with a forked child.
            timeout: Seconds to wait for a connection, and for each read.
            refresh_margin: How many seconds before its end a token is to be renewed.
        """
        connect_timeout, read_timeout = timeout
        self.environment = environment
        self._lent_session = session
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._budget = 2 * (connect_timeout + read_timeout)
        self.patience = self._budget + read_timeout
        self._reader = AnswerReader(environment, refresh_margin)
        self._proxies: dict[str, str] | None = None  # as usual
        if is_on_this_machine(environment.token_url):
            self._proxies = _no_proxies(environment.token_url)

    def request_token(self, credentials: ClientCredentials, tries: int) -> Token:
        """Ask for a token (RFC 6749 §4.4), and again after a fault that may pass, in up to so many *tries*.

        Raises:
            MentionMeAuthError: The endpoint answered, but not with a usable token.
            requests.RequestException: A fault of the network.
        """
        deadline = time.monotonic() + self._budget
        backoff = _FIRST_BACKOFF
        with self._session() as session, _redacted():
            while True:
                tries -= 1
                sent_at = time.time()
                try:
                    response = self._send(session, credentials, deadline)
                    return self._token_in(response, credentials, sent_at, deadline)
                except _Passing as passing:
                    failure = passing.failure
                jittered = random.uniform(backoff / 2, backoff)  # noqa: S311 - it spreads clients out, and guards nothing
                wait = max(getattr(failure, "retry_after", None) or 0.0, jittered)
                if tries == 0 or time.monotonic() + wait >= deadline:
                    raise_again(failure)
                time.sleep(wait)
                backoff *= 2

    def _session(self) -> AbstractContextManager[Session]:
        """Return the session for one renewal. Only one that was made for it is closed at the end."""
        if self._lent_session is None:
            return Session()
        return nullcontext(_view_of(self._lent_session))

    def _send(self, session: Session, credentials: ClientCredentials, deadline: float) -> Response:
        left = max(deadline - time.monotonic(), _SHORTEST_TIMEOUT)
        try:
            return session.post(
                self.environment.token_url,
                json={
                    "client_id": credentials.client_id,
                    "client_secret": credentials.client_secret,
                    "grant_type": "client_credentials",
                },
                headers=_HEADERS,
                auth=_auth_of_token_request,
                timeout=(min(self._connect_timeout, left), min(self._read_timeout, left)),
                allow_redirects=False,
                stream=True,
                proxies=self._proxies,
            )
        except requests.exceptions.SSLError:
            raise  # a certificate is no better a second later
        except requests.ConnectionError as fault:
            raise _Passing(fault) from fault

    def _token_in(self, response: Response, credentials: ClientCredentials, sent_at: float, deadline: float) -> Token:
        """Read an answer in bounds, and return the token in it."""
        is_success = 200 <= response.status_code < 300
        with response:
            try:
                body = self._read(response, credentials, deadline)
            except RequestException:
                if is_success:
                    raise
                body = b""  # the status tells enough, whatever is wrong with the body
        if is_success:
            return self._reader.token_in(response, body, credentials, sent_at)
        refusal = self._reader.refusal(response, body, credentials)
        if may_pass(response.status_code):
            raise _Passing(refusal)
        raise refusal

    def _read(self, response: Response, credentials: ClientCredentials, deadline: float) -> bytes:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise self._reader.unusable(response, "is compressed, which was ruled out", credentials)
        body = bytearray()
        # Byte by byte: a larger read waits until it is filled, and a server that drips would outlast the budget.
        for byte in response.iter_content(1):
            body += byte
            if len(body) > _LARGEST_BODY:
                raise self._reader.unusable(response, f"has more than {_LARGEST_BODY} bytes", credentials)
            if time.monotonic() >= deadline:
                raise self._reader.unfinished(response, self._budget)
        return bytes(body)


class _Passing(Exception):  # noqa: N818 - it never leaves this module: `failure` is what the caller gets
    """A failure that may pass, so that another try may end better.

    That is a fault of the connection before an answer, a 429 or a 5xx. A read timeout is none: the server may be slow,
    and another try would cost it as much.
    """

    def __init__(self, failure: RequestException) -> None:
        super().__init__()
        self.failure = failure


def _auth_of_token_request(request: PreparedRequest) -> PreparedRequest:
    """Be the auth of a token request, so that neither `.netrc` nor the auth of a lent session is asked for one."""
    request.register_hook("response", _hide_redirect)
    return request


def _hide_redirect(response: Response, **_: Any) -> None:
    """Take the target off a redirect. `requests` would read its body without bounds, even where it does not follow.

    It is also how a token request is told from the caller's own requests: see `_redact`.
    """
    response.headers.pop("Location", None)


def _no_proxies(url: str) -> dict[str, str]:
    """Return the `proxies` that keep a request to *url* from any proxy, which would read the secret in plain `http`.

    `requests` looks for a proxy by these four keys. It drops a key whose value is None, also where the session or an
    environment variable has a proxy for it (`merge_setting`).
    """
    parts = urlsplit(url)
    keys = (f"{parts.scheme}://{parts.hostname}", parts.scheme, f"all://{parts.hostname}", "all")
    return cast("dict[str, str]", dict.fromkeys(keys))  # the types of `requests` do not know of None


def _view_of(session: Session) -> Session:
    """Return a session that shares everything of *session* but its cookie jar, which sending would change.

    It is of the same class, since a class may override how requests are sent, have a finalizer, or keep attributes in
    `__slots__`. A copy would not do: `requests` copies few of a session's attributes, and makes new connection pools.
    """
    kind = type(session)
    if hasattr(kind, "__del__"):
        # The finalizer would run for the view as well, and close what belongs to the lent session.
        kind = cast("type[Session]", new_class(kind.__name__, (kind,), exec_body=_without_finalizer))
    view = object.__new__(kind)
    vars(view).update(vars(session))
    for base in kind.__mro__:
        for slot in vars(base).values():
            if isinstance(slot, MemberDescriptorType) and hasattr(session, slot.__name__):
                slot.__set__(view, slot.__get__(session))
    jar = RequestsCookieJar()
    merge_cookies(jar, session.cookies)
    view.cookies = jar
    return view


def _without_finalizer(namespace: dict[str, Any]) -> None:
    def do_nothing(_: Session) -> None:
        """Leave the lent session as it is."""

    namespace["__del__"] = do_nothing


@contextmanager
def _redacted() -> Generator[None]:
    """Take the body off each token request that is attached to an error on its way out, or to a cause or context."""
    try:
        yield
    except BaseException as error:
        for link in chain_of(error):
            if isinstance(link, RequestException):
                _redact(link)
                _redact(link.response)
        raise


def _redact(holder: RequestException | Response | None) -> None:
    if holder is None:
        return
    request = holder.request
    if isinstance(request, PreparedRequest) and _hide_redirect in request.hooks.get("response", ()):
        redacted = request.copy()
        redacted.body = "[redacted]"
        redacted.hooks = {"response": []}
        holder.request = redacted
