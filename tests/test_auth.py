"""What a user of `MentionMeAuth` sees: where tokens go, the retry, copies, errors. Most of it without sockets.

What only real connections can show is in `test_resend.py`; threads are in `test_races.py`, hosts in `test_leaks.py`.
"""

import copy
import io
import logging
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
import requests
import responses
from freezegun import freeze_time
from requests.adapters import BaseAdapter

from requests_mentionme import (
    DEMO,
    PRODUCTION,
    Environment,
    InvalidClientError,
    MentionMeAuth,
    TokenEndpointError,
)

API = "https://demo.mention-me.com/api/merchant/v2/customers"
TOKEN_URL = "https://demo.mention-me.com/api/oauth/token"
SECRET = "the-s3cret"


def token_answer(token: str, expires_in: float = 3600) -> dict[str, Any]:
    """Return the body of a token response."""
    return {"access_token": token, "token_type": "bearer", "expires_in": expires_in}


@pytest.fixture
def mock() -> Iterator[responses.RequestsMock]:
    """Play HTTP: the token endpoint issues token-1, token-2, ...; the API is for each test to add."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as playing:
        count = 0

        def issue(_: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
            nonlocal count
            count += 1
            return 200, {}, f'{{"access_token": "token-{count}", "token_type": "bearer", "expires_in": 3600}}'

        playing.add_callback(responses.POST, TOKEN_URL, issue)
        yield playing


@pytest.fixture
def demo_auth() -> MentionMeAuth:
    """An auth for the demo environment."""
    return MentionMeAuth("an-id", SECRET, environment="demo")


def api_accepts(mock: responses.RequestsMock, *tokens: str, url: str = API) -> None:
    """Have the API answer 200 to these tokens and 401 to any other."""

    def judge(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        accepted = request.headers.get("Authorization") in {f"Bearer {token}" for token in tokens}
        return (200, {}, "{}") if accepted else (401, {}, '{"code": "401", "message": "Expired token."}')

    for method in (responses.GET, responses.POST):
        mock.add_callback(method, url, judge)


def sent_tokens(mock: responses.RequestsMock, url: str = API) -> list[str | None]:
    """Return the Authorization headers that *url* got, in order."""
    return [call.request.headers.get("Authorization") for call in mock.calls if call.request.url == url]


def token_requests(mock: responses.RequestsMock) -> int:
    """Return how many requests the token endpoint got."""
    return sum(call.request.url == TOKEN_URL for call in mock.calls)


# Construction


def test_constructing_sends_nothing(mock: responses.RequestsMock) -> None:
    """A token is obtained on the first request, not before."""
    MentionMeAuth("an-id", SECRET)
    assert len(mock.calls) == 0


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        pytest.param(("", SECRET), {}, ValueError, id="empty id"),
        pytest.param(("an-id", ""), {}, ValueError, id="empty secret"),
        pytest.param((None, SECRET), {}, TypeError, id="no id"),
        pytest.param(("an-id", SECRET.encode()), {}, TypeError, id="secret in bytes"),
        pytest.param(("an-id", SECRET), {"environment": "staging"}, ValueError, id="unknown environment"),
        pytest.param(("an-id", SECRET), {"environment": None}, TypeError, id="no environment"),
        pytest.param(("an-id", SECRET), {"environment": "https://h/path"}, ValueError, id="base URL with a path"),
        pytest.param(
            ("an-id", SECRET), {"environment": f"https://u:{SECRET}@h"}, ValueError, id="base URL with user info"
        ),
        pytest.param(("an-id", SECRET), {"environment": "http://h.example"}, ValueError, id="plain http"),
        pytest.param(("an-id", SECRET), {"timeout": None}, ValueError, id="no timeout"),
        pytest.param(("an-id", SECRET), {"timeout": 0}, ValueError, id="timeout of zero"),
        pytest.param(("an-id", SECRET), {"timeout": -1}, ValueError, id="negative timeout"),
        pytest.param(("an-id", SECRET), {"timeout": float("nan")}, ValueError, id="timeout not a number"),
        pytest.param(("an-id", SECRET), {"timeout": float("inf")}, ValueError, id="infinite timeout"),
        pytest.param(("an-id", SECRET), {"timeout": (5, None)}, ValueError, id="half a timeout"),
        pytest.param(("an-id", SECRET), {"timeout": (5, 10, 15)}, TypeError, id="three timeouts"),
        pytest.param(("an-id", SECRET), {"timeout": "5"}, TypeError, id="timeout as text"),
        pytest.param(("an-id", SECRET), {"timeout": True}, TypeError, id="timeout as bool"),
        pytest.param(("an-id", SECRET), {"refresh_margin": -1}, ValueError, id="negative margin"),
        pytest.param(("an-id", SECRET), {"refresh_margin": float("inf")}, ValueError, id="infinite margin"),
        pytest.param(("an-id", SECRET), {"refresh_margin": "300"}, TypeError, id="margin as text"),
        pytest.param(("an-id", SECRET), {"session": requests}, TypeError, id="session of another kind"),
        pytest.param(("an-id", SECRET), {"retries": 3}, TypeError, id="unknown option"),
    ],
)
def test_wrong_arguments_are_refused_at_once_without_the_secret(
    arguments: tuple[Any, Any], options: dict[str, Any], error: type[Exception]
) -> None:
    """A wrong argument is a TypeError or ValueError of construction, and its message is safe to show."""
    with pytest.raises(error) as raised:
        MentionMeAuth(*arguments, **options)
    assert SECRET not in str(raised.value)
    assert raised.type is error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"session": requests}, "session must be a requests.Session or None"),
        ({"timeout": "5"}, "timeout must be a number of seconds"),
        ({"timeout": (5, "10")}, "timeout must be a number of seconds"),
        ({"timeout": (0, 10)}, "timeout must be 0.001 to 86400 seconds"),
        ({"timeout": (5, 0)}, "timeout must be 0.001 to 86400 seconds"),
        ({"timeout": 86_401}, "timeout must be 0.001 to 86400 seconds"),
        ({"timeout": 10**400}, "timeout must be 0.001 to 86400 seconds"),
        ({"refresh_margin": None}, "refresh_margin must be 0 to 86400 seconds"),
        ({"refresh_margin": "300"}, "refresh_margin must be a number of seconds"),
    ],
)
def test_a_refusal_says_which_argument_is_wrong_and_how(options: dict[str, Any], message: str) -> None:
    """To the letter, as it is all that the reader of a traceback has."""
    with pytest.raises((TypeError, ValueError)) as raised:
        MentionMeAuth("an-id", SECRET, **options)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "environment", [DEMO, "demo", "https://demo.mention-me.com"], ids=["object", "name", "base URL"]
)
def test_environment_is_an_object_a_name_or_a_base_url(
    mock: responses.RequestsMock, environment: Environment | str
) -> None:
    """Each of the three spellings leads to the same token endpoint and API."""
    api_accepts(mock, "token-1")
    assert requests.get(API, auth=MentionMeAuth("an-id", SECRET, environment=environment)).ok


def test_production_is_the_default(mock: responses.RequestsMock) -> None:
    """Without an environment the tokens come from production and go there."""
    mock.post(PRODUCTION.token_url, json=token_answer("live"))
    mock.get("https://mention-me.com/x")
    requests.get("https://mention-me.com/x", auth=MentionMeAuth("an-id", SECRET))
    assert sent_tokens(mock, "https://mention-me.com/x") == ["Bearer live"]


def test_timeout_and_margin_reach_where_they_matter(mock: responses.RequestsMock) -> None:
    """One number is both timeouts, a pair is (connect, read); a margin of 0 means no early renewal."""
    mock.get(API)
    with freeze_time("2026-01-01") as clock:
        auth = MentionMeAuth("an-id", SECRET, environment="demo", timeout=(2, 3.5), refresh_margin=0)
        requests.get(API, auth=auth)
        requests.get(API, auth=MentionMeAuth("an-id", SECRET, environment="demo", timeout=4))
        clock.tick(3589)
        requests.get(API, auth=auth)
    kwargs = [call.request.req_kwargs["timeout"] for call in mock.calls if call.request.url == TOKEN_URL]
    assert kwargs == [(2.0, 3.5), (4.0, 4.0)]


# From the environment variables


def test_from_env_reads_the_variables_at_construction(
    mock: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id, the secret and the environment come from the variables; options are passed on."""
    monkeypatch.setenv("MENTIONME_CLIENT_ID", "env-id")
    monkeypatch.setenv("MENTIONME_CLIENT_SECRET", SECRET)
    monkeypatch.setenv("MENTIONME_ENVIRONMENT", "demo")
    auth = MentionMeAuth.from_env(timeout=7)
    monkeypatch.setenv("MENTIONME_CLIENT_ID", "later")
    auth.access_token()
    request = mock.calls[0].request
    assert request.url == TOKEN_URL
    assert request.req_kwargs["timeout"] == (7, 7)
    assert b'"client_id": "env-id"' in request.body


