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
            in_hand: The token that is in hand, or was dropped by `invalidate`. It is not taken from the store again.
            refused: The token that a 401 refused, if that is why. Then the store is not asked, since only a token
                straight from the endpoint tells whether a new one helps; and it gives the refused one up.

        Raises:
            SupplyFailed: There is none, for a reason that concerns all who need one.
            Exception: Something that concerns only the thread that asks, such as a bug in a lent adapter, or what a
                signal handler raised. Within the code of a store or a provider, that can't be told from their own.
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

    def with_moment_of_this_process(self, in_hand: Token | None) -> Token | None:
        """Return the token in hand, to be renewed at a moment that a forked child has drawn anew."""
        if self._stored is None:
            return in_hand
        self._stored.draw_seed()
        return None if in_hand is None else self._stored.with_own_moment(in_hand)

    def _ask_for_credentials(self) -> ClientCredentials:
        try:
            return self._credentials.current()
        except Exception as error:
            raise SupplyFailed(error) from error

    def _request_token(self, credentials: ClientCredentials, tries: int) -> Token:
        """Ask the endpoint, and tell the faults that concern all from those that concern this thread alone.

        `requests` raises a bare `OSError` for a CA bundle that is missing. For timeouts it has exceptions of its own.
        So a bare `TimeoutError` is not of `requests`: a signal handler raised it, such as an alarm.
        """
        try:
            return self._endpoint.request_token(credentials, tries)
        except TimeoutError:
            raise
        except (RequestException, HTTPError, OSError) as error:
            raise SupplyFailed(error) from error
