"""Where tokens come from, and the only origins they may be sent to. Pure."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

_OWN_PORTS = {"https": 443, "http": 80}
_URL = re.compile(
    r"(?ia)(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>\d{1,5}))?(?=[/?#]|\Z)"
)  # to the end of the authority, so that no look-alike matches; (?a), or a long s would do for an s
_LOOPBACK = re.compile(r"localhost|127(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}|\[::1\]")


class _Fields(NamedTuple):
    name: str
    token_url: str
    origins: frozenset[str]


class Environment(_Fields):
    """One installation of Mention Me: `PRODUCTION`, `DEMO`, or one made with `Environment.at`.

    Attributes:
        name: Its name in messages and logs.
        token_url: Its token endpoint (RFC 6749 §3.2).
        origins: The origins (RFC 6454: scheme, host, port) whose requests get a token; kept normalised.

    Raises:
        ValueError: A URL is malformed, has user info, or is plain `http` on a host other than 127.0.0.0/8, ::1 or
            localhost; an origin has a path, query or fragment, or there is none.
    """

    _prefixes: tuple[str, ...]

    def __new__(cls, name: str, token_url: str, origins: Iterable[str]) -> "Environment":
        _origin(token_url if re.fullmatch(r"[!-~]*", token_url) else "")  # sent as it is written: nothing to be quoted
        origins = frozenset(_origin(origin, bare=True) for origin in origins)
        if not origins:
            raise ValueError("an environment needs at least one origin")
        self = super().__new__(cls, name, token_url, origins)
        self._prefixes = tuple(f"{origin}/" for origin in origins)  # as `requests` writes most URLs, and fast to check
        return self

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> "Environment":  # type: ignore[override]
        return cls(*iterable)  # so that what `_replace` makes is checked too

    @classmethod
    def at(cls, base_url: str) -> "Environment":
        """Return the environment at a base URL: its only origin, whose token endpoint is at `/api/oauth/token`.

        Raises:
            ValueError: As for the class.
        """
        origin = _origin(base_url, bare=True)
        return cls(origin, f"{origin}/api/oauth/token", [origin])

    def trusts(self, url: str | None) -> bool:
        """Return whether a token may be sent to *url*: whether its origin is one of `origins`."""
        try:
            return url is not None and (url.startswith(self._prefixes) or _origin(url) in self.origins)
        except ValueError:
            return False


def resolve_environment(environment: object) -> Environment:
    """Return the environment that an option means: itself, the one of that name, or the one at that base URL."""
    if isinstance(environment, Environment):
        return environment
    if not isinstance(environment, str):
        raise TypeError("environment must be an Environment, a name or a base URL")
    if environment not in _NAMED and "://" not in environment:
        raise ValueError(f"environment must be {' or '.join(map(repr, _NAMED))}, or a base URL such as 'https://host'")
    return _NAMED.get(environment) or Environment.at(environment)


def displayed_origin(url: str | None) -> str:
    """Return the origin of any *url* for a message, without the user info, which may be a secret."""
    scheme, _, rest = (url or "").partition(":")
    _, at, host = re.split(r"[/?#\\]", rest[2:] if rest.startswith("//") else "", maxsplit=1)[0].rpartition("@")
    return f"{scheme}://{at and '***@'}{host}"


def _origin(url: str, *, bare: bool = False) -> str:
    """Return the normalised origin of a URL that a secret or a token may be sent to."""
    found = _URL.match(url)  # the messages don't quote it: what stands before an @ may be a password
    if found is None or int(found["port"] or 0) > 65_535:
        raise ValueError("a URL such as 'https://host.example' is needed, without user info or odd characters")
    if bare and url[found.end() :] not in ("", "/"):
        raise ValueError("an origin or a base URL ends after the host and port: it has no path, query or fragment")
    scheme, host = found["scheme"].lower(), found["host"].lower()
    if scheme == "http" and not _LOOPBACK.fullmatch(host):
        raise ValueError(f"plain http is for this machine only: use https for {host}")
    port = int(found["port"] or _OWN_PORTS[scheme])
    return f"{scheme}://{host}" + ("" if port == _OWN_PORTS[scheme] else f":{port}")


PRODUCTION = Environment(
    "production", "https://mention-me.com/api/oauth/token", ["https://mention-me.com", "https://api.mention-me.com"]
)
DEMO = Environment(
    "demo",
    "https://demo.mention-me.com/api/oauth/token",
    ["https://demo.mention-me.com", "https://api-demo.mention-me.com"],
)
_NAMED = {"production": PRODUCTION, "demo": DEMO}
