"""The token store: who shares a token through it, when a fleet renews, and that a failure costs a warning and no more.

Another process is mostly another auth object with the same store; where it matters, it is a real one.
"""

import copy
import json
import logging
import os
import pickle
import random
import re
import shelve
import signal
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory
from hypothesis import given, settings
from hypothesis import strategies as st
from in_memory import EXPIRED, LIFETIME, LONG, STALE, Answer, Gate, TokenEndpoint, auth_with, session_with
from stores import Failing

from requests_mentionme import InvalidClientError, MentionMeAuth, TokenEndpointError

DAY = 86_400
DUE = 900.0  # seconds after it was obtained: the middle of the margin, by which every process has renewed
SECRET = "the-s3cret"


class Recording(dict[str, str]):
    """A store that tells what was done with it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __getitem__(self, key: str) -> str:
        self.calls.append("read")
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: str) -> None:
        self.calls.append("write")
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self.calls.append("remove")
        super().__delitem__(key)


class Holding(dict[str, Any]):
    """A store with one thing under every key, which keeps nothing else."""

    def __init__(self, content: object) -> None:
        super().__init__()
        self.content = content

    def __getitem__(self, key: str) -> Any:
        return self.content

    def __setitem__(self, key: str, value: str) -> None:
        pass


class Redis(dict[str, str]):
    """Does as `redis.Redis()` does: it returns bytes, and is content to remove what is not there."""

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name).encode()

    def __delitem__(self, name: str) -> None:
        self.pop(name, None)


class File:
    """A store in a file, which can be pickled, and has room for one token."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getitem__(self, key: str) -> str:
        if not self.path.exists():
            raise KeyError(key)
        return self.path.read_text(encoding="utf-8")

    def __setitem__(self, key: str, value: str) -> None:
        self.path.write_text(value, encoding="utf-8")

    def __delitem__(self, key: str) -> None:
        self.path.unlink()


@pytest.fixture
def endpoint() -> TokenEndpoint:
    """An endpoint that issues token-1, token-2, ..."""
    return TokenEndpoint()


@pytest.fixture
def store() -> Recording:
    """An empty store."""
    return Recording()


@pytest.fixture
def auth(endpoint: TokenEndpoint, store: Recording) -> MentionMeAuth:
    """An auth with that store."""
    return auth_with(endpoint, store=store)


def stored(token: object, obtained_at: object, lifetime: object = LIFETIME) -> str:
    """Return what is stored for a token."""
    return json.dumps({"access_token": token, "obtained_at": obtained_at, "lifetime": lifetime})


def put(store: dict[str, str], text: str) -> None:
    """Put this in the only place of the store that is in use, as another process would."""
    (key,) = store
    dict.__setitem__(store, key, text)


def stored_token(store: dict[str, str]) -> str:
    """Return the only token in the store."""
    (value,) = dict.values(store)
    return json.loads(value)["access_token"]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings that were logged."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# What can be a store


@pytest.mark.parametrize(
    "store",
    ["file.json", b"file.json", Path("file.json"), [], (), {"a-set"}, 7, object(), types.MappingProxyType({})],
    ids=lambda store: type(store).__name__,
)
def test_what_can_be_no_store_is_refused_at_construction(store):
    """The error says what is needed: a list and a text have items, but none by such keys."""
    with pytest.raises(TypeError, match=r"store.*(\[key\]|__getitem__)"):
        MentionMeAuth("an-id", SECRET, store=store)
    with pytest.raises(TypeError, match="store"):
        MentionMeAuth.from_provider(lambda: ("an-id", SECRET), store=store)


@pytest.mark.parametrize("make", [dict, Redis, lambda: shelve.Shelf({})], ids=["dict", "redis", "shelve"])
def test_a_store_has_tokens_read_replaced_and_removed(endpoint, caplog, make):
    """Reading, replacing and removing leave no warning; values may come back as bytes."""
    store = make()
    first, second = (auth_with(endpoint, store=store) for _ in range(2))
    assert first.access_token() == second.access_token() == "token-1"
    first.invalidate()
    assert len(store) == 0
    assert first.access_token() == auth_with(endpoint, store=store).access_token() == "token-2"
    second.invalidate()
    assert len(store) == 1
    assert endpoint.count == 2
    assert warnings(caplog) == []


