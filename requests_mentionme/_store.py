"""The tokens of one token endpoint in a mapping that processes share. It may fail, and is read without trust.

Processes that share a token would all find it stale at the same moment, and would all ask for the next one. So each
draws a moment of its own within the first half of the margin. The first to be due renews the token and stores it.
The others find the new one when their own moments come.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import MutableSequence
from typing import Any, Protocol

from requests_mentionme._credentials import ClientCredentials
from requests_mentionme._token import LONGEST_LIFETIME, Token, make_token
from requests_mentionme._wire import HEADER_SAFE, json_object, number

_logger = logging.getLogger("requests_mentionme")
_CLOCK_SKEW = 60.0  # seconds that the clocks of two machines may differ
_METHODS = ("__getitem__", "__setitem__", "__delitem__")
_SHORTEST_TOKEN = 20  # characters


class TokenStore(Protocol):
    """What may be a store: a dict, or anything with these three of its methods.

    `__getitem__` raises a `KeyError` where nothing is stored. It may return bytes.
    """

    def __getitem__(self, key: str, /) -> str | bytes:
        """Return what is stored."""
        ...

    def __setitem__(self, key: str, value: str, /) -> None:
        """Store a text in place of what was there."""
        ...

    def __delitem__(self, key: str, /) -> None:
        """Remove what is stored."""
        ...


def checked_store(store: TokenStore | None) -> TokenStore | None:
    """Return *store*; raise a TypeError if it can't be one."""
    kind = type(store)
    if store is not None:
        has_methods = all(hasattr(kind, method) for method in _METHODS)
        if issubclass(kind, MutableSequence) or not has_methods:  # a list has the methods, but no keys
            raise TypeError(
                "store must be a dict, or an object with store[key], store[key] = text and del store[key], "
                f"and not a {kind.__name__}"
            )
    return store


class StoredTokens:
    """The tokens of one token endpoint in a store, each under a digest of the credentials that it was issued to."""

    def __init__(self, store: TokenStore, token_url: str, refresh_margin: float) -> None:
        self._store = store
        self._token_url = token_url
        self._refresh_margin = refresh_margin
        self._newest_key = ""  # the key under which a token was last taken from here or put here
        self.draw_seed()

    def draw_seed(self) -> None:
        """Draw the seed of the moments at which this object renews tokens. No two processes have the same."""
        self._seed = os.urandom(16)

    def with_own_moment(self, token: Token) -> Token:
        """Return *token* with the moment at which this object renews it, the same however often it is asked."""
        digest = hashlib.sha256(self._seed + token.value.encode()).digest()
        fraction = int.from_bytes(digest[:8], "big") / 2**64  # from 0 to 1
        return token.with_stale_state_delayed(fraction)

    def read(self, credentials: ClientCredentials, *, but_not: Token | None) -> Token | None:
        """Return the stored token if it is fresh by this machine's clock.

        A stale one is of no use: it is looked for because a token is due for renewal.

        Args:
            credentials: Whose token it must be.
            but_not: The token that is in hand, or was dropped by `invalidate`. To take it again would put off its
                renewal, or undo what the caller asked for.
        """
        key = self._key(credentials)
        try:
            fields = self._fields_at(key)
        except KeyError:
            return None
        except Exception as error:  # noqa: BLE001 - a store may raise anything, and that is no reason to fail
            _logger.warning("The token store can't be read: %s", _reason(error))
            return None
        now = time.time()
        token = self._token_in(fields, now)
        if token is None:
            _logger.warning("The token store holds no valid token, or one from the future")
            return None
        if but_not is not None and token.value == but_not.value:
            return None
        if token.state(now) != "fresh":
            return None
        self._newest_key = key
        return token

    def write(self, credentials: ClientCredentials, token: Token) -> None:
        """Store *token* in place of the one that was there."""
        content = {"access_token": token.value, "obtained_at": token.obtained_at, "lifetime": token.lifetime}
        self._newest_key = self._key(credentials)
        try:
            self._store[self._newest_key] = json.dumps(content)
        except Exception as error:  # noqa: BLE001 - as for reading
            _logger.warning("The token store can't be written: %s", _reason(error))

    def remove(self, value: str, credentials: ClientCredentials) -> None:
        """Remove the token with this value, unless another process has stored a newer one in its place."""
        self._remove_at(self._key(credentials), value)

    def remove_newest(self, value: str) -> None:
        """Do the same for the token that was taken from here or put here last, without credentials at hand."""
        self._remove_at(self._newest_key, value)

    def _remove_at(self, key: str, value: str) -> None:
        try:
            if self._fields_at(key).get("access_token") == value:
                del self._store[key]
        except KeyError:
            pass  # it is gone already
        except Exception as error:  # noqa: BLE001 - as for reading
            _logger.warning("The token store can't be cleared: %s", _reason(error))

    def _fields_at(self, key: str) -> dict[str, Any]:
        stored = self._store[key]
        body = stored if isinstance(stored, bytes) else stored.encode()
        return json_object(body) or {}

    def _token_in(self, fields: dict[str, Any], now: float) -> Token | None:
        """Return the token that was stored, None where there is none that could be one."""
        value = fields.get("access_token")
        obtained_at = number(fields.get("obtained_at"))
        lifetime = number(fields.get("lifetime"))
        if not isinstance(value, str) or not HEADER_SAFE.fullmatch(value):
            return None
        if obtained_at is None or obtained_at > now + _CLOCK_SKEW:
            return None
        if lifetime is None or not 0 < lifetime <= LONGEST_LIFETIME:
            return None
        # If the writer's clock is a little ahead, its token seems to come from the future, and would count as expired.
        # So it counts as obtained now.
        token = make_token(value, min(obtained_at, now), lifetime, self._refresh_margin)
        return self.with_own_moment(token)

    def _key(self, credentials: ClientCredentials) -> str:
        # With the secret, so that a token that was issued to a key's old secret is not found any more.
        identity = json.dumps([self._token_url, credentials.client_id, credentials.client_secret])
        return f"requests-mentionme:{hashlib.sha256(identity.encode()).hexdigest()}"


def _reason(error: Exception) -> str:
    """Return the class of *error* and, unless one of them is so long that it could be a token, its words."""
    name = type(error).__name__
    words = str(error)
    if not words or any(len(word) >= _SHORTEST_TOKEN for word in words.split()):
        return name
    return f"{name}: {' '.join(words.split())[:200]!r}"
