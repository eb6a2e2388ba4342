"""The 401 rule: a request whose token was refused is sent once more, faithfully, with another token.

A 401 says that the request was not applied (RFC 9110 §15.5.2), so even a POST may be sent again.
"""

import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from requests import PreparedRequest, RequestException, Response
from requests.cookies import extract_cookies_to_jar, get_cookie_header
from requests.utils import rewind_body
from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError

from requests_mentionme._environment import Environment, displayed_origin
from requests_mentionme._errors import FramesCleared, in_one_line, raise_again
from requests_mentionme._source import Failure, TokenSource

_logger = logging.getLogger("requests_mentionme")
_LARGEST_DRAIN = 64 * 1024  # bytes
_LONGEST_DRAIN = 1.0  # seconds
_PIECE = 4096  # bytes, at most


class RetryOn401:
    """The response hook of a request that carries a token.

    It keeps nothing of a request, so any thread may send a request at any time: the refused token is read from its
    header.
    Pickled or deep-copied with a request or a response, it becomes inert, so that no credentials go along.
    """

    def __init__(self, environment: Environment, source: TokenSource) -> None:
        self._environment = environment
        self._source = source

    def __call__(self, response: Response, **kwargs: Any) -> Response:
        """Return the answer to one retry of a 401 that can be retried; any other response as it is."""
        if response.status_code != 401:
            return response
        with FramesCleared():
            return self._heal(response, **kwargs)

    def _heal(self, response: Response, **kwargs: Any) -> Response:
        request = response.request
        # A hook goes along on redirects, to other hosts too. So it is the origin that decides.
        if not self._environment.trusts(request.url) or not _can_be_resent_through(response):
            return response
        refused = _token_of(request)
        if self._source.is_held_off(refused):
            return _passed_on(response, "a new token has not helped lately")
        if not _rewind(request):
            self._renew_for_the_next_try(refused)
            return _passed_on(response, "its body can't be sent again")
        _drain(response)  # before the token request, which may need the very connection
        outcome = self._source.replace(refused)
        if isinstance(outcome, Failure):
            raise_again(outcome.error)
        if outcome.token.value == refused:  # the source has warned of that
            return response
        origin = displayed_origin(request.url)
        _logger.info("Token refused by %s, retrying once", origin)
        # One retry, since an adapter runs no hooks: a second 401 does not come back here.
        retried = _resend(response, outcome.token.authorization, **kwargs)
        if outcome.is_new and retried.status_code == 401:
            self._source.hold_off(outcome.token.value, f"A token straight from the endpoint was refused by {origin}.")
        return retried

    def _renew_for_the_next_try(self, refused: str) -> None:
        """Renew the token, so that the caller's own next try works. If that fails, the caller still gets the 401."""
        outcome = self._source.replace(refused)
        if isinstance(outcome, Failure):
            _logger.warning("Renewal after a 401 failed: %s", in_one_line(outcome.error))

    def __reduce__(self) -> tuple[type["InertHook"], tuple[()]]:
        return InertHook, ()


class InertHook:
    """What is left of a `RetryOn401` in another process, or in a deep copy. It does nothing."""

    def __call__(self, response: Response, **_: Any) -> Response:
        """Return the response as it is."""
        return response


def _can_be_resent_through(response: Response) -> bool:
    """Return whether *response* came through an adapter. One from a cache, or made by hand, did not."""
    return getattr(response, "connection", None) is not None and response.raw is not None


def _passed_on(response: Response, reason: str) -> Response:
    _logger.info("401 of %s passed on: %s", displayed_origin(response.request.url), reason)
    return response


def _token_of(request: PreparedRequest) -> str:
    """Return the token that *request* carried. Otherwise the header as it is, or "": neither is the token in hand."""
    header = request.headers.get("Authorization", "")
    text = header if isinstance(header, str) else header.decode("latin-1")
    return text.removeprefix("Bearer ")


def _rewind(request: PreparedRequest) -> bool:
    """Make the body ready to be sent again, or return False for one that would go out empty or hang."""
    if isinstance(request.body, str | bytes | None):
        return True
    try:
        rewind_body(request)  # needs a known start, which a generator does not have
    except (RequestException, ValueError):  # it has none; or it is a closed file
        return False
    return True


def _drain(response: Response) -> None:
    """Read the rest of *response*, so that its connection is free for the retry.

    If the rest is too long, takes too long or fails, the connection is closed instead. What was read stays readable.
    """
    body = bytearray()
    deadline = time.monotonic() + _LONGEST_DRAIN
    try:
        with response:
            for piece in _arriving(response):
                body += piece
                if len(body) > _LARGEST_DRAIN or time.monotonic() >= deadline:
                    break
    except (RequestException, HTTPError):
        pass  # its connection is closed, and what was read tells what there is to tell
    vars(response).update(_content=bytes(body), _content_consumed=True)  # as if the caller had read it


def _arriving(response: Response) -> Iterator[bytes]:
    """Yield the body in pieces, each as soon as something is there, so that a server that drips does not hold it up.

    `iter_content` waits until a piece is filled, unless that is a single byte, which is slow.
    """
    raw = response.raw
    has_read1 = isinstance(raw, HTTPResponse) and hasattr(raw, "read1")  # urllib3 1 does not have it, nor do mocks
    if not has_read1 or raw.closed:  # closed: an adapter has read the body, and `requests` keeps it
        yield from response.iter_content(1)
        return
    while piece := raw.read1(_PIECE, decode_content=True):
        yield piece


def _resend(response: Response, authorization: str, **kwargs: Any) -> Response:
    """Return the answer to the request of *response*, sent again with this `Authorization`.

    Args:
        response: The 401. It becomes part of the history of the answer.
        authorization: The value of the header.
        kwargs: What the hook got: the caller's `timeout`, `stream`, `verify`, `cert` and `proxies`.
    """
    request = response.request.copy()
    request.headers["Authorization"] = authorization
    _take_cookies(request, response)
    start = time.perf_counter()
    retried: Response = response.connection.send(request, **kwargs)
    retried.elapsed = timedelta(seconds=time.perf_counter() - start)  # the session has timed the first exchange only
    retried.history.append(response)
    retried.request = request
    return retried


def _take_cookies(request: PreparedRequest, response: Response) -> None:
    """Let the cookies that *response* set go out with *request*, unless the caller wrote a `Cookie` header.

    If the cookie jar makes the very header that was sent, then `requests` made it from the jar, and not the caller.
    `requests` keeps a header that is there, so it has to be taken off first.
    """
    jar = request._cookies  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    sent = request.headers.get("Cookie")
    if jar is None:
        return
    request.headers.pop("Cookie", None)
    if sent is None or sent == get_cookie_header(jar, request):
        extract_cookies_to_jar(jar, response.request, response.raw)
        request.prepare_cookies(jar)
    else:
        request.headers["Cookie"] = sent