# Sharing


def test_another_process_uses_the_stored_token_without_a_token_request(caplog):
    """What the first one stores, any number of others find, though the endpoint is down; the log shows no token."""
    caplog.set_level(logging.DEBUG, "requests_mentionme")
    endpoint = TokenEndpoint("hidden-token", requests.ConnectionError("down"))
    store: dict[str, str] = {}
    assert [auth_with(endpoint, store=store).access_token() for _ in range(4)] == ["hidden-token"] * 4
    assert endpoint.count == 1
    assert warnings(caplog) == []
    assert sum("from the store" in record.getMessage() for record in caplog.records) == 3
    assert "hidden" not in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("client_id", "secret", "environment"),
    [
        ("other-id", SECRET, "demo"),
        ("an-id", "another-secret", "demo"),
        ("an-idt", "he-s3cret", "demo"),
        ("an-id", SECRET, "production"),
        ("\ud800-id", "\udfff-s\u00e9cret", "demo"),
    ],
    ids=["id", "secret", "split elsewhere", "environment", "halves of surrogate pairs"],
)
def test_each_key_and_environment_has_a_place_of_its_own(*, endpoint, auth, store, client_id, secret, environment):
    """A token is found by those that it was issued to, and by nobody else."""
    auth.access_token()
    options = {"environment": environment, "session": session_with(endpoint), "store": store}
    others = [MentionMeAuth(client_id, secret, **options) for _ in range(2)]
    assert [each.access_token() for each in others] == ["token-2"] * 2
    assert len(store) == 2


def test_what_is_stored_is_the_token_its_start_and_its_lifetime(clock, auth, store):
    """It is JSON with these three fields; the key is a digest, so nothing tells the id or the secret."""
    for number, wait in enumerate((0, DUE, EXPIRED), 1):
        clock.tick(wait)
        auth.access_token()
        ((key, value),) = store.items()
        assert json.loads(value) == json.loads(stored(f"token-{number}", time.time()))
        assert re.fullmatch(r"requests-mentionme:[0-9a-f]{64}", key)
        assert (type(key), type(value)) == (str, str)
        assert not any(part in key + value for part in ("an-id", SECRET))


def test_the_store_is_left_alone_while_a_fresh_token_is_in_hand(clock, endpoint, auth, store):
    """It is read when a token is needed or due, and written when one was obtained; what was read is not written."""
    assert store.calls == []
    auth.access_token()
    assert store.calls == ["read", "write"]
    clock.tick(STALE - 1)
    auth.access_token()
    auth.claims()
    assert store.calls == ["read", "write"]
    auth_with(endpoint, store=store).access_token()
    assert store.calls == ["read", "write", "read"]
    clock.tick(DUE - STALE + 1)
    auth.access_token()
    assert store.calls == ["read", "write", "read", "read", "write"]


# Fresh by the reader's clock


@pytest.mark.parametrize(
    ("margin", "age", "used"),
    [
        *((300, STALE - 1, True), (300, DUE, False), (300, 10 * DAY, False)),
        *((100, 899, True), (100, 950, False), (0, EXPIRED - 1, True), (0, EXPIRED, False)),
    ],
)
def test_a_stored_token_is_used_only_while_it_is_fresh_to_its_reader(
    *, clock, endpoint, auth, store, caplog, margin, age, used
):
    """The margin of the reader counts; that a token is not fresh is no reason to warn."""
    auth.access_token()
    clock.tick(age)
    reader = auth_with(endpoint, store=store, refresh_margin=margin)
    assert reader.access_token() == ("token-1" if used else "token-2")
    assert warnings(caplog) == []


