"""Where tokens come from, and the only origins that they may be sent to. Pure."""

import re
from collections.abc import Iterable
from typing import Any

from requests_mentionme._frozen import Frozen

_DEFAULT_PORTS = {"https": 443, "http": 80}
# It matches to the end of the authority, so that https://mention-me.com.evil.example is not taken for Mention Me.
# Without ASCII, an origin spelled with the letter \u017f would match, since that is an s where case is ignored.
_URL = re.compile(
    r"""
    (?P<scheme> https? ) ://
    (?P<host> [a-z0-9._-]+ | \[[0-9a-f:.]+\] )
    (?: : (?P<port> \d{1,5} ) )?
    (?= [/?\#] | \Z )
    """,
    flags=re.ASCII | re.IGNORECASE | re.VERBOSE,
)
_BYTE = r"(?: 25[0-5] | 2[0-4]\d | 1?\d?\d )"
_LOOPBACK = re.compile(rf"localhost | 127 (?: \. {_BYTE} ){{3}} | \[::1\]", flags=re.ASCII | re.VERBOSE)
_LONGEST_SHOWN = 200  # characters of an origin in a message


class Environment(Frozen):
    """One installation of Mention Me: `PRODUCTION`, `DEMO`, or one that is made with `Environment.at`.

    It is a frozen value: no attribute can be set or deleted, and two with the same content are equal.

    Example:
        >>> Environment.at("https://mention-me.example").token_url
        'https://mention-me.example/api/oauth/token'

    Args:
        name: The name that messages and log records use.
        token_url: The URL of the token endpoint (RFC 6749 §3.2).
        origins: The origins (RFC 6454: scheme, host and port) that tokens may be sent to.

    Raises:
        TypeError: The name or a URL is not a string.
        ValueError: A URL is malformed, has user info, or is plain `http` on a host other than 127.0.0.0/8, ::1 or
            localhost. Or an origin has a path, a query or a fragment. Or there is no origin.
    """

    __slots__ = ("_base_url", "_name", "_origins", "_prefixes", "_token_url")

    _name: str
    _token_url: str
    _origins: frozenset[str]
    _base_url: str
    _prefixes: tuple[str, ...]

    def __init__(self, name: str, token_url: str, origins: Iterable[str]) -> None:
        if not isinstance(name, str):
            raise TypeError("the name of an environment must be a string")
        _check_token_url(token_url)
        bare_origins = frozenset(_bare_origin(origin) for origin in origins)
        if not bare_origins:
            raise ValueError("an environment needs at least one origin")
        self._fill(_name=name, _token_url=token_url, _origins=bare_origins, _base_url=_origin(token_url))
        # `requests` writes most URLs in normal form and with a slash, and to compare the beginning of a text is fast.
        self._fill(_prefixes=tuple(f"{origin}/" for origin in bare_origins))

    @classmethod
    def at(cls, base_url: str) -> "Environment":
        """Return the environment at a base URL, such as a stand-in or a future host.

        Args:
            base_url: The one origin that its tokens may be sent to. Its token endpoint is at `/api/oauth/token`.

        Raises:
            TypeError: *base_url* is not a string.
            ValueError: *base_url* is not fit for an origin: see the class.
        """
        origin = _bare_origin(base_url)
        return cls(origin, f"{origin}/api/oauth/token", [origin])

    @property
    def name(self) -> str:
        """The name that messages and log records use."""
        return self._name

    @property
    def token_url(self) -> str:
        """The URL of the token endpoint."""
        return self._token_url

    @property
    def origins(self) -> frozenset[str]:
        """The origins that tokens may be sent to, in normal form: lower case, no default port, no slash at the end."""
        return self._origins

    @property
    def base_url(self) -> str:
        """The origin of the token endpoint, without a slash at the end.

        The documented paths of the Merchant API live there: `f"{environment.base_url}/api/merchant/v2/customers"`.
        """
        return self._base_url

    def trusts(self, url: str | None) -> bool:
        """Return whether a token may be sent to *url*: whether its origin is one of `origins`."""
        if url is None:
            return False
        return url.startswith(self._prefixes) or self._has_origin_of(url)

    def _has_origin_of(self, url: str) -> bool:
        try:
            return _origin(url) in self.origins
        except ValueError:
            return False

    def __reduce__(self) -> tuple[type["Environment"], tuple[str, str, list[str]]]:
        return type(self), (self.name, self.token_url, sorted(self.origins))  # so what is unpickled is checked as well

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Environment):
            return NotImplemented
        return self._content() == other._content()

    def __hash__(self) -> int:
        return hash(self._content())

    def __repr__(self) -> str:
        return f"Environment(name={self.name!r}, token_url={self.token_url!r}, origins={sorted(self.origins)!r})"

    def _content(self) -> tuple[Any, ...]:
        return self.name, self.token_url, self.origins