@pytest.mark.parametrize(
    ("value", "environment"),
    [(None, "production"), ("", "production"), ("demo", "demo"), ("https://h.example", "https://h.example")],
    ids=["not set", "empty", "a name", "a base URL"],
)
def test_from_env_takes_production_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, value: str | None, environment: str
) -> None:
    """MENTIONME_ENVIRONMENT is a name or a base URL; empty is as good as not set."""
    monkeypatch.setenv("MENTIONME_CLIENT_ID", "env-id")
    monkeypatch.setenv("MENTIONME_CLIENT_SECRET", SECRET)
    if value is not None:
        monkeypatch.setenv("MENTIONME_ENVIRONMENT", value)
    assert repr(MentionMeAuth.from_env()) == f"MentionMeAuth('env-id', environment={environment!r})"
    assert repr(MentionMeAuth.from_env(environment=DEMO)) == "MentionMeAuth('env-id', environment='demo')"


@pytest.mark.parametrize("empty", [False, True], ids=["not set", "empty"])
@pytest.mark.parametrize("missing", ["MENTIONME_CLIENT_ID", "MENTIONME_CLIENT_SECRET"])
def test_from_env_names_the_variable_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, missing: str, *, empty: bool
) -> None:
    """A missing or empty variable is a ValueError that says which."""
    monkeypatch.setenv("MENTIONME_CLIENT_ID", "env-id")
    monkeypatch.setenv("MENTIONME_CLIENT_SECRET", SECRET)
    if empty:
        monkeypatch.setenv(missing, "")
    else:
        monkeypatch.delenv(missing)
    with pytest.raises(ValueError, match=missing) as raised:
        MentionMeAuth.from_env()
    assert SECRET not in str(raised.value)


