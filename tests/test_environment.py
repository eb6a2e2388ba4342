"""`Environment`: a frozen value that says where tokens come from, and which origins they may be sent to.

Here are the tables of URLs. `proofs/test_properties.py` makes up others.
"""

import copy
import functools
import operator
import pickle
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from in_memory import TokenEndpoint, auth_with
from requests.structures import CaseInsensitiveDict

from requests_mentionme import DEMO, PRODUCTION, Environment, MentionMeAuth

OTHER_PORT = Environment.at("https://kiosk.example:8443")


def resolved(environment: Any) -> Environment:
    """Return the environment that the option of this value means."""
    return MentionMeAuth("an-id", "a-secret", environment=environment).environment


def as_written(url: str | None) -> requests.PreparedRequest:
    """Return a request for exactly this URL, which `prepare` might have changed or refused."""
    request = requests.PreparedRequest()
    request.method = "GET"
    request.url = url
    request.headers = CaseInsensitiveDict()
    return request


@functools.cache
def auth_for(environment: Environment) -> MentionMeAuth:
    """Return an auth that has a token for *environment*."""
    return auth_with(TokenEndpoint(lifetime=86_400), environment=environment)


def gets_a_token(url: str | None, environment: Environment = PRODUCTION) -> bool:
    """Return whether a request for this URL gets a token."""
    return "Authorization" in auth_for(environment)(as_written(url)).headers


# The value

BUILT_IN = [
    (PRODUCTION, DEMO, "production", "https://mention-me.com", "https://api.mention-me.com"),
    (DEMO, PRODUCTION, "demo", "https://demo.mention-me.com", "https://api-demo.mention-me.com"),
]


@pytest.mark.parametrize(("environment", "other", "name", "base_url", "second_origin"), BUILT_IN)
def test_a_built_in_environment_is_what_the_documentation_names(environment, other, name, base_url, second_origin):
    """It has a name, a token endpoint, and two hosts; a token is never sent to the other environment."""
    assert environment.name == name
    assert environment.token_url == f"{base_url}/api/oauth/token"
    assert environment.base_url == base_url
    assert environment.origins == {base_url, second_origin}
    assert isinstance(environment.origins, frozenset)
    assert all(gets_a_token(origin, environment) for origin in environment.origins)
    assert not any(gets_a_token(origin, environment) for origin in other.origins)


def test_no_attribute_of_an_environment_can_be_set_or_deleted():
    """Otherwise a token could be sent elsewhere after the check."""
    environment = Environment("own", "https://host.example/token", {"https://host.example"})
    for attribute in [*(name for name in dir(DEMO) if not name.startswith("__")), "__class__", "anything"]:
        with pytest.raises(AttributeError, match=f"^Environment is frozen: {attribute} can't be set$"):
            setattr(environment, attribute, getattr(DEMO, attribute, None))
        with pytest.raises(AttributeError, match=f"^Environment is frozen: {attribute} can't be deleted$"):
            delattr(environment, attribute)
    assert environment == Environment("own", "https://host.example/token", {"https://host.example"})
    assert gets_a_token("https://host.example/", environment)


def test_an_environment_is_no_tuple():
    """Its parts have names, and only names."""
    for use in (iter, len, operator.itemgetter(0), lambda it: it < DEMO, lambda it: it >= DEMO):
        with pytest.raises(TypeError):
            use(PRODUCTION)
    assert not isinstance(PRODUCTION, tuple)
    assert ("production", PRODUCTION.token_url, PRODUCTION.origins) != PRODUCTION


def test_an_environment_is_equal_to_another_of_the_same_meaning():
    """Origins are kept in their normal form, and are compared in it."""
    one = Environment("own", "https://host.example/token", frozenset({"HTTPS://Host.example:443/", "http://[::1]:80"}))
    same = Environment("own", "https://host.example/token", ["http://[::1]", "https://host.example"])
    assert one == same
    assert hash(one) == hash(same)
    assert one.origins == {"https://host.example", "http://[::1]"}
    assert len({one, same, PRODUCTION, DEMO}) == 3
    assert one != Environment("other", one.token_url, one.origins)
    assert one != Environment("own", "https://host.example/other", one.origins)
    assert one != Environment("own", one.token_url, {"https://host.example"})


