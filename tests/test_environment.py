"""Where tokens come from, and where they may go: the built-in environments, one's own, and what is refused."""

import copy
import itertools
import pickle
import sys
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import event, given, settings
from hypothesis import strategies as st
from urllib3.util import parse_url

from requests_mentionme import DEMO, PRODUCTION, Environment
from requests_mentionme._environment import displayed_origin, resolve_environment

OTHER_PORT = Environment.at("https://kiosk.example:8443")
LOOPBACK = Environment.at("http://127.0.0.1:8080")
ENVIRONMENTS = [PRODUCTION, DEMO, OTHER_PORT, LOOPBACK, Environment.at("http://[::1]"), Environment.at("https://k.s")]

SHORT = settings(max_examples=300, derandomize=True, deadline=None)
LONG = settings(max_examples=15_000, database=None, deadline=None)  # in each of several parts


# The built-in environments


def test_production_is_what_the_documentation_names() -> None:
    """Its token endpoint, and both of its hosts."""
    assert PRODUCTION.name == "production"
    assert PRODUCTION.token_url == "https://mention-me.com/api/oauth/token"
    assert PRODUCTION.origins == {"https://mention-me.com", "https://api.mention-me.com"}


def test_demo_is_what_the_documentation_names() -> None:
    """Its token endpoint, and both of its hosts."""
    assert DEMO.name == "demo"
    assert DEMO.token_url == "https://demo.mention-me.com/api/oauth/token"
    assert DEMO.origins == {"https://demo.mention-me.com", "https://api-demo.mention-me.com"}


@pytest.mark.parametrize(("environment", "other"), [(PRODUCTION, DEMO), (DEMO, PRODUCTION)])
def test_an_environment_trusts_its_own_origins_alone(environment: Environment, other: Environment) -> None:
    """A token of one environment is never sent to the other."""
    assert all(environment.trusts(origin) for origin in environment.origins)
    assert not any(environment.trusts(origin) for origin in other.origins)
    assert environment.trusts(environment.token_url)


# What an option means


def test_an_environment_is_itself_its_name_or_its_base_url() -> None:
    """The option takes each of the three."""
    assert resolve_environment(PRODUCTION) is PRODUCTION
    assert resolve_environment(OTHER_PORT) is OTHER_PORT
    assert resolve_environment("production") is PRODUCTION
    assert resolve_environment("demo") is DEMO
    assert resolve_environment("https://kiosk.example:8443") == OTHER_PORT


@pytest.mark.parametrize(
    ("base_url", "origin"),
    [
        pytest.param("https://host.example", "https://host.example", id="a host"),
        pytest.param("https://host.example/", "https://host.example", id="a slash after it"),
        pytest.param("https://host.example:443", "https://host.example", id="its own port"),
        pytest.param("https://host.example:8443", "https://host.example:8443", id="another port"),
        pytest.param("https://host.example:80", "https://host.example:80", id="the port of http"),
        pytest.param("https://host.example:65535/", "https://host.example:65535", id="the last port"),
        pytest.param("HTTPS://Host.EXAMPLE", "https://host.example", id="upper case"),
        pytest.param("https://host", "https://host", id="a name without dots"),
        pytest.param("https://my_host-1.example", "https://my_host-1.example", id="underscore, hyphen and digit"),
        pytest.param("https://192.0.2.1", "https://192.0.2.1", id="IPv4"),
        pytest.param("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443", id="IPv6"),
        pytest.param("http://localhost", "http://localhost", id="http on localhost"),
        pytest.param("http://LOCALHOST:80", "http://localhost", id="http on localhost, its own port"),
        pytest.param("http://localhost:443", "http://localhost:443", id="http on localhost, the port of https"),
        pytest.param("http://127.0.0.1:8080", "http://127.0.0.1:8080", id="http on 127.0.0.1"),
        pytest.param("http://127.0.0.0", "http://127.0.0.0", id="http on the first address of 127/8"),
        pytest.param("http://127.255.255.255", "http://127.255.255.255", id="http on the last address of 127/8"),
        pytest.param("http://[::1]:5000", "http://[::1]:5000", id="http on ::1"),
    ],
)
def test_a_base_url_makes_an_environment(base_url: str, origin: str) -> None:
    """With that one origin, normalised, and the token endpoint on it."""
    environment = Environment.at(base_url)

    assert environment == Environment(origin, f"{origin}/api/oauth/token", frozenset({origin}))
    assert (environment.name, environment.token_url) == (origin, f"{origin}/api/oauth/token")
    assert environment.origins == {origin}
    assert environment.trusts(f"{origin}/any/path")
    assert resolve_environment(base_url) == environment