def test_a_token_from_the_store_counts_from_when_it_was_obtained(clock, endpoint, auth, store):
    """So it ends when it would have ended; and a clock set back, but not before its start, leaves it fresh."""
    auth.access_token()
    clock.tick(STALE - 1)
    reader = auth_with(endpoint, store=store)
    reader.access_token()
    clock.tick(1 - STALE)
    assert reader.access_token() == "token-1"
    assert store.calls == ["read", "write", "read"]
    clock.tick(DUE)
    assert reader.access_token() == "token-2"


@pytest.mark.parametrize(
    ("ahead", "lifetime", "used"),
    [
        *((ahead, LIFETIME, True) for ahead in (0, 59, 60)),
        *((ahead, LIFETIME, False) for ahead in (60.5, 61)),
        *((0, lifetime, True) for lifetime in (0.5, DAY)),
        *((0, lifetime, False) for lifetime in (0, -1, DAY + 1, 1e18)),
    ],
)
def test_a_stored_token_was_obtained_within_a_minute_from_now_and_lives_for_a_day_at_most(
    clock, caplog, ahead, lifetime, used
):
    """The clocks of machines differ by so much, and it counts as obtained now; any other was not written by us."""
    store = Holding(stored("hidden-token", time.time() + ahead, lifetime))
    auth = auth_with(TokenEndpoint(), store=store)
    assert [auth.access_token() for _ in range(2)] == ["hidden-token" if used else "token-1"] * 2
    assert len(warnings(caplog)) == 1 - used
    assert "hidden" not in caplog.text


@freeze_time("1970-01-01")
def test_a_token_of_the_first_second_is_shared_like_any_other(endpoint, store):
    """That is where many a test suite freezes its clock."""
    assert [auth_with(endpoint, store=store).access_token() for _ in range(2)] == ["token-1"] * 2


# One renewal for a fleet


def moments_of_renewal(fleet: Sequence[MentionMeAuth], clock: FrozenDateTimeFactory, step: float = 1.0) -> list[float]:
    """Return how old the token in hand of each was, in steps of some seconds, when that one had another token."""
    obtained_at = time.time()
    old = fleet[0].access_token()
    moments: dict[int, float] = {}
    while len(moments) < len(fleet):
        clock.tick(step)
        age = round(time.time() - obtained_at, 6)
        assert age <= EXPIRED, "somebody never renewed"
        for number, auth in enumerate(fleet):
            if number not in moments and auth.access_token() != old:
                moments[number] = age
    return list(moments.values())


def test_the_first_of_a_fleet_to_be_due_renews_and_the_others_find_its_token(clock, endpoint, store):
    """Each is due at a moment of its own, within the first half of the margin, and reads the store just then."""
    fleet = [auth_with(endpoint, store=store) for _ in range(50)]
    for generation in (1, 2):
        assert {auth.access_token() for auth in fleet} == {f"token-{generation}"}
        ((_, value),) = store.items()
        clock.tick(json.loads(value)["obtained_at"] + STALE - 1 - time.time())
        store.calls.clear()
        moments = [STALE - 1 + age for age in moments_of_renewal(fleet, clock)]
        assert STALE <= min(moments) < STALE + 25
        assert DUE - 25 < max(moments) <= DUE
        assert len(set(moments)) > 20
        assert store.calls == ["read", "write", *["read"] * 49]
        assert endpoint.count == generation + 1


def test_each_token_has_a_moment_of_its_own(clock, auth):
    """One process is not always the first."""
    moments = set()
    for _ in range(20):
        auth.access_token()
        clock.tick(STALE - 1)
        moments.update(moments_of_renewal([auth], clock))
    assert len(moments) > 10
    assert 1 <= min(moments) < max(moments) <= DUE - STALE + 1


def test_a_moment_is_never_later_than_the_last_moment(clock, endpoint, store):
    """Where the middle of the margin is later, the moments lie between its start and the last moment."""
    fleet = [auth_with(endpoint, store=store, refresh_margin=12) for _ in range(50)]
    assert {auth.access_token() for auth in fleet} == {"token-1"}
    clock.tick(987.9)
    moments = [987.9 + age for age in moments_of_renewal(fleet, clock, 0.1)]
    assert min(moments) >= 988 - 1e-6
    assert sum(moment > EXPIRED - 0.05 for moment in moments) < 15
    assert endpoint.count == 2


