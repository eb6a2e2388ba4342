"""The token store: who shares a token through it, when a fleet renews, and that a failure costs a warning and no more.

Another process is mostly another auth object with the same store; where it matters, it is a real one.
`proofs/test_properties.py` shows that no text in the store does harm.
"""

import copy
import json
import logging
import pickle
import random
import re
import shelve
import time
import types
from collections import defaultdict
from pathlib import Path

import pytest
import requests
from freezegun import freeze_time
from in_memory import EXPIRED, LIFETIME, LONG, STALE, Answer, Gate, TokenEndpoint, auth_with, session_with
from stores import Failing, File, Recording

from requests_mentionme import InvalidClientError, MentionMeAuth, TokenEndpointError

DAY = 86_400
DUE = 900.0  # seconds after it was obtained: the middle of the margin, by which every process has renewed
SECRET = "the-s3cret"


class Redis(dict):
    """Does as `redis.Redis()` does: it returns bytes, and is content to remove what is not there."""

    def __getitem__(self, name):
        return super().__getitem__(name).encode()

    def __delitem__(self, name):
        self.pop(name, None)


@pytest.fixture
def endpoint():
    """An endpoint that issues token-1, token-2, ..."""
    return TokenEndpoint()


@pytest.fixture
def store():
    """An empty store."""
    return Recording()


@pytest.fixture
def auth(endpoint, store):
    """An auth with that store."""
    return auth_with(endpoint, store=store)


def stored(token, obtained_at, lifetime=LIFETIME):
    """Return what is stored for a token."""
    return json.dumps({"access_token": token, "obtained_at": obtained_at, "lifetime": lifetime})


def holding(content):
    """Return a store with one thing under every key."""
    return defaultdict(lambda: content)


def put(store, text):
    """Put this in the only place of the store that is in use, as another process would."""
    (key,) = store
    dict.__setitem__(store, key, text)


def stored_token(store):
    """Return the only token in the store."""
    (value,) = store.values()
    return json.loads(value)["access_token"]


def warnings(caplog):
    """Return the warnings that were logged, of which all are this library's."""
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert {record.name for record in records} <= {"requests_mentionme"}
    return [record.getMessage() for record in records]


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
    """Nothing of it leaves a warning; values may come back as bytes; a token that another one stored since stays."""
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
    store = {}
    assert [auth_with(endpoint, store=store).access_token() for _ in range(4)] == ["hidden-token"] * 4
    assert endpoint.count == 1
    assert warnings(caplog) == []
    assert sum("from the store" in record.getMessage() for record in caplog.records) == 3
    assert not re.search(f"hidden|{SECRET}", caplog.text)


OTHERS = {
    "id": ("other-id", SECRET, "demo"),
    "secret": ("an-id", "another-secret", "demo"),
    "split elsewhere": ("an-idt", "he-s3cret", "demo"),
    "environment": ("an-id", SECRET, "production"),
    "halves of surrogate pairs": ("\ud800-id", "\udfff-s\u00e9cret", "demo"),
}


@pytest.mark.parametrize(("client_id", "secret", "environment"), OTHERS.values(), ids=OTHERS)
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
        assert not re.search(f"an-id|{SECRET}", key + value)


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

AGES = [(300, STALE - 1, True), (300, DUE, False), (300, 10 * DAY, False), (100, 899, True), (100, 950, False)]
AGES += [(0, EXPIRED - 1, True), (0, EXPIRED, False)]


@pytest.mark.parametrize(("margin", "age", "is_used"), AGES)
def test_a_stored_token_is_used_only_while_it_is_fresh_to_its_reader(
    *, clock, endpoint, auth, store, caplog, margin, age, is_used
):
    """The margin of the reader counts; that a token is not fresh is no reason to warn."""
    auth.access_token()
    clock.tick(age)
    reader = auth_with(endpoint, store=store, refresh_margin=margin)
    assert reader.access_token() == ("token-1" if is_used else "token-2")
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


CLAIMED = [  # how many seconds ahead a token was obtained, its lifetime, and whether it is used
    *[(ahead, LIFETIME, ahead <= 60) for ahead in (0, 59, 60, 60.5)],
    *[(0, lifetime, 0 < lifetime <= DAY) for lifetime in (0.5, DAY, 0, -1, DAY + 1, 1e18)],
]


@pytest.mark.parametrize(("ahead", "lifetime", "is_used"), CLAIMED)
def test_a_stored_token_was_obtained_within_a_minute_from_now_and_lives_for_a_day_at_most(
    clock, caplog, ahead, lifetime, is_used
):
    """The clocks of machines differ by so much, and it counts as obtained now; any other was not written by us."""
    auth = auth_with(TokenEndpoint(), store=holding(stored("hidden-token", time.time() + ahead, lifetime)))
    assert [auth.access_token() for _ in range(2)] == ["hidden-token" if is_used else "token-1"] * 2
    assert len(warnings(caplog)) == 1 - is_used
    assert "hidden" not in caplog.text