NO_URLS = [
    pytest.param("", id="empty"),
    pytest.param("https://", id="no host"),
    pytest.param("https:///path", id="no host, a path"),
    pytest.param("https://:443", id="no host, a port"),
    pytest.param("//host.example", id="no scheme"),
    pytest.param("host.example", id="a host alone"),
    pytest.param("https:host.example", id="no slashes"),
    pytest.param("https:/host.example", id="one slash"),
    pytest.param("ftp://host.example", id="another scheme"),
    pytest.param("xhttps://host.example", id="a letter before the scheme"),
    pytest.param("http\u017f://host.example", id="long s in the scheme"),
    pytest.param("https://user:hunter2@host.example", id="user and password"),
    pytest.param("https://hunter2@host.example", id="user"),
    pytest.param("https://@host.example", id="empty user"),
    pytest.param("http://user:hunter2@host.example", id="user and password, http"),
    pytest.param("https://user:hunter2@host.example:99999/path?q#f", id="user and password, and more"),
    pytest.param("https://user:hunter2\\@host.example", id="user and password, backslash"),
    pytest.param("ftp://user:hunter2@host.example", id="user and password, another scheme"),
    pytest.param("user:hunter2@host.example", id="user and password, no scheme"),
    pytest.param("https://host.example:hunter2", id="a password for a port"),
    pytest.param("https://host.example:", id="empty port"),
    pytest.param("https://host.example:65536", id="port 65536"),
    pytest.param("https://host.example:99999", id="port 99999"),
    pytest.param("https://host.example:100000", id="port of six digits"),
    pytest.param("https://host.example:-1", id="negative port"),
    pytest.param("https://host.example:٤٤٣", id="port of other digits"),
    pytest.param(" https://host.example", id="space before"),
    pytest.param("https://host.example ", id="space after"),
    pytest.param("https://host .example", id="space within"),
    pytest.param("https://host.example\n", id="newline after"),
    pytest.param("https://host\t.example", id="tab"),
    pytest.param("https://host.example\x00", id="NUL"),
    pytest.param("https://host.example\x7f", id="DEL"),
    pytest.param("https://host\\.example", id="backslash"),
    pytest.param("https://h%6fst.example", id="percent"),
    pytest.param("https://*.example", id="asterisk"),
    pytest.param("https://höst.example", id="umlaut"),
    pytest.param("https://\u212aiosk.example", id="Kelvin sign"),
    pytest.param("https://ho\u017ft.example", id="long s"),
    pytest.param("https://host\uff0eexample", id="fullwidth dot"),
    pytest.param("https://::1", id="IPv6 without brackets"),
    pytest.param("https://[::1", id="IPv6 with one bracket"),
    pytest.param("https://[host.example]", id="a name in brackets"),
    pytest.param("https://[::1%eth0]", id="IPv6 with a zone"),
]
NO_BASE_URLS = [
    pytest.param("https://host.example/api", id="path"),
    pytest.param("https://host.example//", id="two slashes"),
    pytest.param("https://host.example/?key=hunter2", id="query"),
    pytest.param("https://host.example?key=hunter2", id="query without a slash"),
    pytest.param("https://host.example?", id="empty query"),
    pytest.param("https://host.example/#hunter2", id="fragment"),
    pytest.param("https://host.example#", id="empty fragment"),
    pytest.param("https://host.example/user:hunter2@host", id="a path that looks like user info"),
    pytest.param("https://host.example/\n", id="newline after the slash"),
]
FOREIGN_HTTP = [
    pytest.param("http://mention-me.com", id="the documented host"),
    pytest.param("http://host.example:443", id="the port of https"),
    pytest.param("http://128.0.0.1", id="128.0.0.1"),
    pytest.param("http://126.255.255.255", id="126.255.255.255"),
    pytest.param("http://10.0.0.1", id="a private address"),
    pytest.param("http://0.0.0.0", id="any address"),
    pytest.param("http://127.0.0.256", id="127.0.0.256 is no address"),
    pytest.param("http://127.999.0.1", id="127.999.0.1 is no address"),
    pytest.param("http://127.0.0.1.example", id="127.0.0.1.example"),
    pytest.param("http://127.0.0.1.", id="127.0.0.1 and a dot"),
    pytest.param("http://127.example", id="127.example"),
    pytest.param("http://127x0x0x1", id="127x0x0x1"),
    pytest.param("http://localhost.example", id="localhost.example"),
    pytest.param("http://evil-localhost", id="evil-localhost"),
    pytest.param("http://[::2]", id="::2"),
    pytest.param("http://[::11]", id="::11"),
    pytest.param("http://[::ffff:127.0.0.1]", id="mapped 127.0.0.1"),
]


