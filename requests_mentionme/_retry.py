"""The 401 rule: a request whose token was refused is sent once more, faithfully, with another token."""

import logging
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

from requests import PreparedRequest, RequestException, Response
from requests.cookies import extract_cookies_to_jar, get_cookie_header
from requests.utils import rewind_body

from requests_mentionme._environment import Environment, displayed_origin
from requests_mentionme._source import TokenSource

_logger = logging.getLogger("requests_mentionme")
_MAX_DRAIN = 64 * 1024


class RetryOn401:
    """The response hook of a request that carries a token.

    It keeps nothing of a request, so any thread may send one at any time: the refused token is read from its header.
    Pickled or deep-copied with a request or a response it becomes inert: no credentials go along.
    """

    def __init__(self, environment: Environment, source: TokenSource) -> None:
        self._environment, self._source = environment, source

    def __call__(self, response: Response, **kwargs: Any) -> Response:
        """Return the answer to one retry of a 401 that can be retried; one, since an adapter runs no hooks."""
        if response.status_code != 401:
            return response
        request, refused = response.request, _token_of(response.request)
        adapter = getattr(response, "connection", None)  # None for a response from a cache
        # A hook goes along on redirects, to other hosts too. So it is the origin that decides.
        if adapter is None or not self._environment.trusts(request.url) or self._source.is_held_off(refused):
            return response
        if not _rewind(request):
            try:
                self._source.replace(refused)  # so that the caller's own next try works
            except Exception as error:  # noqa: BLE001 - whatever it was, the caller gets the 401
                _logger.warning("Renewal after a 401 failed: %s", error)
            return response
        _drain(response)
        token, renewed = self._source.replace(refused)
        if token.value == refused:
            return response
        origin = displayed_origin(request.url)
        _logger.info("Token refused by %s, retrying once", origin)
        retried = _resend(response, token.authorization, **kwargs)
        if renewed and retried.status_code == 401:
            self._source.hold_off(token.value)
            _logger.warning("New token refused by %s: check the scopes and environment of the API key", origin)
        return retried

    def __reduce__(self) -> tuple[type["_Inert"], tuple[()]]:
        return _Inert, ()


class _Inert:
    def __call__(self, response: Response, **_: Any) -> Response:
        return response


def _token_of(request: PreparedRequest) -> str:
    """Return the token that *request* carried; any other text where it carried none."""
    header = request.headers.get("Authorization", "")
    return (header if isinstance(header, str) else header.decode("latin-1")).removeprefix("Bearer ")


def _rewind(request: PreparedRequest) -> bool:
    """Make the body ready to be sent again, or return False: another kind of body would go out empty, or hang."""
    try:
        if not isinstance(request.body, str | bytes | None):
            rewind_body(request)  # needs a known start, which a generator lacks
    except (RequestException, ValueError):  # it can't be rewound; it is a closed file
        return False
    return True


def _drain(response: Response) -> None:
    """Read the rest of *response*, so that its connection is free; if it is too long or fails, close that instead."""
    body = bytearray()
    with suppress(RequestException), response:
        for chunk in response.iter_content(4096):
            body += chunk
            if len(body) > _MAX_DRAIN:
                break
    vars(response).update(_content=bytes(body), _content_consumed=True)  # as if the caller had read it


def _resend(response: Response, authorization: str, **kwargs: Any) -> Response:
    """Return the answer to the request of *response*, sent again with this `Authorization` and what the hook got."""
    request = response.request.copy()
    request.headers["Authorization"] = authorization
    jar, sent = request._cookies, request.headers.pop("Cookie", None)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    if jar is not None and sent in (None, get_cookie_header(jar, request)):
        extract_cookies_to_jar(jar, response.request, response.raw)
        request.prepare_cookies(jar)
    elif sent is not None:  # the caller's own
        request.headers["Cookie"] = sent
    start = time.perf_counter()
    retried: Response = response.connection.send(request, **kwargs)
    retried.elapsed = timedelta(seconds=time.perf_counter() - start)  # the session has timed the first exchange
    retried.history.append(response)
    retried.request = request
    return retried