@freeze_time("1970-01-01")
def test_a_token_of_the_first_second_is_shared_like_any_other(endpoint, store):
    """That is where many a test suite freezes its clock."""
    assert [auth_with(endpoint, store=store).access_token() for _ in range(2)] == ["token-1"] * 2


# One renewal for a fleet


def moments_of_renewal(fleet, clock, step=1.0):
    """Return how old the token in hand of each was, in steps of some seconds, when that one had another token."""
    obtained_at = time.time()
    old = fleet[0].access_token()
    moments = {}
    while len(moments) < len(fleet):
        clock.tick(step)
        age = round(time.time() - obtained_at, 6)
        assert age <= EXPIRED, "somebody never renewed"
        for number, auth in enumerate(fleet):
            if number not in moments and auth.access_token() != old:
                moments[number] = age
    return [moments[number] for number in range(len(fleet))]


@pytest.mark.parametrize(
    ("margin", "start", "end"), [(300, STALE, DUE), (12, 988, EXPIRED)], ids=["middle first", "last moment first"]
)
def test_the_first_of_a_fleet_to_be_due_renews_and_the_others_find_its_token(
    *, clock, endpoint, store, margin, start, end
):
    """Each is due at a moment of its own, within the first half of the margin, and reads the store just then.

    Where the middle of the margin is later than the last moment, the moments lie before that. With each token comes
    another moment, so that one process is not always the first.
    """
    fleet = [auth_with(endpoint, store=store, refresh_margin=margin) for _ in range(50)]
    span = end - start
    generations = []
    for generation in (1, 2):
        assert {auth.access_token() for auth in fleet} == {f"token-{generation}"}
        (value,) = store.values()
        clock.tick(json.loads(value)["obtained_at"] + start - span / 100 - time.time())
        store.calls.clear()
        before = start - span / 100
        moments = [round(before + age, 6) for age in moments_of_renewal(fleet, clock, span / 100)]
        assert start <= min(moments) < start + span / 4
        assert end - span / 4 < max(moments) <= end
        assert len(set(moments)) > 20
        generations.append(moments)
        assert store.calls == ["read", "write", *["read"] * 49]
        assert endpoint.count == generation + 1
    assert sum(first == second for first, second in zip(*generations, strict=True)) < 10


@pytest.mark.parametrize(("store", "margin", "renewal"), [(None, 300, STALE), ({}, 0, EXPIRED), ({}, 10, EXPIRED)])
def test_without_a_store_or_a_stale_state_nothing_is_spread(clock, endpoint, store, margin, renewal):
    """All renew as soon as the token is stale, or expired."""
    fleet = [auth_with(endpoint, store=store, refresh_margin=margin) for _ in range(20)]
    tokens = [auth.access_token() for auth in fleet]
    clock.tick(renewal - 0.001)
    assert [auth.access_token() for auth in fleet] == tokens
    clock.tick(0.001)
    assert not {auth.access_token() for auth in fleet} & set(tokens)


def unpickled(auth):
    """Return the auth as another process would have it."""
    return pickle.loads(pickle.dumps(auth))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, unpickled])
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
    endpoint = TokenEndpoint("token-2")
    auth = auth_with(endpoint, store=defaultdict(gate.pass_through))
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
@pytest.mark.parametrize("by", ["a 401", "invalidate"])
def test_a_dropped_token_leaves_the_store_only_if_it_is_still_there(auth, endpoint, store, by, in_store):
    """The next process must not take it, though the endpoint is down; what another one has stored since stays."""
    auth.access_token()
    put(store, stored(in_store, time.time()))
    endpoint.script = [Answer(401)]
    if by == "invalidate":
        auth.invalidate()
    else:
        with pytest.raises(InvalidClientError):
            auth.access_token(refused="token-1")
    assert len(store) == (0 if in_store == "token-1" else 1)


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
        def __delitem__(self, key):
            auth.access_token()
            super().__delitem__(key)

    auth = auth_with(TokenEndpoint(), store=Busy())
    auth.access_token()
    auth.invalidate()
    assert auth.access_token() == "token-2"


# Stores that fail, and rubbish

TOKEN = "hidden." + "token" * 20
REASONS = {  # what a store raises, and what the warning says of it
    OSError(28, "No space left on device"): "OSError: '[Errno 28] No space left on device'",
    type("RedisError", (Exception,), {})("host:6379 is down."): "RedisError: 'host:6379 is down.'",
    ValueError("a line\nand another"): "ValueError: 'a line and another'",
    ValueError("long " * 50): f"ValueError: {('long ' * 50)[:200]!r}",
    ValueError("x" * 19): f"ValueError: '{'x' * 19}'",
    ValueError("x" * 20): "ValueError",
    MemoryError(): "MemoryError",
}
# Some libraries quote the value that they could not handle.
REASONS |= {ValueError(f"can't store {quoted}"): "ValueError" for quoted in (TOKEN, repr(TOKEN), f"{TOKEN:.60}...")}