def refusals_of(url: Any) -> list[str]:
    """Return the errors that a URL causes, wherever it is given; it must cause one each time."""
    makers = [
        lambda: resolve_environment(url),
        lambda: Environment.at(url),
        lambda: Environment("own", url, frozenset({"https://host.example"})),
        lambda: Environment("own", "https://host.example/token", frozenset({"https://host.example", url})),
    ]
    messages = []
    for make in makers:
        with pytest.raises(ValueError, match="https") as caught:
            make()
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        messages.append(repr(caught.value))
    return messages


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_clean_url_is_refused_without_quoting_it(url: str) -> None:
    """As a base URL, as the token endpoint, as an origin; what stands before an @ may be a password."""
    messages = refusals_of(url)

    assert all("https://host" in message for message in messages), "the message shows what a URL is like"
    assert "hunter2" not in str(messages)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "environment must be an Environment, a name or a base URL"),
        ("staging", "environment must be 'production' or 'demo', or a base URL such as 'https://host'"),
        ("https://u:p@host", "a URL such as 'https://host.example' is needed, without user info or odd characters"),
        ("https://h/x", "an origin or a base URL ends after the host and port: it has no path, query or fragment"),
        ("http://h.example", "plain http is for this machine only: use https for h.example"),
    ],
)
def test_a_refusal_says_what_is_needed(given: object, message: str) -> None:
    """To the letter, as it is all that the reader of a traceback has."""
    with pytest.raises((TypeError, ValueError)) as raised:
        resolve_environment(given)
    assert str(raised.value) == message


@pytest.mark.parametrize("character", [" ", "\n", "\t", "\x00", "\x7f", "é"])
def test_the_url_of_a_token_endpoint_has_no_character_that_would_be_changed_on_the_way(character: str) -> None:
    """What is written in a message and what is sent are the same."""
    with pytest.raises(ValueError, match=r"a URL such as 'https://host\.example' is needed"):
        Environment("own", f"https://host.example/{character}token", {"https://host.example"})


@pytest.mark.parametrize("url", NO_BASE_URLS)
def test_a_base_url_or_origin_with_more_than_host_and_port_is_refused(url: str) -> None:
    """What follows would be ignored, or break the token endpoint's URL."""
    for make in (Environment.at, resolve_environment, lambda url: Environment("own", "https://h", {url})):
        with pytest.raises(ValueError, match="path, query or fragment") as caught:
            make(url)
        assert "hunter2" not in repr(caught.value)
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize("url", FOREIGN_HTTP)
def test_plain_http_is_refused_but_for_this_machine(url: str) -> None:
    """The client secret and the token would travel in the clear."""
    messages = refusals_of(url)

    assert all("https" in message and urlsplit(url).hostname in message for message in messages)


@pytest.mark.parametrize("name", ["Production", "DEMO", "staging", "prod", " demo", "demo\n", "mention-me.com"])
def test_an_unknown_name_is_refused_and_the_known_ones_are_named(name: str) -> None:
    """Names are taken as they are written."""
    with pytest.raises(ValueError, match="'production' or 'demo', or a base URL"):
        resolve_environment(name)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="None"),
        pytest.param(5, id="int"),
        pytest.param(b"https://host.example", id="bytes"),
        pytest.param(["demo"], id="list"),
        pytest.param(("demo", "https://host.example", frozenset({"https://host.example"})), id="tuple"),
        pytest.param(Environment, id="the class"),
        pytest.param(object(), id="object"),
    ],
)
def test_what_is_neither_environment_nor_text_is_refused(value: Any) -> None:
    """It is of a wrong type."""
    with pytest.raises(TypeError, match="an Environment, a name or a base URL"):
        resolve_environment(value)
    with pytest.raises(TypeError):
        Environment.at(value)
    with pytest.raises(TypeError):
        Environment("own", value, frozenset({"https://host.example"}))
    with pytest.raises(TypeError):
        Environment("own", "https://host.example", (value,))


