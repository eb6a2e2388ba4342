"""The access token: one immutable value with its deadlines. Pure; knows no clock and no network.

All times are in seconds. A token's life counts from just before the request that brought it was sent, by this
machine's clock. From the server only lengths of time are taken, so that a clock that is hours off does no harm.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from requests_mentionme._wire import HEADER_SAFE, http_date, jwt_claims, number

LONGEST_LIFETIME, _UNKNOWN_LIFETIME = 86_400.0, 300.0


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

    def state(self, now: float) -> Literal["fresh", "stale", "expired"]:
        """Return the state at *now*. If the clock was set back, how much is left can't be told: expired."""
        if not self.obtained_at <= now < self.expired_at:
            return "expired"
        return "fresh" if now < self.stale_at else "stale"


def parse_token(fields: Mapping[str, Any] | None, date: str | None, sent_at: float, refresh_margin: float) -> Token:
    """Return the token in a 2xx answer's JSON (RFC 6749 §5.1), given its `Date`; raise ValueError if it has none."""
    if fields is None:
        raise ValueError("not with a JSON object")
    value, kind = fields.get("access_token"), fields.get("token_type")
    if not isinstance(value, str) or not value:
        raise ValueError("without an access_token")
    if not HEADER_SAFE.fullmatch(value):
        raise ValueError("with an access_token that a header can't carry")
    if kind is not None and str(kind).lower() != "bearer":  # in any case of letters (RFC 6749 §5.1)
        raise ValueError("with a token_type other than bearer")
    lifetime = _lifetime(fields.get("expires_in"), jwt_claims(value), http_date(date), sent_at)
    return make_token(value, sent_at, lifetime, refresh_margin)


def make_token(value: str, obtained_at: float, lifetime: float, refresh_margin: float) -> Token:
    """Return a token that is stale for its last *refresh_margin* seconds, or for the last 20 % of a short life."""
    last_moment = min(10.0, 0.05 * lifetime)
    margin = max(last_moment, min(refresh_margin, 0.20 * lifetime))
    end = obtained_at + lifetime
    return Token(value, f"Bearer {value}", obtained_at, end - margin, end - last_moment, lifetime)


def _lifetime(expires_in: object, claims: Mapping[str, Any], date: float | None, sent_at: float) -> float:
    """Return the seconds to live: the smallest positive measure, by the local clock only where there is no other."""
    exp, given = number(claims.get("exp")), number(expires_in)
    measures = [] if given is None else [given]
    if exp is not None:
        measures += [exp - start for start in (number(claims.get("iat")), date) if start is not None]
        if date is None and not any(measure > 0 for measure in measures):
            measures.append(exp - sent_at)
    left = min((measure for measure in measures if measure > 0), default=None if measures else _UNKNOWN_LIFETIME)
    if left is None:
        raise ValueError("with an access_token that has already expired")
    return min(left, LONGEST_LIFETIME)
