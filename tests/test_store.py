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

import pytest
import requests
from freezegun import freeze_time
from in_memory import EXPIRED, LIFETIME, LONG, STALE, Answer, Gate, TokenEndpoint, auth_with, session_with, warnings
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
def store():
    return Recording()


@pytest.fixture
def auth(endpoint, store):
    return auth_with(endpoint, store=store)


def stored(token, obtained_at, lifetime=LIFETIME):
    """Return what is stored for a token."""
    return json.dumps({"access_token": token, "obtained_at": obtained_at, "lifetime": lifetime})


def holding(content):
    """Return a store with one thing under every key."""
    return defaultdict(lambda: content)


def put(store, token):
    """Put this token, obtained now, in the only place of the store that is in use, as another process would."""
    (key,) = store
    dict.__setitem__(store, key, stored(token, time.time()))


def stored_token(store):
    """Return the only token in the store."""
    (value,) = store.values()
    return json.loads(value)["access_token"]


# What can be a store


@pytest.mark.parametrize("store", ["file.json", [], object(), types.MappingProxyType({})], ids=type)
def test_what_can_be_no_store_is_refused_at_construction(store):
    """A list and a text have items, but none by such keys."""
    with pytest.raises(TypeError, match=r"store.*store\[key\]"):
        MentionMeAuth("an-id", SECRET, store=store)
    with pytest.raises(TypeError, match="store"):
        MentionMeAuth.from_provider(lambda: ("an-id", SECRET), store=store)


@pytest.mark.parametrize("make", [dict, Redis, lambda: shelve.Shelf({})], ids=["dict", "redis", "shelve"])
def test_invalidate_removes_the_token_from_any_store_unless_there_is_another_one(endpoint, caplog, make):
    store = make()
    writer, reader, third = (auth_with(endpoint, store=store) for _ in range(3))
    assert [auth.access_token() for auth in (writer, reader, third)] == ["token-1"] * 3
    reader.invalidate("another token")
    assert len(store) == 1
    reader.invalidate()
    assert len(store) == 0
    writer.invalidate()
    assert writer.access_token() == reader.access_token() == "token-2"
    third.invalidate()
    assert len(store) == 1
    writer.invalidate("token-2")
    assert len(store) == 0
    assert endpoint.count == 2
    assert warnings(caplog) == []


# Sharing


def test_other_processes_use_the_stored_token_without_a_token_request_and_without_a_trace_in_the_log(caplog):
    caplog.set_level(logging.DEBUG, "requests_mentionme")
    endpoint = TokenEndpoint("hidden-token", requests.ConnectionError("down"))
    store = {}
    assert [auth_with(endpoint, store=store).access_token() for _ in range(4)] == ["hidden-token"] * 4
    assert endpoint.count == 1
    assert warnings(caplog) == []
    assert sum("from the store" in record.getMessage() for record in caplog.records) == 3
    assert not re.search(f"hidden|{SECRET}", caplog.text)


OTHERS = [
    ("other-id", SECRET, "demo"),
    ("an-id", "another-secret", "demo"),
    ("an-idt", "he-s3cret", "demo"),  # together, the same characters
    ("an-id", SECRET, "production"),
    ("\ud800-id", "\udfff-s\u00e9cret", "demo"),  # halves of surrogate pairs
]


@pytest.mark.parametrize(("client_id", "secret", "environment"), OTHERS)
def test_each_key_and_environment_has_a_place_of_its_own(*, endpoint, auth, store, client_id, secret, environment):
    auth.access_token()
    options = {"environment": environment, "session": session_with(endpoint), "store": store}
    others = [MentionMeAuth(client_id, secret, **options) for _ in range(2)]
    assert [each.access_token() for each in others] == ["token-2"] * 2
    assert len(store) == 2


def test_what_is_stored_is_the_token_its_start_and_its_lifetime_under_a_digest(clock, auth, store):
    auth.access_token()
    ((key, value),) = store.items()
    assert json.loads(value) == json.loads(stored("token-1", time.time()))
    assert re.fullmatch(r"requests-mentionme:[0-9a-f]{64}", key)
    assert (type(key), type(value)) == (str, str)