def test_an_environment_without_origins_is_refused() -> None:
    """No request would ever get a token."""
    with pytest.raises(ValueError, match="at least one origin"):
        Environment("own", "https://host.example/token", frozenset())


def test_one_origin_in_place_of_a_set_of_them_is_refused() -> None:
    """A string is a collection of strings, too; its letters are no origins."""
    with pytest.raises(ValueError, match="https://host"):
        Environment("own", "https://host.example/token", "https://host.example")


def test_the_token_endpoint_may_be_at_any_path_of_any_host() -> None:
    """An authorization server of its own is no origin of the API."""
    environment = Environment("own", "https://login.example:8443/oauth/token?v=2", {"https://api.example"})

    assert environment.token_url == "https://login.example:8443/oauth/token?v=2"
    assert not environment.trusts(environment.token_url)
    assert environment.trusts("https://api.example/")


# A value


def test_an_environment_is_equal_to_another_of_the_same_meaning() -> None:
    """Origins are compared as they are kept: normalised."""
    one = Environment("own", "https://host.example/token", frozenset({"HTTPS://Host.example:443/", "http://[::1]:80"}))
    same = Environment("own", "https://host.example/token", frozenset({"http://[::1]", "https://host.example"}))

    assert one == same
    assert hash(one) == hash(same)
    assert len({one, same, PRODUCTION, DEMO}) == 3
    assert one != Environment("other", one.token_url, one.origins)
    assert one != Environment("own", "https://host.example/other", one.origins)
    assert one != Environment("own", one.token_url, {"https://host.example"})


@pytest.mark.parametrize("attribute", ["name", "token_url", "origins"])
def test_an_environment_does_not_change(attribute: str) -> None:
    """Else a token could be led elsewhere after the check."""
    with pytest.raises(AttributeError):
        setattr(PRODUCTION, attribute, getattr(DEMO, attribute))
    assert isinstance(PRODUCTION.origins, frozenset)


