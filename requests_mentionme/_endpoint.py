"""The token endpoint: one POST, its faults, its tries and its budget of time. The only room with I/O.

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

from requests_mentionme._credentials import ClientCredentials
from requests_mentionme._environment import Environment, is_on_this_machine
from requests_mentionme._errors import (
    InvalidClientError,
    MentionMeAuthError,
    TokenEndpointError,
    TokenResponseError,
    chain_of,
    raise_again,
)
from requests_mentionme._token import Token, parse_token
from requests_mentionme._version import __version__
from requests_mentionme._wire import json_object, requested_wait, scrub, server_words

_LARGEST_BODY = 64 * 1024  # bytes
_FIRST_BACKOFF = 0.5
_REFUSED_CREDENTIALS = (400, 401, 403)  # RFC 6749 §5.2 has the first two; Mention Me does not document its own
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
        patience: How long another thread may wait for a renewal: the budget, and one read that begins just before the
            budget ends.
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
        self._refresh_margin = refresh_margin
        self._proxies = _no_proxies(environment.token_url) if is_on_this_machine(environment.token_url) else None

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
                jittered = random.uniform(backoff / 2, backoff)  # noqa: S311 - it parts a fleet, and guards nothing
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
                auth=_no_other_auth,
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
                body = self._read(response, deadline)
            except RequestException:
                if is_success:
                    raise
                body = b""  # the status tells enough
        if is_success:
            return self._judge_success(response, body, credentials.client_secret, sent_at)
        refusal = self._refusal(response, body, credentials)
        if _is_passing(response.status_code):
            raise _Passing(refusal)
        raise refusal

    def _read(self, response: Response, deadline: float) -> bytes:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise TokenResponseError(f"{self._answered(response)}, but the answer is compressed, which was ruled out.")
        body = bytearray()
        # Byte by byte: a larger read waits until it is filled, and a server that drips would outlast the budget.
        for byte in response.iter_content(1):
            body += byte
            if len(body) > _LARGEST_BODY:
                raise TokenResponseError(
                    f"{self._answered(response)}, but the answer has more than {_LARGEST_BODY} bytes."
                )
            if time.monotonic() >= deadline:
                raise TokenEndpointError(
                    f"{self._answered(response)}, but the answer did not come to an end within {self._budget:g} s."
                )
        return bytes(body)

    def _judge_success(self, response: Response, body: bytes, secret: str, sent_at: float) -> Token:
        """Return the token in a 2xx answer, or raise the error that says why there is none. Pure."""
        fields = json_object(body)
        if fields is None:
            flaw = "is not a JSON object"
        else:
            try:
                return parse_token(fields, response.headers.get("Date"), sent_at, self._refresh_margin)
            except ValueError as missing:
                flaw = f"has {missing}"
        content_type = scrub(response.headers.get("Content-Type", "none"), secret)[:100]
        sentences = [f"{self._answered(response)} with the content type {content_type!r}, but the answer {flaw}."]
        words = server_words(fields, secret)
        if words:
            sentences.append(_quotation(words))
        if "html" in content_type.lower():
            sentences.append("A proxy or a login page may have answered in the place of the token endpoint.")
        sentences.append("No token was obtained.")
        raise TokenResponseError(" ".join(sentences)) from None

    def _refusal(self, response: Response, body: bytes, who: ClientCredentials) -> MentionMeAuthError:
        """Return the error for an answer that is not 2xx. Pure but for the clock, which a named date needs."""
        status = response.status_code
        words = server_words(json_object(body), who.client_secret)
        sentences = [f"{self._answered(response)}."]
        if words:
            sentences.append(_quotation(words))
        sentences.append(self._advice(status))
        if status in _REFUSED_CREDENTIALS and who.client_secret != who.client_secret.strip():
            sentences.append("The client secret begins or ends with white space: was it copied by mistake?")
        shown = _shown(response, body, who.client_secret)
        if status in _REFUSED_CREDENTIALS:
            return InvalidClientError(" ".join(sentences), response=shown)
        wait = requested_wait(response.headers, time.time())
        if wait is None and _is_passing(status):
            sentences.append("The next request that needs a token asks again.")
        error = TokenEndpointError(" ".join(sentences), response=shown)
        error.retry_after = wait
        return error

    def _advice(self, status: int) -> str:
        """Return what the reader of an error can do after an answer with this status."""
        if status in (400, 401):
            return f"Check the client id and secret: are they of an API key of {self.environment.name}?"
        if status == 403:
            return (
                f"Check the client id and secret: are they of an API key of {self.environment.name}? "
                "Something on the way may have refused the request as well: a firewall, or an allow-list of addresses."
            )
        if 300 <= status < 400:
            return "A redirect is not followed, since the client secret would go along. Check the token URL."
        if status == 429:
            return "The endpoint limits how often it may be asked."
        if status >= 500:
            return "This is a fault on the side of the server."
        return f"Check that the token URL of the environment {self.environment.name} is right."

    def _answered(self, response: Response) -> str:
        return f"POST {self.environment.token_url} answered {response.status_code}"


class _Passing(Exception):  # noqa: N818 - it never leaves this module: `failure` is what the caller gets
    """A failure that may pass, so that another try may end better: no answer, a 429, or a 5xx."""

    def __init__(self, failure: RequestException) -> None:
        super().__init__()
        self.failure = failure


def _is_passing(status: int) -> bool:
    """Return whether another try may end better than in this status."""
    return status == 429 or status >= 500


def _quotation(words: str) -> str:
    """Return a sentence that quotes the server. The words may bring a full stop of their own."""
    return f"The server says {words}" if words[-2] == "." else f"The server says {words}."


def _shown(response: Response, body: bytes, secret: str) -> Response:
    """Return a response to attach to an error. It holds no connection, and nothing in it echoes the secret."""
    shown = Response()
    shown.status_code = response.status_code
    shown.reason = scrub(response.reason or "", secret)
    shown.url = response.url
    shown.request = response.request
    shown.encoding = response.encoding
    shown.elapsed = response.elapsed
    shown.headers.update({name: scrub(value, secret) for name, value in response.headers.items()})
    content = scrub(body.decode(errors="surrogateescape"), secret).encode(errors="surrogateescape")
    vars(shown).update(_content=content, _content_consumed=True)  # as if it had been read
    return shown


def _no_other_auth(request: PreparedRequest) -> PreparedRequest:
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

    `requests` looks for a proxy by these four keys. None beats what the session or an environment variable says.
    """
    parts = urlsplit(url)
    keys = (f"{parts.scheme}://{parts.hostname}", parts.scheme, f"all://{parts.hostname}", "all")
    return cast("dict[str, str]", dict.fromkeys(keys))  # the types of `requests` do not know of None


def _view_of(session: Session) -> Session:
    """Return a session that shares everything of *session* but its cookie jar, which sending would change.

    It is of the same class, since a class may override how requests are sent. A copy would not do: `requests` copies
    few of a session's attributes, and makes new connection pools.
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
    """Take the body off each token request that is attached to what is raised, or to what that came from."""
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