@pytest.mark.parametrize(
    ("store", "margin", "renewal"),
    [(None, 300, STALE), ({}, 0, EXPIRED), ({}, 10, EXPIRED)],
    ids=["no store", "no margin", "a margin of the last moment"],
)
def test_without_a_store_or_a_stale_state_nothing_is_spread(clock, endpoint, store, margin, renewal):
    """All renew as soon as the token is stale, or expired."""
    fleet = [auth_with(endpoint, store=store, refresh_margin=margin) for _ in range(20)]
    tokens = [auth.access_token() for auth in fleet]
    clock.tick(renewal - 0.001)
    assert [auth.access_token() for auth in fleet] == tokens
    clock.tick(0.001)
    assert not {auth.access_token() for auth in fleet} & set(tokens)


def unpickled(auth: MentionMeAuth) -> MentionMeAuth:
    """Return the auth as another process would have it."""
    return pickle.loads(pickle.dumps(auth))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, unpickled], ids=["copy", "deepcopy", "pickle"])
def test_copies_share_the_store_but_not_their_moment(clock, endpoint, tmp_path, monkeypatch, duplicate):
    """They find the token, which they don't take along; a seeded generator of chance makes no two of a kind."""
    monkeypatch.setattr(requests.Session, "get_adapter", lambda *_, **__: endpoint)
    auth = MentionMeAuth("an-id", SECRET, store=File(tmp_path / "token"))
    twins = []
    for _ in range(20):
        random.seed(1)
        twins.append(duplicate(auth))
        assert twins[-1].access_token() == "token-1"
    assert b"token-1" not in pickle.dumps(auth)
    clock.tick(STALE - 1)
    assert len(set(moments_of_renewal(twins, clock))) > 10
    assert endpoint.count == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_forked_children_share_the_store_but_not_their_moment(clock, endpoint, tmp_path):
    """The workers of a preloaded server have the token in hand from before the fork, and are due one by one."""
    auth = auth_with(endpoint, store=File(tmp_path / "token"))
    auth.access_token()
    clock.tick(STALE - 1)
    children = []
    for number in range(10):
        children.append(os.fork())
        if not children[-1]:
            signal.alarm(int(LONG))  # ends a child that hangs, whatever it waits for
            try:
                random.seed(1)
                (tmp_path / f"moment-{number}").write_text(str(moments_of_renewal([auth], clock)))
            finally:
                os._exit(0)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 10
    moments = [file.read_text() for file in tmp_path.glob("moment-*")]
    assert len(moments) == 10
    assert len(set(moments)) > 3


@pytest.mark.parametrize("age", [DUE, EXPIRED], ids=["due", "expired"])
def test_the_token_in_hand_is_not_taken_again_from_the_store(clock, auth, store, age):
    """Stored with a later start, by a clock that is ahead say, it would put the renewal off."""
    auth.access_token()
    clock.tick(age)
    put(store, stored("token-1", time.time()))
    assert auth.access_token() == stored_token(store) == "token-2"


# A refused token, and `invalidate`


@pytest.mark.parametrize("in_store", ["token-1", "another"])
def test_a_refused_token_is_replaced_by_the_endpoint_and_not_by_the_store(endpoint, auth, store, in_store):
    """The renewal that a 401 causes asks the endpoint: a younger token in the store may be refused just as well."""
    auth.access_token()
    put(store, stored(in_store, time.time()))
    assert auth.access_token(refused="token-1") == stored_token(store) == "token-2"
    assert auth_with(endpoint, store=store).access_token() == auth.access_token() == "token-2"
    assert auth_with(endpoint, store=store).access_token(refused="token-2") == stored_token(store) == "token-3"


