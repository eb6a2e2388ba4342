"""`Environment`: a frozen value that says where tokens come from, and which origins they may be sent to."""

import copy
import operator
import pickle
from unittest import mock

import pytest
import requests
from in_memory import TokenEndpoint, auth_with

from requests_mentionme import DEMO, PRODUCTION, Environment, MentionMeAuth


def resolved(environment):
    return MentionMeAuth("an-id", "a-secret", environment=environment).environment


def gets_a_token(url, environment=PRODUCTION):
    """Ask for a request to *url* as it is written, which `prepare` might have changed or refused."""
    request = requests.Request("GET", "https://host.example").prepare()
    request.url = url
    return "Authorization" in auth_with(TokenEndpoint(), environment=environment)(request).headers


@pytest.mark.parametrize(
    ("environment", "name", "base_url", "second_origin"),
    [
        (PRODUCTION, "production", "https://mention-me.com", "https://api.mention-me.com"),
        (DEMO, "demo", "https://demo.mention-me.com", "https://api-demo.mention-me.com"),
    ],
)
def test_a_built_in_environment_is_what_the_documentation_names(environment, name, base_url, second_origin):
    """A token is never sent to the other environment."""
    assert (environment.name, environment.base_url) == (name, base_url)
    assert environment.token_url == f"{base_url}/api/oauth/token"
    assert isinstance(environment.origins, frozenset)
    trusted = {origin for origin in PRODUCTION.origins | DEMO.origins if gets_a_token(origin, environment)}
    assert trusted == environment.origins == {base_url, second_origin}


def test_no_attribute_of_an_environment_can_be_set_or_deleted():
    """Otherwise a token could be sent elsewhere after the check."""
    environment = Environment("own", "https://host.example/token", {"https://host.example"})
    for attribute in [*(name for name in dir(DEMO) if not name.startswith("__")), "__class__", "anything"]:
        with pytest.raises(AttributeError, match=f"^Environment is frozen: {attribute} can't be set$"):
            setattr(environment, attribute, getattr(DEMO, attribute, None))
        with pytest.raises(AttributeError, match=f"^Environment is frozen: {attribute} can't be deleted$"):
            delattr(environment, attribute)
    assert environment == Environment("own", "https://host.example/token", {"https://host.example"})


def test_an_environment_is_no_tuple_but_equal_to_another_of_the_same_meaning():
    """Origins are kept in their normal form, and are compared in it."""
    for use in (iter, len, operator.itemgetter(0), lambda it: it < DEMO, lambda it: it >= DEMO):
        with pytest.raises(TypeError):
            use(PRODUCTION)
    assert (("production", PRODUCTION.token_url, PRODUCTION.origins) == PRODUCTION) is False
    one = Environment("own", "https://host.example/token", frozenset({"HTTPS://Host.example:443/", "http://[::1]:80"}))
    same = Environment("own", "https://host.example/token", ["http://[::1]", "https://host.example"])
    assert (one, hash(one)) == (same, hash(same))
    assert one == mock.ANY
    assert one.origins == {"https://host.example", "http://[::1]"}
    others = [("other", one.token_url, one.origins), ("own", "https://host.example/other", one.origins)]
    assert one not in [Environment(*parts) for parts in [*others, ("own", one.token_url, {"https://host.example"})]]


