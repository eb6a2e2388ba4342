"""The optional store, where processes share tokens. It may fail, and what it holds is read without trust."""

import hashlib
import json
import logging
import time
from typing import Any, Protocol

from requests_mentionme._endpoint import ClientCredentials
from requests_mentionme._token import LONGEST_LIFETIME, Token, make_token
from requests_mentionme._wire import HEADER_SAFE, json_object, number

_logger = logging.getLogger("requests_mentionme")
_CLOCK_SKEW = 60.0  # seconds, from machine to machine


class TokenStore(Protocol):
    """What may be a store: a dict, or anything with these three of its methods; KeyError where nothing is stored."""

    def __getitem__(self, key: str, /) -> str: ...
    def __setitem__(self, key: str, value: str, /) -> None: ...
    def __delitem__(self, key: str, /) -> None: ...


class StoredTokens:
    """The tokens of one token endpoint in a store, each under a digest of the credentials it was issued to."""

    def __init__(self, store: TokenStore, token_url: str, refresh_margin: float) -> None:
        self._store, self._token_url, self._refresh_margin = store, token_url, refresh_margin
        self._newest_key: str | None = None  # of the token that was taken from here or put here last

    def read(self, credentials: ClientCredentials) -> Token | None:
        """Return the stored token if it is fresh by this machine's clock."""
        key, now = self._key(credentials), time.time()
        try:
            fields = json_object(self._store[key].encode()) or {}
        except KeyError:
            return None
        except Exception as error:  # noqa: BLE001 - a store may raise anything, and is no reason to fail
            _logger.warning("The token store can't be read: %s", type(error).__name__)
            return None
        value: Any = fields.get("access_token")
        obtained_at, lifetime = number(fields.get("obtained_at")), number(fields.get("lifetime")) or 0.0
        good = isinstance(value, str) and HEADER_SAFE.fullmatch(value) and 0 < lifetime <= LONGEST_LIFETIME
        if not good or obtained_at is None or obtained_at > now + _CLOCK_SKEW:
            _logger.warning("The token store holds no valid token, or one from the future")
            return None
        token = make_token(value, obtained_at, lifetime, self._refresh_margin)
        token = token._replace(obtained_at=min(obtained_at, now), stored=True)
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
        except Exception as error:  # noqa: BLE001 - likewise
            _logger.warning("The token store can't be written: %s", type(error).__name__)

    def forget(self) -> None:
        """Remove the token that was taken from here or put here last."""
        try:
            if self._newest_key is not None:
                del self._store[self._newest_key]
        except Exception as error:  # noqa: BLE001 - likewise
            if not isinstance(error, KeyError):
                _logger.warning("The token store can't be written: %s", type(error).__name__)

    def _key(self, credentials: ClientCredentials) -> str:
        identity = json.dumps([self._token_url, credentials.client_id, credentials.client_secret])
        return f"requests-mentionme:{hashlib.sha256(identity.encode()).hexdigest()}"
