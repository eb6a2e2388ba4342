"""Where the credentials come from: a provider, so that keys can rotate, or the environment variables."""

import copy
import functools
import json
import re
import time
from unittest import mock

import pytest
import requests
from in_memory import API, EXPIRED, STALE, Answer, session_with, warnings

from requests_mentionme import DEMO, PRODUCTION, Environment, InvalidClientError, MentionMeAuth

SECRET = "the-s3cret"
KEY = ("an-id", SECRET)
SEALED = LookupError("the vault is sealed")


@pytest.fixture
def vault():
    return mock.Mock(return_value=KEY)


@pytest.fixture
def auth(vault, endpoint):
    return MentionMeAuth.from_provider(vault, environment="demo", session=session_with(endpoint))


@pytest.fixture
def variables(monkeypatch):
    monkeypatch.setenv("MENTIONME_CLIENT_ID", "env-id")
    monkeypatch.setenv("MENTIONME_CLIENT_SECRET", SECRET)
    return monkeypatch


def keys_sent(endpoint):
    bodies = [json.loads(request.body) for request in endpoint.requests]
    return [(body["client_id"], body["client_secret"]) for body in bodies]


def test_the_provider_is_asked_once_for_each_renewal_and_never_while_a_fresh_token_is_in_hand(clock, auth, vault):
    """Nor is it for a `repr`, which shows neither id nor secret."""
    auth(requests.Request("GET", "https://other.example/").prepare())
    assert (repr(auth), vault.call_count) == ("MentionMeAuth(provided, environment='demo')", 0)
    for number, age in enumerate((0, STALE, EXPIRED), 1):
        for seconds in (age, STALE - 1):
            clock.tick(seconds)
            for _ in range(3):
                auth.access_token()
                assert auth.claims() == {}
                auth(requests.Request("GET", API).prepare())
            assert (repr(auth), vault.call_count) == ("MentionMeAuth(provided, environment='demo')", number)
        clock.tick(1 - STALE)


def test_each_renewal_sends_the_key_that_is_current_then_in_all_its_tries(clock, auth, vault, endpoint, monkeypatch):
    """A provider that lags behind is followed as soon as it knows."""
    monkeypatch.setattr(time, "sleep", clock.tick)
    auth.access_token()
    endpoint.script = [Answer(401), requests.ConnectionError("refused"), Answer(503)]
    with pytest.raises(InvalidClientError):
        auth.access_token(refused="token-1")
    vault.return_value = ("new-id", "new-secret")
    assert auth.access_token(refused="token-1") == "token-5"
    assert keys_sent(endpoint) == [KEY] * 2 + [("new-id", "new-secret")] * 3
    assert vault.call_count == 3


def test_a_key_is_rotated_with_no_failed_request(sandbox, vault):
    vault.return_value = (sandbox.client_id, sandbox.client_secret)
    auth = MentionMeAuth.from_provider(vault, environment=sandbox.environment)
    url = f"{sandbox.url}/api/merchant/v2/coupons/validate/SAMPLE"
    assert requests.get(url, auth=auth).status_code == 200
    sandbox.add_client("new-id", "new-secret")
    vault.return_value = ("new-id", "new-secret")
    sandbox.remove_client(sandbox.client_id)
    assert requests.get(url, auth=auth).status_code == 200
    assert (vault.call_count, sandbox.token_requests, sandbox.rejections) == (2, 2, 1)


def test_an_error_of_the_provider_is_raised_where_a_token_is_needed(clock, auth, vault, endpoint):
    """As it is, in place of a 401 too; the next request asks again. An interrupt is raised with a stale token, too."""
    auth.access_token()
    vault.side_effect = SEALED
    with pytest.raises(LookupError):
        auth.access_token(refused="token-1")
    assert auth.access_token() == "token-1"
    auth.invalidate()
    for call in (auth.access_token, auth.claims, lambda: requests.get(API, auth=auth)):
        with pytest.raises(LookupError, match=r"^the vault is sealed$"):
            call()
    assert (vault.call_count, endpoint.count) == (5, 1)
    vault.side_effect = [KeyboardInterrupt, KEY, KeyboardInterrupt]
    with pytest.raises(KeyboardInterrupt):
        auth.access_token()
    assert auth.access_token() == "token-2"
    clock.tick(STALE)
    with pytest.raises(KeyboardInterrupt):
        auth.access_token()


