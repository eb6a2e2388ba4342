"""The access token: one immutable value with its deadlines. Pure; knows no clock and no network.

All times are in seconds. A token's life counts from just before the request that brought it was sent, by this
machine's clock. From the server only lengths of time are taken, so that a clock that is hours off does no harm.
"""

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple

from requests_mentionme._errors import TokenResponseError
from requests_mentionme._wire import http_date, is_header_safe, json_object, jwt_claims, number, server_message

_UNKNOWN_LIFETIME = 300.0
LONGEST_LIFETIME = 86_400.0


class TokenState(enum.Enum):
    """What a token is good for at one moment."""

    FRESH = "use it"
    STALE = "use it while one thread renews it"
    EXPIRED = "do not send it"


class TokenResponse(NamedTuple):
    """A 2xx answer of the token endpoint (RFC 6749 §5.1), not yet judged."""

    url: str
    body: bytes
    date: str | None  # the `Date` header
    sent_at: float  # since the epoch, just before the request was sent
    secret: str  # to be kept out of what is quoted

    def __repr__(self) -> str:
        return object.__repr__(self)


class Token(NamedTuple):
    """An access token, and its deadlines in seconds since the epoch."""

    value: str
    authorization: str  # the header's value (RFC 6750 §2.1)
    obtained_at: float
    stale_at: float
    expired_at: float  # a moment before its end: it must survive the way to the server
    lifetime: float
    stored: bool = False  # whether it comes from a store rather than the endpoint

    def __repr__(self) -> str:
        return object.__repr__(self)

    def state(self, now: float) -> TokenState:
        """Return the state at *now*. If the clock was set back, how much is left can't be told: expired."""
        if not self.obtained_at <= now < self.expired_at:
            return TokenState.EXPIRED
        return TokenState.FRESH if now < self.stale_at else TokenState.STALE


def parse_token_response(response: TokenResponse, *, refresh_margin: float) -> Token:
    """Return the token in *response*; raise if it has none."""
    fields = json_object(response.body)
    if fields is None:
        raise _unusable(response, "not with a JSON object")
    value, kind = fields.get("access_token"), fields.get("token_type")
    if not isinstance(value, str) or not value:
        raise _unusable(response, f"without an access_token{server_message(fields, response.secret)}")
    if not is_header_safe(value):
        raise _unusable(response, "with an access_token that a header can't carry")
    if kind is not None and str(kind).lower() != "bearer":  # in any case of letters (RFC 6749 §5.1)
        raise _unusable(response, "with a token_type other than bearer")
    lifetime = _lifetime(response, fields.get("expires_in"), jwt_claims(value))
    return make_token(value, response.sent_at, lifetime, refresh_margin)


def make_token(value: str, obtained_at: float, lifetime: float, refresh_margin: float) -> Token:
    """Return a token to be renewed from *refresh_margin* seconds before its end.

    At most 20 % of its lifetime before, so that a short-lived token is not renewed on each call.
    """
    last_moment = min(10.0, 0.05 * lifetime)
    margin = max(last_moment, min(refresh_margin, 0.20 * lifetime))
    end = obtained_at + lifetime
    return Token(value, f"Bearer {value}", obtained_at, end - margin, end - last_moment, lifetime)


def _lifetime(response: TokenResponse, expires_in: object, claims: Mapping[str, Any]) -> float:
    """Return the seconds to live: the smallest positive measure, by the local clock only where there is no other."""
    exp, date = number(claims.get("exp")), http_date(response.date)
    starts = [start for start in (number(claims.get("iat")), date) if start is not None]
    given = [number(expires_in)] + [exp and exp - start for start in starts]
    measures = [measure for measure in given if measure is not None]
    if exp is not None and date is None and not any(measure > 0 for measure in measures):
        measures.append(exp - response.sent_at)
    if not measures:
        return _UNKNOWN_LIFETIME
    left = min((measure for measure in measures if measure > 0), default=None)
    if left is None:
        raise _unusable(response, "with an access_token that has already expired")
    return min(left, LONGEST_LIFETIME)


def _unusable(response: TokenResponse, how: str) -> TokenResponseError:
    return TokenResponseError(f"POST {response.url} answered, but {how}. No token was obtained.")
