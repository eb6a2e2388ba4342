"""How an auth is made, which requests get a token, and which never do.

Token requests go to the endpoint in memory, all other requests to `responses`. No test but the one of the proxy needs
a socket.
"""

import logging
import math
import re

import jwt
import pytest
import requests
import responses
from in_memory import TokenEndpoint, auth_with, session_with
from loopback import Answer, Loopback

from requests_mentionme import DEMO, PRODUCTION, Environment, MentionMeAuth

API = "https://demo.mention-me.com/api/merchant/v2/customers"
SIBLING = "https://api-demo.mention-me.com/v2/customers"
FOREIGN = "https://foreign.example/there"
SECRET = "the-s3cret"
REDIRECTS = [301, 302, 303, 307, 308]


@pytest.fixture
def endpoint():
    """A token endpoint in memory that issues token-1, token-2, and so on."""
    return TokenEndpoint()


@pytest.fixture
def demo_auth(endpoint):
    """An auth for the demo environment."""
    return auth_with(endpoint)


@pytest.fixture
def session(demo_auth):
    """A session that authenticates for the demo environment."""
    with requests.Session() as ours:
        ours.auth = demo_auth
        yield ours


@pytest.fixture
def web():
    """All hosts that a request can go to."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as playing:
        yield playing


def play(web, url, status=200, **headers):
    """Have *url* give one answer to all requests."""
    for method in (responses.GET, responses.POST):
        web.add(method, url, status=status, headers=headers)


def accept(web, url, token):
    """Have *url* answer 200 to one token, and 401 to all else."""

    def judge(request):
        return (200 if request.headers.get("Authorization") == f"Bearer {token}" else 401), {}, "{}"

    for method in (responses.GET, responses.POST):
        web.add_callback(method, url, judge)


def sent(web, url):
    """Return the `Authorization` headers that *url* got, in order."""
    return [call.request.headers.get("Authorization") for call in web.calls if call.request.url == url]


def warnings(caplog):
    """Return the texts of all warnings, and fail if there was an error."""
    assert all(record.levelno <= logging.WARNING for record in caplog.records)
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def prepared(url):
    """Return a request to *url* exactly as it is written here; `requests` itself would quote odd characters."""
    request = requests.Request("GET", "https://x.example/").prepare()
    request.url = url
    return request


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"client_id": ""}, ValueError, "client_id"),
        ({"client_id": None}, TypeError, "client_id"),
        ({"client_secret": ""}, ValueError, "client_secret"),
        ({"client_secret": SECRET.encode()}, TypeError, "client_secret"),
        ({"environment": "staging"}, ValueError, "'production' or 'demo'"),
        ({"environment": None}, TypeError, "environment"),
        ({"environment": "https://h/path"}, ValueError, "path"),
        ({"environment": f"https://u:{SECRET}@h"}, ValueError, "user info"),
        ({"environment": "http://h.example"}, ValueError, "plain http"),
        *[
            ({"timeout": value}, ValueError, r"timeout.*0\.001 to 86400")
            for value in (None, 0, -1, math.nan, math.inf, 86_401, 10**400, (0, 10), (5, 0), (5, None))
        ],
        *[({"timeout": value}, TypeError, "timeout.*number of seconds") for value in ("5", True, (5, "10"))],
        *[({"timeout": value}, TypeError, r"timeout.*\(connect, read\)") for value in ([5, 10], (5, 10, 15), (5,))],
        *[
            ({"refresh_margin": value}, ValueError, "refresh_margin.*0 to 86400")
            for value in (None, -1, math.nan, math.inf, 86_401)
        ],
        ({"refresh_margin": "300"}, TypeError, "refresh_margin.*number of seconds"),
        ({"session": requests}, TypeError, r"session.*requests\.Session"),
        ({"retries": 3}, TypeError, "retries"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_a_wrong_argument_is_refused_at_once_in_words_that_name_it_and_hide_the_secret(options, error, message):
    """The message is all that the reader of a traceback has: which argument, and what it must be."""
    with pytest.raises(error) as raised:
        MentionMeAuth(**{"client_id": "an-id", "client_secret": SECRET, **options})
    assert raised.type is error
    assert re.search(message, str(raised.value))
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(("timeout", "used"), [((2, 3.5), (2.0, 3.5)), (4, (4.0, 4.0))], ids=["pair", "number"])
def test_timeout_is_that_of_token_requests(web, timeout, used):
    """A pair is (connect, read), and one number is both."""
    web.post(DEMO.token_url, json={"access_token": "token"})
    MentionMeAuth("an-id", SECRET, environment="demo", timeout=timeout).access_token()
    assert web.calls[0].request.req_kwargs["timeout"] == used


def test_the_least_and_the_greatest_seconds_are_accepted():
    """The bounds that the messages name belong to the range."""
    MentionMeAuth("an-id", SECRET, timeout=0.001, refresh_margin=0)
    MentionMeAuth("an-id", SECRET, timeout=(0.001, 86_400), refresh_margin=86_400)


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ({}, PRODUCTION),
        *[({"environment": given}, DEMO) for given in ("demo", DEMO)],
        ({"environment": "https://h.example"}, Environment.at("https://h.example")),
    ],
    ids=["default", "name", "object", "base URL"],
)
def test_an_auth_tells_its_environment_and_keeps_it(options, environment):
    """It can be read, to build URLs say, and neither set nor deleted; production is the default."""
    auth = MentionMeAuth("an-id", SECRET, **options)
    assert auth.environment == environment
    with pytest.raises(AttributeError):
        auth.environment = PRODUCTION
    with pytest.raises(AttributeError):
        del auth.environment
    assert auth.environment == environment


def test_an_auth_is_never_falsy(demo_auth):
    """`requests` skips an auth that is falsy, so there must be no length and no truth value to get wrong."""
    assert not hasattr(demo_auth, "__len__")
    assert not hasattr(demo_auth, "__bool__")


def test_the_repr_shows_the_id_and_the_environment(demo_auth):
    """And of an object that its constructor has not made yet, the class: a debugger shows those, too."""

    class Named(MentionMeAuth):
        pass

    assert repr(demo_auth) == "MentionMeAuth('an-id', environment='demo')"
    assert repr(Named("an-id", SECRET)).startswith("Named(")
    assert "Named" in repr(Named.__new__(Named))


@pytest.fixture
def variables(monkeypatch):
    """Set the environment variables that have to be there, and return what sets more."""
    monkeypatch.setenv("MENTIONME_CLIENT_ID", "env-id")
    monkeypatch.setenv("MENTIONME_CLIENT_SECRET", SECRET)
    return monkeypatch


def test_from_env_reads_the_variables_at_construction(variables, endpoint):
    """The id, the secret and the environment come from the variables, and options are passed on."""

    class Named(MentionMeAuth):
        pass

    variables.setenv("MENTIONME_ENVIRONMENT", "demo")
    auth = Named.from_env(session=session_with(endpoint))
    variables.setenv("MENTIONME_CLIENT_ID", "later")
    variables.setenv("MENTIONME_ENVIRONMENT", "production")
    auth.access_token()
    (request,) = endpoint.requests
    assert request.url == DEMO.token_url
    assert b'"client_id": "env-id"' in request.body
    assert f'"client_secret": "{SECRET}"'.encode() in request.body
    assert type(auth) is Named


def test_from_env_takes_production_unless_told_otherwise(variables):
    """MENTIONME_ENVIRONMENT is a name or a base URL, empty is as good as not set, and an option wins."""
    assert repr(MentionMeAuth.from_env()) == "MentionMeAuth('env-id', environment='production')"
    for value, name in (("", "production"), ("demo", "demo"), ("https://h.example", "https://h.example")):
        variables.setenv("MENTIONME_ENVIRONMENT", value)
        assert repr(MentionMeAuth.from_env()) == f"MentionMeAuth('env-id', environment={name!r})"
    assert repr(MentionMeAuth.from_env(environment=DEMO)) == "MentionMeAuth('env-id', environment='demo')"


@pytest.mark.parametrize("empty", [False, True], ids=["not set", "empty"])
@pytest.mark.parametrize(("missing", "present"), [("CLIENT_ID", "CLIENT_SECRET"), ("CLIENT_SECRET", "CLIENT_ID")])
def test_from_env_names_the_variable_that_is_missing(variables, missing, present, empty):
    """A missing or empty variable is a ValueError that says which, and which alone."""
    if empty:
        variables.setenv(f"MENTIONME_{missing}", "")
    else:
        variables.delenv(f"MENTIONME_{missing}")
    with pytest.raises(ValueError, match=f"MENTIONME_{missing}") as raised:
        MentionMeAuth.from_env()
    assert present not in str(raised.value)
    assert SECRET not in str(raised.value)


def test_the_first_trusted_request_gets_a_token_and_later_ones_use_it(web, session, endpoint):
    """To construct an auth, or to use it for another host, sends nothing; one token request serves a session."""
    play(web, FOREIGN)
    play(web, API)
    session.get(FOREIGN)
    assert endpoint.count == 0
    for _ in range(3):
        session.get(API, headers={"Authorization": "Basic mine"})
    assert sent(web, API) == ["Bearer token-1"] * 3
    assert endpoint.count == 1


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ("production", "https://mention-me.com/api/merchant/v2/customers"),
        ("production", "https://api.mention-me.com/anything?at=all"),
        ("demo", "https://demo.mention-me.com/"),
        ("demo", "https://api-demo.mention-me.com/anything"),
        ("demo", "https://demo.mention-me.com:443/api"),
        ("demo", "HTTPS://Demo.Mention-Me.com/api"),
        ("https://stand-in.example:8443", "https://stand-in.example:8443/x"),
        ("https://stand-in.example:443", "https://stand-in.example/x"),
    ],
)
def test_a_request_to_an_origin_of_the_environment_gets_a_token(environment, url, caplog):
    """It is the origin that decides, never the path, and a default port is the same as none."""
    auth = auth_with(TokenEndpoint(), environment=environment)
    request = prepared(url)
    assert auth(request) is request
    assert request.headers["Authorization"] == "Bearer token-1"
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ("demo", "https://foreign.example/"),
        ("demo", "http://demo.mention-me.com/api"),
        ("demo", "https://demo.mention-me.com:8443/api"),
        ("demo", "https://demo.mention-me.com:80/api"),
        ("demo", "https://demo.mention-me.com.evil.example/"),
        ("demo", "https://evil-demo.mention-me.com/"),
        ("demo", "https://user:pw@demo.mention-me.com/"),
        ("https://stand-in.example:8443", "https://stand-in.example/x"),
        ("https://stand-in.example", "https://stand-in.example:8443/x"),
    ],
)
def test_a_request_to_any_other_origin_is_left_alone_with_one_warning(environment, url, caplog):
    """It goes out as it is, its own `Authorization` and hooks included, and costs no token request."""
    endpoint = TokenEndpoint()
    auth = auth_with(endpoint, environment=environment)
    for path in ("", "another"):
        request = prepared(url + path)
        request.headers["Authorization"] = "Basic mine"
        assert auth(request) is request
        assert request.headers["Authorization"] == "Basic mine"
        assert request.hooks == {"response": []}
    assert endpoint.count == 0
    (said,) = warnings(caplog)
    assert caplog.records[0].name == "requests_mentionme"
    assert environment in said
    assert url.split("://", maxsplit=1)[0] in said
    assert "pw" not in said


@pytest.mark.parametrize(
    ("environment", "url", "origin", "meant"),
    [
        ("demo", "https://api.mention-me.com/x", "https://api.mention-me.com", "production"),
        ("production", "https://demo.mention-me.com:443/x", "https://demo.mention-me.com", "demo"),
        ("https://h.example", "https://api-demo.mention-me.com/x", "https://api-demo.mention-me.com", "demo"),
        ("demo", "https://foreign.example/x", "https://foreign.example", None),
        ("demo", "http://mention-me.com/x", "http://mention-me.com", None),
    ],
)
def test_the_warning_lists_the_origins_and_asks_for_the_environment_that_was_meant(
    environment, url, origin, meant, caplog
):
    """So that whoever has mixed up demo and production need not look anything up."""
    auth = auth_with(TokenEndpoint(), environment=environment)
    auth(prepared(url))
    (said,) = warnings(caplog)
    assert origin in said
    for covered in auth.environment.origins:
        assert covered in said
    assert re.findall(r"environment=['\"]([^'\"]+)['\"]", said) == ([] if meant is None else [meant])
    assert ("?" in said) is (meant is not None)


@pytest.mark.parametrize("character", ["\n", "\r", "\x1b", "\x85", "\u2028"], ids=["LF", "CR", "ESC", "NEL", "LS"])
def test_a_url_cannot_forge_a_line_of_the_log(demo_auth, caplog, character):
    """What others wrote is quoted: neither a second line nor a terminal's control sequence comes of it."""
    demo_auth(prepared(f"https://foreign.example{character}ERROR: all is lost"))
    (said,) = warnings(caplog)
    assert "foreign.example" in said
    assert said.isprintable()


