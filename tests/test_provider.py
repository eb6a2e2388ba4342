"""Rotating credentials: when a provider is asked, what becomes of its errors, and keys deleted at Mention Me."""

import copy
import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory

from requests_mentionme import InvalidClientError, MentionMeAuth
from requests_mentionme._source import TokenSource
from requests_mentionme.sandbox import Sandbox

LONG = 20.0  # seconds for what takes far less, unless something hangs
SECRET = "the-s3cret"
STALE, EXPIRED = 3300, 3590  # seconds after which a token of an hour is


class SealedError(Exception):
    """What a secrets manager might raise; it can't be made from its `args`."""

    def __init__(self, vault: str, *, shards: int) -> None:
        super().__init__(f"{vault} is sealed")
        self.shards = shards


class Vault:
    """A provider: holds the key that is current, and counts how often it was asked for it."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        self.key: Any = (client_id, client_secret)
        self.error: BaseException | None = None
        self.asked = 0

    def __call__(self) -> tuple[str, str]:
        """Return the key, or raise what was set."""
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.key


def sandbox_key() -> tuple[str, str]:
    """Be a provider that can be pickled."""
    return "sandbox-id", "sandbox-secret"


@pytest.fixture
def vault(sandbox: Sandbox) -> Vault:
    """A provider of the sandbox's own key."""
    return Vault(sandbox.client_id, sandbox.client_secret)


@pytest.fixture
def auth(sandbox: Sandbox, vault: Vault) -> MentionMeAuth:
    """An auth that asks the vault."""
    return MentionMeAuth.from_provider(vault, environment=sandbox.environment)


@pytest.fixture
def clock() -> Iterator[FrozenDateTimeFactory]:
    """A clock that stands still until it is told to tick."""
    with freeze_time("2026-01-01 12:00") as frozen:
        yield frozen


def get(sandbox: Sandbox, auth: MentionMeAuth) -> requests.Response:
    """Make an API request."""
    return requests.get(f"{sandbox.url}/api/merchant/v2/coupons/validate/SAMPLE", auth=auth, timeout=LONG)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings that were logged."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# When it is asked


def test_the_provider_is_not_asked_before_a_token_is_needed(sandbox: Sandbox, vault: Vault) -> None:
    """Construction and requests to other origins ask for nothing; the first one to a trusted origin does."""
    auth = MentionMeAuth.from_provider(vault, environment=sandbox.environment)
    auth(requests.Request("GET", "http://127.0.0.1:9/").prepare())
    assert vault.asked == 0
    assert get(sandbox, auth).ok
    assert vault.asked == 1