def test_the_store_is_read_when_a_token_is_needed_or_due_and_written_when_one_was_obtained(clock, auth, store):
    assert store.calls == []
    auth.access_token()
    assert store.calls == ["read", "write"]
    clock.tick(STALE - 1)
    auth.access_token()
    auth.claims()
    assert store.calls == ["read", "write"]
    auth_with(TokenEndpoint(), store=store).access_token()
    assert store.calls == ["read", "write", "read"]
    clock.tick(DUE - STALE + 1)
    auth.access_token()
    assert store.calls == ["read", "write", "read", "read", "write"]
    store.calls.clear()
    auth.invalidate()
    auth.invalidate()  # by now there is nothing to drop
    assert store.calls == ["read", "remove"]


# Fresh by the reader's clock


def test_a_token_from_the_store_counts_from_when_it_was_obtained(clock, endpoint, auth, store):
    auth.access_token()
    clock.tick(STALE - 1)
    reader = auth_with(endpoint, store=store)
    reader.access_token()
    clock.tick(1 - STALE)  # set back, but not before its start: it is fresh
    assert reader.access_token() == "token-1"
    assert store.calls == ["read", "write", "read"]
    clock.tick(DUE)
    assert reader.access_token() == "token-2"


AGES = [(300, STALE - 1, True), (300, DUE, False), (100, 899, True), (100, 950, False), (0, 989, True), (0, 990, False)]
CLAIMS = [  # the reader's margin, age and lifetime of the stored token, whether it is used, whether it is rubbish
    *[(margin, age, LIFETIME, is_used, False) for margin, age, is_used in AGES],
    *[(300, -ahead, LIFETIME, ahead <= 60, ahead > 60) for ahead in (60, 60.5)],
    *[(300, 0, lifetime, 0 < lifetime <= DAY, not 0 < lifetime <= DAY) for lifetime in (0.5, DAY, 0, -1, DAY + 1)],
]


@pytest.mark.parametrize(("margin", "age", "lifetime", "is_used", "is_rubbish"), CLAIMS)
def test_a_stored_token_is_used_if_it_is_fresh_to_its_reader(
    *, clock, caplog, margin, age, lifetime, is_used, is_rubbish
):
    """The clocks of machines differ by a minute, and it counts as obtained now. No token lives for more than a day."""
    store = holding(stored("hidden-token", time.time() - age, lifetime))
    auth = auth_with(TokenEndpoint(), store=store, refresh_margin=margin)
    assert [auth.access_token() for _ in range(2)] == ["hidden-token" if is_used else "token-1"] * 2
    assert len(warnings(caplog)) == is_rubbish
    assert "hidden" not in caplog.text


@freeze_time("1970-01-01")
def test_a_token_of_the_first_second_where_many_a_suite_freezes_its_clock_is_shared_like_any_other(endpoint, store):
    assert [auth_with(endpoint, store=store).access_token() for _ in range(2)] == ["token-1"] * 2


# One renewal for a fleet


def moments_of_renewal(fleet, clock, step):
    """Return after how many steps of the clock each has another token. The first half of the margin has 100 steps."""
    (old,) = {auth.access_token() for auth in fleet}
    moments = {}
    for number in range(1, 102):
        clock.tick(step)
        moments |= {auth: number for auth in fleet if auth not in moments and auth.access_token() != old}
    return [moments[auth] for auth in fleet]


@pytest.mark.parametrize(
    ("margin", "start", "end"), [(300, STALE, DUE), (12, 988, EXPIRED)], ids=["middle first", "last moment first"]
)
def test_the_first_of_a_fleet_renews_and_the_others_find_its_token(*, clock, endpoint, store, margin, start, end):
    """Each does so at a moment of its own, another one for each token, so that one process is not always the first."""
    fleet = [auth_with(endpoint, store=store, refresh_margin=margin) for _ in range(50)]
    step = (end - start) / 100
    generations = []
    for generation in (1, 2):
        assert {auth.access_token() for auth in fleet} == {f"token-{2 * generation - 1}"}
        clock.tick(start - step)
        store.calls.clear()
        moments = moments_of_renewal(fleet, clock, step)
        assert min(moments) < 25
        assert max(moments) > 75
        assert len(set(moments)) > 20
        assert store.calls == ["read", "write", *["read"] * 49]
        assert endpoint.count == 2 * generation
        generations.append(moments)
        for auth in fleet:
            auth.invalidate()
    assert sum(first == second for first, second in zip(*generations, strict=True)) < 10