def test_many_foreign_origins_fill_neither_the_memory_nor_the_log(demo_auth, start, caplog):
    """A crawler with many threads gets one warning for each of a hundred origins, and that is all."""
    calls = [start(demo_auth, prepared(f"https://host-{number // 4}.example/")) for number in range(1200)]
    for call in calls:
        call.result(10)
    assert len(warnings(caplog)) == len(set(warnings(caplog))) == 100


def test_a_request_without_a_url_is_left_alone(demo_auth, endpoint):
    """A request that is not prepared has no origin, and so gets no token."""
    request = requests.PreparedRequest()
    request.prepare_headers(None)
    assert demo_auth(request).headers == {}
    assert endpoint.count == 0


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("answer", [200, 401], ids=["accepts", "answers 401"])
@pytest.mark.parametrize(
    "there",
    [FOREIGN, "https://demo.mention-me.com:8443/there", "http://demo.mention-me.com/there"],
    ids=["another host", "another port", "http"],
)
def test_a_redirect_takes_no_token_to_a_foreign_origin(web, session, endpoint, *, there, answer, status):
    """Neither along with the redirect nor for a 401 there, for which the hook has another token ready."""
    play(web, API, status, Location=there)
    play(web, there, answer)
    session.auth.access_token()
    response = session.post(API, json={"a": 1})
    assert response.status_code == answer
    assert sent(web, API) == ["Bearer token-1"]
    assert sent(web, there) == [None]
    assert endpoint.count == 1


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize("by_way_of", [None, FOREIGN], ids=["at once", "by way of a foreign host"])
def test_a_redirect_to_a_trusted_sibling_is_healed_there(web, session, endpoint, *, by_way_of, status):
    """`requests` strips the token on the way, and the sibling's 401 brings it back without a token request."""
    play(web, API, status, Location=by_way_of or SIBLING)
    play(web, FOREIGN, status, Location=SIBLING)
    accept(web, SIBLING, "token-1")
    assert session.post(API, json={"a": 1}).status_code == 200
    assert sent(web, FOREIGN) == ([None] if by_way_of else [])
    assert sent(web, SIBLING) == [None, "Bearer token-1"]
    assert endpoint.count == 1