def test_a_copy_of_an_environment_is_equal_and_works():
    environment = Environment.at("https://kiosk.example:8443")
    pickles = [pickle.dumps(environment, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for copied in (copy.copy(environment), copy.deepcopy(environment), *map(pickle.loads, pickles)):
        assert type(copied) is Environment
        assert (copied, copied.base_url) == (environment, environment.base_url)
        assert gets_a_token("https://kiosk.example:8443/x", copied)
        assert not gets_a_token("https://evil.example", copied)


def test_the_repr_of_an_environment_is_the_call_that_makes_an_equal_one():
    parts = "name='https://host', token_url='https://host/api/oauth/token', origins=['https://host']"
    assert repr(Environment.at("https://host")) == f"Environment({parts})"


def test_the_token_endpoint_may_be_at_any_path_of_any_host():
    """The URL is kept as it is written; its origin is the base URL, which needs not be one that gets a token."""
    token_url = "HTTPS://Login.example:443/oauth/token?v=2"
    environment = Environment("own", token_url, {"https://api.example"})
    assert (environment.token_url, environment.base_url) == (token_url, "https://login.example")
    assert not gets_a_token(token_url, environment)
    assert gets_a_token("https://api.example/", environment)


BASE_URLS = {  # by their normal form
    "https://host.example": ["https://host.example/", "https://host.example:443", "HTTPS://Host.EXAMPLE:0443"],
    "https://my_host-1.example:65535": ["https://my_host-1.example:65535/"],
    "https://[2001:db8::1]:8443": ["https://[2001:DB8::1]:8443"],
    "http://localhost": ["http://LOCALHOST:80"],
    "http://127.0.0.0": ["http://127.0.0.0/"],
    **dict.fromkeys(["http://127.255.255.255:443", "http://[::1]:5000", "https://127.0.0.1", "https://k.s"], ()),
}
NOT_TRUSTED = {  # with the base URL; with the last one, letters that fold to ASCII
    "https://my_host-1.example:65535": ["https://my_host-1.example/", "https://my_host-1.example:6553/"],
    "http://localhost": ["https://localhost/", "http://localhost:443/", "http://127.0.0.1/", "http://localhost:8080/"],
    "http://[::1]:5000": ["http://[::1]/", "http://::1:5000/", "http://[::11]:5000/", "http://:5000/"],
    "https://127.0.0.1": ["http://127.0.0.1/", "https://127.0.0.10/"],
    "https://k.s": ["https://\u212a.s/", "https://k.\u017f/", "http\u017f://k.s/", "https://k\u0307.s/"],
}


@pytest.mark.parametrize("origin", BASE_URLS)
def test_a_base_url_makes_an_environment(origin):
    """It has that one origin, in its normal form, with the token endpoint on it; `http` is for this machine alone."""
    for base_url in [origin, *BASE_URLS[origin]]:
        environment = Environment.at(base_url)
        assert environment == Environment(origin, f"{origin}/api/oauth/token", {origin}) == resolved(base_url)
        assert environment.base_url == origin
        assert all(gets_a_token(url, environment) for url in (origin, f"{origin.upper()}/any/path"))
        assert not any(gets_a_token(url, environment) for url in NOT_TRUSTED.get(origin, []))


WAYS = {
    "the option": resolved,
    "a base URL": Environment.at,
    "an origin": lambda url: Environment("own", "https://h", ["https://h", url]),
    "the token URL": lambda url: Environment("own", url, {"https://h"}),
}
NO_URLS = """
    https:// https:///path https://:443 https:{} https:/{}
    //{} {} user:hunter2@{} ftp://{} xhttps://{} http\u017f://{}
    https://user:hunter2@{} https://hunter2@{} https://@{} https://user:hunter2\\@{}
    http://u:hunter2@{} https://u:hunter2@{}:99999/path?q#f ftp://u:hunter2@{}
    https://{}: https://{}:hunter2 https://{}:-1 https://{}:٤٤٣ https://{}:100000
    https://host\\.example https://h%6fst.example https://*.example
    https://höst.example https://\u212aiosk.example https://host\uff0eexample
    https://::1 https://[::1 https://[host.example] https://[::1%eth0]
"""
WITH_SPACE = [" https://{}", "https://{} ", "https://h\t.example", "https://{}\n", "https://{}\x00", "https://{}\x7f"]
FOREIGN_HTTP = """
    http://mention-me.com http://host.example:443 http://127.example http://127x0x0x1
    http://128.0.0.1 http://126.255.255.255 http://10.0.0.1 http://0.0.0.0
    http://127.0.0.256 http://127.999.0.1 http://127.0.0.1.example http://127.0.0.1.
    http://localhost.example http://evil-localhost http://[::2] http://[::11] http://[::ffff:127.0.0.1]
"""
REFUSED = [
    ([*NO_URLS.split(), *WITH_SPACE, ""], "a (base )?URL such as 'https://host.example'"),
    (["https://{}:65536"], "a port is at most 65535"),
    (FOREIGN_HTTP.split(), "plain http is for this machine only: use https for [^/]*$"),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("urls", "message"), REFUSED, ids=["no clean URL", "port too high", "http"])
def test_what_is_no_clean_url_or_plain_http_is_refused_without_quoting_it(urls, message, way):
    """What stands before an @ may be a password. By plain http, secret and token would travel in the clear."""
    for url in urls:
        with pytest.raises(ValueError, match=message) as caught:
            WAYS[way](url.format("host.example"))
        assert "hunter2" not in repr(caught.value)
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize("way", ["the option", "a base URL", "an origin"])
def test_a_base_url_or_origin_with_more_than_host_and_port_is_refused(way):
    """What follows would be ignored, or would break the token endpoint's URL."""
    for rest in ("/api", "//", "/?key=hunter2", "?", "/#hunter2", "#", "/user:hunter2@host", "/\n"):
        with pytest.raises(ValueError, match="path, query or fragment") as caught:
            WAYS[way](f"https://host.example{rest}")
        assert "hunter2" not in repr(caught.value)


def test_a_token_url_has_no_character_that_would_be_changed_on_the_way():
    for character in " \n\t\x00\x7fé":
        with pytest.raises(ValueError, match="a token URL has no spaces"):
            WAYS["the token URL"](f"https://host.example/{character}token")


def test_an_unknown_name_is_refused_and_the_known_ones_are_named():
    for name in ("Production", "DEMO", " demo", "demo\n", "mention-me.com"):
        with pytest.raises(ValueError, match="environment must be 'production' or 'demo', or a base URL such as"):
            resolved(name)


@pytest.mark.parametrize("value", [None, 5, b"https://h", ["demo"], ("demo", "https://h", ["https://h"]), Environment])
def test_what_is_neither_environment_nor_text_is_refused(value):
    with pytest.raises(TypeError, match="an Environment, a name or a base URL"):
        resolved(value)
    for way in ("a base URL", "an origin", "the token URL"):
        with pytest.raises(TypeError, match="a URL must be a string"):
            WAYS[way](value)
    with pytest.raises(TypeError, match="name of an environment must be a string"):
        Environment(value, "https://h", {"https://h"})


def test_a_string_is_no_collection_of_origins():
    with pytest.raises(ValueError, match="https://host"):
        Environment("own", "https://host.example/token", "https://host.example")


TRUSTED_URLS = """
    https://{} https://{}/ https://{}/api/merchant/v2/customers HTTPS://{}/ https://{}?page=2 https://{}#top
    https://{}:443 https://{}:443/api?page=2#top https://{}/https://evil.example/ https://{}/@evil.example
    https://{}?@evil.example https://{}?é
"""
OTHER_URLS = """
    {} //{}/ http://{}/ http://{}:443/ ftp://{}/ xhttps://{}/ http\u017f://{}/
    https:/{}/ https:{}/ https:///{}/ https:\\\\{}/ https\uff1a//{}/
    https://{}:80/ https://{}:8443/ https://{}:44/ https://{}:4430/ https://{}:443:443/
    https://www.{}/ https://x.api.{}/ https://demo.{}/ https://evil-{}/ https://evil{}/
    https://{}.evil.example/ https://{}munity/ https://{}-evil.example/ https://{}XX/ https://{}_/ https://{}./
    https://mention-meXcom/ https://apiXmention-me.com/ https://{};evil.example/ https://{},evil.example/
    https://user@{}/ https://user:pw@{}/ https://@{}/ https://{}@evil.example/ https://{}:443@evil.example/
    https://e.example/https://{}/ https://e.example?https://{}/ https://e.example#@{}/
    https://evil.example\\@{}/ https://{}\\@evil.example/ https://{}\\.evil.example/
    https://{}%2f@evil.example/ https://mention-me%2ecom/ https://{}%00.evil.example/
    https://\uff4dention-me.com/ https://ment\u0131on-me.com/ https://mention\u2010me.com/
    https://mention-me\uff0ecom/ https://{}\u2024evil.example/ https://{}\uff0f@evil.example/ https://{}\uff1f@evil.example/
"""
SPACED = ["", " https://{}/", "\thttps://{}/", "\nhttps://{}/", "https://evil.example/\nhttps://{}/", "https://{} "]
SPACED += ["https://{}\n", "https://{}\x00/", "https://{}\t.evil.example/", "https://ment ion-me.com/"]


@pytest.mark.parametrize("host", ["mention-me.com", "api.mention-me.com", "MENTION-ME.COM", "Api.Mention-Me.Com"])
def test_a_url_of_a_trusted_origin_gets_a_token_and_any_other_does_not(host):
    """The origin decides, whatever the path, the query, and the case of letters; not what a URL looks like."""
    assert [url for url in [*TRUSTED_URLS.split(), "https://{}:443/é {{\n"] if not gets_a_token(url.format(host))] == []
    assert [url for url in OTHER_URLS.split() + SPACED if gets_a_token(url.format(host))] == []
    assert not gets_a_token(None)


SHOWN = {  # by what a warning shows of them
    "https://host.example": ["{}", "{}?key=hunter2", "{}#hunter2", "{}/@hunter2", "{}\\@hunter2", "{}/x://u:hunter2@y"],
    f"https://{'x' * 192}": ["{}xxx/"],
    "https://***@host.example": [f"https://{user}@host.example/" for user in ("user:hunter2", "u:x@hunter2")],
    "http://[::1]:80": ["{}/x"],
    "://": [None],
    "data://": ["data:text/plain,hunter2"],
}


@pytest.mark.parametrize("origin", SHOWN)
def test_a_warning_names_the_origin_of_a_url_alone(origin, caplog):
    """User info, path and query may hold a secret; where there is no authority, all after the scheme is content."""
    for url in SHOWN[origin]:
        assert not gets_a_token(url and url.format(origin), DEMO)
        assert caplog.messages[-1].startswith(f"No token for {origin}: the environment demo covers ")
    assert "hunter2" not in caplog.text
    assert len(caplog.messages) == len(SHOWN[origin])
