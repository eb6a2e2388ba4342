"""Where the credentials come from: a provider, so that keys can rotate, or the environment variables."""

import copy
import functools
import json
import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from in_memory import EXPIRED, LONG, STALE, Answer, TokenEndpoint, session_with

from requests_mentionme import DEMO, PRODUCTION, Environment, InvalidClientError, MentionMeAuth
from requests_mentionme.sandbox import Sandbox

SECRET = "the-s3cret"
API = "https://demo.mention-me.com/api/merchant/v2/customers"


class SealedError(Exception):
    """What a secrets manager might raise."""

    def __init__(self, *, shards: int) -> None:
        super().__init__("the vault is sealed")
        self.shards = shards


class Vault:
    """A provider: holds the key that is current, and counts how often it was asked for it."""

    def __init__(self) -> None:
        self.key: Any = ("an-id", SECRET)
        self.error: BaseException | None = None
        self.asked = 0

    def __call__(self) -> tuple[str, str]:
        """Return the key, or raise what was set."""
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.key


@pytest.fixture
def vault() -> Vault:
    """A provider."""
    return Vault()


@pytest.fixture
def endpoint() -> TokenEndpoint:
    """An endpoint that issues token-1, token-2, ..."""
    return TokenEndpoint()


@pytest.fixture
def auth(vault: Vault, endpoint: TokenEndpoint) -> MentionMeAuth:
    """An auth that asks the vault."""
    return MentionMeAuth.from_provider(vault, environment="demo", session=session_with(endpoint))


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Set the environment variables that have to be there, and return what sets more."""
    monkeypatch.setenv("MENTIONME_CLIENT_ID", "env-id")
    monkeypatch.setenv("MENTIONME_CLIENT_SECRET", SECRET)
    return monkeypatch


def keys_sent(endpoint: TokenEndpoint) -> list[tuple[str, str]]:
    """Return the id and the secret of each token request."""
    bodies = [json.loads(request.body or b"") for request in endpoint.requests]
    return [(body["client_id"], body["client_secret"]) for body in bodies]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings that were logged."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# When the provider is asked


def test_the_provider_is_asked_once_for_each_renewal_and_never_while_a_fresh_token_is_in_hand(clock, auth, vault):
    """Construction and requests to other origins ask for nothing."""
    auth(requests.Request("GET", "https://other.example/").prepare())
    assert vault.asked == 0
    for number, age in enumerate((0, STALE, EXPIRED), 1):
        clock.tick(age)
        for _ in range(3):
            auth.access_token()
            assert auth.claims() == {}
            auth(requests.Request("GET", API).prepare())
        assert vault.asked == number
        clock.tick(STALE - 1)
        auth.access_token()
        assert vault.asked == number
        clock.tick(1 - STALE)


def test_each_renewal_sends_the_key_that_is_current_then_in_all_its_tries(clock, auth, vault, endpoint, monkeypatch):
    """What was provided before is not kept; a provider that lags behind is followed as soon as it knows."""
    monkeypatch.setattr(time, "sleep", clock.tick)
    auth.access_token()
    endpoint.script = [Answer(401), Answer(401), requests.ConnectionError("refused"), Answer(503)]
    for _ in range(2):
        with pytest.raises(InvalidClientError):
            auth.access_token(refused="token-1")
    vault.key = ("new-id", "new-secret")
    assert auth.access_token(refused="token-1") == "token-6"
    assert keys_sent(endpoint) == [("an-id", SECRET)] * 3 + [("new-id", "new-secret")] * 3
    assert vault.asked == 4


def test_a_key_that_is_deleted_at_mention_me_fails_no_request_of_16_threads(sandbox: Sandbox, vault):
    """All of them carry a token that has died: one renewal heals them all, and asks the provider once."""
    vault.key = (sandbox.client_id, sandbox.client_secret)
    auth = MentionMeAuth.from_provider(vault, environment=sandbox.environment)
    url = f"{sandbox.url}/api/merchant/v2/coupons/validate/SAMPLE"
    carrying = [requests.Request("GET", url, auth=auth).prepare() for _ in range(16)]
    sandbox.add_client("new-id", "new-secret")
    vault.key = ("new-id", "new-secret")
    sandbox.remove_client(sandbox.client_id)
    barrier = threading.Barrier(16)

    def send(request: requests.PreparedRequest) -> list[int]:
        barrier.wait(LONG)
        with requests.Session() as session:
            answers = [session.send(request, timeout=LONG), session.get(url, auth=auth, timeout=LONG)]
        return [answer.status_code for answer in answers]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(send, carrying)) == [[200, 200]] * 16
    assert (vault.asked, sandbox.token_requests, sandbox.rejections) == (2, 2, 16)


# Its errors


def test_an_error_of_the_provider_is_raised_where_a_token_is_needed(auth, vault, endpoint):
    """As it is, without a token request, in place of a 401 too; the next request asks again."""
    auth.access_token()
    vault.error = SealedError(shards=3)
    with pytest.raises(SealedError):
        auth.access_token(refused="token-1")
    assert auth.access_token() == "token-1"
    auth.invalidate()
    for call in (auth.access_token, auth.claims, lambda: requests.get(API, auth=auth)):
        with pytest.raises(SealedError, match=r"^the vault is sealed$") as raised:
            call()
        assert raised.value.shards == 3
    assert (vault.asked, endpoint.count) == (5, 1)
    vault.error = None
    assert auth.access_token() == "token-2"


def test_an_interrupt_within_the_provider_leaves_the_auth_usable(auth, vault):
    """It comes through as it is, and the next request asks again."""
    vault.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        auth.access_token()
    vault.error = None
    assert auth.access_token() == "token-1"


def test_a_provider_that_uses_the_auth_gets_an_error_that_names_the_cause(clock, endpoint, caplog):
    """It would wait for itself, with a stale token in hand too. The auth is usable afterwards."""
    uses_auth = iter([True, False, True, False])
    auth = MentionMeAuth.from_provider(
        lambda: auth.access_token() if next(uses_auth) else ("an-id", SECRET), session=session_with(endpoint)
    )
    with pytest.raises(RuntimeError, match="within the token request"):
        auth.access_token()
    assert auth.access_token() == "token-1"
    clock.tick(STALE)
    assert auth.access_token() == "token-1"
    assert "within the token request" in caplog.text
    clock.tick(30)
    assert auth.access_token() == "token-2"


NO_KEYS = [None, SECRET, "ab", 7, (), ("an-id",), ("an-id", SECRET, SECRET), {"an-id": SECRET}, {"an-id", SECRET}]
NO_PARTS = [(None, SECRET), ("an-id", None), ("an-id", SECRET.encode()), ("an-id", [SECRET])]
EMPTY = [("", SECRET), ("an-id", "")]
FAILURES = [
    *[(key, TypeError, r"\(client_id, client_secret\)|client_(id|secret) ") for key in (*NO_KEYS, *NO_PARTS)],
    *[(key, ValueError, "client_(id|secret) ") for key in EMPTY],
    (SealedError(shards=3), SealedError, "the vault is sealed"),
]


@pytest.mark.parametrize(("provided", "kind", "words"), FAILURES)
def test_a_provider_that_fails_or_returns_no_key_costs_a_warning_while_the_old_token_lives(
    *, clock, auth, vault, endpoint, caplog, provided, kind, words
):
    """It is asked again after 30 seconds, and once the token has ended, it is an error. Nothing shows what it returned.

    Nothing is sent, either. As soon as there is a key, there is a token.
    """
    auth.access_token()
    key = vault.key
    vault.key = provided
    vault.error = provided if isinstance(provided, Exception) else None
    for age, asked in ((STALE, 2), (29, 2), (1, 3)):
        clock.tick(age)
        assert [auth.access_token() for _ in range(3)] == ["token-1"] * 3
        assert len(warnings(caplog)) == vault.asked - 1 == asked - 1
    assert re.search(words, caplog.text)
    assert SECRET not in caplog.text
    clock.tick(EXPIRED - STALE)
    with pytest.raises(kind, match=words) as raised:
        auth.access_token()
    assert raised.type is kind
    assert SECRET not in str(raised.value)
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)
    assert endpoint.count == 1
    vault.key = key
    vault.error = None
    assert auth.access_token() == "token-2"


# Construction


@pytest.mark.parametrize("provider", [None, ("an-id", SECRET), SECRET], ids=["None", "a key", "a string"])
def test_a_provider_that_cannot_be_called_is_refused_at_once(provider):
    """Without the secret in the message."""
    with pytest.raises(TypeError, match="provider must be callable") as raised:
        MentionMeAuth.from_provider(provider)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("maker", ["from_env", "from_provider"])
def test_the_options_are_those_of_the_class(clock, endpoint, vault, variables, maker):
    """Environment, session, timeout, margin and store are passed on, and a subclass makes one of its own kind."""

    class Mine(MentionMeAuth):
        pass

    variables.setenv("MENTIONME_ENVIRONMENT", "production")
    make = Mine.from_env if maker == "from_env" else functools.partial(Mine.from_provider, vault)
    store: dict[str, str] = {}
    session = session_with(endpoint)
    auth = make(environment="demo", session=session, timeout=(3, 4), refresh_margin=0, store=store)
    assert type(auth) is type(copy.copy(auth)) is Mine
    assert auth.environment is DEMO
    assert auth.access_token() == "token-1"
    clock.tick(EXPIRED - 1)
    assert auth.access_token() == "token-1"
    assert len(store) == 1
    for wrong, error in (({"retries": 3}, TypeError), ({"timeout": None}, ValueError), ({"store": []}, TypeError)):
        with pytest.raises(error):
            make(**wrong)


def test_the_repr_shows_neither_id_nor_secret_and_asks_for_none(auth, vault):
    """Before and after a token was obtained; it says that the key is provided, and the environment."""
    for asked in range(2):
        assert repr(auth) == "MentionMeAuth(provided, environment='demo')"
        assert vault.asked == asked
        auth.access_token()


# From the environment variables

VALUES = [(None, PRODUCTION), ("", PRODUCTION), ("demo", DEMO), ("https://h", Environment.at("https://h"))]


@pytest.mark.parametrize(("value", "environment"), VALUES, ids=["not set", "empty", "a name", "a base URL"])
def test_from_env_reads_the_variables_at_construction(variables, endpoint, value, environment):
    """Id, secret, and the environment: a name or a base URL, production where it is empty or not set."""
    if value is not None:
        variables.setenv("MENTIONME_ENVIRONMENT", value)
    auth = MentionMeAuth.from_env(session=session_with(endpoint))
    variables.setenv("MENTIONME_CLIENT_ID", "later")
    auth.access_token()
    assert keys_sent(endpoint) == [("env-id", SECRET)]
    assert auth.environment == environment
    assert endpoint.requests[0].url == environment.token_url
    assert repr(auth) == f"MentionMeAuth('env-id', environment={environment.name!r})"


@pytest.mark.parametrize("value", [None, ""], ids=["not set", "empty"])
@pytest.mark.parametrize("missing", ["MENTIONME_CLIENT_ID", "MENTIONME_CLIENT_SECRET"])
def test_from_env_names_the_variable_that_is_missing_and_says_what_to_export(variables, missing, value):
    """A missing or empty variable is a ValueError."""
    variables.setenv(missing, "") if value == "" else variables.delenv(missing)
    with pytest.raises(ValueError, match=rf"export {missing}=") as raised:
        MentionMeAuth.from_env()
    assert SECRET not in str(raised.value)


def test_from_env_says_what_is_wrong_with_the_environment(variables):
    """The message names the variable, and says what it may hold."""
    variables.setenv("MENTIONME_ENVIRONMENT", "staging")
    words = "^the environment variable MENTIONME_ENVIRONMENT is of no use: environment must be 'production' or 'demo'.*"
    with pytest.raises(ValueError, match=rf"{words}\. Set it, for example: export MENTIONME_ENVIRONMENT=demo$"):
        MentionMeAuth.from_env()