@pytest.mark.parametrize(("store", "margin", "renewal"), [(None, 300, STALE), ({}, 0, EXPIRED), ({}, 10, EXPIRED)])
def test_without_a_store_or_a_stale_state_nothing_is_spread(clock, endpoint, store, margin, renewal):
    fleet = [auth_with(endpoint, store=store, refresh_margin=margin) for _ in range(20)]
    tokens = [auth.access_token() for auth in fleet]
    clock.tick(renewal - 0.001)
    assert [auth.access_token() for auth in fleet] == tokens
    clock.tick(0.001)
    assert not {auth.access_token() for auth in fleet} & set(tokens)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda auth: pickle.loads(pickle.dumps(auth))])
def test_copies_share_the_store_but_neither_a_token_nor_their_moment(clock, endpoint, tmp_path, monkeypatch, duplicate):
    monkeypatch.setattr(requests.Session, "get_adapter", lambda *_, **__: endpoint)
    auth = MentionMeAuth("an-id", SECRET, store=File(tmp_path / "token"))
    twins = []
    for _ in range(20):
        random.seed(1)  # a seeded generator of chance makes no two of a kind
        twins.append(duplicate(auth))
        assert twins[-1].access_token() == "token-1"
    assert b"token-1" not in pickle.dumps(auth)
    clock.tick(STALE - 1)
    assert len(set(moments_of_renewal(twins, clock, 1))) > 10
    assert endpoint.count == 2


@pytest.mark.parametrize("age", [DUE, EXPIRED], ids=["due", "expired"])
def test_the_token_in_hand_is_not_taken_again_from_the_store(clock, auth, store, age):
    """Stored with a later start, by a clock that is ahead say, it would put the renewal off."""
    auth.access_token()
    clock.tick(age)
    put(store, "token-1")
    assert auth.access_token() == stored_token(store) == "token-2"


# A refused token, and `invalidate`


@pytest.mark.parametrize("in_store", ["token-1", "another"])
def test_a_refused_token_leaves_the_store_and_only_the_endpoint_replaces_it(auth, endpoint, store, in_store):
    """A younger token in the store may be refused just as well; the next process must not take the refused one."""
    auth.access_token()
    put(store, in_store)
    endpoint.script = [Answer(401)]
    with pytest.raises(InvalidClientError):
        auth.access_token(refused="token-1")
    assert len(store) == (0 if in_store == "token-1" else 1)
    assert auth.access_token(refused="token-1") == stored_token(store) == "token-3"
    reader = auth_with(endpoint, store=store)
    assert reader.access_token() == auth.access_token() == "token-3"
    assert reader.access_token(refused="token-3") == stored_token(store) == "token-4"


@pytest.mark.parametrize("in_store", ["token-1", "token-2"], ids=["the refused one", "another one"])
def test_a_401_that_joins_a_renewal_from_the_store_is_healed(clock, start, in_store):
    """The token that the store holds may be the very one, or be refused next: it holds off no renewal."""
    gate = Gate(stored(in_store, time.time()))
    endpoint = TokenEndpoint("token-2", "token-3")
    auth = auth_with(endpoint, store=defaultdict(gate.pass_through))
    leader = start(auth.access_token)
    gate.wait_until_reached()
    refused = start(lambda: auth.access_token(refused="token-1"))
    time.sleep(0.02)  # so that it waits by then: nothing public tells, and the outcome is the same if it does not
    gate.open()
    assert leader.result(LONG) == in_store
    assert refused.result(LONG) == "token-2"
    if in_store == "token-2":
        endpoint.script = ["token-3"]
        assert auth.access_token(refused="token-2") == "token-3"


def test_an_invalidated_token_that_could_not_be_removed_or_was_put_back_does_not_come_back():
    store = Failing(OSError(), "remove")
    auth = auth_with(TokenEndpoint(), store=store)
    auth.access_token()
    auth.invalidate()
    put(store, "token-1")
    assert auth.access_token() == stored_token(store) == "token-2"


def test_an_invalidated_token_does_not_come_back_through_a_thread_that_needs_one_before_it_is_removed(auth, store):
    auth.access_token()
    store.note = lambda call: call == "remove" and auth.access_token()
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
    ValueError(f"can't store {TOKEN!r}"): "ValueError",  # some libraries quote the value
}


@pytest.mark.parametrize("error", REASONS, ids=range(len(REASONS)))
def test_a_warning_says_in_one_line_why_a_store_failed_without_words_as_long_as_a_token(caplog, error):
    auth_with(TokenEndpoint(), store=Failing(error, "read", "write")).access_token()
    assert warnings(caplog) == [f"The token store can't be {call}: {REASONS[error]}" for call in ("read", "written")]
    assert {record.name for record in caplog.records} == {"requests_mentionme"}


