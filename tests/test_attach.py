"""How an auth is made, which requests get a token, and which never do."""

import math

import jwt
import pytest
import requests
from in_memory import API, SIBLING, accept, auth_with, sent, warnings
from loopback import Answer, Loopback

from requests_mentionme import DEMO, PRODUCTION, MentionMeAuth

FOREIGN = "https://foreign.example/there"
SECRET = "the-s3cret"
REDIRECTS = pytest.mark.parametrize("status", [302, 307], ids=["302, a GET follows", "307, the same follows"])


@pytest.fixture
def demo_auth(endpoint):
    return auth_with(endpoint)


@pytest.fixture
def session(demo_auth):
    with requests.Session() as ours:
        ours.auth = demo_auth
        yield ours


def play(web, url, status=200, **headers):
    for method in ("GET", "POST"):
        web.add(method, url, status=status, headers=headers)


def prepared(url):
    """Return a request to *url* exactly as it is written here; `requests` itself would quote odd characters."""
    request = requests.Request("GET", "https://x.example/").prepare()
    request.url = url
    return request


@pytest.mark.parametrize(
    ("option", "error", "values"),
    [
        ("client_id", ValueError, [""]),
        ("client_id", TypeError, [None]),
        ("client_secret", ValueError, [""]),
        ("client_secret", TypeError, [SECRET.encode()]),
        ("timeout", ValueError, [None, 0, -1, math.nan, math.inf, 86_401, 10**400, (0, 10), (5, 0), (5, None)]),
        ("timeout", TypeError, ["5", True, (5, "10"), [5, 10], (5, 10, 15), (5,)]),
        ("refresh_margin", ValueError, [None, -1, math.nan, math.inf, 86_401]),
        ("refresh_margin", TypeError, ["300", True]),
        ("session", TypeError, [requests]),
        ("retries", TypeError, [3]),
    ],
)
def test_a_wrong_argument_is_refused_at_once_in_words_that_name_it_and_hide_the_secret(option, error, values):
    """The words stand in `test_messages.py`, environments in `test_environment.py`."""
    for value in values:
        with pytest.raises(error, match=option) as raised:
            MentionMeAuth(**{"client_id": "an-id", "client_secret": SECRET, option: value})
        assert raised.type is error
        assert SECRET not in str(raised.value)


def test_timeout_is_that_of_token_requests_and_the_least_and_the_greatest_seconds_are_accepted(clock, web):
    web.post(DEMO.token_url, json={"access_token": "token"})
    MentionMeAuth("an-id", SECRET, environment="demo").access_token()
    MentionMeAuth("an-id", SECRET, environment="demo", timeout=0.001, refresh_margin=0).access_token()
    MentionMeAuth("an-id", SECRET, environment="demo", timeout=(2, 86_400), refresh_margin=86_400).access_token()
    assert [call.request.req_kwargs["timeout"] for call in web.calls] == [(5, 10), (0.001, 0.001), (2, 86_400)]


def test_an_auth_tells_its_environment_and_keeps_it():
    assert MentionMeAuth("an-id", SECRET).environment == PRODUCTION
    for given in ("demo", DEMO):
        auth = MentionMeAuth("an-id", SECRET, environment=given)
        with pytest.raises(AttributeError):
            auth.environment = PRODUCTION
        with pytest.raises(AttributeError):
            del auth.environment
        assert auth.environment == DEMO


def test_an_auth_is_never_falsy(demo_auth):
    """`requests` skips an auth that is falsy, so there must be no length and no truth value to get wrong."""
    assert not {"__len__", "__bool__"} & set(dir(demo_auth))


def test_the_repr_shows_the_id_and_the_environment(demo_auth):
    """And of an object that its constructor has not made yet, the class: a debugger shows those, too."""
    named = type("Named", (MentionMeAuth,), {})
    assert repr(demo_auth) == "MentionMeAuth('an-id', environment='demo')"
    assert repr(named("an-id", SECRET)) == "Named('an-id', environment='production')"
    assert repr(named.__new__(named)) == "Named(not set up)"


def test_the_first_trusted_request_gets_a_token_and_later_ones_use_it(web, session, endpoint, caplog):
    """To construct an auth, or to use it for another host, sends nothing; one token request serves a session."""
    play(web, FOREIGN)
    play(web, API)
    session.get(FOREIGN)
    assert endpoint.count == 0
    caplog.clear()
    for _ in range(3):
        session.get(API, headers={"Authorization": "Basic mine"})
    request = prepared(API)
    assert session.auth(request) is request
    assert request.headers["Authorization"] == "Bearer token-1"
    assert (sent(web), endpoint.count, warnings(caplog)) == (["token-1"] * 3, 1, [])


@pytest.mark.parametrize(
    ("environment", "origin", "meant"),
    [
        ("demo", "https://api.mention-me.com", "production"),
        ("production", "https://demo.mention-me.com", "demo"),
        ("https://h.example", "https://h.example:8443", None),
        ("demo", "http://mention-me.com", None),
    ],
)
def test_a_request_to_any_other_origin_is_left_alone_with_one_warning(*, endpoint, caplog, environment, origin, meant):
    """It costs no token request. The warning says what is covered, and asks for the environment that was meant."""
    auth = auth_with(endpoint, environment=environment)
    for path in ("", "another"):
        request = prepared(f"{origin}/{path}")
        request.headers["Authorization"] = "Basic mine"
        assert auth(request) is request
        assert request.headers["Authorization"] == "Basic mine"
        assert request.hooks == {"response": []}
    assert endpoint.count == 0
    covered = " and ".join(sorted(auth.environment.origins))
    hint = f" Was environment={meant!r} meant?" if meant else ""
    assert warnings(caplog) == [f"No token for {origin}: the environment {environment} covers {covered} alone.{hint}"]


