"""The token store: who shares a token through it, what is in it, and that its failures cost a warning and no more.

A second process is mostly a second auth object with the same store, where it matters a real one.
"""

import copy
import json
import logging
import os
import pickle
import re
import shelve
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import responses
from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import Failing

from requests_mentionme import DEMO, PRODUCTION, InvalidClientError, MentionMeAuth, TokenEndpointError
from requests_mentionme._source import TokenSource
from requests_mentionme._store import StoredTokens
from requests_mentionme.sandbox import Sandbox

LONG = 20.0  # seconds for what takes far less, unless something hangs
DAY = 86_400
STALE, EXPIRED = 3300, 3590  # seconds after which a token of an hour is
TOLD_BY_STORE = "s3cret-of-the-store"
README = Path(__file__).parent.parent / "README.md"


class Recording(dict[str, str]):
    """A store that tells what was done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __getitem__(self, key: str) -> str:
        """Read."""
        self.calls.append("read")
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: str) -> None:
        """Write."""
        self.calls.append("write")
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        """Remove."""
        self.calls.append("remove")
        super().__delitem__(key)


class Holding:
    """A store with one thing under every key, which keeps nothing else."""

    def __init__(self, content: object) -> None:
        self.content = content

    def __getitem__(self, key: str) -> Any:
        """Return it."""
        return self.content

    def __setitem__(self, key: str, value: str) -> None:
        """Keep nothing."""

    def __delitem__(self, key: str) -> None:
        """Keep it all the same."""


class Folder:
    """A store of one file for each key, which can be pickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getitem__(self, key: str) -> str:
        """Read the file."""
        try:
            return self._file(key).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, value: str) -> None:
        """Write the file, so that nobody sees half of it."""
        half = self.path / f"{os.getpid()}.half"
        half.write_text(value, encoding="utf-8")
        half.replace(self._file(key))

    def __delitem__(self, key: str) -> None:
        """Remove the file."""
        try:
            self._file(key).unlink()
        except FileNotFoundError:
            raise KeyError(key) from None

    def _file(self, key: str) -> Path:
        return self.path / key.replace(":", "-")


@pytest.fixture
def clock() -> Iterator[FrozenDateTimeFactory]:
    """A clock that stands still until it is told to tick."""
    with freeze_time("2026-01-01 12:00") as frozen:
        yield frozen


def auth_for(sandbox: Sandbox, store: Any, **options: Any) -> MentionMeAuth:
    """Return a new auth, as another process would have it."""
    credentials = sandbox.client_id, sandbox.client_secret
    return MentionMeAuth(*credentials, environment=sandbox.environment, store=store, **options)


def carrying_token_of(sandbox: Sandbox, auth: MentionMeAuth) -> requests.PreparedRequest:
    """Return an API request that carries a token, to be sent when that may not be any more what it was."""
    return requests.Request("GET", f"{sandbox.url}/api/merchant/v2/coupons/validate/SAMPLE", auth=auth).prepare()


def get(sandbox: Sandbox, auth: MentionMeAuth) -> list[int]:
    """Make an API request, and return the statuses of its answers."""
    with requests.Session() as session:
        answer = session.send(carrying_token_of(sandbox, auth), timeout=LONG)
    return [each.status_code for each in (*answer.history, answer)]


def stored(token: object, obtained_at: object, lifetime: object = 3600) -> str:
    """Return what is stored for a token."""
    return json.dumps({"access_token": token, "obtained_at": obtained_at, "lifetime": lifetime})


def only_value(store: dict[str, str]) -> dict[str, Any]:
    """Return the fields of the only token in a dict."""
    (value,) = store.values()
    return json.loads(value)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings that were logged."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Sharing


