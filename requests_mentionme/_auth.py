"""The adapter to `requests`: attaches the token, and retries once when it is refused."""

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict

import requests
from requests.auth import AuthBase

from requests_mentionme._endpoint import ClientCredentials, TokenEndpoint
from requests_mentionme._environment import PRODUCTION, Environment, displayed_origin, resolve_environment
from requests_mentionme._retry import RetryOn401
from requests_mentionme._source import TokenSource
from requests_mentionme._store import StoredTokens, TokenStore
from requests_mentionme._token import Token
from requests_mentionme._wire import jwt_claims

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack  # in typing from Python 3.11; type checkers bring their own

_logger = logging.getLogger("requests_mentionme")
_Provider = Callable[[], tuple[str, str]]
_MAX_ORIGINS_NAMED = 100


class _Options(TypedDict, total=False):
    environment: Environment | str
    session: requests.Session | None
    timeout: float | tuple[float, float]
    refresh_margin: float
    store: TokenStore | None


class MentionMeAuth(AuthBase):
    """Authenticates `requests` for Mention Me's Merchant API, as `session.auth` or as `auth=` of one request.

    Gets a JWT by the OAuth 2.0 client credentials grant (RFC 6749 §4.4) on the first request, renews it before it
    expires, and retries a request once with a new one if a 401 refuses it. Only requests to the origins of the
    environment get a token. One object serves any number of sessions and threads, can be copied and pickled (without
    its token), and works after a fork. A request that needs a token raises what `access_token` raises.

    Args:
        client_id: The client id of an API key.
        client_secret: Its secret.
        environment: An `Environment`, `"production"`, `"demo"`, or the base URL of another one.
        session: Carries the token requests alone, with its own proxies, CA, adapters or hooks; neither changed nor
            closed. By default each renewal has a session of its own.
        timeout: Seconds, 0.001 to 86400, to wait for the token endpoint: one number or (connect, read). A renewal as a
            whole takes up to twice the sum.
        refresh_margin: Seconds, 0 to 86400, before its end from which a token is renewed; at most 20 % of its life.
        store: Where processes share tokens: a dict, or anything with `store[key]` (KeyError if absent), `store[key] =
            str` and `del store[key]`. It holds a live token, and is pickled along, so mind who can read it. A store
            that fails is a warning, and the endpoint is asked.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: An argument is empty, out of range, or not an environment.
    """

    def __init__(
        self,
        client_id: str,
        client_secret: str,
        *,
        environment: Environment | str = PRODUCTION,
        session: requests.Session | None = None,
        timeout: float | tuple[float, float] = (5, 10),
        refresh_margin: float = 300,
        store: TokenStore | None = None,
    ) -> None:
        self._credentials: ClientCredentials | _Provider = ClientCredentials(client_id, client_secret)
        self._environment = resolve_environment(environment)
        if not isinstance(session, requests.Session | None):
            raise TypeError("session must be a requests.Session or None")
        connect, read = timeout if isinstance(timeout, tuple) and len(timeout) == 2 else (timeout, timeout)
        pair = _seconds("timeout", connect, least=0.001), _seconds("timeout", read, least=0.001)
        margin = _seconds("refresh_margin", refresh_margin, least=0)
        self._endpoint = TokenEndpoint(self._environment, session, pair, margin)
        self._stored = None if store is None else StoredTokens(store, self._environment.token_url, margin)
        self._start()

    def _start(self) -> None:
        self._source = TokenSource(self._obtain, self._endpoint.patience)
        self._hook = RetryOn401(self._environment, self._source)
        self._origins_named: dict[str, object] = {}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_source": None, "_hook": None}  # credentials and options travel; locks and tokens don't

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __repr__(self) -> str:
        who = repr(self._credentials.client_id) if isinstance(self._credentials, ClientCredentials) else "provided"
        return f"{type(self).__name__}({who}, environment={self._environment.name!r})"

    @classmethod
    def from_env(cls, **options: "Unpack[_Options]") -> "Self":
        """Make one from `MENTIONME_CLIENT_ID`, `MENTIONME_CLIENT_SECRET`, and `MENTIONME_ENVIRONMENT` where it is set.

        Raises:
            ValueError: One of the first two is missing or empty; and as for the class, whose options may be given.
        """
        names = "CLIENT_ID", "CLIENT_SECRET", "ENVIRONMENT"
        client_id, secret, environment = (os.environ.get(f"MENTIONME_{name}") for name in names)
        if not client_id or not secret:
            raise ValueError(f"environment variable MENTIONME_CLIENT_{'SECRET' if client_id else 'ID'} is not set")
        options.setdefault("environment", environment or PRODUCTION)
        return cls(client_id, secret, **options)

    @classmethod
    def from_provider(cls, provider: _Provider, **options: "Unpack[_Options]") -> "Self":
        """Make one that asks *provider* for (client_id, client_secret) once for each renewal, so that keys can rotate.

        Its exception is raised where a token is needed; while the old token lives, it is a warning.

        Raises:
            TypeError: *provider* can't be called; and as for the class, whose options may be given.
            ValueError: As for the class.
        """
        if not callable(provider):
            raise TypeError("provider must be callable")
        auth = cls("provided", "provided", **options)
        auth._credentials = provider
        return auth

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        """Attach a token to a request to a trusted origin; leave any other request as it is."""
        if not self._environment.trusts(r.url):
            self._warn_once(displayed_origin(r.url))
            return r
        r.headers["Authorization"] = self._source.token().authorization
        hooks = r.hooks["response"]
        if self._hook not in hooks:  # it is, where a request is authenticated again
            hooks.append(self._hook)  # as `register_hook` does after a check that costs more than all the rest here
        return r

    def access_token(self) -> str:
        """Return a token that is valid now, for another HTTP client.

        Raises:
            InvalidClientError: The token endpoint refused the credentials.
            TokenEndpointError: It gave no token this time, or named a time to wait.
            TokenResponseError: Its answer can't be used.
            requests.RequestException: A fault of the network on the way to it.
            RuntimeError: Called from within a token request, say by a hook of the lent session.
        """
        return self._source.token().value

    def claims(self) -> dict[str, Any]:
        """Return the payload of the current token, `{}` where it is not a JWT; raise as `access_token` does.

        It is not verified, and so for diagnosis only: `claims.env`, `claims.merchantId`, `scope`, `exp` (RFC 7519 §4).
        """
        return jwt_claims(self.access_token())

    def invalidate(self, token: str | None = None) -> None:
        """Drop the token in hand (in the store too), or only if it is *token*, and end hold-offs; a renewal goes on."""
        if self._source.invalidate(token) and self._stored is not None:
            self._stored.forget()

    def _obtain(self, tries: int, anew: bool) -> Token:  # noqa: FBT001 - always given by position, by the source
        credentials = self._credentials
        if not isinstance(credentials, ClientCredentials):
            provided = credentials()
            if not isinstance(provided, tuple) or len(provided) != 2:
                raise TypeError("the provider of credentials must return (client_id, client_secret)")
            credentials = ClientCredentials(*provided)
        if self._stored is not None and not anew and (token := self._stored.read(credentials)):
            _logger.info("Token taken from the store: %s", self._environment.name)
            return token
        token = self._endpoint.request_token(credentials, tries)
        _logger.info("Token obtained: %s, %.0f s to live", self._environment.name, token.lifetime)
        if self._stored is not None:
            self._stored.write(credentials, token)
        return token

    def _warn_once(self, origin: str) -> None:
        mine, named = object(), self._origins_named  # bounded; setdefault is atomic, so one of many threads warns
        if len(named) < _MAX_ORIGINS_NAMED and named.setdefault(origin, mine) is mine:
            _logger.warning("No token for %s: it is not an origin of %s", origin, self._environment.name)


def _seconds(name: str, value: object, *, least: float) -> float:
    """Return a number of seconds, checked; None would mean to wait for ever."""
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise TypeError(f"{name} must be a number of seconds")
    if value is None or not least <= value <= 86_400:
        raise ValueError(f"{name} must be {least:g} to 86400 seconds")
    return float(value)