def test_a_provider_that_uses_the_auth_gets_an_error_that_names_the_cause(clock, auth, vault, caplog):
    """It would wait for itself, with a stale token in hand too. The auth is usable afterwards."""
    vault.side_effect = auth.access_token
    with pytest.raises(RuntimeError, match="within the token request"):
        auth.access_token()
    vault.side_effect = None
    assert auth.access_token() == "token-1"
    vault.side_effect = auth.access_token
    clock.tick(STALE)
    assert auth.access_token() == "token-1"
    assert "within the token request" in caplog.text
    vault.side_effect = None
    clock.tick(30)
    assert auth.access_token() == "token-2"


NO_KEYS = [None, SECRET, "ab", ("an-id",), ("an-id", SECRET, SECRET), ["an-id", SECRET], {"an-id": SECRET, "b": "c"}]
NO_PARTS = [(None, SECRET), ("an-id", SECRET.encode())]
FAILURES = [
    *[(key, TypeError, r"must return a tuple: \(client_id, client_secret\)") for key in NO_KEYS],
    *[(key, TypeError, "client_(id|secret) must be a non-empty string") for key in NO_PARTS],
    *[(key, ValueError, "client_(id|secret) must be a non-empty string") for key in (("", SECRET), ("an-id", ""))],
    (SEALED, LookupError, "the vault is sealed"),
]


@pytest.mark.parametrize(("provided", "kind", "words"), FAILURES)
def test_a_provider_that_fails_or_returns_no_key_costs_a_warning_while_the_old_token_lives(
    *, clock, auth, vault, endpoint, caplog, provided, kind, words
):
    """It is asked again after 30 seconds. Nothing is sent, and nothing shows what it returned."""
    auth.access_token()
    vault.side_effect = [provided] * 3 + [KEY]
    for age, asked in ((STALE, 2), (29, 2), (1, 3)):
        clock.tick(age)
        assert [auth.access_token() for _ in range(3)] == ["token-1"] * 3
        assert len(warnings(caplog)) == vault.call_count - 1 == asked - 1
    assert re.search(words, caplog.text)
    assert SECRET not in caplog.text
    clock.tick(EXPIRED - STALE)
    with pytest.raises(kind, match=words) as raised:
        auth.access_token()
    assert SECRET not in str(raised.value)
    assert (raised.type, raised.value.__cause__, raised.value.__context__, endpoint.count) == (kind, None, None, 1)
    assert auth.access_token() == "token-2"


@pytest.mark.parametrize("maker", ["from_env", "from_provider"])
def test_the_options_are_those_of_the_class(clock, endpoint, vault, variables, maker):
    """A subclass makes one of its own kind."""
    kind = type("Mine", (MentionMeAuth,), {})
    variables.setenv("MENTIONME_ENVIRONMENT", "production")
    make = kind.from_env if maker == "from_env" else functools.partial(kind.from_provider, vault)
    store = {}
    auth = make(environment="demo", session=session_with(endpoint), timeout=(3, 4), refresh_margin=0, store=store)
    assert type(auth) is type(copy.copy(auth)) is kind
    assert auth.environment is DEMO
    for age in (0, EXPIRED - 1):
        clock.tick(age)
        assert auth.access_token() == "token-1"
    assert len(store) == 1
    for wrong, error in (({"retries": 3}, TypeError), ({"timeout": None}, ValueError), ({"store": []}, TypeError)):
        with pytest.raises(error):
            make(**wrong)


VALUES = [(None, PRODUCTION), ("", PRODUCTION), ("demo", DEMO), ("https://h", Environment.at("https://h"))]


@pytest.mark.parametrize(("value", "environment"), VALUES)
def test_from_env_reads_the_variables_at_construction(variables, endpoint, value, environment):
    if value is not None:
        variables.setenv("MENTIONME_ENVIRONMENT", value)
    auth = MentionMeAuth.from_env(session=session_with(endpoint))
    variables.setenv("MENTIONME_CLIENT_ID", "later")
    auth.access_token()
    assert keys_sent(endpoint) == [("env-id", SECRET)]
    assert (auth.environment, endpoint.requests[0].url) == (environment, environment.token_url)
    assert repr(auth) == f"MentionMeAuth('env-id', environment={environment.name!r})"


@pytest.mark.parametrize("missing", ["MENTIONME_CLIENT_ID", "MENTIONME_CLIENT_SECRET"])
def test_from_env_takes_an_empty_variable_for_a_missing_one(variables, missing):
    variables.setenv(missing, "")
    with pytest.raises(ValueError, match=rf"export {missing}=") as raised:
        MentionMeAuth.from_env()
    assert SECRET not in str(raised.value)