def resolve_environment(environment: object) -> Environment:
    """Return the environment that an option means: itself, the one of that name, or the one at that base URL.

    Raises:
        TypeError: *environment* is neither an `Environment` nor a string.
        ValueError: It is a string, but no name that is known and no base URL.
    """
    if isinstance(environment, Environment):
        return environment
    if not isinstance(environment, str):
        raise TypeError("environment must be an Environment, a name or a base URL")
    if environment in _BY_NAME:
        return _BY_NAME[environment]
    if "://" in environment:
        return Environment.at(environment)
    names = " or ".join(repr(name) for name in _BY_NAME)
    raise ValueError(f"environment must be {names}, or a base URL such as 'https://host.example'")


def named_environment_of(url: str | None) -> Environment | None:
    """Return `PRODUCTION` or `DEMO`, whichever *url* belongs to. None if it belongs to neither."""
    for environment in _BY_NAME.values():
        if environment.trusts(url):
            return environment
    return None


def is_on_this_machine(url: str) -> bool:
    """Return whether the host of a well-formed *url* is a loopback address or `localhost`."""
    match = _URL.match(url)
    return match is not None and _LOOPBACK.fullmatch(match["host"].lower()) is not None


def displayed_origin(url: str | None) -> str:
    """Return the origin of any *url* for a message.

    The user info is left out, as it may be a secret. Characters that could break out of a line of a log are escaped.
    """
    scheme, _, rest = (url or "").partition(":")
    authority = ""
    if rest.startswith("//"):
        authority = re.split(r"[/?#\\]", rest[2:], maxsplit=1)[0]
    _, at, host = authority.rpartition("@")
    user_info = "***@" if at else ""
    shown = f"{scheme}://{user_info}{host}"
    return shown.encode("unicode_escape").decode("ascii")[:_LONGEST_SHOWN]


def _origin(url: str) -> str:
    """Return the normal form of the origin of a URL that a secret or a token may be sent to."""
    match = _match(url)
    scheme = match["scheme"].lower()
    host = match["host"].lower()
    default_port = _DEFAULT_PORTS[scheme]
    port = int(match["port"] or default_port)
    if port > 65_535:
        raise ValueError("a port is at most 65535")
    if scheme == "http" and not _LOOPBACK.fullmatch(host):
        raise ValueError(f"plain http is for this machine only: use https for {host}")
    return f"{scheme}://{host}" if port == default_port else f"{scheme}://{host}:{port}"


def _bare_origin(url: str) -> str:
    """Return the normal form of a URL that is an origin and nothing more."""
    end_of_authority = _match(url).end()
    if url[end_of_authority:] not in ("", "/"):
        raise ValueError("an origin or a base URL ends after the host and port: it has no path, query or fragment")
    return _origin(url)


def _match(url: str) -> re.Match[str]:
    if not isinstance(url, str):
        raise TypeError("a URL must be a string")
    match = _URL.match(url)
    if match is None:  # the message does not quote the URL: what stands before an @ may be a password
        raise ValueError("a URL such as 'https://host.example' is needed, without user info or odd characters")
    return match


def _check_token_url(token_url: str) -> None:
    """Raise an error unless *token_url* is a URL of visible ASCII characters, which `requests` does not reinterpret."""
    _match(token_url)
    if not re.fullmatch(r"[!-~]*", token_url):
        raise ValueError("a token URL has no spaces, control characters or characters beyond ASCII")


PRODUCTION = Environment(
    "production",
    "https://mention-me.com/api/oauth/token",
    ["https://mention-me.com", "https://api.mention-me.com"],
)
DEMO = Environment(
    "demo",
    "https://demo.mention-me.com/api/oauth/token",
    ["https://demo.mention-me.com", "https://api-demo.mention-me.com"],
)
_BY_NAME = {"production": PRODUCTION, "demo": DEMO}