@pytest.mark.parametrize("environment", [PRODUCTION, OTHER_PORT], ids=["built in", "own"])
def test_a_copy_of_an_environment_is_equal_and_works(environment: Environment) -> None:
    """By pickle with each protocol, copy and deepcopy."""
    pickles = [pickle.dumps(environment, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]

    for copied in (copy.copy(environment), copy.deepcopy(environment), *map(pickle.loads, pickles)):
        assert type(copied) is Environment
        assert copied == environment
        assert all(copied.trusts(origin) for origin in environment.origins)
        assert not copied.trusts("https://evil.example")


@pytest.mark.skipif(sys.version_info < (3, 13), reason="copy.replace came with Python 3.13")
def test_a_copy_of_an_environment_with_a_change_is_checked() -> None:
    """No environment comes into being without the checks, and each works."""
    changed = copy.replace(DEMO, origins={"https://Host.example"})

    assert changed == Environment(DEMO.name, DEMO.token_url, {"https://host.example"})
    assert changed.trusts("https://host.example/")
    with pytest.raises(ValueError, match="plain http"):
        copy.replace(DEMO, token_url="http://host.example/token")


def test_the_repr_of_an_environment_shows_its_three_parts() -> None:
    """And nothing of how it works."""
    environment = Environment.at("https://host.example")

    assert repr(environment) == (
        "Environment(name='https://host.example', token_url='https://host.example/api/oauth/token',"
        " origins=frozenset({'https://host.example'}))"
    )


# Where a token may go


@pytest.mark.parametrize("host", ["mention-me.com", "api.mention-me.com"])
@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://{}", id="host alone"),
        pytest.param("https://{}/", id="slash"),
        pytest.param("https://{}/api/merchant/v2/customers", id="path"),
        pytest.param("https://{}?page=2", id="query directly after the host"),
        pytest.param("https://{}#top", id="fragment directly after the host"),
        pytest.param("https://{}:443", id="explicit port"),
        pytest.param("https://{}:443/api?page=2#top", id="explicit port and more"),
        pytest.param("https://{}/@evil.example", id="@ in the path"),
        pytest.param("https://{}?@evil.example", id="@ in the query"),
        pytest.param("https://{}/https://evil.example/", id="URL in the path"),
        pytest.param("HTTPS://{}/", id="upper case in the scheme"),
        pytest.param("https://{}:443/é {{\n", id="characters that were not quoted"),
        pytest.param("https://{}?é", id="such characters directly after the host"),
    ],
)
def test_a_url_of_a_trusted_origin_gets_a_token(url: str, host: str) -> None:
    """By origin, whatever the path, the query, and the case of letters."""
    assert PRODUCTION.trusts(url.format(host))
    assert PRODUCTION.trusts(url.format(host.upper()))
    assert PRODUCTION.trusts(url.format(host.title()))


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(None, id="None"),
        pytest.param("", id="empty"),
        pytest.param("mention-me.com", id="no scheme"),
        pytest.param("//mention-me.com/", id="no scheme but slashes"),
        pytest.param("http://mention-me.com/", id="http"),
        pytest.param("http://mention-me.com:443/", id="http to the port of https"),
        pytest.param("ftp://mention-me.com/", id="another scheme"),
        pytest.param("https:/mention-me.com/", id="one slash"),
        pytest.param("https:mention-me.com/", id="no slashes"),
        pytest.param("https:///mention-me.com/", id="three slashes"),
        pytest.param("xhttps://mention-me.com/", id="a letter before the scheme"),
        pytest.param("https://mention-me.com:80/", id="port 80"),
        pytest.param("https://mention-me.com:8443/", id="port 8443"),
        pytest.param("https://mention-me.com:4430/", id="port 4430"),
        pytest.param("https://mention-me.com:44/", id="port 44"),
        pytest.param("https://mention-me.com:443:443/", id="two ports"),
        pytest.param("https://www.mention-me.com/", id="subdomain"),
        pytest.param("https://demo.mention-me.com/", id="the other environment"),
        pytest.param("https://x.api.mention-me.com/", id="subdomain of a subdomain"),
        pytest.param("https://mention-me.com.evil.example/", id="look-alike suffix"),
        pytest.param("https://mention-me.community/", id="longer top-level domain"),
        pytest.param("https://mention-me.com-evil.example/", id="hyphen after it"),
        pytest.param("https://mention-me.com_/", id="underscore after it"),
        pytest.param("https://evil-mention-me.com/", id="look-alike prefix"),
        pytest.param("https://evilmention-me.com/", id="letters before it"),
        pytest.param("https://mention-meXcom/", id="another character for the dot"),
        pytest.param("https://apiXmention-me.com/", id="another character for the first dot"),
        pytest.param("https://mention-me.co/", id="cut short"),
        pytest.param("https://mention-me.com./", id="trailing dot"),
        pytest.param("https://user@mention-me.com/", id="user"),
        pytest.param("https://user:pw@mention-me.com/", id="user and password"),
        pytest.param("https://@mention-me.com/", id="empty user"),
        pytest.param("https://mention-me.com@evil.example/", id="the host as user"),
        pytest.param("https://mention-me.com:443@evil.example/", id="host and port as user and password"),
        pytest.param("https://evil.example/https://mention-me.com/", id="in the path of another host"),
        pytest.param("https://evil.example?https://mention-me.com/", id="in the query of another host"),
        pytest.param("https://evil.example#@mention-me.com/", id="in the fragment of another host"),
        pytest.param("https://evil.example\\@mention-me.com/", id="backslash before @"),
        pytest.param("https://mention-me.com\\@evil.example/", id="backslash and @ after it"),
        pytest.param("https://mention-me.com\\.evil.example/", id="backslash after it"),
        pytest.param("https:\\\\mention-me.com/", id="backslashes for slashes"),
        pytest.param("https://mention-me.com%2f@evil.example/", id="escaped slash"),
        pytest.param("https://mention-me%2ecom/", id="escaped dot"),
        pytest.param("https://mention-me.com%00.evil.example/", id="escaped NUL"),
        pytest.param("https://mention-me.com;evil.example/", id="semicolon"),
        pytest.param("https://mention-me.com,evil.example/", id="comma"),
        pytest.param(" https://mention-me.com/", id="space before"),
        pytest.param("\thttps://mention-me.com/", id="tab before"),
        pytest.param("\nhttps://mention-me.com/", id="newline before"),
        pytest.param("https://evil.example/\nhttps://mention-me.com/", id="on a second line"),
        pytest.param("https://mention-me.com ", id="space after"),
        pytest.param("https://mention-me.com\n", id="newline after"),
        pytest.param("https://mention-me.com\t.evil.example/", id="tab after"),
        pytest.param("https://mention-me.com\r\n.evil.example/", id="newline within"),
        pytest.param("https://mention-me\t.com/", id="tab within"),
        pytest.param("https://ment ion-me.com/", id="space within"),
        pytest.param("https://mention-me.com\x00/", id="NUL after"),
        pytest.param("http\u017f://mention-me.com/", id="long s in the scheme"),
        pytest.param("https://\uff4dention-me.com/", id="fullwidth letter"),
        pytest.param("https://mention-me\uff0ecom/", id="fullwidth dot"),
        pytest.param("https://mention-me\u3002com/", id="ideographic dot"),
        pytest.param("https://ment\u0131on-me.com/", id="dotless i"),
        pytest.param("https://ment\u0130on-me.com/", id="dotted capital I"),
        pytest.param("https://mention\u2010me.com/", id="another hyphen"),
        pytest.param("https://mention-me.com\u2024evil.example/", id="one dot leader after it"),
        pytest.param("https://mention-me.com\uff0f@evil.example/", id="fullwidth slash"),
        pytest.param("https://mention-me.com\uff1f@evil.example/", id="fullwidth question mark"),
        pytest.param("https\uff1a//mention-me.com/", id="fullwidth colon"),
    ],
)
def test_any_other_url_gets_no_token(url: str | None) -> None:
    """Whatever it looks like, if it leads elsewhere, or may."""
    assert not PRODUCTION.trusts(url)