@pytest.mark.parametrize("status", REDIRECTS)
def test_a_redirect_within_the_api_keeps_the_token(web, session, endpoint, status):
    """Where the token was replaced in the meantime, the hop carries the old one, and costs no token request."""
    play(web, API, status, Location="/end")
    end = "https://demo.mention-me.com/end"
    early = session.prepare_request(requests.Request("GET", API))
    accept(web, end, "token-2")
    session.auth.invalidate()
    session.auth.access_token()
    assert session.send(early).status_code == 200
    assert session.get(API).status_code == 200
    assert sent(web, end) == ["Bearer token-1", "Bearer token-2", "Bearer token-2"]
    assert endpoint.count == 2


def test_an_upgrade_from_http_brings_no_token_along(web, session, endpoint):
    """An http URL gets none, nor does the https hop that it redirects to: the API's 401 there is final."""
    play(web, "http://demo.mention-me.com/start", 301, Location=API)
    accept(web, API, "token-1")
    assert session.get("http://demo.mention-me.com/start").status_code == 401
    assert sent(web, API) == [None]
    assert endpoint.count == 0


def test_netrc_neither_joins_a_token_request_nor_replaces_the_token_for_good(web, tmp_path, monkeypatch):
    """On a redirect `requests` puts Basic of .netrc in the token's place; the 401 for that brings the token back."""
    netrc = tmp_path / "netrc"
    hosts = ("demo.mention-me.com", "foreign.example")
    netrc.write_text("".join(f"machine {host} login joe password netrc-pw\n" for host in hosts))
    monkeypatch.setenv("NETRC", str(netrc))
    web.post(DEMO.token_url, json={"access_token": "the-token"})
    play(web, API, 302, Location=f"{API}/end")
    accept(web, f"{API}/end", "the-token")
    play(web, SIBLING, 302, Location=FOREIGN)
    play(web, FOREIGN, 401)
    with requests.Session() as session:
        session.auth = MentionMeAuth("an-id", SECRET, environment="demo")
        assert session.get(API).status_code == 200
        assert session.get(SIBLING).status_code == 401
    basic = "Basic am9lOm5ldHJjLXB3"
    assert sent(web, DEMO.token_url) == [None]
    assert sent(web, API) == ["Bearer the-token"]
    assert sent(web, f"{API}/end") == [basic, "Bearer the-token"]
    assert sent(web, FOREIGN) == [basic]