@pytest.mark.parametrize("in_store", ["token-1", "token-2"], ids=["the refused one", "another one"])
def test_a_401_that_joins_a_renewal_from_the_store_is_healed(clock, start, in_store):
    """The token that the store holds may be the very one, or be refused next: it holds off no renewal."""
    gate = Gate(stored(in_store, time.time()))

    class Slow(Recording):
        def __getitem__(self, key: str) -> Any:
            return gate.pass_through()

    endpoint = TokenEndpoint("token-2")
    auth = auth_with(endpoint, store=Slow())
    leader = start(auth.access_token)
    gate.wait_until_reached()
    refused = start(lambda: auth.access_token(refused="token-1"))
    time.sleep(0.02)  # so that it waits by then: nothing public tells, and the outcome is the same if it does not
    gate.open()
    assert leader.result(LONG) == in_store
    assert refused.result(LONG) == "token-2"
    endpoint.script = ["token-3"]
    if in_store == "token-2":
        assert auth.access_token(refused="token-2") == "token-3"


@pytest.mark.parametrize("how", ["obtained", "read"])
def test_invalidate_removes_the_token_from_the_store(endpoint, auth, store, caplog, how):
    """Without a warning, though another process has removed it already."""
    other = auth_with(endpoint, store=store)
    first, second = (auth, other) if how == "obtained" else (other, auth)
    assert auth.access_token() == other.access_token()
    first.invalidate("another token")
    assert len(store) == 1
    first.invalidate("token-1")
    assert store == {}
    store.calls.clear()
    first.invalidate()
    assert store.calls == [], "there was no token in hand"
    second.invalidate()
    assert first.access_token() == stored_token(store) == "token-2"
    assert warnings(caplog) == []


@pytest.mark.parametrize("in_store", ["token-1", "newer"])
def test_a_401_removes_the_refused_token_though_the_endpoint_is_down(auth, endpoint, store, in_store):
    """The next process must not take it; a token that another process has stored since stays."""
    auth.access_token()
    put(store, stored(in_store, time.time()))
    endpoint.script = [Answer(401)]
    with pytest.raises(InvalidClientError):
        auth.access_token(refused="token-1")
    assert len(store) == (0 if in_store == "token-1" else 1)


@pytest.mark.parametrize("value", [str, str.encode], ids=["text", "bytes"])
def test_invalidate_leaves_another_token_in_the_store(auth, store, value):
    """A token that another process has stored since is not the one that is dropped."""
    auth.access_token()
    newer = value(stored("newer", time.time()))
    put(store, newer)
    auth.invalidate()
    assert list(store.values()) == [newer]
    assert auth.access_token() != "token-1"


def test_an_invalidated_token_does_not_come_back():
    """Not where the store failed to remove it, nor where another process puts it back with a later start."""
    store = Failing(OSError(), "remove")
    auth = auth_with(TokenEndpoint(), store=store)
    auth.access_token()
    auth.invalidate()
    put(store, stored("token-1", time.time()))
    assert auth.access_token() == stored_token(store) == "token-2"


def test_an_invalidated_token_does_not_come_back_through_another_thread():
    """One may need a token at the very moment when the old one is about to be removed."""

    class Busy(Recording):
        def __delitem__(self, key: str) -> None:
            auth.access_token()
            super().__delitem__(key)

    auth = auth_with(TokenEndpoint(), store=Busy())
    auth.access_token()
    auth.invalidate()
    assert auth.access_token() == "token-2"