@pytest.mark.parametrize("environment", [PRODUCTION, OTHER_PORT], ids=["built in", "own"])
def test_a_copy_of_an_environment_is_equal_and_works(environment):
    """This holds for each pickle protocol, for copy and for deepcopy."""
    pickles = [pickle.dumps(environment, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for copied in (copy.copy(environment), copy.deepcopy(environment), *map(pickle.loads, pickles)):
        assert type(copied) is Environment
        assert copied == environment
        assert hash(copied) == hash(environment)
        assert copied.base_url == environment.base_url
        auth = auth_with(TokenEndpoint(), environment=copied)
        assert all("Authorization" in auth(as_written(origin)).headers for origin in environment.origins)
        assert "Authorization" not in auth(as_written("https://evil.example")).headers


def test_the_repr_of_an_environment_shows_its_three_parts():
    """It is the call that makes an equal environment."""
    parts = "name='https://host', token_url='https://host/api/oauth/token', origins=['https://host']"
    assert repr(Environment.at("https://host")) == f"Environment({parts})"


TOKEN_URLS = {"https://login.example:8443/oauth/token?v=2": "https://login.example:8443"}
TOKEN_URLS |= {"HTTPS://Login.example:443/token": "https://login.example", "http://[::1]:80/": "http://[::1]"}


@pytest.mark.parametrize(("token_url", "base_url"), TOKEN_URLS.items())
def test_the_token_endpoint_may_be_at_any_path_of_any_host(token_url, base_url):
    """The URL is kept as it is written; its origin is the base URL, which needs not be one that gets a token."""
    environment = Environment("own", token_url, {"https://api.example"})
    assert environment.token_url == token_url
    assert environment.base_url == base_url
    assert not gets_a_token(token_url, environment)
    assert gets_a_token("https://api.example/", environment)


# URLs that make an environment, and URLs that don't


BASE_URLS = {  # by their normal form
    "https://host.example": ["https://host.example/", "https://host.example:443", "HTTPS://Host.EXAMPLE:0443"],
    "https://host.example:80": [],
    "https://host.example:65535": ["https://host.example:65535/"],
    "https://host": ["https://HOST"],
    "https://my_host-1.example": [],
    "https://192.0.2.1": ["https://192.0.2.1:443"],
    "https://[2001:db8::1]:8443": ["https://[2001:DB8::1]:8443"],
    "http://localhost": ["http://LOCALHOST:80"],
    "http://localhost:443": [],
    "http://127.0.0.0": ["http://127.0.0.0/"],
    "http://127.255.255.255": [],
    "http://[::1]:5000": [],
}


@pytest.mark.parametrize("origin", BASE_URLS)
def test_a_base_url_makes_an_environment(origin):
    """It has that one origin, in its normal form, with the token endpoint on it; `http` is for this machine alone."""
    for base_url in [origin, *BASE_URLS[origin]]:
        environment = Environment.at(base_url)
        assert environment == Environment(origin, f"{origin}/api/oauth/token", frozenset({origin}))
        assert (environment.name, environment.base_url) == (origin, origin)
        assert gets_a_token(f"{origin}/any/path", environment)
        assert resolved(base_url) == environment


NO_URLS = {  # {} is for host.example
    "empty": [""],
    "no host": ["https://", "https:///path", "https://:443"],
    "no scheme, or another": ["//{}", "{}", "user:hunter2@{}", "ftp://{}", "xhttps://{}", "http\u017f://{}"],
    "slashes that lack": ["https:{}", "https:/{}"],
    "user info": ["https://user:hunter2@{}", "https://hunter2@{}", "https://@{}", "https://user:hunter2\\@{}"],
    "user info, and more": ["http://u:hunter2@{}", "https://u:hunter2@{}:99999/path?q#f", "ftp://u:hunter2@{}"],
    "no port": ["https://{}:", "https://{}:hunter2", "https://{}:-1", "https://{}:٤٤٣"],
    "port too high": ["https://{}:65536", "https://{}:100000"],
    "white space": [" https://{}", "https://{} ", "https://host\t.example"],
    "control characters": ["https://{}\n", "https://{}\x00", "https://{}\x7f"],
    "odd characters": ["https://host\\.example", "https://h%6fst.example", "https://*.example"],
    "beyond ASCII": ["https://höst.example", "https://\u212aiosk.example", "https://host\uff0eexample"],
    "no IPv6": ["https://::1", "https://[::1", "https://[host.example]", "https://[::1%eth0]"],
}
FOREIGN_HTTP = {
    "a host": ["http://mention-me.com", "http://host.example:443", "http://127.example", "http://127x0x0x1"],
    "another address": ["http://128.0.0.1", "http://126.255.255.255", "http://10.0.0.1", "http://0.0.0.0"],
    "no address": ["http://127.0.0.256", "http://127.999.0.1", "http://127.0.0.1.example", "http://127.0.0.1."],
    "not localhost": ["http://localhost.example", "http://evil-localhost"],
    "another IPv6": ["http://[::2]", "http://[::11]", "http://[::ffff:127.0.0.1]"],
}


def refusals_of(url: str, message: str) -> list[str]:
    """Return the errors with this message that a URL causes, wherever it is given; it must cause one each time."""
    makers = [
        lambda: resolved(url),
        lambda: Environment.at(url),
        lambda: Environment("own", url, frozenset({"https://host.example"})),
        lambda: Environment("own", "https://host.example/token", frozenset({"https://host.example", url})),
    ]
    messages = []
    for make in makers:
        with pytest.raises(ValueError, match=message) as caught:
            make()
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)
        messages.append(repr(caught.value))
    return messages


@pytest.mark.parametrize("urls", NO_URLS.values(), ids=NO_URLS)
def test_what_is_no_clean_url_is_refused_without_quoting_it(urls):
    """As a base URL, as the token endpoint, as an origin: what stands before an @ may be a password."""
    for url in urls:
        messages = refusals_of(url.format("host.example"), "https://host.example|at most 65535|base URL such as")
        assert "hunter2" not in str(messages)


@pytest.mark.parametrize("urls", FOREIGN_HTTP.values(), ids=FOREIGN_HTTP)
def test_plain_http_is_refused_but_for_this_machine(urls):
    """The client secret and the token would travel in the clear; the message says https, and names the host."""
    for url in urls:
        refusals_of(url, f"use https for .*{re.escape(str(urlsplit(url).hostname))}")


@pytest.mark.parametrize("rest", ["/api", "//", "/?key=hunter2", "?", "/#hunter2", "#", "/user:hunter2@host", "/\n"])
def test_a_base_url_or_origin_with_more_than_host_and_port_is_refused(rest):
    """What follows would be ignored, or would break the token endpoint's URL."""
    for make in (Environment.at, resolved, lambda url: Environment("own", "https://h", {url})):
        with pytest.raises(ValueError, match="path, query or fragment") as caught:
            make(f"https://host.example{rest}")
        assert "hunter2" not in repr(caught.value)
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_a_token_url_has_no_character_that_would_be_changed_on_the_way():
    """What is written in a message and what is sent are the same."""
    for character in " \n\t\x00\x7fé":
        with pytest.raises(ValueError, match="token URL"):
            Environment("own", f"https://host.example/{character}token", {"https://host.example"})


def test_an_unknown_name_is_refused_and_the_known_ones_are_named():
    """Names are taken as they are written."""
    for name in ("Production", "DEMO", "staging", " demo", "demo\n", "mention-me.com"):
        with pytest.raises(
            ValueError, match=r"^environment must be 'production' or 'demo', or a base URL such as 'https://h"
        ):
            resolved(name)


@pytest.mark.parametrize("value", [None, 5, b"https://h", ["demo"], ("demo", "https://h", ["https://h"]), Environment])
def test_what_is_neither_environment_nor_text_is_refused(value):
    """It is of a wrong type."""
    with pytest.raises(TypeError, match="an Environment, a name or a base URL"):
        resolved(value)
    origins = {"https://h"}
    for arguments in ((value, "https://h", origins), ("own", value, origins), ("own", "https://h", (value,))):
        with pytest.raises(TypeError, match="must be a string"):
            Environment(*arguments)
    with pytest.raises(TypeError, match="must be a string"):
        Environment.at(value)


def test_an_environment_needs_a_collection_of_origins():
    """Without one no request would ever get a token; a string is a collection of letters, which are no origins."""
    with pytest.raises(ValueError, match="at least one origin"):
        Environment("own", "https://host.example/token", frozenset())
    with pytest.raises(ValueError, match="https://host"):
        Environment("own", "https://host.example/token", "https://host.example")


# Where a token may go


def test_a_url_of_a_trusted_origin_gets_a_token():
    """The origin decides, whatever the path, the query, and the case of letters."""
    urls = ["https://{}", "https://{}/", "https://{}/api/merchant/v2/customers", "HTTPS://{}/", "https://{}?page=2"]
    urls += ["https://{}#top", "https://{}:443", "https://{}:443/api?page=2#top", "https://{}/https://evil.example/"]
    urls += ["https://{}/@evil.example", "https://{}?@evil.example", "https://{}:443/é {{\n", "https://{}?é"]
    for url in urls:
        for host in ("mention-me.com", "api.mention-me.com", "MENTION-ME.COM", "Api.Mention-Me.Com"):
            assert gets_a_token(url.format(host)), url.format(host)


OTHER_URLS = {  # {} is for mention-me.com
    "no URL": ["", "{}", "//{}/"],
    "http": ["http://{}/", "http://{}:443/"],
    "another scheme": ["ftp://{}/", "xhttps://{}/", "http\u017f://{}/"],
    "odd slashes": ["https:/{}/", "https:{}/", "https:///{}/", "https:\\\\{}/", "https\uff1a//{}/"],
    "another port": ["https://{}:80/", "https://{}:8443/", "https://{}:44/", "https://{}:4430/", "https://{}:443:443/"],
    "subdomains": ["https://www.{}/", "https://x.api.{}/", "https://demo.{}/"],
    "look-alike suffix": ["https://{}.evil.example/", "https://{}munity/", "https://{}-evil.example/", "https://{}_/"],
    "look-alike prefix": ["https://evil-{}/", "https://evil{}/"],
    "look-alike dots": ["https://mention-meXcom/", "https://apiXmention-me.com/", "https://{}./"],
    "user info": ["https://user@{}/", "https://user:pw@{}/", "https://@{}/"],
    "the host as user info": ["https://{}@evil.example/", "https://{}:443@evil.example/"],
    "in another URL": ["https://e.example/https://{}/", "https://e.example?https://{}/", "https://e.example#@{}/"],
    "backslashes": ["https://evil.example\\@{}/", "https://{}\\@evil.example/", "https://{}\\.evil.example/"],
    "escapes": ["https://{}%2f@evil.example/", "https://mention-me%2ecom/", "https://{}%00.evil.example/"],
    "semicolon, comma": ["https://{};evil.example/", "https://{},evil.example/"],
    "white space before": [" https://{}/", "\thttps://{}/", "\nhttps://{}/", "https://evil.example/\nhttps://{}/"],
    "white space after": ["https://{} ", "https://{}\n", "https://{}\x00/"],
    "white space within": ["https://{}\t.evil.example/", "https://mention-me\t.com/", "https://ment ion-me.com/"],
    "other alphabets": ["https://\uff4dention-me.com/", "https://ment\u0131on-me.com/", "https://mention\u2010me.com/"],
    "dots of other alphabets": ["https://mention-me\uff0ecom/", "https://{}\u2024evil.example/"],
    "slashes of other alphabets": ["https://{}\uff0f@evil.example/", "https://{}\uff1f@evil.example/"],
}


@pytest.mark.parametrize("urls", OTHER_URLS.values(), ids=OTHER_URLS)
def test_any_other_url_gets_no_token(urls):
    """Whatever it looks like, it gets none if it leads elsewhere, or may."""
    assert [url for url in urls if gets_a_token(url.format("mention-me.com"))] == []
    assert not gets_a_token(None)


OWN = {  # a base URL, and what is not trusted with it; in the last one are letters that fold to ASCII
    "https://kiosk.example:8443": ["https://kiosk.example/", "https://kiosk.example:84430/"],
    "http://localhost": ["https://localhost/", "http://localhost:443/", "http://127.0.0.1/", "http://localhost:8080/"],
    "http://[::1]:5000": ["http://[::1]/", "http://::1:5000/", "http://[::11]:5000/", "http://:5000/"],
    "https://127.0.0.1": ["http://127.0.0.1/", "https://127.0.0.10/", "https://127.0.0.1.example/"],
    "https://k.s": ["https://\u212a.s/", "https://k.\u017f/", "http\u017f://k.s/", "https://k\u0307.s/"],
}


@pytest.mark.parametrize("base_url", OWN)
def test_one_origin_of_ones_own_is_trusted(base_url):
    """Scheme, host and port all count."""
    environment = Environment.at(base_url)
    assert all(gets_a_token(url, environment) for url in (base_url, f"{base_url.upper()}/x"))
    assert [url for url in OWN[base_url] if gets_a_token(url, environment)] == []


SHOWN = {  # by what a warning shows of them
    "https://host.example": ["{}", "{}?key=hunter2", "{}#hunter2", "{}/@hunter2", "{}\\@hunter2", "{}/x://u:hunter2@y"],
    "https://host.example:8443": ["{}/a/b?c=d#e"],
    f"https://{'x' * 192}": ["{}xxx/"],
    "https://***@host.example": [
        f"https://{user}@host.example/" for user in ("user:hunter2", "hunter2", "u:x@hunter2")
    ],
    "http://[::1]:80": ["{}/x"],
    "data://": ["data:text/plain,hunter2"],
    "s3://": ["s3:user:hunter2@bucket/key"],
    "urn://": ["urn:x?hunter2"],
}


@pytest.mark.parametrize("origin", SHOWN)
def test_a_warning_names_the_origin_of_a_url_alone(origin, caplog):
    """User info, path and query may hold a secret; where there is no authority, all after the scheme is content."""
    for url in SHOWN[origin]:
        caplog.clear()
        auth_with(TokenEndpoint(), environment="demo")(as_written(url.format(origin)))
        (record,) = caplog.records
        assert re.search(rf"(^|[\s'\"]){re.escape(origin)}([\s'\",:.]|$)(?!\d)", record.getMessage())
        assert "hunter2" not in record.getMessage()
