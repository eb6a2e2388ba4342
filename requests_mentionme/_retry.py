"""The 401 rule: a request whose token was refused is sent once more, with another token."""

import logging
from typing import Any

from requests import PreparedRequest, Response

from requests_mentionme._environment import Environment, displayed_origin
from requests_mentionme._resend import drain, resend, rewind
from requests_mentionme._source import TokenSource

_logger = logging.getLogger("requests_mentionme")


class RetryOn401:
    """The response hook of a request that carries a token.

    It keeps nothing of a request: the token that was refused is read from the request itself, so any thread may send
    it, at any time. Pickled along with a request or a response it becomes inert, as no credentials go along.
    """

    def __init__(self, environment: Environment, source: TokenSource) -> None:
        self._environment, self._source = environment, source

    def __call__(self, response: Response, **kwargs: Any) -> Response:
        """Return the answer to one retry of a 401 that can be retried; one, since an adapter runs no hooks."""
        if response.status_code != 401:
            return response
        request, refused = response.request, _token_of(response.request)
        has_adapter = getattr(response, "connection", None) is not None  # a response from a cache has none
        # A hook goes along on redirects, to other hosts too. So it is the origin that decides.
        if not has_adapter or not self._environment.trusts(request.url) or self._source.is_held_off(refused):
            return response
        if not rewind(request):
            self._renew_for_next_time(refused)
            return response
        drain(response)
        replacement = self._source.replace(refused)
        if replacement is None:
            return response
        (token, renewed), origin = replacement, displayed_origin(request.url)
        _logger.info("Token refused by %s, retrying once", origin)
        retried = resend(response, token.authorization, **kwargs)
        if renewed and retried.status_code == 401:
            self._source.hold_off(token.value)
            _logger.warning("New token refused by %s: check the scopes and environment of the API key", origin)
        return retried

    def __reduce__(self) -> tuple[type["_Inert"], tuple[()]]:
        return _Inert, ()

    def _renew_for_next_time(self, refused: str) -> None:
        """Renew after a 401 that can't be retried, so that the caller's own next try works."""
        try:
            self._source.replace(refused)
        except Exception as error:  # noqa: BLE001 - whatever it was, the caller gets the 401
            _logger.warning("Renewal after a 401 failed: %s", error)


class _Inert:
    def __call__(self, response: Response, **_: Any) -> Response:
        return response


def _token_of(request: PreparedRequest) -> str:
    """Return the token that *request* carried; any other text where it carried none."""
    header = request.headers.get("Authorization", "")
    return (header if isinstance(header, str) else header.decode("latin-1")).removeprefix("Bearer ")
