"""Sending a refused request again, faithfully. Where `requests` has no public names, its private ones are used."""

# pyright: reportPrivateUsage=false

import time
from datetime import timedelta
from typing import Any

from requests import PreparedRequest, RequestException, Response
from requests.cookies import extract_cookies_to_jar, get_cookie_header
from requests.exceptions import UnrewindableBodyError
from requests.utils import rewind_body

_LARGEST_DRAIN = 64 * 1024


def rewind(request: PreparedRequest) -> bool:
    """Make the body ready to be sent again, or return False: another kind of body would go out empty, or hang."""
    if request.body is None or isinstance(request.body, str | bytes):
        return True
    try:
        rewind_body(request)  # needs a known start, which a generator has not
    except (UnrewindableBodyError, ValueError):  # a closed file raises ValueError
        return False
    return True


def drain(response: Response) -> None:
    """Read the rest of *response*, so that its connection is free; if it is too long or fails, close that instead."""
    body = bytearray()
    try:
        for chunk in response.iter_content(4096):
            body += chunk
            if len(body) > _LARGEST_DRAIN:
                break
    except RequestException:
        pass
    response.close()
    keep_content(response, bytes(body))


def keep_content(response: Response, body: bytes) -> None:
    """Have *response* hold *body*, as if it had read it itself."""
    response._content = body
    response._content_consumed = True


def resend(response: Response, authorization: str, **kwargs: Any) -> Response:
    """Return the answer to the request of *response*, sent again with another `Authorization`, by what the hook got."""
    request = response.request.copy()
    request.headers["Authorization"] = authorization
    _add_cookies(request, response)
    start = time.perf_counter()
    retried: Response = response.connection.send(request, **kwargs)
    retried.elapsed = timedelta(seconds=time.perf_counter() - start)  # the session has timed the first exchange
    retried.history.append(response)
    retried.request = request
    return retried


def _add_cookies(request: PreparedRequest, response: Response) -> None:
    """Have *request* carry the cookies of *response* too, unless its `Cookie` header is the caller's own."""
    jar, sent = request._cookies, request.headers.pop("Cookie", None)
    if jar is not None and sent in (None, get_cookie_header(jar, request)):
        extract_cookies_to_jar(jar, response.request, response.raw)
        request.prepare_cookies(jar)
    elif sent is not None:
        request.headers["Cookie"] = sent
