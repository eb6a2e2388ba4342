"""The token endpoint: one POST, its faults, its tries and its budget of time. The only I/O.

The client secret travels in the request's body. So no redirect is followed, and no exception leaves this module with
that body. A session that was lent is neither changed nor closed. All times are in seconds.
"""

import random
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from typing import Any

import requests
from requests import PreparedRequest, RequestException, Response, Session
from requests.cookies import RequestsCookieJar, merge_cookies

from requests_mentionme._environment import Environment
from requests_mentionme._errors import InvalidClientError, MentionMeAuthError, TokenEndpointError, TokenResponseError
from requests_mentionme._token import Token, parse_token
from requests_mentionme._version import __version__
from requests_mentionme._wire import json_object, requested_wait, scrub, server_message

_MAX_BODY, _FIRST_BACKOFF = 64 * 1024, 0.5
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # what is not compressed can't unpack to more than was read
    "Content-Type": "application/json",
    "User-Agent": f"requests-mentionme/{__version__}",
}


class ClientCredentials:
    """The id and secret (RFC 6749 §2.3.1) of an API key. Their form is not documented, so it is not checked."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        self.client_id, self.client_secret = client_id, client_secret
        for name, value in vars(self).items():
            if not isinstance(value, str) or not value:
                raise (ValueError if value == "" else TypeError)(f"{name} must be a non-empty string")


class TokenEndpoint:
    """A token endpoint. Without a lent *session* each renewal has its own, so that no connection is stale or forked."""

    def __init__(
        self, environment: Environment, session: Session | None, timeout: tuple[float, float], refresh_margin: float
    ) -> None:
        self._environment, self._lent = environment, session
        self._timeout, self._refresh_margin = timeout, refresh_margin
        self._answered, self._budget = f"POST {environment.token_url} answered", 2 * sum(timeout)
        self.patience = self._budget + timeout[1]  # for those who wait; a read may begin just before the budget ends

    def request_token(self, credentials: ClientCredentials, tries: int) -> Token:
        """Ask for a token (RFC 6749 §4.4) and return it; raise one of our errors, or a fault of the network."""
        deadline, backoff = time.monotonic() + self._budget, _FIRST_BACKOFF
        with Session() if self._lent is None else nullcontext(_view_of(self._lent)) as session, _redacted():
            while True:
                outcome = self._try(session, credentials, deadline)
                if isinstance(outcome, Token):
                    return outcome
                jittered = random.uniform(backoff / 2, backoff)  # noqa: S311 - jitter parts a fleet, and is no secret
                wait = max(getattr(outcome, "retry_after", None) or 0, jittered)
                tries, backoff = tries - 1, backoff * 2
                if tries == 0 or not _is_transient(outcome) or time.monotonic() + wait >= deadline:
                    raise outcome
                time.sleep(wait)

    def _try(self, session: Session, who: ClientCredentials, deadline: float) -> Token | RequestException:
        """Return the token or what went wrong; raise a read timeout, and what makes the body of a 2xx unreadable."""
        sent_at, left = time.time(), max(deadline - time.monotonic(), 0.001)
        try:
            response = session.post(
                self._environment.token_url,
                json=vars(who) | {"grant_type": "client_credentials"},
                headers=_HEADERS,
                auth=_guard,
                timeout=(min(self._timeout[0], left), min(self._timeout[1], left)),
                allow_redirects=False,
                stream=True,
            )
        except requests.ConnectionError as fault:
            return fault
        usable = 200 <= response.status_code < 300
        with response:
            try:
                body = self._body(response, deadline)
            except RequestException:
                if usable:
                    raise
                body = b""  # the status tells enough
        fields = json_object(body)
        said = server_message(fields, who.client_secret)
        if not usable:
            return self._refusal(response, body, said, who.client_secret)
        try:
            return parse_token(fields, response.headers.get("Date"), sent_at, self._refresh_margin)
        except ValueError as flaw:
            return TokenResponseError(f"{self._answered}, but {flaw}{said}. No token was obtained.")

    def _body(self, response: Response, deadline: float) -> bytes:
        what, body = f"{self._answered}, but", bytearray()
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise TokenResponseError(f"{what} compressed, which was ruled out.")
        # Byte by byte: a larger read waits until it is filled, and a server that drips would outlast the budget.
        for byte in response.iter_content(1):
            body += byte
            if len(body) > _MAX_BODY:
                raise TokenResponseError(f"{what} with more than {_MAX_BODY} bytes.")
            if time.monotonic() >= deadline:
                raise TokenEndpointError(f"{what} did not come to an end within {self._budget:g} s.")
        return bytes(body)

    def _refusal(self, response: Response, body: bytes, said: str, secret: str) -> MentionMeAuthError:
        """Return the error for an answer that is not 2xx; of the answer it carries nothing that echoes the secret."""
        status, what = response.status_code, f"{self._answered} {response.status_code}{said}."
        shown = Response()  # not the one that came: that holds a connection, and may echo the secret anywhere
        shown.status_code, shown.reason, shown.url = status, scrub(response.reason or "", secret), response.url
        shown.request, shown.encoding, shown.elapsed = response.request, response.encoding, response.elapsed
        shown.headers.update({name: scrub(value, secret) for name, value in response.headers.items()})
        content = scrub(body.decode(errors="surrogateescape"), secret).encode(errors="surrogateescape")
        vars(shown).update(_content=content, _content_consumed=True)
        if status in (400, 401, 403):
            what += f" Check the client id and secret: are they of an API key of {self._environment.name}?"
            return InvalidClientError(what, response=shown)
        if 300 <= status < 400:
            what += " A redirect is not followed, since the client secret would go along."
        error = TokenEndpointError(what, response=shown)
        error.retry_after = requested_wait(response.headers, time.time())
        return error


def _is_transient(fault: RequestException) -> bool:
    """Return whether another try may end better: after a fault of the connection, a 429 or a 5xx."""
    if fault.response is not None:
        return fault.response.status_code == 429 or fault.response.status_code >= 500
    return isinstance(fault, requests.ConnectionError) and not isinstance(fault, requests.exceptions.SSLError)


def _guard(request: PreparedRequest) -> PreparedRequest:
    """Be the explicit auth of a token request, which keeps `.netrc` and the lent session's own auth out."""
    request.register_hook("response", _hide_redirect)
    return request


def _hide_redirect(response: Response, **_: Any) -> None:
    response.headers.pop("Location", None)  # `requests` reads a redirect without bounds, even one it is not to follow


def _view_of(session: Session) -> Session:
    """Return a session that shares everything of *session* but its cookie jar, which sending would change."""
    view = object.__new__(type(session))
    vars(view).update(vars(session), cookies=merge_cookies(RequestsCookieJar(), session.cookies))
    return view


@contextmanager
def _redacted() -> Generator[None]:
    """Take the body off each token request attached to what is raised, or to what that came from."""
    try:
        yield
    except Exception as error:
        links: list[BaseException] = [error]
        for link in links:  # grows while it is walked, but ends: a chain may be a ring
            for holder in (link, link.response) if isinstance(link, RequestException) else ():
                if holder is not None and isinstance(holder.request, PreparedRequest):
                    holder.request = redacted = holder.request.copy()
                    redacted.body, redacted.hooks = "[redacted]", {"response": []}
            links += [it for it in (link.__cause__, link.__context__) if it is not None and it not in links]
        raise
