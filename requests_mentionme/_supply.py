"""How a token comes to be: ask for the credentials, look into the store, ask the token endpoint.

It is asked by one thread at a time, and knows neither threads nor the state of the token in hand.
"""

import logging
from typing import NamedTuple

from requests import RequestException
from urllib3.exceptions import HTTPError

from requests_mentionme._credentials import ClientCredentials, CredentialsSource
from requests_mentionme._endpoint import TokenEndpoint
from requests_mentionme._store import StoredTokens
from requests_mentionme._token import Token

_logger = logging.getLogger("requests_mentionme")


class SupplyFailed(Exception):  # noqa: N818 - it never leaves the package: `reason` is what the caller gets
    """No token could be obtained, for a reason that concerns all who need one.

    Attributes:
        reason: The exception that each of them raises: a fault of the network, an answer of the endpoint, or whatever
            the provider of credentials raised.
    """

    def __init__(self, reason: Exception) -> None:
        super().__init__("no token could be obtained")
        self.reason = reason


class Supplied(NamedTuple):
    """A token, and whether it came from the store."""

    token: Token
    is_from_store: bool


class TokenSupply:
    """Obtains tokens for one environment."""

    def __init__(self, credentials: CredentialsSource, stored: StoredTokens | None, endpoint: TokenEndpoint) -> None:
        self._credentials = credentials
        self._stored = stored
        self._endpoint = endpoint

    def obtain(self, *, tries: int, in_hand: Token | None, refused: str | None) -> Supplied:
        """Return a token from the store or, where the store has none that will do, from the token endpoint.

        Args:
            tries: How many token requests may be made, if there are faults that may pass.
            in_hand: The token that is in hand or was dropped last. It is not taken from the store again.
            refused: The token that a 401 refused. If there is one, the store is not asked, and gives that token up.

        Raises:
            SupplyFailed: There is none, for a reason that concerns all who need one.
            Exception: Something that concerns only the thread that asks, such as a bug in a lent adapter, or what a
                signal handler raised.
        """
        credentials = self._ask_for_credentials()
        if self._stored is not None:
            if refused is not None:
                self._stored.remove(refused, credentials)
            else:
                token = self._stored.read(credentials, but_not=in_hand)
                if token is not None:
                    _logger.info("Token taken from the store: %s", self._endpoint.environment.name)
                    return Supplied(token, is_from_store=True)
        token = self._request_token(credentials, tries)
        _logger.info("Token obtained: %s, %.0f s to live", self._endpoint.environment.name, token.lifetime)
        if self._stored is not None:
            self._stored.write(credentials, token)
            token = self._stored.with_own_moment(token)
        return Supplied(token, is_from_store=False)

    def forget(self, value: str) -> None:
        """Remove a token from the store, if it is still the one that is stored."""
        if self._stored is not None:
            self._stored.remove_newest(value)

    def start_anew_after_fork(self, in_hand: Token | None) -> Token | None:
        """Return the token in hand with a moment of renewal that is this process's own."""
        if self._stored is None or in_hand is None:
            return in_hand
        self._stored.draw_seed()
        return self._stored.with_own_moment(in_hand)

    def _ask_for_credentials(self) -> ClientCredentials:
        try:
            return self._credentials.current()
        except Exception as error:
            raise SupplyFailed(error) from error

    def _request_token(self, credentials: ClientCredentials, tries: int) -> Token:
        try:
            return self._endpoint.request_token(credentials, tries)
        except TimeoutError:
            raise  # `requests` has exceptions of its own for timeouts, so this one is the caller's: an alarm, say
        except (RequestException, HTTPError, OSError) as error:  # `requests` raises a bare OSError for a lost CA bundle
            raise SupplyFailed(error) from error