def test_many_foreign_origins_fill_neither_the_memory_nor_the_log(demo_auth, start, caplog):
    """A crawler with many threads gets one warning for each of a hundred origins, and that is all."""
    for call in [start(demo_auth, prepared(f"https://host-{number // 4}.example/")) for number in range(480)]:
        call.result(10)
    assert len(warnings(caplog)) == len(set(warnings(caplog))) == 100


@REDIRECTS
@pytest.mark.parametrize("answer", [200, 401])
@pytest.mark.parametrize("there", [FOREIGN, "https://demo.mention-me.com:8443/there", API.replace("https", "http")])
def test_a_redirect_takes_no_token_to_a_foreign_origin(web, session, endpoint, *, there, answer, status):
    """Neither along with the redirect nor for a 401 there, for which the hook has another token ready."""
    play(web, API, status, Location=there)
    play(web, there, answer)
    session.auth.access_token()
    assert session.post(API, json={"a": 1}).status_code == answer
    assert (sent(web), sent(web, there), endpoint.count) == (["token-1"], [None], 1)


@REDIRECTS
def test_a_redirect_to_a_trusted_sibling_by_way_of_a_foreign_host_is_healed_there(web, session, endpoint, status):
    """`requests` strips the token on the way, and the sibling's 401 brings it back without a token request."""
    play(web, API, status, Location=FOREIGN)
    play(web, FOREIGN, status, Location=SIBLING)
    accept(web, "token-1", url=SIBLING)
    assert session.post(API, json={"a": 1}).status_code == 200
    assert (sent(web, FOREIGN), sent(web, SIBLING), endpoint.count) == ([None], [None, "token-1"], 1)


@REDIRECTS
def test_a_redirect_within_the_api_keeps_the_token(web, session, endpoint, status):
    """Where the token was replaced in the meantime, the hop carries the old one, and costs no token request."""
    play(web, API, status, Location="/end")
    end = "https://demo.mention-me.com/end"
    early = session.prepare_request(requests.Request("GET", API))
    accept(web, "token-2", url=end)
    session.auth.invalidate()
    session.auth.access_token()
    assert [session.send(early).status_code, session.get(API).status_code] == [200, 200]
    assert (sent(web, end), endpoint.count) == (["token-1", "token-2", "token-2"], 2)


def test_an_upgrade_from_http_brings_no_token_along(web, session, endpoint):
    """An http URL gets none, nor does the https hop that it redirects to: the API's 401 there is final."""
    play(web, "http://demo.mention-me.com/start", 301, Location=API)
    accept(web, "token-1")
    assert session.get("http://demo.mention-me.com/start").status_code == 401
    assert (sent(web), endpoint.count) == ([None], 0)


def test_netrc_neither_joins_a_token_request_nor_replaces_the_token_for_good(web, tmp_path, monkeypatch):
    """On a redirect `requests` puts Basic of .netrc in the token's place; the 401 for that brings the token back."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login joe password netrc-pw")
    monkeypatch.setenv("NETRC", str(netrc))
    web.post(DEMO.token_url, json={"access_token": "the-token"})
    play(web, API, 302, Location=f"{API}/end")
    accept(web, "the-token", url=f"{API}/end")
    play(web, SIBLING, 302, Location=FOREIGN)
    play(web, FOREIGN, 401)
    with requests.Session() as session:
        session.auth = MentionMeAuth("an-id", SECRET, environment="demo")
        assert [session.get(url).status_code for url in (API, SIBLING)] == [200, 401]
    basic = "Basic am9lOm5ldHJjLXB3"
    assert (sent(web, DEMO.token_url), sent(web)) == ([None], ["the-token"])
    assert (sent(web, f"{API}/end"), sent(web, FOREIGN)) == ([basic, "the-token"], [basic])


def test_a_proxy_is_told_no_token(session, monkeypatch):
    """A proxy reads what it passes on of plain http; for https it is asked for a tunnel and no more."""
    with Loopback(Answer(), Answer(502)) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        session.get("http://foreign.example/", timeout=5)
        for url in (FOREIGN, API):
            with pytest.raises(requests.exceptions.ProxyError):
                session.get(url, timeout=5)
        assert [request.method for request in proxy.requests] == ["GET", "CONNECT", "CONNECT"]
        assert "token-1" not in repr(proxy.requests)
        assert "authorization" not in repr(proxy.requests)


def test_claims_are_the_payload_of_the_token_in_hand(endpoint, demo_auth):
    """A token is requested first if there is none. Of one that is no JWT nothing can be told."""
    payload = {"claims": {"env": "demo", "merchantId": 4259}, "scope": "customers:read", "exp": 1}
    endpoint.script = [jwt.encode(payload, "k" * 32), "opaque"]
    assert [demo_auth.claims(), demo_auth.claims()] == [payload, payload]
    demo_auth.invalidate()
    assert (demo_auth.claims(), endpoint.count) == ({}, 2)