def test_the_provider_is_asked_once_for_all_tries_of_a_renewal(
    sandbox: Sandbox, auth: MentionMeAuth, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tries that fail and one that succeeds are one renewal."""
    monkeypatch.setattr("requests_mentionme._endpoint.time.sleep", lambda _: None)
    sandbox.fail_token_requests(status=503, times=2)
    auth.access_token()
    assert (sandbox.token_requests, vault.asked) == (3, 1)


def test_the_provider_is_not_asked_while_a_fresh_token_is_in_hand(
    sandbox: Sandbox, auth: MentionMeAuth, vault: Vault, clock: FrozenDateTimeFactory
) -> None:
    """It is when the token gets stale, once, and when it has expired, once more."""
    auth.access_token()
    for _ in range(3):
        clock.tick((STALE - 1) / 3)
        assert get(sandbox, auth).ok
        assert auth.claims()["claims"]["env"] == "demo"
    assert vault.asked == 1
    clock.tick(1)
    for _ in range(3):
        assert get(sandbox, auth).ok
    assert vault.asked == 2
    clock.tick(EXPIRED)
    for _ in range(3):
        assert get(sandbox, auth).ok
    assert vault.asked == 3
    assert sandbox.rejections == 0


def test_each_renewal_sends_the_key_that_is_current_then(sandbox: Sandbox, auth: MentionMeAuth, vault: Vault) -> None:
    """What was provided before is not kept."""
    auth.access_token()
    sandbox.add_client("new-id", "new-secret")
    vault.key = ("new-id", "new-secret")
    auth.invalidate()
    auth.access_token()
    bodies = [request.body for request in sandbox.requests]
    assert [(b"sandbox-id" in body, b"new-id" in body) for body in bodies] == [(True, False), (False, True)]
    assert [(b"sandbox-secret" in body, b"new-secret" in body) for body in bodies] == [(True, False), (False, True)]


# Rotation at Mention Me


def test_a_key_deleted_at_mention_me_fails_no_request(sandbox: Sandbox, auth: MentionMeAuth, vault: Vault) -> None:
    """The 401 that its token gets is healed with the key that the provider returns by then."""
    assert get(sandbox, auth).ok
    sandbox.add_client("new-id", "new-secret")
    vault.key = ("new-id", "new-secret")
    sandbox.remove_client(sandbox.client_id)

    answer = get(sandbox, auth)
    assert [each.status_code for each in (*answer.history, answer)] == [401, 200]
    assert get(sandbox, auth).history == []
    assert (vault.asked, sandbox.token_requests, sandbox.rejections) == (2, 2, 1)


def test_a_key_deleted_at_mention_me_fails_no_request_of_16_threads(
    sandbox: Sandbox, auth: MentionMeAuth, vault: Vault
) -> None:
    """All of them carry a token that has died: one renewal heals them all, and asks the provider once."""
    url = f"{sandbox.url}/api/merchant/v2/coupons/validate/SAMPLE"
    carrying = [requests.Request("GET", url, auth=auth).prepare() for _ in range(16)]
    sandbox.add_client("new-id", "new-secret")
    vault.key = ("new-id", "new-secret")
    sandbox.remove_client(sandbox.client_id)
    barrier = threading.Barrier(16)

    def send(request: requests.PreparedRequest) -> list[int]:
        barrier.wait(LONG)
        with requests.Session() as session:
            answers = session.send(request, timeout=LONG), session.get(url, auth=auth, timeout=LONG)
        return [answer.status_code for answer in answers]

    with ThreadPoolExecutor(16) as pool:
        statuses = [sent.result(LONG) for sent in [pool.submit(send, request) for request in carrying]]
    assert statuses == [[200, 200]] * 16
    assert (vault.asked, sandbox.token_requests, sandbox.rejections) == (2, 2, 16)


def test_a_provider_that_lags_behind_is_followed_as_soon_as_it_knows(
    sandbox: Sandbox, auth: MentionMeAuth, vault: Vault
) -> None:
    """Until then the deleted key is refused, and each request asks again."""
    assert get(sandbox, auth).ok
    sandbox.add_client("new-id", "new-secret")
    sandbox.remove_client(sandbox.client_id)
    for _ in range(2):
        with pytest.raises(InvalidClientError):
            get(sandbox, auth)
    vault.key = ("new-id", "new-secret")
    assert get(sandbox, auth).ok
    assert vault.asked == 4


# Its errors


def test_an_error_of_the_provider_is_raised_where_a_token_is_needed(
    sandbox: Sandbox, auth: MentionMeAuth, vault: Vault
) -> None:
    """As it is, without a token request; the next request asks again."""
    vault.error = SealedError("the vault", shards=3)
    for call in (auth.access_token, auth.claims, lambda: get(sandbox, auth)):
        with pytest.raises(SealedError, match=r"^the vault is sealed$") as raised:
            call()
        assert raised.value.shards == 3
    assert (vault.asked, sandbox.token_requests) == (3, 0)
    vault.error = None
    assert get(sandbox, auth).ok


def test_an_error_of_the_provider_is_raised_in_place_of_a_401(
    sandbox: Sandbox, auth: MentionMeAuth, vault: Vault
) -> None:
    """As any other failed renewal is."""
    assert get(sandbox, auth).ok
    sandbox.revoke()
    vault.error = SealedError("the vault", shards=3)
    with pytest.raises(SealedError):
        get(sandbox, auth)
    vault.error = None
    assert get(sandbox, auth).ok


def test_each_waiting_thread_gets_an_error_of_its_own(
    sandbox: Sandbox, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider is asked once for all of them; afterwards it is asked again."""
    waiting, wait_for = threading.Semaphore(0), TokenSource._wait_for

    def announced(*args: Any) -> float:
        waiting.release()
        return wait_for(*args)

    def sealed() -> tuple[str, str]:
        vault()
        if vault.asked > 1:
            return vault.key
        assert all(waiting.acquire(timeout=LONG) for _ in range(7)), "the others did not come"
        raise SealedError("the vault", shards=3)

    monkeypatch.setattr(TokenSource, "_wait_for", announced)
    auth = MentionMeAuth.from_provider(sealed, environment=sandbox.environment)
    with ThreadPoolExecutor(8) as pool:
        errors = [call.exception(LONG) for call in [pool.submit(get, sandbox, auth) for _ in range(8)]]
    assert [(type(error), str(error)) for error in errors] == [(SealedError, "the vault is sealed")] * 8
    assert len({id(error) for error in errors}) == 8
    assert vault.asked == 1
    assert get(sandbox, auth).ok


@pytest.mark.parametrize("death", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_within_the_provider_leaves_the_auth_usable(
    sandbox: Sandbox, auth: MentionMeAuth, vault: Vault, death: type[BaseException]
) -> None:
    """It comes through as it is, and the next request asks again."""
    vault.error = death()
    with pytest.raises(death):
        auth.access_token()
    vault.error = None
    assert get(sandbox, auth).ok


def test_an_error_of_the_provider_is_a_warning_while_the_old_token_lives(
    sandbox: Sandbox,
    auth: MentionMeAuth,
    vault: Vault,
    clock: FrozenDateTimeFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Requests go on with it and the provider is left alone for 30 seconds; once the token has ended, it raises."""
    assert get(sandbox, auth).ok
    vault.error = SealedError("the vault", shards=3)
    clock.tick(STALE)
    for _ in range(3):
        assert get(sandbox, auth).ok
    assert vault.asked == 2
    (warning,) = warnings(caplog)
    assert "the vault is sealed" in warning
    clock.tick(30)
    assert get(sandbox, auth).ok
    assert (vault.asked, len(warnings(caplog))) == (3, 2)
    clock.tick(EXPIRED - STALE)
    with pytest.raises(SealedError):
        get(sandbox, auth)
    vault.error = None
    assert get(sandbox, auth).ok


RUBBISH = [
    pytest.param(None, TypeError, id="None"),
    pytest.param(SECRET, TypeError, id="one string"),
    pytest.param("ab", TypeError, id="one string of two characters"),
    pytest.param(7, TypeError, id="a number"),
    pytest.param((), TypeError, id="nothing"),
    pytest.param(("an-id",), TypeError, id="no secret"),
    pytest.param(("an-id", SECRET, SECRET), TypeError, id="three"),
    pytest.param({"client_id": "an-id", "client_secret": SECRET}, TypeError, id="a mapping"),
    pytest.param({"an-id", SECRET}, TypeError, id="without an order"),
    pytest.param(("", SECRET), ValueError, id="empty id"),
    pytest.param(("an-id", ""), ValueError, id="empty secret"),
    pytest.param((None, SECRET), TypeError, id="id is None"),
    pytest.param(("an-id", None), TypeError, id="secret is None"),
    pytest.param(("an-id", SECRET.encode()), TypeError, id="secret in bytes"),
    pytest.param(("an-id", [SECRET]), TypeError, id="secret in a list"),
]


@pytest.mark.parametrize(("provided", "error"), RUBBISH)
def test_what_is_no_key_is_an_error_that_does_not_show_it(
    sandbox: Sandbox, auth: MentionMeAuth, vault: Vault, provided: object, error: type[Exception]
) -> None:
    """And nothing is sent to the token endpoint; the next request asks again."""
    key, vault.key = vault.key, provided
    with pytest.raises(
        error, match=r"^(the provider .* \(client_id, client_secret\)|client_(id|secret) .*)$"
    ) as raised:
        auth.access_token()
    assert raised.type is error
    assert SECRET not in str(raised.value)
    assert raised.value.__context__ is None
    assert sandbox.token_requests == 0
    vault.key = key
    assert get(sandbox, auth).ok


@pytest.mark.parametrize("provided", [pytest.param(each.values[0], id=each.id) for each in RUBBISH])
def test_what_is_no_key_is_a_warning_that_does_not_show_it_while_the_old_token_lives(
    *,
    sandbox: Sandbox,
    auth: MentionMeAuth,
    vault: Vault,
    provided: object,
    clock: FrozenDateTimeFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And requests go on with the old token."""
    token = auth.access_token()
    vault.key = provided
    clock.tick(STALE)
    assert auth.access_token() == token
    (warning,) = warnings(caplog)
    assert SECRET not in warning
    assert sandbox.token_requests == 1


@pytest.mark.parametrize("state", ["no token", "stale"])
def test_a_provider_that_uses_the_auth_gets_an_error_that_names_the_cause(
    sandbox: Sandbox, clock: FrozenDateTimeFactory, state: str
) -> None:
    """It would wait for itself. The auth is usable afterwards."""
    errors: list[RuntimeError] = []
    reentrant = False

    def provider() -> tuple[str, str]:
        if reentrant:
            with pytest.raises(RuntimeError, match="from within the token request") as raised:
                get(sandbox, auth)
            errors.append(raised.value)
            raise raised.value
        return sandbox_key()

    auth = MentionMeAuth.from_provider(provider, environment=sandbox.environment)
    if state == "stale":
        token = auth.access_token()
        clock.tick(STALE)
    reentrant = True
    if state == "stale":
        assert auth.access_token() == token
    else:
        with pytest.raises(RuntimeError, match="from within the token request"):
            auth.access_token()
    assert len(errors) == 1
    reentrant = False
    clock.tick(30)
    assert get(sandbox, auth).ok


# Construction, and copies


@pytest.mark.parametrize("provider", [None, ("an-id", SECRET), SECRET], ids=["None", "a key", "a string"])
def test_a_provider_that_cannot_be_called_is_refused_at_once(provider: Any) -> None:
    """Without the secret in the message."""
    with pytest.raises(TypeError, match=r"^provider must be callable$") as raised:
        MentionMeAuth.from_provider(provider)
    assert SECRET not in str(raised.value)


def test_options_are_passed_on(sandbox: Sandbox, vault: Vault, clock: FrozenDateTimeFactory) -> None:
    """Environment, session, timeout, margin and store are those of the class."""
    heard: list[float] = []
    store: dict[str, str] = {}
    with requests.Session() as session:
        send = session.send

        def listen(request: requests.PreparedRequest, **options: Any) -> requests.Response:
            heard.append(options["timeout"])
            return send(request, **options)

        session.send = listen  # type: ignore[method-assign]
        options: dict[str, Any] = {"session": session, "timeout": (3, 4), "refresh_margin": 60, "store": store}
        auth = MentionMeAuth.from_provider(vault, environment=sandbox.environment, **options)
        assert get(sandbox, auth).ok
        clock.tick(3600 - 61)
        assert get(sandbox, auth).ok
        assert vault.asked == 1
        clock.tick(1)
        assert get(sandbox, auth).ok
        assert vault.asked == 2
    assert heard == [(3, 4), (3, 4)]
    assert len(store) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        pytest.param({"retries": 3}, TypeError, id="unknown"),
        pytest.param({"client_secret": SECRET}, TypeError, id="a secret"),
        pytest.param({"timeout": None}, ValueError, id="no timeout"),
        pytest.param({"environment": "staging"}, ValueError, id="unknown environment"),
    ],
)
def test_wrong_options_are_refused_at_once(vault: Vault, options: dict[str, Any], error: type[Exception]) -> None:
    """As they are by the class; the provider is not asked."""
    with pytest.raises(error) as raised:
        MentionMeAuth.from_provider(vault, **options)
    assert raised.type is error
    assert SECRET not in str(raised.value)
    assert vault.asked == 0


def test_a_subclass_makes_one_of_its_own_kind(sandbox: Sandbox, vault: Vault) -> None:
    """As `from_env` does."""

    class Mine(MentionMeAuth):
        pass

    auth = Mine.from_provider(vault, environment=sandbox.environment)
    assert type(auth) is Mine
    assert get(sandbox, auth).ok


def test_its_repr_shows_neither_id_nor_secret_and_asks_for_none(auth: MentionMeAuth, vault: Vault) -> None:
    """Before and after a token was obtained; it says that the key is provided, and the environment."""
    for _ in range(2):
        assert not any(part in repr(auth) for part in vault.key)
        assert repr(auth).startswith("MentionMeAuth(provided, environment='http://127.0.0.1:")
        assert vault.asked <= 1
        auth.access_token()


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda auth: pickle.loads(pickle.dumps(auth))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_ask_the_same_provider(sandbox: Sandbox, duplicate: Callable[[MentionMeAuth], MentionMeAuth]) -> None:
    """Provider and options travel, the token does not; a session that holds the auth travels as well."""
    auth = MentionMeAuth.from_provider(sandbox_key, environment=sandbox.environment)
    token = auth.access_token()
    twin = duplicate(auth)
    assert repr(twin) == repr(auth)
    assert twin.access_token() != token
    assert auth.access_token() == token
    assert sandbox.token_requests == 2


def test_a_pickle_holds_neither_key_nor_token(sandbox: Sandbox) -> None:
    """Of a provider, pickle keeps no more than its name."""
    auth = MentionMeAuth.from_provider(sandbox_key, environment=sandbox.environment)
    token = auth.access_token()
    pickled = pickle.dumps(auth)
    assert not any(part.encode() in pickled for part in (*sandbox_key(), token))
