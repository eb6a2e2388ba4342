"""The access token: one value with its deadlines. Pure: it knows no clock, no network and no store.

    obtained_at            margin_at          stale_at              expired_at           end
         |------- fresh --------|----- fresh -----|------ stale ---------|-- last moment --|

The margin is when the token is to be renewed: its last 300 seconds by default, at most 20 % of its life. The last
moment is when it is as good as expired, since it must survive the way to the server. A token that is not shared is
stale for the whole of its margin. Where processes share tokens in a store, each finds a token stale a little later.

All times are in seconds. A token's life counts from just before the sending of the request that brought it, by the
clock of this machine. From the server only lengths of time are taken, so a clock that is hours off does no harm.
"""

from collections.abc import Mapping
from typing import Any, Literal

from requests_mentionme._frozen import Frozen
from requests_mentionme._wire import HEADER_SAFE, http_date, jwt_claims, number

LONGEST_LIFETIME = 86_400.0
_UNKNOWN_LIFETIME = 300.0
_MARGIN_SHARE = 0.20  # of the lifetime, at most
_LONGEST_LAST_MOMENT = 10.0
_LAST_MOMENT_SHARE = 0.05  # of the lifetime, at most


class Token(Frozen):
    """An access token.

    It is no tuple and no dataclass: error reporters list the fields of those, and a field holds the token.

    Attributes:
        value: The token itself.
        authorization: The value of the `Authorization` header (RFC 6750 §2.1).
        obtained_at: When its life began, in seconds since the epoch.
        margin_at: When its margin begins, in seconds since the epoch.
        stale_at: When this process begins to renew it, in seconds since the epoch.
        expired_at: When its last moment begins, in seconds since the epoch.
        lifetime: How many seconds it lives.
    """

    __slots__ = ("authorization", "expired_at", "lifetime", "margin_at", "obtained_at", "stale_at", "value")

    value: str
    authorization: str
    obtained_at: float
    margin_at: float
    stale_at: float
    expired_at: float
    lifetime: float

    def __init__(
        self, value: str, *, obtained_at: float, margin_at: float, stale_at: float, expired_at: float, lifetime: float
    ) -> None:
        self._fill(value=value, authorization=f"Bearer {value}", obtained_at=obtained_at, lifetime=lifetime)
        self._fill(margin_at=margin_at, stale_at=stale_at, expired_at=expired_at)

    def __repr__(self) -> str:
        return f"<Token, {self.lifetime:.0f} s to live from {self.obtained_at:.0f}>"

    def state(self, now: float) -> Literal["fresh", "stale", "expired"]:
        """Return the state at *now*. With a clock that was set back, how much is left can't be told: expired."""
        if not self.obtained_at <= now < self.expired_at:
            return "expired"
        return "fresh" if now < self.stale_at else "stale"

    def seconds_left(self, now: float) -> float:
        """Return how many seconds of its life are left at *now*, below zero if it has ended."""
        return self.obtained_at + self.lifetime - now

    def with_stale_state_delayed(self, fraction: float) -> "Token":
        """Return this token, but stale only from a moment within the first half of its margin.

        Args:
            fraction: Which moment, from 0 to 1: 0 is the start of the margin. 1 is the middle of the margin or the
                start of the last moment, whichever is earlier. So a token without a stale state stays as it is.
        """
        end = self.obtained_at + self.lifetime
        latest = min((self.margin_at + end) / 2, self.expired_at)
        return Token(
            self.value,
            obtained_at=self.obtained_at,
            margin_at=self.margin_at,
            stale_at=self.margin_at + fraction * (latest - self.margin_at),
            expired_at=self.expired_at,
            lifetime=self.lifetime,
        )


def parse_token(fields: Mapping[str, Any], date: str | None, sent_at: float, refresh_margin: float) -> Token:
    """Return the token in the JSON object of a 2xx answer (RFC 6749 §5.1).

    Args:
        fields: The JSON object.
        date: The `Date` header of the answer, if any.
        sent_at: When the request was sent, in seconds since the epoch.
        refresh_margin: How many seconds before its end the token is to be renewed.

    Raises:
        ValueError: It holds no usable token. The text says why, in words that follow "the answer has".
    """
    value = fields.get("access_token")
    if not isinstance(value, str) or not value:
        raise ValueError("no access_token")
    if not HEADER_SAFE.fullmatch(value):
        raise ValueError("an access_token with characters that a header can't carry")
    token_type = fields.get("token_type")
    if token_type is not None and str(token_type).lower() != "bearer":  # in any case of letters (RFC 6749 §5.1)
        raise ValueError("a token_type other than bearer")
    lifetime = _lifetime(fields.get("expires_in"), jwt_claims(value), http_date(date), sent_at)
    if lifetime is None:
        raise ValueError("an access_token that has already expired")
    return make_token(value, sent_at, lifetime, refresh_margin)


def make_token(value: str, obtained_at: float, lifetime: float, refresh_margin: float) -> Token:
    """Return a token whose margin is its last *refresh_margin* seconds, or the last 20 % of a short life."""
    last_moment = min(_LONGEST_LAST_MOMENT, _LAST_MOMENT_SHARE * lifetime)
    margin = min(refresh_margin, _MARGIN_SHARE * lifetime)
    end = obtained_at + lifetime
    margin_at = end - max(margin, last_moment)  # a margin within the last moment: from fresh straight to expired
    return Token(
        value,
        obtained_at=obtained_at,
        margin_at=margin_at,
        stale_at=margin_at,
        expired_at=end - last_moment,
        lifetime=lifetime,
    )


def _lifetime(expires_in: object, claims: Mapping[str, Any], date: float | None, sent_at: float) -> float | None:
    """Return how many seconds the token lives: the smallest positive measure. None if it has already expired.

    | there is | the measure |
    | --- | --- |
    | `expires_in` | itself |
    | `exp` and `iat` | `exp` - `iat` |
    | `exp` and the `Date` of the answer | `exp` - `Date` |
    | `exp`, no `Date`, and no positive measure above | `exp` - the local clock |

    Measures of which none is positive mean that it has expired. Without any, it is taken to live for five minutes. An
    `exp` in the past is no error beside a positive `expires_in`: the clocks of servers differ, and a 401 puts it right.
    """
    exp = number(claims.get("exp"))
    iat = number(claims.get("iat"))
    measures = [number(expires_in)]
    if exp is not None:
        measures += [None if iat is None else exp - iat, None if date is None else exp - date]
    if exp is not None and date is None and not any(measure is not None and measure > 0 for measure in measures):
        measures.append(exp - sent_at)
    given = [measure for measure in measures if measure is not None]
    positive = [measure for measure in given if measure > 0]
    if positive:
        return min(*positive, LONGEST_LIFETIME)
    return None if given else _UNKNOWN_LIFETIME