# Stores that fail, and rubbish


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (type("RedisError", (Exception,), {})("Error 111 connecting to host:6379."), "connecting to host:6379"),
        (ValueError("a line\nand another"), "and another"),
        (RecursionError("too deep"), "too deep"),
        (MemoryError(), ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
@pytest.mark.parametrize("methods", [["read"], ["write"], ["read", "write", "remove"]], ids="+".join)
def test_a_store_that_fails_costs_a_warning_that_says_why(clock, caplog, error, words, methods):
    """One for each time that it fails, in one line, and a normal token request: cold, when due, and after a 401."""
    auth = auth_with(TokenEndpoint(), store=Failing(error, *methods))
    reads = methods.count("read")
    writes = methods.count("write")
    assert auth.access_token() == "token-1"
    assert len(warnings(caplog)) == reads + writes
    clock.tick(DUE)
    assert [auth.access_token() for _ in range(2)] == ["token-2"] * 2
    assert len(warnings(caplog)) == 2 * (reads + writes)
    assert auth.access_token(refused="token-2") == "token-3"
    assert len(warnings(caplog)) == 3 * (reads + writes)
    auth.invalidate()
    assert auth.access_token() == "token-4"
    for warning in warnings(caplog):
        assert type(error).__name__ in warning
        assert words in warning
        assert warning.isprintable()


@pytest.mark.parametrize("quoted", ["{}", "can't store {!r}", "{:.60}... is too long"], ids=["bare", "quoted", "cut"])
@pytest.mark.parametrize("method", ["read", "write", "remove"])
def test_words_of_a_store_that_could_hold_a_token_are_not_shown(caplog, method, quoted):
    """Some libraries quote the value that they could not handle; the class of the exception is shown all the same."""
    caplog.set_level(logging.DEBUG, "requests_mentionme")
    token = "hidden." + "token" * 20
    error = ValueError(quoted.format(stored(token, time.time())))
    store = Failing(error, method)
    auth = auth_with(TokenEndpoint(token), store=store)
    auth.access_token()
    auth.invalidate()
    assert {"ValueError" in warning for warning in warnings(caplog)} == {True}
    assert "hidden" not in caplog.text


def test_a_store_that_fails_leaves_no_trace_in_the_error_of_the_token_request():
    """Nor in what that error came from."""
    auth = auth_with(TokenEndpoint(Answer(404)), store=Failing(OSError("told by the store"), "read"))
    with pytest.raises(TokenEndpointError) as raised:
        auth.access_token()
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)


def test_a_store_that_asks_for_a_token_itself_is_one_that_fails(caplog):
    """It would wait for itself: a store behind the API, say."""

    class Remote(Recording):
        def __getitem__(self, key: str) -> str:
            auth.access_token()
            return super().__getitem__(key)

    auth = auth_with(TokenEndpoint(), store=Remote())
    assert auth.access_token() == "token-1"
    (warning,) = warnings(caplog)
    assert "RuntimeError" in warning


def test_an_interrupt_within_the_store_is_no_failure_of_it(caplog):
    """It comes through, and leaves the auth usable."""
    store = Failing(KeyboardInterrupt(), "read")
    auth = auth_with(TokenEndpoint(), store=store)
    with pytest.raises(KeyboardInterrupt):
        auth.access_token()
    store.methods = ()
    assert auth.access_token() == "token-1"
    assert warnings(caplog) == []


@pytest.mark.parametrize("error", [KeyError, type("AbsentError", (KeyError,), {})], ids=["KeyError", "one of its kind"])
def test_that_nothing_is_stored_is_no_reason_to_warn(caplog, error):
    """Neither when it is read nor when it is removed."""
    auth = auth_with(TokenEndpoint(), store=Failing(error(), "read", "remove"))
    auth.access_token()
    auth.invalidate()
    assert warnings(caplog) == []


NOW = 4_000_000_000  # as the clock of these tests says
RUBBISH = {
    "of another type": [None, 7, {"access_token": "a-token", "obtained_at": NOW, "lifetime": 3600}, memoryview(b"{}")],
    "no JSON object": ["", "a-token", "\ud800", "[" * 100_000, "null", '"a-token"', f"[{stored('a-token', NOW)}]"],
    "cut off": [stored("a-token", NOW)[:-1], stored("a-token", NOW)[:-1].encode()],
    "bytes that are no text": [b"\xff\xfe\xff", b""],
    "no token": ["{}", stored(None, NOW), stored("", NOW), stored(["a-token"], NOW)],
    "a token that breaks a line": [stored("a-token\r\nX-Injected: 1", NOW), stored("a-token\n", NOW)],
    "a token for no header": [stored(f"a-token{char}", NOW) for char in (" ", "\u00f6", "\ud800", "\x00", "\x7f")],
    "no start": [stored("a-token", start) for start in (None, [NOW], "soon", True, float("nan"))],
    "an endless start": [stored("a-token", start) for start in (float("inf"), -float("inf"), 1e308)],
    "a start of 5000 digits": [stored("a-token", 7).replace("7", "9" * 5000)],
    "no lifetime": [stored("a-token", NOW, lifetime) for lifetime in (None, {}, "an hour", True, float("nan"))],
    "an endless lifetime": [stored("a-token", NOW, lifetime) for lifetime in (float("inf"), 1e308)],
    "a lifetime beyond numbers": [stored("a-token", NOW, 7).replace("7", "1e999")],
}