@pytest.mark.parametrize(
    "url",
    ["https://\u212a.s/", "https://\u212a.\u017f/", "https://k.\u017f/", "http\u017f://k.s/", "https://k\u0307.s/"],
)
def test_letters_that_fold_to_ascii_are_not_trusted(url: str) -> None:
    """The Kelvin sign is a k and the long s an s where case is ignored beyond ASCII."""
    assert Environment.at("https://k.s").trusts("https://K.S/")
    assert not Environment.at("https://k.s").trusts(url)


@pytest.mark.parametrize(
    ("base_url", "trusted", "others"),
    [
        pytest.param(
            "https://kiosk.example:8443",
            ["https://kiosk.example:8443", "https://KIOSK.example:8443/x"],
            ["https://kiosk.example/", "https://kiosk.example:443/", "https://kiosk.example:84430/"],
            id="another port",
        ),
        pytest.param(
            "http://localhost",
            ["http://localhost/", "http://localhost:80/"],
            ["https://localhost/", "http://localhost:443/", "http://127.0.0.1/", "http://localhost:8080/"],
            id="http",
        ),
        pytest.param(
            "http://[::1]:5000",
            ["http://[::1]:5000/"],
            ["http://[::1]/", "http://[::1]:80/", "http://::1:5000/", "http://[::11]:5000/", "http://:5000/"],
            id="IPv6",
        ),
        pytest.param(
            "https://127.0.0.1",
            ["https://127.0.0.1", "https://127.0.0.1:443/"],
            ["http://127.0.0.1/", "https://127.0.0.10/", "https://127.0.0.1.example/", "https://127x0.0.1/"],
            id="IPv4",
        ),
    ],
)
def test_one_origin_of_ones_own_is_trusted(base_url: str, trusted: list[str], others: list[str]) -> None:
    """Scheme, host and port all count."""
    environment = Environment.at(base_url)

    assert [url for url in trusted if not environment.trusts(url)] == []
    assert [url for url in others if environment.trusts(url)] == []