# Attaching


def test_first_request_gets_a_token_and_later_ones_use_it(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth
) -> None:
    """One token request serves the requests of a session."""
    api_accepts(mock, "token-1")
    session = requests.Session()
    session.auth = demo_auth
    assert [session.get(API).status_code for _ in range(3)] == [200, 200, 200]
    assert token_requests(mock) == 1


def test_the_request_that_was_passed_in_comes_back(mock: responses.RequestsMock, demo_auth: MentionMeAuth) -> None:
    """As the contract of an AuthBase has it, whether a token was attached or not; one hook, even if called twice."""
    trusted = requests.Request("GET", API).prepare()
    foreign = requests.Request("GET", "https://foreign.example/").prepare()
    assert demo_auth(trusted) is trusted
    assert demo_auth(trusted) is trusted
    assert demo_auth(foreign) is foreign
    assert len(trusted.hooks["response"]) == 1
    assert foreign.hooks["response"] == []


def test_an_auth_is_never_falsy(demo_auth: MentionMeAuth) -> None:
    """`requests` skips an auth that is falsy, so there must be no length and no truth value to get wrong."""
    assert not hasattr(demo_auth, "__len__")
    assert not hasattr(demo_auth, "__bool__")


@pytest.mark.parametrize(
    "url",
    [
        "https://foreign.example/",
        "http://demo.mention-me.com/api",
        "https://demo.mention-me.com:8443/api",
        "https://mention-me.com/api",
        "https://demo.mention-me.com.evil.example/",
        "https://evil-demo.mention-me.com/",
        "https://user:pw@demo.mention-me.com/",
    ],
)
def test_other_origins_get_no_token(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    """A request elsewhere goes out as it is, its own Authorization included, with one warning for its origin."""
    mock.get(url)
    session = requests.Session()
    session.auth = demo_auth
    session.get(url, headers={"Authorization": "Basic mine"})
    session.get(url)
    assert sent_tokens(mock, url) == ["Basic mine", None]
    assert token_requests(mock) == 0
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name == "requests_mentionme"
    assert "demo" in record.getMessage()
    assert url.split("//", maxsplit=1)[0] in record.getMessage()
    assert "pw" not in record.getMessage()


def test_the_origins_that_are_warned_of_are_bounded(demo_auth: MentionMeAuth, caplog: pytest.LogCaptureFixture) -> None:
    """A crawler on the session neither fills the memory nor the log."""
    for number in range(300):
        demo_auth(requests.Request("GET", f"https://host-{number}.example/").prepare())
    assert len(caplog.records) == 100


def test_a_request_without_a_url_is_left_alone(demo_auth: MentionMeAuth) -> None:
    """A request that is not prepared has no origin, and so gets no token."""
    assert "Authorization" not in (demo_auth(_bare()).headers or {})


def _bare() -> requests.PreparedRequest:
    request = requests.PreparedRequest()
    request.prepare_headers(None)
    return request


def test_preparing_a_request_attaches_a_token_that_may_be_old_when_it_is_sent(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth
) -> None:
    """The 401 rule heals a request that was prepared early, each time that it is sent, with one renewal in all."""
    api_accepts(mock, "token-2")
    session = requests.Session()
    prepared = session.prepare_request(requests.Request("GET", API, auth=demo_auth))
    assert [session.send(prepared).status_code for _ in range(3)] == [200, 200, 200]
    assert sent_tokens(mock) == ["Bearer token-1", "Bearer token-2"] * 3
    assert token_requests(mock) == 2


# The 401 rule


def test_a_401_is_retried_once_with_a_new_token(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller sees the second answer, and the 401 in its history."""
    caplog.set_level(logging.INFO)
    api_accepts(mock, "token-2")
    response = requests.post(API, json={"a": 1}, auth=demo_auth)
    assert response.status_code == 200
    assert [past.status_code for past in response.history] == [401]
    assert response.history[0].json()["message"] == "Expired token."
    assert response.request.headers["Authorization"] == "Bearer token-2"
    assert [call.request.body for call in mock.calls if call.request.url == API] == [b'{"a": 1}'] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "Token obtained: demo, 3600 s to live",
        "Token obtained: demo, 3600 s to live",
        "Token refused by https://demo.mention-me.com, retrying once",
    ]


@pytest.mark.parametrize("status", [200, 400, 403, 404, 429, 500])
def test_only_a_401_is_retried(mock: responses.RequestsMock, demo_auth: MentionMeAuth, status: int) -> None:
    """Any other status means that the token was accepted."""
    mock.get(API, status=status)
    assert requests.get(API, auth=demo_auth).status_code == status
    assert sent_tokens(mock) == ["Bearer token-1"]


def test_the_second_answer_is_final_and_holds_off_renewals(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth, caplog: pytest.LogCaptureFixture
) -> None:
    """A missing permission costs one renewal in 30 s, not one for each call."""
    api_accepts(mock)
    with freeze_time("2026-01-01") as clock:
        assert requests.get(API, auth=demo_auth).status_code == 401
        assert sent_tokens(mock) == ["Bearer token-1", "Bearer token-2"]
        assert "check the scopes" in caplog.records[-1].getMessage()
        clock.tick(29.9)
        response = requests.get(API, auth=demo_auth)
        assert response.status_code == 401
        assert response.history == []
        assert response.json()["message"] == "Expired token."
        assert sent_tokens(mock)[2:] == ["Bearer token-2"]
        clock.tick(0.2)
        assert requests.get(API, auth=demo_auth).status_code == 401
        assert sent_tokens(mock)[3:] == ["Bearer token-2", "Bearer token-3"]
    assert token_requests(mock) == 3


def test_a_late_401_for_an_older_token_is_retried_during_a_hold_off(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth
) -> None:
    """What is held off is renewal, for the one token; the current one may well be what the request needs."""
    session = requests.Session()
    early = session.prepare_request(requests.Request("GET", API, auth=demo_auth))
    api_accepts(mock)
    other = API + "/lapse"
    api_accepts(mock, url=other)
    assert requests.post(other, auth=demo_auth).status_code == 401
    mock.remove(responses.GET, API)
    api_accepts(mock, "token-2")
    assert session.send(early).status_code == 200
    assert token_requests(mock) == 2


def test_a_refusal_of_a_token_that_was_there_already_holds_nothing_off(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth
) -> None:
    """Only a token straight from the endpoint proves that another one would be refused too."""
    api_accepts(mock, "token-3")
    session = requests.Session()
    early = session.prepare_request(requests.Request("GET", API, auth=demo_auth))
    demo_auth.invalidate()
    demo_auth.access_token()
    assert session.send(early).status_code == 401
    assert token_requests(mock) == 2
    assert requests.get(API, auth=demo_auth).status_code == 200


def test_invalidate_ends_the_hold_off(mock: responses.RequestsMock, demo_auth: MentionMeAuth) -> None:
    """Once the key has its scope, the user need not wait."""
    api_accepts(mock, "token-3")
    assert requests.get(API, auth=demo_auth).status_code == 401
    demo_auth.invalidate()
    assert requests.get(API, auth=demo_auth).status_code == 200


def test_a_renewal_that_brings_the_same_token_is_no_reason_to_retry(demo_auth: MentionMeAuth) -> None:
    """A server may hand out a cached token: it was refused a moment ago, and is held off."""
    with responses.RequestsMock() as mock:
        mock.post(TOKEN_URL, json=token_answer("cached"))
        mock.get(API, status=401, body="no")
        responses_seen = [requests.get(API, auth=demo_auth) for _ in range(3)]
        assert [response.text for response in responses_seen] == ["no"] * 3
        assert sent_tokens(mock) == ["Bearer cached"] * 3
        assert token_requests(mock) == 2


def test_a_failed_renewal_is_raised_in_place_of_the_401(mock: responses.RequestsMock, demo_auth: MentionMeAuth) -> None:
    """The caller learns why there is no token; when the endpoint is well again, so is the auth."""
    api_accepts(mock, "token-2")
    demo_auth.access_token()
    mock.replace(responses.POST, TOKEN_URL, status=401, json={"code": "401", "message": "Key deleted."})
    with pytest.raises(InvalidClientError, match="Key deleted"):
        requests.get(API, auth=demo_auth)
    mock.replace(responses.POST, TOKEN_URL, json=token_answer("token-2"))
    assert requests.get(API, auth=demo_auth).status_code == 200


@pytest.mark.parametrize("header", [b"Bearer token-1", "Bearer token-1"], ids=["bytes", "str"])
def test_the_refused_token_is_read_from_the_request_itself(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth, header: str | bytes
) -> None:
    """Per-request state is nowhere else, so a request may be sent by another thread, another time, another way."""
    api_accepts(mock, "token-2")
    prepared = requests.Request("GET", API, auth=demo_auth).prepare()
    prepared.headers["Authorization"] = header  # type: ignore[assignment]
    assert requests.Session().send(prepared).status_code == 200
    assert token_requests(mock) == 2


def test_a_trusted_request_whose_header_was_replaced_is_retried_with_the_current_token(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth
) -> None:
    """As after a redirect for which .netrc has Basic credentials: it is the origin that decides."""
    api_accepts(mock, "token-1")
    prepared = requests.Request("GET", API, auth=demo_auth).prepare()
    prepared.headers["Authorization"] = "Basic bmV0cmM6cHc="
    assert requests.Session().send(prepared).status_code == 200
    assert token_requests(mock) == 1


# The retried response


class Recorder(BaseAdapter):
    """An adapter that keeps what it was sent with, and passes it to another."""

    def __init__(self, adapter: BaseAdapter) -> None:
        """Wrap an adapter."""
        super().__init__()
        self.adapter = adapter
        self.sent: list[dict[str, Any]] = []

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        """Keep the arguments."""
        self.sent.append(kwargs)
        response = self.adapter.send(request, **kwargs)
        response.connection = self  # type: ignore[assignment]
        return response

    def close(self) -> None:
        """Close the other."""
        self.adapter.close()


@pytest.mark.parametrize("bare", [False, True], ids=["session.get", "session.send"])
def test_the_retry_is_sent_with_what_the_caller_asked_for(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth, *, bare: bool
) -> None:
    """Timeout, stream, verify, cert and proxies are the caller's; where there is no timeout none is made up."""
    api_accepts(mock, "token-2")
    session = requests.Session()
    session.auth = demo_auth
    recorder = Recorder(session.get_adapter(API))
    session.mount("https://", recorder)
    if bare:
        session.send(session.prepare_request(requests.Request("GET", API)), stream=True, verify="a-bundle")
        expected = {"stream": True, "verify": "a-bundle", "cert": None, "proxies": {}}
    else:
        expected = {
            "timeout": (1, 2),
            "stream": True,
            "verify": False,
            "cert": "a-cert",
            "proxies": {"ftp": "http://p"},
        }
        session.get(API, **expected)  # type: ignore[arg-type]
    assert recorder.sent == [expected, expected]


def test_a_callers_own_hooks_see_the_final_response_alone(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth
) -> None:
    """A hook that raises for a bad status must not see the 401 that was healed."""
    api_accepts(mock, "token-2")
    seen: list[int] = []

    def note(response: requests.Response, **_: object) -> None:
        response.raise_for_status()
        seen.append(response.status_code)

    session = requests.Session()
    session.auth = demo_auth
    session.hooks["response"].append(note)
    session.get(API, hooks={"response": [note]})
    session.get(API)
    assert seen == [200, 200]


@pytest.fixture
def cookies(mock: responses.RequestsMock) -> list[str | None]:
    """The `Cookie` headers that reach an API which refuses the first request, and sets a cookie with that."""
    seen: list[str | None] = []

    def judge(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        seen.append(request.headers.get("Cookie"))
        return (401, {"Set-Cookie": "node=7; Path=/"}, "") if len(seen) == 1 else (200, {}, "")

    mock.add_callback(responses.GET, API, judge)
    return seen


def test_cookies_of_the_401_go_out_with_the_retry_and_stay_in_the_session(
    cookies: list[str | None], demo_auth: MentionMeAuth
) -> None:
    """As a load balancer wants that pins a client with its first answer."""
    session = requests.Session()
    session.cookies.set("mine", "1", domain="demo.mention-me.com")
    session.get(API, auth=demo_auth)
    assert cookies == ["mine=1", "mine=1; node=7"]
    assert session.cookies.get("node") == "7"


def test_a_cookie_header_of_the_callers_own_is_sent_again_as_it_is(
    cookies: list[str | None], demo_auth: MentionMeAuth
) -> None:
    """`requests` lets an explicit header go before its jar, so the retry does too."""
    requests.get(API, auth=demo_auth, headers={"Cookie": "a=1"})
    assert cookies == ["a=1", "a=1"]


def test_a_request_without_a_cookie_jar_is_retried_all_the_same(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth
) -> None:
    """A request that was prepared by hand may have no jar."""
    api_accepts(mock, "token-2")
    prepared = requests.Request("GET", API, auth=demo_auth).prepare()
    prepared._cookies = None
    assert requests.Session().send(prepared).status_code == 200


@pytest.mark.parametrize("without", ["attribute", "value"])
def test_a_401_without_an_adapter_is_returned_as_it_is(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth, without: str
) -> None:
    """A cache has no connection to resend through, and a cached 401 is no news of the token."""
    prepared = requests.Request("GET", API, auth=demo_auth).prepare()
    response = requests.Response()
    response.status_code, response.request, response.raw = 401, prepared, io.BytesIO(b"cached")
    if without == "value":
        response.connection = None  # type: ignore[assignment]
    (hook,) = prepared.hooks["response"]
    assert hook(response) is response
    assert response.raw.tell() == 0
    assert token_requests(mock) == 1


# Tokens for other clients


def test_access_token_claims_and_invalidate(demo_auth: MentionMeAuth) -> None:
    """A token and its payload can be had, and dropped: in any case, or only if it is still the one meant."""
    payload = {"claims": {"env": "demo", "merchantId": 4259}, "scope": "customers:read", "exp": 1}
    first = jwt.encode(payload, "k" * 32)
    with responses.RequestsMock() as mock:
        mock.post(TOKEN_URL, json=token_answer(first))
        mock.post(TOKEN_URL, json=token_answer("opaque"))
        assert demo_auth.claims() == payload
        assert demo_auth.access_token() == first
        demo_auth.invalidate("another")
        assert demo_auth.access_token() == first
        demo_auth.invalidate(first)
        assert demo_auth.access_token() == "opaque"
        assert demo_auth.claims() == {}
        assert token_requests(mock) == 2


def test_an_expired_token_is_never_sent_and_the_schedule_survives_a_wrong_clock(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth
) -> None:
    """Renewal is due at 3300 s, a request after the end gets a new token first; a clock set back expires it."""
    mock.get(API)
    with freeze_time("2026-01-01 12:00") as clock:
        for tick in (3299.9, 0.2, 3591, 0):
            requests.get(API, auth=demo_auth)
            clock.tick(tick)
        requests.get(API, auth=demo_auth)
        clock.move_to("2026-01-01 02:00")
        requests.get(API, auth=demo_auth)
    assert sent_tokens(mock) == [f"Bearer token-{number}" for number in (1, 1, 2, 3, 3, 4)]


# Copies


@pytest.mark.parametrize(
    "duplicate",
    [lambda auth: pickle.loads(pickle.dumps(auth)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
@pytest.mark.parametrize("lent", [False, True], ids=["own sessions", "lent session"])
def test_a_copy_has_the_credentials_and_options_but_no_token(
    mock: responses.RequestsMock, duplicate: Callable[[Any], Any], *, lent: bool
) -> None:
    """Copies and pickles work, of a session that holds the auth too; each gets a token of its own."""
    api_accepts(mock, "token-2")
    session = requests.Session() if lent else None
    auth = MentionMeAuth("an-id", SECRET, environment="demo", session=session, timeout=3, refresh_margin=1)
    assert auth.access_token() == "token-1"
    holder = requests.Session()
    holder.auth = auth
    twin = duplicate(holder)
    assert twin.get(API).status_code == 200
    assert sent_tokens(mock) == [f"Bearer token-{2 if twin.auth is not auth else 1}"] + (
        ["Bearer token-2"] if twin.auth is auth else []
    )
    second = duplicate(auth)
    assert second.access_token() == "token-3"
    assert repr(second) == repr(auth)
    assert mock.calls[-1].request.req_kwargs["timeout"] == (3, 3)
    assert b'"client_secret": "the-s3cret"' in mock.calls[-1].request.body


def test_requests_and_responses_pickle_without_the_credentials(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth
) -> None:
    """Their hook is inert then: it lets a 401 pass."""
    api_accepts(mock, "token-1")
    response = requests.get(API, auth=demo_auth)
    pickled = pickle.dumps(response)
    assert SECRET.encode() not in pickled
    request = pickle.loads(pickled).request
    mock.replace(responses.GET, API, status=401)
    assert requests.Session().send(request).status_code == 401
    assert token_requests(mock) == 1


def test_a_subclass_keeps_its_class_through_copies_and_from_env(
    mock: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subclass is what its own constructor and copies make of it."""
    monkeypatch.setenv("MENTIONME_CLIENT_ID", "env-id")
    monkeypatch.setenv("MENTIONME_CLIENT_SECRET", SECRET)

    class Named(MentionMeAuth):
        label = "ours"

    assert type(copy.copy(Named.from_env())) is Named


# Secrets


def test_neither_secret_nor_token_is_in_what_is_shown(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in repr, str, vars or the log, before and after a token is there."""
    caplog.set_level(logging.DEBUG)
    api_accepts(mock, "token-2")
    requests.get(API, auth=demo_auth)
    demo_auth.invalidate()
    mock.replace(responses.POST, TOKEN_URL, status=500, json={"message": SECRET})
    shown = [repr(demo_auth), str(demo_auth), str(vars(demo_auth)), str(vars(demo_auth._source))]
    shown += [str(vars(demo_auth._endpoint)), str(demo_auth.__dict__["_hook"].__dict__), caplog.text]
    for text in shown:
        assert SECRET not in text
        assert "token-1" not in text
        assert "token-2" not in text


def test_waiting_time_that_the_endpoint_named_is_in_the_error(
    mock: responses.RequestsMock, demo_auth: MentionMeAuth
) -> None:
    """A wait that does not fit is not begun; until it is over, requests fail at once, with what is left of it."""
    with freeze_time("2026-01-01") as clock:
        mock.replace(responses.POST, TOKEN_URL, status=429, headers={"Retry-After": "50"})
        with pytest.raises(TokenEndpointError, match="Try again in 50 s") as first:
            requests.get(API, auth=demo_auth)
        clock.tick(20)
        with pytest.raises(TokenEndpointError, match="Try again in 30 s") as second:
            requests.get(API, auth=demo_auth)
        assert (first.value.retry_after, second.value.retry_after) == (50, 30)
        assert token_requests(mock) == 1
        clock.tick(30)
        mock.replace(responses.POST, TOKEN_URL, json=token_answer("late"))
        assert demo_auth.access_token() == "late"