def test_another_process_uses_the_stored_token_without_a_token_request(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """What the first one stores, any number of others find; the log tells so, without the token."""
    caplog.set_level(logging.DEBUG, "requests_mentionme")
    store: dict[str, str] = {}
    assert get(sandbox, auth_for(sandbox, store)) == [200]
    for _ in range(3):
        auth = auth_for(sandbox, store)
        assert get(sandbox, auth) == [200]
        assert auth.access_token() == sandbox.tokens[0]
    assert sandbox.token_requests == 1
    assert warnings(caplog) == []
    assert sum("from the store" in record.getMessage() for record in caplog.records) == 3
    assert not any(secret in caplog.text for secret in (sandbox.tokens[0], sandbox.client_secret))


SHELF = """
import shelve
import sys

from requests_mentionme import MentionMeAuth

with shelve.open(sys.argv[1]) as store:
    print(MentionMeAuth.from_env(store=store).access_token())
"""


def test_a_script_that_runs_again_and_again_asks_for_one_token(sandbox: Sandbox, tmp_path: Path) -> None:
    """Real processes, one after the other, share it through a file."""
    variables = {
        "MENTIONME_CLIENT_ID": sandbox.client_id,
        "MENTIONME_CLIENT_SECRET": sandbox.client_secret,
        "MENTIONME_ENVIRONMENT": sandbox.url,
    }
    for _ in range(3):
        ran = subprocess.run(
            [sys.executable, "-c", SHELF, str(tmp_path / "tokens")],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )
        assert (ran.returncode, ran.stderr, ran.stdout.split()) == (0, "", list(sandbox.tokens))
    assert sandbox.token_requests == 1


def test_a_shelf_in_one_thread_is_a_store(sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Reading, replacing and removing leave no warning."""
    with shelve.open(str(tmp_path / "tokens")) as store:
        first, second = auth_for(sandbox, store), auth_for(sandbox, store)
        assert first.access_token() == second.access_token()
        first.invalidate()
        assert first.access_token() == auth_for(sandbox, store).access_token() != second.access_token()
        assert len(store) == 1
    assert sandbox.token_requests == 2
    assert warnings(caplog) == []


def test_a_stored_token_is_of_use_while_the_token_endpoint_is_down(sandbox: Sandbox) -> None:
    """It is asked for nothing."""
    store: dict[str, str] = {}
    auth_for(sandbox, store).access_token()
    sandbox.fail_token_requests(status=404, times=100)
    assert get(sandbox, auth_for(sandbox, store)) == [200]


@pytest.mark.parametrize(
    "credentials",
    [("other-id", "sandbox-secret"), ("sandbox-id", "other-secret"), ("sandbox-ids", "andbox-secret")],
    ids=["id", "secret", "split elsewhere"],
)
def test_other_credentials_never_see_a_stored_token(sandbox: Sandbox, credentials: tuple[str, str]) -> None:
    """Not even such as the token endpoint would refuse."""
    store: dict[str, str] = {}
    auth_for(sandbox, store).access_token()
    stranger = MentionMeAuth(*credentials, environment=sandbox.environment, store=store)
    with pytest.raises(InvalidClientError):
        stranger.access_token()
    assert len(store) == 1


def test_another_environment_never_sees_a_stored_token(sandbox: Sandbox) -> None:
    """Though the credentials are the same; each has a place of its own in the store."""
    store: dict[str, str] = {}
    with Sandbox() as elsewhere:
        tokens = [auth_for(each, store).access_token() for each in (sandbox, elsewhere, sandbox, elsewhere)]
        assert (sandbox.token_requests, elsewhere.token_requests) == (1, 1)
    assert tokens[:2] == tokens[2:]
    assert len(set(tokens)) == len(store) == 2


def test_production_and_demo_have_places_of_their_own() -> None:
    """With credentials that are good for both, should there be any."""
    store: dict[str, str] = {}
    with responses.RequestsMock() as mock:
        for each in (PRODUCTION, DEMO):
            mock.post(each.token_url, json={"access_token": f"a-{each.name}-token", "expires_in": 3600})
        auths = [MentionMeAuth("an-id", "a-secret", environment=each, store=store) for each in (PRODUCTION, DEMO) * 2]
        assert [auth.access_token() for auth in auths] == ["a-production-token", "a-demo-token"] * 2
        assert len(mock.calls) == len(store) == 2


# What is stored


def test_what_is_stored_is_the_token_its_start_and_its_lifetime(sandbox: Sandbox, clock: FrozenDateTimeFactory) -> None:
    """As JSON with these three fields; the key is a digest, so nothing tells the id or the secret."""
    store: dict[str, str] = {}
    token = auth_for(sandbox, store).access_token()
    assert only_value(store) == {"access_token": token, "obtained_at": time.time(), "lifetime": 3600}
    (key,) = store
    assert re.fullmatch(r"requests-mentionme:[0-9a-f]{64}", key)
    assert all(type(text) is str for text in (key, store[key]))
    assert not any(part in key + store[key] for part in (sandbox.client_id, sandbox.client_secret))


def test_credentials_of_any_characters_have_a_place_in_the_store(sandbox: Sandbox) -> None:
    """Half a surrogate pair has no UTF-8."""
    sandbox.add_client("\ud800-id", "\udfff-s\u00e9cret")
    store: dict[str, str] = {}
    credentials = "\ud800-id", "\udfff-s\u00e9cret"
    tokens = {
        MentionMeAuth(*credentials, environment=sandbox.environment, store=store).access_token() for _ in range(2)
    }
    assert len(tokens) == len(store) == 1


def test_each_new_token_is_stored_in_place_of_the_old_one(sandbox: Sandbox, clock: FrozenDateTimeFactory) -> None:
    """When it gets stale as when it has expired."""
    store: dict[str, str] = {}
    auth = auth_for(sandbox, store)
    for number, wait in enumerate((0, STALE, EXPIRED), 1):
        clock.tick(wait)
        token = auth.access_token()
        assert only_value(store) == {"access_token": token, "obtained_at": time.time(), "lifetime": 3600}
        assert sandbox.token_requests == number


def test_the_store_is_left_alone_while_a_fresh_token_is_in_hand(sandbox: Sandbox, clock: FrozenDateTimeFactory) -> None:
    """It is read when a token is needed or due, and written when one was obtained."""
    store = Recording()
    auth = auth_for(sandbox, store)
    assert store.calls == []
    get(sandbox, auth)
    assert store.calls == ["read", "write"]
    clock.tick(STALE - 1)
    get(sandbox, auth)
    auth.claims()
    assert store.calls == ["read", "write"]
    clock.tick(1)
    get(sandbox, auth)
    assert store.calls == ["read", "write"] * 2


def test_a_token_from_the_store_is_not_written_back(sandbox: Sandbox) -> None:
    """It is there."""
    store = Recording()
    auth_for(sandbox, store).access_token()
    auth_for(sandbox, store).access_token()
    assert store.calls == ["read", "write", "read"]


# Fresh, stale, expired


@pytest.mark.parametrize(
    ("margin", "age", "used"),
    [
        pytest.param(300, STALE - 1, True, id="fresh"),
        pytest.param(300, STALE, False, id="stale"),
        pytest.param(300, EXPIRED, False, id="expired"),
        pytest.param(300, 10 * DAY, False, id="expired long ago"),
        pytest.param(600, 2999, True, id="fresh by a larger margin"),
        pytest.param(600, 3000, False, id="stale by a larger margin"),
        pytest.param(0, EXPIRED - 1, True, id="fresh by no margin"),
        pytest.param(0, EXPIRED, False, id="expired by no margin"),
    ],
)
def test_a_stored_token_is_used_only_while_it_is_fresh_to_its_reader(
    *,
    sandbox: Sandbox,
    clock: FrozenDateTimeFactory,
    caplog: pytest.LogCaptureFixture,
    margin: float,
    age: float,
    used: bool,
) -> None:
    """By the margin of the one who reads; that it is not is no reason to warn."""
    store: dict[str, str] = {}
    token = auth_for(sandbox, store).access_token()
    clock.tick(age)
    assert (auth_for(sandbox, store, refresh_margin=margin).access_token() == token) is used
    assert sandbox.token_requests == 2 - used
    assert warnings(caplog) == []


def test_a_token_from_the_store_ends_when_it_would_have_ended(sandbox: Sandbox, clock: FrozenDateTimeFactory) -> None:
    """Not a lifetime after it was read."""
    store: dict[str, str] = {}
    auth_for(sandbox, store).access_token()
    clock.tick(STALE - 1)
    reader = auth_for(sandbox, store)
    reader.access_token()
    assert sandbox.token_requests == 1
    clock.tick(1)
    reader.access_token()
    assert sandbox.token_requests == 2


def test_a_token_from_the_store_counts_from_when_it_was_obtained(
    sandbox: Sandbox, clock: FrozenDateTimeFactory
) -> None:
    """Not from when it was read: a clock that is set back, but not before that, leaves it fresh."""
    store = Recording()
    auth_for(sandbox, store).access_token()
    clock.tick(1000)
    reader = auth_for(sandbox, store)
    reader.access_token()
    clock.tick(-1000)
    assert get(sandbox, reader) == [200]
    assert store.calls == ["read", "write", "read"]


def test_a_stale_token_in_hand_is_replaced_by_a_fresher_stored_one(
    sandbox: Sandbox, clock: FrozenDateTimeFactory
) -> None:
    """So of many processes one makes the token request."""
    store: dict[str, str] = {}
    processes = [auth_for(sandbox, store) for _ in range(4)]
    assert len({auth.access_token() for auth in processes}) == 1
    clock.tick(STALE)
    assert len({auth.access_token() for auth in processes}) == 1
    assert processes[0].access_token() == sandbox.tokens[1]
    clock.tick(EXPIRED)
    assert len({auth.access_token() for auth in processes}) == 1
    assert sandbox.token_requests == 3


def test_two_processes_that_renew_at_once_both_end_with_a_usable_token(sandbox: Sandbox) -> None:
    """Each finds the store empty and asks; the store keeps one of the two."""
    barrier = threading.Barrier(2)

    class Meeting(Recording):
        def __getitem__(self, key: str) -> str:
            barrier.wait(LONG)
            return super().__getitem__(key)

    store = Meeting()
    auths = [auth_for(sandbox, store) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        statuses = [call.result(LONG) for call in [pool.submit(get, sandbox, auth) for auth in auths]]
    assert statuses == [[200], [200]]
    assert sandbox.token_requests == 2
    assert only_value(store)["access_token"] in {auth.access_token() for auth in auths} == set(sandbox.tokens)


@pytest.mark.parametrize(("ahead", "used"), [(0, True), (59, True), (60, True), (60.5, False), (61, False)])
def test_a_token_of_a_clock_up_to_a_minute_ahead_counts_as_obtained_now(
    *,
    sandbox: Sandbox,
    clock: FrozenDateTimeFactory,
    caplog: pytest.LogCaptureFixture,
    ahead: float,
    used: bool,
) -> None:
    """The clocks of machines differ; one further ahead costs a warning and a token request."""
    auth_for(sandbox, None).access_token()
    (token,) = sandbox.tokens
    store = Holding(stored(token, time.time() + ahead))
    auth = auth_for(sandbox, store)
    assert (auth.access_token() == token) is used
    assert auth.access_token() == sandbox.tokens[-1]
    assert sandbox.token_requests == 2 - used
    assert len(warnings(caplog)) == 1 - used
    assert token not in caplog.text


@pytest.mark.parametrize(
    ("lifetime", "used"),
    [(DAY, True), (DAY + 1, False), (1e18, False), (0.5, True), (0, False), (-1, False)],
    ids=["a day", "more than a day", "for ever", "half a second", "none", "negative"],
)
@pytest.mark.usefixtures("clock")
def test_a_stored_token_lives_for_a_day_at_most(
    *, sandbox: Sandbox, caplog: pytest.LogCaptureFixture, lifetime: float, used: bool
) -> None:
    """Any other lifetime was not written by this library."""
    auth = auth_for(sandbox, Holding(stored("a-token", time.time(), lifetime)))
    assert (auth.access_token() == "a-token") is used
    assert sandbox.token_requests == 1 - used
    assert len(warnings(caplog)) == 1 - used


@freeze_time("1970-01-01")
def test_a_token_of_the_first_second_is_shared_like_any_other(sandbox: Sandbox) -> None:
    """That is where many a test suite freezes its clock."""
    store: dict[str, str] = {}
    assert auth_for(sandbox, store).access_token() == auth_for(sandbox, store).access_token()
    assert sandbox.token_requests == 1


# A 401, and invalidate


def test_a_refused_token_is_replaced_in_the_store_which_is_not_read_for_it(sandbox: Sandbox) -> None:
    """The renewal that a 401 causes asks the endpoint; the next process finds the new token."""
    store = Recording()
    auth_for(sandbox, store).access_token()
    sandbox.revoke()
    store.calls.clear()
    second = auth_for(sandbox, store)
    assert get(sandbox, second) == [401, 200]
    assert store.calls == ["read", "write"]
    assert get(sandbox, auth_for(sandbox, store)) == [200]
    assert get(sandbox, second) == [200]
    assert sandbox.token_requests == 2


def test_a_401_does_not_lead_back_to_another_refused_token_in_the_store(sandbox: Sandbox) -> None:
    """Though that one is different from the one that was refused, and younger."""
    store: dict[str, str] = {}
    first = auth_for(sandbox, store)
    first.access_token()
    store.clear()
    auth_for(sandbox, store).access_token()
    sandbox.revoke()
    assert get(sandbox, first) == [401, 200]
    assert only_value(store)["access_token"] == sandbox.tokens[2]


class Slow(Recording):
    """A store whose reads can be held up, each with what it has read."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def __getitem__(self, key: str) -> str:
        """Read, and wait."""
        text = super().__getitem__(key)
        self.reached.set()
        assert self.go_on.wait(LONG)
        return text

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Hold up reads, until told to go on or the test has failed."""
        self.reached.clear()
        self.go_on.clear()
        try:
            yield
        finally:
            self.go_on.set()


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Tells that a thread begins to wait for another's renewal."""
    arrived, wait_for = threading.Semaphore(0), TokenSource._wait_for

    def announced(*args: Any) -> float:
        arrived.release()
        return wait_for(*args)

    monkeypatch.setattr(TokenSource, "_wait_for", announced)
    return arrived


def join_a_slow_renewal(
    auth: MentionMeAuth, slow: Slow, carrying: requests.PreparedRequest, waiting: threading.Semaphore
) -> tuple[str, requests.Response]:
    """Send a request whose token is refused while a renewal reads the store; return what each of them got."""
    with slow.held_up(), ThreadPoolExecutor(2) as pool, requests.Session() as session:
        leading = pool.submit(auth.access_token)
        assert slow.reached.wait(LONG)
        refused = pool.submit(session.send, carrying, timeout=LONG)
        assert waiting.acquire(timeout=LONG)
        slow.go_on.set()
        return leading.result(LONG), refused.result(LONG)


def test_a_refused_token_from_the_store_holds_off_no_renewal(sandbox: Sandbox, waiting: threading.Semaphore) -> None:
    """A 401 that waited for a renewal got a stored token that is refused too: the next request is healed."""
    slow = Slow()
    auth = auth_for(sandbox, slow)
    carrying = carrying_token_of(sandbox, auth)
    auth_for(sandbox, None).access_token()
    (key,) = slow
    dict.__setitem__(slow, key, stored(sandbox.tokens[1], time.time()))
    sandbox.revoke()
    auth._source._token = auth._source._token._replace(stale_at=0.0)
    token, _ = join_a_slow_renewal(auth, slow, carrying, waiting)
    assert token == sandbox.tokens[1]
    assert get(sandbox, auth)[-1] == 200


def test_a_401_is_healed_though_the_renewal_under_way_finds_the_refused_token_in_the_store(
    sandbox: Sandbox, waiting: threading.Semaphore
) -> None:
    """One that was sent before it was lost here, say by a clock that was set: it asks for another then."""
    slow = Slow()
    auth = auth_for(sandbox, slow)
    carrying = carrying_token_of(sandbox, auth)
    sandbox.revoke()
    auth._source._token = None
    _, response = join_a_slow_renewal(auth, slow, carrying, waiting)
    assert response.status_code == 200
    assert get(sandbox, auth) == [200]


def test_invalidate_removes_the_token_from_the_store(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """Whether it was obtained or read, and though another process has removed it already."""
    store = Recording()
    first, second = auth_for(sandbox, store), auth_for(sandbox, store)
    assert first.access_token() == second.access_token()
    second.invalidate()
    assert store == {}
    first.invalidate(first.access_token())
    assert store.calls == ["read", "write", "read", "remove", "remove"]
    token = first.access_token()
    assert token == only_value(store)["access_token"] == auth_for(sandbox, store).access_token() == sandbox.tokens[1]
    assert sandbox.token_requests == 2
    assert warnings(caplog) == []


def test_invalidate_touches_no_store_unless_it_drops_the_current_token(sandbox: Sandbox) -> None:
    """Without a token in hand, or with another one named, there is nothing to remove."""
    store = Recording()
    auth_for(sandbox, store).access_token()
    store.calls.clear()
    auth = auth_for(sandbox, store)
    auth.invalidate()
    auth.invalidate(sandbox.tokens[0])
    auth.access_token()
    auth.invalidate("another token")
    assert store.calls == ["read"]
    auth.invalidate(sandbox.tokens[0])
    auth.invalidate()
    assert store.calls == ["read", "remove"]


def test_where_no_token_was_read_or_written_there_is_none_to_forget() -> None:
    """A store is not asked to remove something that never was."""
    store = Recording()
    StoredTokens(store, DEMO.token_url, 300).forget()
    assert store.calls == []


def test_an_invalidated_token_does_not_come_back_where_the_store_fails_to_remove_it(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """That it fails costs a warning; the next token is a new one all the same."""
    store = Failing(OSError(TOLD_BY_STORE), "remove")
    auth = auth_for(sandbox, store)
    token = auth.access_token()
    auth.invalidate()
    (warning,) = warnings(caplog)
    assert "OSError" in warning
    assert not any(text in caplog.text for text in (TOLD_BY_STORE, token, sandbox.client_secret))
    assert auth.access_token() != token


def test_an_invalidated_token_does_not_come_back_through_another_thread(sandbox: Sandbox) -> None:
    """One that needs a token at the very moment when the old one is about to be removed."""

    class Busy(Recording):
        def __delitem__(self, key: str) -> None:
            auth.access_token()
            super().__delitem__(key)

    auth = auth_for(sandbox, Busy())
    token = auth.access_token()
    auth.invalidate()
    assert auth.access_token() != token


# Stores that fail, and rubbish


@pytest.mark.parametrize(
    "error",
    [OSError(28, TOLD_BY_STORE), ValueError(TOLD_BY_STORE), RecursionError(TOLD_BY_STORE), MemoryError()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("method", ["read", "write"])
def test_a_store_that_fails_costs_a_warning_and_a_normal_token_request(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, error: Exception, method: str
) -> None:
    """One that can't be reached as one that is full. What the store said is not logged, it may hold a password."""
    auth = auth_for(sandbox, Failing(error, method))
    assert get(sandbox, auth) == [200]
    (warning,) = warnings(caplog)
    assert type(error).__name__ in warning
    assert not any(text in caplog.text for text in (TOLD_BY_STORE, sandbox.tokens[0], sandbox.client_secret))
    assert get(sandbox, auth) == [200]
    assert sandbox.token_requests == len(warnings(caplog)) == 1


def test_a_store_that_fails_altogether_costs_no_request(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """Cold, after a 401, and after `invalidate`, which warn for each method that failed."""
    auth = auth_for(sandbox, Failing(OSError(TOLD_BY_STORE), "read", "write", "remove"))
    assert get(sandbox, auth) == [200]
    assert len(warnings(caplog)) == 2
    sandbox.revoke()
    assert get(sandbox, auth) == [401, 200]
    assert len(warnings(caplog)) == 3
    auth.invalidate()
    assert len(warnings(caplog)) == 4
    assert get(sandbox, auth) == [200]
    assert TOLD_BY_STORE not in caplog.text


def test_a_store_that_fails_leaves_no_trace_in_the_error_of_the_token_request(sandbox: Sandbox) -> None:
    """Nor in what that error came from."""
    sandbox.fail_token_requests(status=404)
    auth = auth_for(sandbox, Failing(OSError(TOLD_BY_STORE), "read"))
    with pytest.raises(TokenEndpointError) as raised:
        auth.access_token()
    assert raised.value.__context__ is None


def test_a_store_that_fails_while_the_token_is_stale_lets_it_be_renewed(
    sandbox: Sandbox, clock: FrozenDateTimeFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """As if there were no store."""
    auth = auth_for(sandbox, Failing(OSError(TOLD_BY_STORE), "read", "write"))
    auth.access_token()
    clock.tick(STALE)
    assert auth.access_token() == sandbox.tokens[1]
    assert len(warnings(caplog)) == 4


def test_a_store_that_asks_for_a_token_itself_is_one_that_fails(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """It would wait for itself: a store behind the API, say."""

    class Remote(Recording):
        def __getitem__(self, key: str) -> str:
            get(sandbox, auth)
            return super().__getitem__(key)

    auth = auth_for(sandbox, Remote())
    assert get(sandbox, auth) == [200]
    (warning,) = warnings(caplog)
    assert "RuntimeError" in warning


def test_an_interrupt_within_the_store_is_no_failure_of_it(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """It comes through, and leaves the auth usable."""
    store = Failing(KeyboardInterrupt(), "read")
    auth = auth_for(sandbox, store)
    with pytest.raises(KeyboardInterrupt):
        auth.access_token()
    store.methods = ()
    assert get(sandbox, auth) == [200]
    assert warnings(caplog) == []


@pytest.mark.parametrize("error", [KeyError, type("AbsentError", (KeyError,), {})], ids=["KeyError", "one of its kind"])
def test_that_nothing_is_stored_is_no_reason_to_warn(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, error: type[KeyError]
) -> None:
    """Neither when it is read nor when it is removed."""
    auth = auth_for(sandbox, Failing(error(), "read", "remove"))
    assert get(sandbox, auth) == [200]
    auth.invalidate()
    assert warnings(caplog) == []


SOON = 4_000_000_000  # as the clock of these tests says
RUBBISH = [
    pytest.param(None, id="None"),
    pytest.param(7, id="a number"),
    pytest.param(stored("a-token", SOON).encode(), id="bytes"),
    pytest.param({"access_token": "a-token", "obtained_at": SOON, "lifetime": 3600}, id="a dict"),
    pytest.param("", id="empty"),
    pytest.param("a-token", id="a bare token"),
    pytest.param("\ud800", id="no UTF-8"),
    pytest.param("[" * 100_000, id="nested too deep"),
    pytest.param("{}", id="empty object"),
    pytest.param("null", id="JSON null"),
    pytest.param('"a-token"', id="JSON string"),
    pytest.param(f"[{stored('a-token', SOON)}]", id="JSON list"),
    pytest.param(stored("a-token", SOON)[:-1], id="cut off"),
    pytest.param(stored(None, SOON), id="no token"),
    pytest.param(stored("", SOON), id="empty token"),
    pytest.param(stored(["a-token"], SOON), id="token in a list"),
    pytest.param(stored("a-token\r\nX-Injected: 1", SOON), id="token with a line break"),
    pytest.param(stored("a-token\n", SOON), id="token that ends in a line break"),
    pytest.param(stored("a token", SOON), id="token with a space"),
    pytest.param(stored("a-t\u00f6ken", SOON), id="token beyond ASCII"),
    pytest.param(stored("a-token\ud800", SOON), id="token with half a surrogate pair"),
    pytest.param(stored("a-token", None), id="no start"),
    pytest.param(stored("a-token", SOON, None), id="no lifetime"),
    pytest.param(stored("a-token", [SOON]), id="start in a list"),
    pytest.param(stored("a-token", SOON, {}), id="lifetime in an object"),
    pytest.param(stored("a-token", "soon"), id="start in words"),
    pytest.param(stored("a-token", SOON, "an hour"), id="lifetime in words"),
    pytest.param(stored("a-token", True), id="start is true"),  # noqa: FBT003 - it is the subject
    pytest.param(stored("a-token", SOON, True), id="lifetime is true"),  # noqa: FBT003 - it is the subject
    pytest.param(stored("a-token", float("nan")), id="start is NaN"),
    pytest.param(stored("a-token", SOON, float("nan")), id="lifetime is NaN"),
    pytest.param(stored("a-token", float("inf")), id="start is infinite"),
    pytest.param(stored("a-token", -float("inf")), id="start is minus infinite"),
    pytest.param(stored("a-token", SOON, float("inf")), id="lifetime is infinite"),
    pytest.param(stored("a-token", 1e308), id="start is huge"),
    pytest.param(stored("a-token", SOON, 1e308), id="lifetime is huge"),
    pytest.param(stored("a-token", 7).replace("7", "9" * 5000), id="start of 5000 digits"),
    pytest.param(stored("a-token", SOON, 7).replace("7", "1e999"), id="lifetime is too huge"),
]


@freeze_time("2096-10-02 07:06:40")
@pytest.mark.parametrize("content", RUBBISH)
def test_rubbish_in_the_store_costs_a_warning_and_a_normal_token_request(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, content: object
) -> None:
    """It is not shown, as there may be a token in it."""
    assert time.time() == SOON
    auth = auth_for(sandbox, Holding(content))
    assert get(sandbox, auth) == [200]
    assert sandbox.token_requests == 1
    assert len(warnings(caplog)) == 1
    assert not any(text in caplog.text for text in ("a-t", sandbox.tokens[0], sandbox.client_secret))


@freeze_time("2096-10-02 07:06:40")
def test_the_rubbish_of_these_tests_is_rubbish_for_one_reason(sandbox: Sandbox) -> None:
    """Without it, what is stored is used: the same start and lifetime, more fields, numbers in strings."""
    for start, lifetime in ((SOON, 3600), (str(SOON), "3600"), (float(SOON), 3600.5)):
        text = stored("a-token", start, lifetime).replace("{", '{"more": [], ')
        assert auth_for(sandbox, Holding(text)).access_token() == "a-token"
    assert sandbox.token_requests == 0


@pytest.fixture(scope="module")
def issuer() -> Iterator[Sandbox]:
    """A sandbox for all examples of a property."""
    with Sandbox() as running:
        yield running


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
near_now = st.floats(-2 * DAY, 2 * DAY).map(lambda ahead: time.time() + ahead)
tokens = st.text(st.characters(min_codepoint=0x1F, max_codepoint=0x80), min_size=1, max_size=20) | st.text(max_size=20)
almost_tokens = st.builds(stored, tokens | json_values, near_now | json_values, st.floats(-1, DAY) | json_values)


@settings(deadline=None)
@given(st.text() | json_values.map(json.dumps) | almost_tokens)
def test_no_text_in_the_store_leads_to_an_error_or_to_a_token_that_no_header_can_carry(
    issuer: Sandbox, text: str
) -> None:
    """Whatever stands there, a token comes back."""
    token = auth_for(issuer, Holding(text)).access_token()
    assert type(token) is str
    assert re.fullmatch(r"[!-~]+", token)
    assert token in issuer.tokens or json.loads(text)["access_token"] == token


# Together with what else there is


def test_a_provider_finds_the_token_of_the_key_that_is_current(sandbox: Sandbox) -> None:
    """The place in the store follows the key, and the provider is asked once for each renewal."""
    sandbox.add_client("new-id", "new-secret")
    key, asked = (sandbox.client_id, sandbox.client_secret), 0
    store: dict[str, str] = {}

    def provider() -> tuple[str, str]:
        nonlocal asked
        asked += 1
        return key

    def fresh() -> MentionMeAuth:
        return MentionMeAuth.from_provider(provider, environment=sandbox.environment, store=store)

    old = auth_for(sandbox, store).access_token()
    auth = fresh()
    assert auth.access_token() == old
    assert (asked, sandbox.token_requests) == (1, 1)
    key = "new-id", "new-secret"
    sandbox.remove_client(sandbox.client_id)
    assert get(sandbox, auth) == [401, 200]
    assert (asked, sandbox.token_requests, len(store)) == (2, 2, 2)
    assert get(sandbox, fresh()) == [200]
    assert fresh().access_token() == auth.access_token() != old
    assert (asked, sandbox.token_requests) == (4, 2)


def test_invalidate_removes_the_token_that_is_dropped_though_the_key_has_changed(
    sandbox: Sandbox, clock: FrozenDateTimeFactory
) -> None:
    """A renewal with the new key that failed has left the old key's token in hand, and in the store."""
    key = sandbox.client_id, sandbox.client_secret
    store: dict[str, str] = {}
    auth = MentionMeAuth.from_provider(lambda: key, environment=sandbox.environment, store=store)
    token = auth.access_token()
    key = "new-id", "new-secret"
    clock.tick(STALE)
    assert auth.access_token() == token
    auth.invalidate()
    assert store == {}


def test_without_credentials_the_store_is_not_read(sandbox: Sandbox) -> None:
    """A provider that fails is an error, whatever is stored."""
    store = Recording()

    def provider() -> tuple[str, str]:
        raise LookupError("no key")

    auth = MentionMeAuth.from_provider(provider, environment=sandbox.environment, store=store)
    with pytest.raises(LookupError):
        auth.access_token()
    assert store.calls == []


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda auth: pickle.loads(pickle.dumps(auth))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_share_the_store(
    sandbox: Sandbox, tmp_path: Path, duplicate: Callable[[MentionMeAuth], MentionMeAuth]
) -> None:
    """Where it is a file, say; so they find the token, which they don't take along themselves."""
    auth = auth_for(sandbox, Folder(tmp_path))
    token = auth.access_token()
    assert token.encode() not in pickle.dumps(auth)
    twin = duplicate(auth)
    assert twin.access_token() == token
    assert sandbox.token_requests == 1
    auth.invalidate()
    assert twin.access_token() == token
    assert auth.access_token() == duplicate(twin).access_token() == sandbox.tokens[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_shares_the_store(sandbox: Sandbox, tmp_path: Path) -> None:
    """What the child stores, the parent finds."""
    auth = auth_for(sandbox, Folder(tmp_path))
    child = os.fork()
    if not child:
        status = 1
        try:
            status = get(sandbox, auth) != [200]
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert get(sandbox, auth) == [200]
    assert sandbox.token_requests == 1


class FakeRedis:
    """Does as `redis.Redis(decode_responses=True)` does with texts."""

    def __init__(self) -> None:
        self.texts: dict[str, tuple[str, float | None]] = {}

    def get(self, name: str) -> str | None:
        """Return what is set and has not expired, or None."""
        text, end = self.texts.get(name, (None, None))
        return None if end is not None and time.time() >= end else text

    def set(self, name: str, value: str, ex: int | None = None) -> bool:
        """Set it, for so many seconds."""
        self.texts[name] = value, None if ex is None else time.time() + ex
        return True

    def delete(self, *names: str) -> int:
        """Delete them, and return how many there were."""
        return sum(self.texts.pop(name, None) is not None for name in names)


def test_the_readmes_ten_lines_around_redis_are_a_store(
    sandbox: Sandbox, clock: FrozenDateTimeFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """Shared, replaced, removed, and gone by itself after a day."""
    text = README.read_text(encoding="utf-8")
    (recipe,) = re.findall(r"^```python\n(class RedisStore:\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(recipe, "README.md", "exec"), namespace)  # noqa: S102 - our own README
    redis = FakeRedis()
    first, second = (auth_for(sandbox, namespace["RedisStore"](redis)) for _ in range(2))
    assert get(sandbox, first) == get(sandbox, second) == [200]
    assert sandbox.token_requests == 1
    first.invalidate()
    assert redis.texts == {}
    first.invalidate()
    sandbox.revoke()
    assert get(sandbox, second) == [401, 200]
    third = auth_for(sandbox, namespace["RedisStore"](redis))
    assert third.access_token() == second.access_token() == sandbox.tokens[1]
    (key,) = redis.texts
    clock.tick(DAY - 1)
    assert redis.get(key) is not None
    clock.tick(1)
    assert redis.get(key) is None
    assert get(sandbox, third) == [200]
    assert warnings(caplog) == []