METHODS = {"read": "read, cleared", "write": "written", "remove": "cleared"}  # to remove a token is to read it first


@pytest.mark.parametrize(("error", "reason"), REASONS.items(), ids=range(len(REASONS)))
@pytest.mark.parametrize("methods", [["read"], ["write"], ["remove"], ["read", "write"]], ids="+".join)
def test_a_store_that_fails_costs_a_warning_that_says_why(clock, caplog, error, reason, methods):
    """One for each time that it fails, in one line, and a normal token request: cold, when due, and after a 401.

    Words that are as long as a token are not shown.
    """
    auth = auth_with(TokenEndpoint(), store=Failing(error, *methods))
    expected = methods.count("read") + methods.count("write")
    assert auth.access_token() == "token-1"
    assert len(warnings(caplog)) == expected
    clock.tick(DUE)
    assert [auth.access_token() for _ in range(2)] == ["token-2"] * 2
    assert len(warnings(caplog)) == 2 * expected
    assert auth.access_token(refused="token-2") == "token-3"
    auth.invalidate()
    assert auth.access_token() == "token-4"
    failures = ", ".join(METHODS[method] for method in methods).split(", ")
    assert set(warnings(caplog)) == {f"The token store can't be {failure}: {reason}" for failure in failures}


def test_a_store_that_fails_leaves_no_trace_in_the_error_of_the_token_request():
    """Nor in what that error came from."""
    auth = auth_with(TokenEndpoint(Answer(404)), store=Failing(OSError("told by the store"), "read"))
    with pytest.raises(TokenEndpointError) as raised:
        auth.access_token()
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)


def test_a_store_that_asks_for_a_token_itself_is_one_that_fails(caplog):
    """It would wait for itself: a store behind the API, say."""
    store = defaultdict(str)
    auth = auth_with(TokenEndpoint(), store=store)
    store.default_factory = auth.access_token
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
INFINITE = float("inf")
NAN = float("nan")
RUBBISH = {
    "of another type": [None, 7, {"access_token": "a-token", "obtained_at": NOW, "lifetime": 3600}, memoryview(b"{}")],
    "no JSON object": ["", "a-token", "\ud800", "[" * 100_000, "null", f"[{stored('a-token', NOW)}]"],
    "cut off": [stored("a-token", NOW)[:-1], stored("a-token", NOW)[:-1].encode()],
    "bytes that are no text": [b"\xff\xfe\xff", b""],
    "no token": ["{}", stored(None, NOW), stored("", NOW), stored(["a-token"], NOW)],
    "a token for no header": [
        stored(f"a-token{end}", NOW) for end in ("\n", "\r\nX: 1", " ", "\u00f6", "\ud800", "\x7f")
    ],
    "no start": [stored("a-token", start) for start in (None, [NOW], "soon", True, NAN, INFINITE, -INFINITE, 1e308)],
    "a start of 5000 digits": [stored("a-token", 7).replace("7", "9" * 5000)],
    "no lifetime": [stored("a-token", NOW, odd) for odd in (None, {}, "an hour", True, NAN, INFINITE, 1e308)],
    "a lifetime beyond numbers": [stored("a-token", NOW, 7).replace("7", "1e999")],
}


@freeze_time("2096-10-02 07:06:40")
@pytest.mark.parametrize("contents", RUBBISH.values(), ids=RUBBISH)
def test_rubbish_in_the_store_costs_a_warning_and_a_normal_token_request(caplog, contents):
    """It is not shown, as there may be a token in it."""
    assert time.time() == NOW
    for content in contents:
        caplog.clear()
        assert auth_with(TokenEndpoint("new"), store=holding(content)).access_token() == "new"
        (warning,) = warnings(caplog)
        assert re.match("The token store (holds no valid token, or one from the future$|can't be read: )", warning)
        assert "a-t" not in caplog.text


@freeze_time("2096-10-02 07:06:40")
def test_the_rubbish_of_these_tests_is_rubbish_for_one_reason():
    """Without it, what is stored is used: the same start and lifetime, more fields, numbers in strings, bytes."""
    for start, lifetime in ((NOW, 3600), (str(NOW), "3600"), (float(NOW), 3600.5)):
        text = stored("a-token", start, lifetime).replace("{", '{"more": [], ')
        for content in (text, text.encode()):
            assert auth_with(TokenEndpoint(), store=holding(content)).access_token() == "a-token"


# Together with a provider


def provided(provider, endpoint, store):
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
