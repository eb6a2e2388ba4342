"""The client id and secret of an API key: fixed, or provided by the caller's own callable.

Both are checked in the same way, and none shows its secret in a `repr`: error reporters print local variables.
"""

from collections.abc import Callable
from typing import Final, Protocol, cast

from requests_mentionme._errors import Hidden

Provider = Callable[[], tuple[str, str]]


class ClientCredentials:
    """A client id and secret (RFC 6749 §2.3.1). Their form is not documented, so only emptiness is refused."""

    __slots__ = ("client_id", "client_secret")

    def __init__(self, client_id: object, client_secret: Hidden) -> None:
        """Check and keep the credentials.

        Args:
            client_id: The client id.
            client_secret: The client secret, hidden from the frames on the way here.

        Raises:
            TypeError: One of them is not a string.
            ValueError: One of them is empty.
        """
        self.client_id: Final = _non_empty("client_id", Hidden(client_id))  # no secret; hidden for the check alone
        self.client_secret: Final = _non_empty("client_secret", client_secret)

    def __repr__(self) -> str:
        return "<ClientCredentials>"


class CredentialsSource(Protocol):
    """Gives the credentials for a renewal."""

    @property
    def display_name(self) -> str:
        """What a `repr` says in the place of the credentials."""
        ...

    def current(self) -> ClientCredentials:
        """Return the credentials to use now."""
        ...


class FixedCredentials:
    """The credentials that the constructor of the auth was given."""

    def __init__(self, client_id: object, client_secret: Hidden) -> None:
        self._credentials = ClientCredentials(client_id, client_secret)

    @property
    def display_name(self) -> str:
        """The client id, which is no secret."""
        return repr(self._credentials.client_id)

    def current(self) -> ClientCredentials:
        """Return the credentials, always the same."""
        return self._credentials


class ProvidedCredentials:
    """The credentials that a callable returns, which may be others each time: so a key can be rotated."""

    display_name = "provided"

    def __init__(self, provider: Hidden) -> None:
        if not callable(provider.value):
            raise TypeError("provider must be callable")
        self._provider = provider

    def current(self) -> ClientCredentials:
        """Ask the provider.

        Raises:
            TypeError: It did not return a pair of strings.
            ValueError: One of the two is empty.
            Exception: Whatever the provider raised.
        """
        provided = self._provider.value()
        if not isinstance(provided, tuple) or len(cast("tuple[object, ...]", provided)) != 2:
            raise TypeError("the provider of credentials must return a tuple: (client_id, client_secret)")
        client_id, client_secret = cast("tuple[object, object]", provided)
        return ClientCredentials(client_id, Hidden(client_secret))


def _non_empty(name: str, hidden: Hidden) -> str:
    if not isinstance(hidden.value, str):
        raise TypeError(f"{name} must be a non-empty string")
    if not hidden.value:
        raise ValueError(f"{name} must be a non-empty string")
    return hidden.value