@freeze_time("2096-10-02 07:06:40")
@pytest.mark.parametrize("contents", RUBBISH.values(), ids=RUBBISH)
def test_rubbish_in_the_store_costs_a_warning_and_a_normal_token_request(caplog, contents):
    """It is not shown, as there may be a token in it."""
    assert time.time() == NOW
    for content in contents:
        caplog.clear()
        assert auth_with(TokenEndpoint("new"), store=Holding(content)).access_token() == "new"
        assert len(warnings(caplog)) == 1, content
        assert "a-t" not in caplog.text


@freeze_time("2096-10-02 07:06:40")
def test_the_rubbish_of_these_tests_is_rubbish_for_one_reason():
    """Without it, what is stored is used: the same start and lifetime, more fields, numbers in strings, bytes."""
    for start, lifetime in ((NOW, 3600), (str(NOW), "3600"), (float(NOW), 3600.5)):
        text = stored("a-token", start, lifetime).replace("{", '{"more": [], ')
        for content in (text, text.encode()):
            assert auth_with(TokenEndpoint(), store=Holding(content)).access_token() == "a-token"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
near_now = st.floats(-2 * DAY, 2 * DAY).map(lambda ahead: time.time() + ahead)
tokens = st.text(st.characters(min_codepoint=0x1F, max_codepoint=0x80), min_size=1, max_size=20) | st.text(max_size=20)
almost_tokens = st.builds(stored, tokens | json_values, near_now | json_values, st.floats(-1, DAY) | json_values)


@settings(deadline=None, derandomize=True)
@given(st.text() | json_values.map(json.dumps) | almost_tokens | st.binary())
def test_nothing_in_the_store_leads_to_an_error_or_to_a_token_that_no_header_can_carry(content):
    """Whatever stands there, a token comes back."""
    token = auth_with(TokenEndpoint("new"), store=Holding(content)).access_token()
    assert type(token) is str
    assert re.fullmatch(r"[!-~]+", token)
    assert token == "new" or json.loads(content)["access_token"] == token


# Together with a provider


def provided(provider: Callable[[], tuple[str, str]], endpoint: TokenEndpoint, store: Any) -> MentionMeAuth:
    """Return an auth with this provider and this store."""
    return MentionMeAuth.from_provider(provider, session=session_with(endpoint), store=store)


def test_a_provider_finds_the_token_of_the_key_that_is_current(clock, endpoint, store):
    """The place in the store follows the key; the provider is asked once for each renewal, before the store."""
    keys = [("an-id", SECRET), ("an-id", SECRET), ("new-id", "new-secret"), ("new-id", "new-secret")]
    tokens = [provided(keys.pop, endpoint, store).access_token() for _ in range(4)]
    assert tokens == ["token-1", "token-1", "token-2", "token-2"]
    store.calls.clear()
    with pytest.raises(IndexError):
        provided(keys.pop, endpoint, store).access_token()
    assert store.calls == []


def test_invalidate_removes_the_token_that_is_dropped_though_the_key_has_changed(clock, store):
    """A renewal with the new key that failed has left the old key's token in hand, and in the store."""
    keys = [("new-id", "new-secret"), ("an-id", SECRET)]
    auth = provided(keys.pop, TokenEndpoint("token-1", Answer(401)), store)
    assert auth.access_token() == "token-1"
    clock.tick(DUE)
    assert auth.access_token() == "token-1"
    assert keys == []
    auth.invalidate()
    assert store == {}
