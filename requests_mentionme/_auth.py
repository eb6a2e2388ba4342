"""The adapter to `requests`, and the public face of the library: attaches the token, and puts the hook in place."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

import requests
from requests.auth import AuthBase

from requests_mentionme._credentials import CredentialsSource, FixedCredentials, ProvidedCredentials, Provider
from requests_mentionme._endpoint import TokenEndpoint
from requests_mentionme._environment import PRODUCTION, Environment, resolve_environment
from requests_mentionme._errors import FramesCleared, Hidden
from requests_mentionme._foreign_origins import ForeignOrigins
from requests_mentionme._options import environment_from_variable, seconds, timeout_pair
from requests_mentionme._retry import InertHook, RetryOn401
from requests_mentionme._source import TokenSource
from requests_mentionme._store import StoredTokens, TokenStore, checked_store
from requests_mentionme._supply import TokenSupply
from requests_mentionme._wire import jwt_claims

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack  # in typing from Python 3.11; type checkers bring their own

_NEVER_USED = "never used"
_NO_HOOKS: dict[str, list[object]] = {"response": []}
_OF_THIS_PROCESS = ("_source", "_hook", "_foreign_origins")
_ID_VARIABLE = "MENTIONME_CLIENT_ID"
_SECRET_VARIABLE = "MENTIONME_CLIENT_SECRET"  # noqa: S105 - the name of a variable


class _Options(TypedDict, total=False):
    environment: Environment | str
    session: requests.Session | None
    timeout: float | tuple[float, float]
    refresh_margin: float
    store: TokenStore | None


class MentionMeAuth(AuthBase):
    """Authenticates `requests` for Mention Me's Merchant API.

    Example:
        session = requests.Session()
        session.auth = MentionMeAuth("client-id", "client-secret", environment="demo")
        url = f"{session.auth.environment.base_url}/api/merchant/v2/customers"
        session.post(url, json={"identifiers": [{"type": "email", "value": "ada@example.com"}]})

    It works as `auth=` of a single request, too. On the first request it gets a JWT by the OAuth 2.0 client credentials
    grant (RFC 6749 §4.4). It renews the token before it expires. When the API answers 401, it sends the request once
    more with another token. Only requests to the origins of its environment get a token.

    One object serves any number of sessions and threads. It can be copied and pickled, without its token, and works
    after a fork. A request that needs a token raises what `access_token` raises.

    Args:
        client_id: The client id of an API key.
        client_secret: The client secret of that key.
        environment: Where to authenticate: `"production"`, `"demo"`, an `Environment`, or the base URL of another host.
        session: A session for the token requests, with your own proxies, CA, adapters or hooks. It is neither changed
            nor closed. By default each renewal has a session of its own.
        timeout: How many seconds to wait for the token endpoint, from 0.001 to 86400: one number, or a pair (connect,
            read). A renewal as a whole takes at most twice the sum of the two: 30 seconds with the defaults.
        refresh_margin: How many seconds before its end a token is renewed, from 0 to 86400; at most 20 % of its life.
        store: Where processes share a token: a dict, or any object with `store[key]` (which raises a `KeyError` where
            nothing is stored), `store[key] = text` and `del store[key]`. It holds a live token, so mind who can read
            it. Where it fails, a warning is logged and the token endpoint is asked. It is pickled with the auth.

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
        # Before anything can fail, since an error keeps the local variables of this frame alive.
        hidden_secret = Hidden(client_secret)
        hidden_environment = Hidden(environment)  # the user info of a URL may be a password
        hidden_store = Hidden(store)  # a dict shows the tokens that it holds
        del client_secret, environment, store
        with FramesCleared():
            self._credentials: CredentialsSource = FixedCredentials(client_id, hidden_secret)
            self._environment = resolve_environment(hidden_environment.value)
            if not isinstance(session, requests.Session | None):
                raise TypeError("session must be a requests.Session or None")
            self._store = checked_store(hidden_store.value)
            self._refresh_margin = seconds("refresh_margin", refresh_margin, least=0)
            self._endpoint = TokenEndpoint(self._environment, session, timeout_pair(timeout), self._refresh_margin)
            self._start()

    def _start(self) -> None:
        """Make the parts that hold the state of this process, and are not copied or pickled."""
        stored = None
        if self._store is not None:
            stored = StoredTokens(self._store, self._environment.token_url, self._refresh_margin)
        supply = TokenSupply(self._credentials, stored, self._endpoint)
        self._source = TokenSource(supply, self._endpoint.patience)
        self._hook = RetryOn401(self._environment, self._source)
        self._foreign_origins = ForeignOrigins(self._environment)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _OF_THIS_PROCESS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __repr__(self) -> str:
        name = type(self).__name__
        if not hasattr(self, "_foreign_origins"):  # which is set last; an error report may show it half-built
            return f"{name}(not set up)"
        return f"{name}({self._credentials.display_name}, environment={self._environment.name!r})"

    @classmethod
    def from_env(cls, **options: "Unpack[_Options]") -> "Self":
        """Make one from environment variables, which are read now.

        `MENTIONME_CLIENT_ID` and `MENTIONME_CLIENT_SECRET` must be set. `MENTIONME_ENVIRONMENT` may be: it is a name or
        a base URL, by default production.

        Args:
            options: `environment` (in place of the variable), `session`, `timeout`, `refresh_margin` and `store`, as
                for the class.

        Raises:
            TypeError: As for the class.
            ValueError: A variable is missing, empty or of no use; and as for the class.
        """
        hidden_options = Hidden(options)
        del options
        with FramesCleared():
            return cls._from_env(hidden_options.value)

    @classmethod
    def _from_env(cls, options: "_Options") -> "Self":
        for variable in (_ID_VARIABLE, _SECRET_VARIABLE):
            if not os.environ.get(variable):
                raise ValueError(f"the environment variable {variable} is not set. Set it: export {variable}=...")
        if "environment" not in options:
            options["environment"] = environment_from_variable()
        return cls(os.environ[_ID_VARIABLE], os.environ[_SECRET_VARIABLE], **options)

    @classmethod
    def from_provider(cls, provider: Provider, **options: "Unpack[_Options]") -> "Self":
        """Make one that asks a callable for the credentials, so that a key can be rotated without a restart.

        Args:
            provider: Returns a tuple (client_id, client_secret). It is asked once for each renewal. What it raises is
                raised where a token is needed. While the token in hand still lives, that is a logged warning.
            options: `environment`, `session`, `timeout`, `refresh_margin` and `store`, as for the class.

        Raises:
            TypeError: *provider* can't be called; and as for the class.
            ValueError: As for the class.
        """
        hidden_provider = Hidden(provider)  # a `functools.partial` shows its arguments
        hidden_options = Hidden(options)
        del provider, options
        with FramesCleared():
            credentials = ProvidedCredentials(hidden_provider)
            # The constructor is called, so that it is a subclass's own. The id and secret that it wants are never used:
            # `_start` then makes the parts anew, for the provider.
            auth = cls(_NEVER_USED, _NEVER_USED, **hidden_options.value)
            auth._credentials = credentials
            auth._start()
            return auth

    @property
    def environment(self) -> Environment:
        """The environment that it authenticates for."""
        return self._environment

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        """Attach a token to a request to a trusted origin; leave any other request as it is."""
        if not self._environment.trusts(r.url):
            self._foreign_origins.warn_once(r.url)
            return r
        token = self._source.fresh_token()
        if token is None:
            with FramesCleared():
                token = self._source.token()
        r.headers["Authorization"] = token.authorization
        # A new dict, since copies of a request share one, and with it the list of hooks. The hook comes first, so that
        # the hooks of the caller see the final response alone. `register_hook` would append to the shared list.
        # Nearly every request has no hooks yet, and a literal is faster than a call.
        r.hooks = {"response": [self._hook]} if r.hooks == _NO_HOOKS else self._with_hook(r.hooks)
        return r

    def _with_hook(self, hooks: Mapping[str, Any]) -> dict[str, Any]:
        """Return *hooks* with the hook of this auth first, and without that of any other, be it active or inert."""
        present: Any = hooks.get("response") or []
        one_or_more = [present] if callable(present) else list(present)
        others = [hook for hook in one_or_more if not isinstance(hook, RetryOn401 | InertHook)]
        return {**hooks, "response": [self._hook, *others]}

    def access_token(self, *, refused: str | None = None) -> str:
        """Return a token that is valid now, for another HTTP client.

        Args:
            refused: The token that a 401 came back for. Then another one is returned. If that one is refused as well
                within 30 seconds, it is returned again for 30 seconds: a new token would not help.

        Raises:
            InvalidClientError: The token endpoint refused the credentials.
            TokenEndpointError: It gave no token this time, or named a time to wait, or another thread's token request
                took too long.
            TokenResponseError: Its answer can't be used.
            requests.RequestException: A fault of the network on the way to it.
            RuntimeError: It was called from within a token request, by a hook of the lent session for example.
            TypeError: *refused* is neither a string nor None.
        """
        hidden_token = Hidden(refused)
        del refused
        with FramesCleared():
            return self._access_token(hidden_token)

    def _access_token(self, refused: Hidden) -> str:
        if refused.value is None:
            return self._source.token().value
        if not isinstance(refused.value, str):
            raise TypeError("refused must be the token that was refused, as a string")
        return self._source.replace_for_client(refused.value).value

    def claims(self) -> dict[str, Any]:
        """Return the payload of the token in hand, `{}` where it is no JWT. Get a token first if there is none.

        The signature is not verified, so this is for diagnosis only. Mention Me documents `claims.env`,
        `claims.merchantId` and `scope`; `exp` is of RFC 7519 §4.1.4. What it raises is what `access_token` raises.
        """
        with FramesCleared():
            return jwt_claims(self._source.token().value)

    def invalidate(self, token: str | None = None) -> None:
        """Drop the token in hand, from the store as well, and end every pause between renewals.

        A renewal that is under way goes on, and its token is kept.

        Args:
            token: Drop the token in hand only if it is this one.
        """
        hidden_token = Hidden(token)
        del token
        with FramesCleared():
            self._source.invalidate(hidden_token.value)