# Origins in messages


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        pytest.param("https://host.example", "https://host.example", id="host"),
        pytest.param("https://host.example:8443/a/b?c=d#e", "https://host.example:8443", id="port and path"),
        pytest.param("https://host.example?key=hunter2", "https://host.example", id="query"),
        pytest.param("https://host.example#hunter2", "https://host.example", id="fragment"),
        pytest.param("https://user:hunter2@host.example/", "https://***@host.example", id="user and password"),
        pytest.param("https://hunter2@host.example", "https://***@host.example", id="user"),
        pytest.param("https://user:hunter2@hunter2@host.example/", "https://***@host.example", id="two @"),
        pytest.param("https://host.example/@hunter2", "https://host.example", id="@ in the path"),
        pytest.param("https://host.example\\@hunter2", "https://host.example", id="backslash"),
        pytest.param("https://host.example/x://user:hunter2@y", "https://host.example", id="URL in the path"),
        pytest.param("http://[::1]:80/x", "http://[::1]:80", id="IPv6"),
        pytest.param(None, "://", id="None"),
        pytest.param("", "://", id="empty"),
    ],
)
def test_a_message_shows_the_origin_of_a_url(url: str | None, origin: str) -> None:
    """Without the user info, the path and the query, each of which may hold a secret."""
    assert displayed_origin(url) == origin


@pytest.mark.parametrize("url", ["data:text/plain,hunter2", "s3:user:hunter2@bucket/key", "urn:x?hunter2"])
def test_a_message_shows_only_the_scheme_of_a_url_without_an_authority(url: str) -> None:
    """Such URLs reach adapters of other schemes; all of what follows is content."""
    assert "hunter2" not in displayed_origin(url)


# Any URL at all

TRICKS = st.sampled_from(
    [
        *"@\\/?#%:.;&-_[] \t\n\r\x00\x7f0kKsS",
        *"\u017f\u212a\u0131\u0130\u00ad\u200b\u2024\u2025\u3002\uff0e\uff0f\uff1a\uff20\uff3c\uff4d\u2100\ufeff\ud800",
        *("//", "@evil.example", ".evil.example", "evil.example/", "\\@evil.example", "user:pw@", "evil-", "https://"),
        *("%2e", "%40", "%2f", "%5c", "%00", "%09", "xn--", ":443", ":80", ":8443", ":0443", ":443@evil.example"),
    ]
)


@st.composite
def urls_in_disguise(draw: st.DrawFn) -> tuple[Environment, str]:
    """Return an environment, and a URL that is one of its own after up to four insertions, deletions and swaps."""
    environment = draw(st.sampled_from(ENVIRONMENTS))
    url = draw(st.sampled_from(sorted(environment.origins)))
    url += draw(st.sampled_from(["", "", ":443", ":80"])) + draw(st.sampled_from(["", "/", "/api", "?q=1", "#f"]))
    for _ in range(draw(st.integers(0, 4))):
        start, length = draw(st.integers(0, len(url))), draw(st.integers(0, 2))
        before, cut, after = url[:start], url[start : start + length], url[start + length :]
        url = before + draw(st.just(cut[::-1]) | st.just("") | st.just(cut.swapcase()) | TRICKS | TRICKS) + after
    return environment, url


def prepared(url: str) -> str | None:
    """Return a URL as `requests` sends it, None where it refuses to."""
    try:
        return requests.Request("GET", url).prepare().url
    except (requests.RequestException, ValueError):
        return None


def destinations(url: str) -> set[tuple[str | None, str | None, int | None]]:
    """Return where the two parsers on the way to a connection see a URL lead to; none where one of them refuses it."""
    try:
        seen = [(part.scheme, part.hostname, part.port) for part in (urlsplit(url), parse_url(url))]
    except ValueError:
        return set()
    return {(scheme, host and host.strip("[]"), port or {"https": 443}.get(scheme, 80)) for scheme, host, port in seen}


def check(environment: Environment, url: str) -> None:
    """Assert that a trusted URL leads to a trusted origin: as it is (redirects have it so), and as it is prepared."""
    allowed = set(itertools.chain.from_iterable(map(destinations, environment.origins)))
    for sent in (url, prepared(url)):
        trusted = environment.trusts(sent)
        event(f"{'prepared' if sent != url else 'as it is'}: {'trusted' if trusted else 'not trusted'}")
        if trusted:
            assert sent is not None
            assert destinations(sent) <= allowed
            assert len(destinations(sent)) == 1 or prepared(sent) is None


@SHORT
@given(disguise=urls_in_disguise())
def test_a_trusted_url_leads_to_a_trusted_origin(disguise: tuple[Environment, str]) -> None:
    """As both `urllib` and `urllib3` see it."""
    check(*disguise)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
@LONG
@given(disguise=urls_in_disguise())
def test_each_of_many_trusted_urls_leads_to_a_trusted_origin(part: int, disguise: tuple[Environment, str]) -> None:
    """As above, for long."""
    check(*disguise)