def test_a_proxy_is_told_no_token(session, monkeypatch):
    """A proxy reads what it passes on of plain http; for https it is asked for a tunnel and no more."""
    with Loopback(Answer(), Answer(502)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        session.get("http://foreign.example/", timeout=5)
        for url in (FOREIGN, API):
            with pytest.raises(requests.exceptions.ProxyError):
                session.get(url, timeout=5)
        asked = [(request.method, request.headers.get("authorization")) for request in proxy.requests]
        assert asked == [("GET", None), ("CONNECT", None), ("CONNECT", None)]
        assert "token-1" not in repr(proxy.requests)


def test_access_token_claims_and_invalidate(endpoint, demo_auth):
    """A token and its payload can be had, and dropped: in any case, or only if it is still the one that is named."""
    payload = {"claims": {"env": "demo", "merchantId": 4259}, "scope": "customers:read", "exp": 1}
    first = jwt.encode(payload, "k" * 32)
    endpoint.script = [first, "opaque"]
    demo_auth.invalidate()
    demo_auth.invalidate("not there yet")
    assert demo_auth.claims() == payload
    assert demo_auth.access_token() == first
    demo_auth.invalidate("another")
    assert demo_auth.access_token() == first
    demo_auth.invalidate(first)
    assert demo_auth.access_token() == "opaque"
    assert demo_auth.claims() == {}
    assert endpoint.count == 2
    demo_auth.invalidate()
    assert demo_auth.access_token() == "token-3"