@pytest.mark.parametrize(
    ("error", "methods", "failures"),
    [
        (OSError, ["read"], "read read cleared cleared read"),  # to remove a token is to read it first
        (OSError, ["write"], "written written written written"),
        (OSError, ["remove"], "cleared cleared"),
        (type("AbsentError", (KeyError,), {}), ["read", "remove"], ""),  # as any KeyError: nothing is stored
    ],
)
def test_a_failing_store_costs_a_warning_and_a_normal_token_request(clock, caplog, error, methods, failures):
    auth = auth_with(TokenEndpoint(), store=Failing(error(), *methods))
    assert auth.access_token() == "token-1"
    clock.tick(DUE)
    assert [auth.access_token() for _ in range(2)] == ["token-2"] * 2
    assert auth.access_token(refused="token-2") == "token-3"
    auth.invalidate()
    assert auth.access_token() == "token-4"
    assert warnings(caplog) == [f"The token store can't be {failure}: OSError" for failure in failures.split()]


def test_a_store_that_fails_leaves_no_trace_in_the_error_of_the_token_request():
    auth = auth_with(TokenEndpoint(Answer(404)), store=Failing(OSError("told by the store"), "read"))
    with pytest.raises(TokenEndpointError) as raised:
        auth.access_token()
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)


def test_a_store_that_asks_for_a_token_itself_as_one_behind_the_api_would_is_one_that_fails(caplog):
    store = defaultdict(str)
    auth = auth_with(TokenEndpoint(), store=store)
    store.default_factory = auth.access_token
    assert auth.access_token() == "token-1"
    (warning,) = warnings(caplog)
    assert "RuntimeError" in warning


@pytest.mark.parametrize(("method", "number"), [("read", 1), ("write", 2), ("remove", 2)])
def test_an_interrupt_within_the_store_comes_through_and_leaves_the_auth_usable(caplog, method, number):
    store = Failing(KeyboardInterrupt(), method)
    auth = auth_with(TokenEndpoint(), store=store)
    with pytest.raises(KeyboardInterrupt):
        auth.access_token() and auth.invalidate()
    store.methods = ()
    assert auth.access_token() == f"token-{number}"
    assert warnings(caplog) == []


NOW = 4_000_000_000  # as the clock of these tests says
NO_NUMBERS = [None, [NOW], "soon", True, float("nan"), float("inf")]
RUBBISH = {
    "of another type": [None, 7, {"access_token": "a-token", "obtained_at": NOW, "lifetime": 3600}],
    "no text": [b"\xff\xfe\xff", stored("a-token", NOW).replace("{", '{"more": "\ud800", ')],
    "no JSON object": ["", "[" * 100_000, "null", f"[{stored('a-token', NOW)}]"],
    "cut off": [stored("a-token", NOW)[:-1], stored("a-token", NOW)[:-1].encode()],
    "no token": [stored(odd, NOW) for odd in (None, "", ["a-token"], "a-token\n", "a-token ", "a-token\u00f6")],
    "no start": [stored("a-token", start) for start in NO_NUMBERS],
    "no lifetime": [stored("a-token", NOW, odd) for odd in NO_NUMBERS],
}


@freeze_time("2096-10-02 07:06:40")
@pytest.mark.parametrize("contents", RUBBISH.values(), ids=RUBBISH)
def test_rubbish_in_the_store_is_not_shown_and_costs_a_warning_and_a_normal_token_request(caplog, contents):
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
    return MentionMeAuth.from_provider(provider, session=session_with(endpoint), store=store)


def test_the_place_in_the_store_follows_the_key_of_the_provider_which_is_asked_first(endpoint, store):
    keys = [("an-id", SECRET), ("an-id", SECRET), ("new-id", "new-secret"), ("new-id", "new-secret")]
    tokens = [provided(keys.pop, endpoint, store).access_token() for _ in range(4)]
    assert tokens == ["token-1", "token-1", "token-2", "token-2"]
    store.calls.clear()
    with pytest.raises(IndexError):
        provided(keys.pop, endpoint, store).access_token()
    assert store.calls == []


def test_invalidate_removes_the_token_that_is_dropped_though_a_renewal_with_a_new_key_has_failed(clock, store):
    keys = [("new-id", "new-secret"), ("an-id", SECRET)]
    auth = provided(keys.pop, TokenEndpoint("token-1", Answer(401)), store)
    assert auth.access_token() == "token-1"
    clock.tick(DUE)
    assert auth.access_token() == "token-1"
    assert keys == []
    auth.invalidate()
    assert store == {}
