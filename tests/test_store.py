"""The token store: who shares a token through it, when a fleet renews, and that a failure costs a warning and no more.

Another process is another auth object here. `proofs/test_properties.py` shows that no text in the store does harm.
"""

import copy
import json
import pickle
import random
import re
import shelve
import time
import types
from collections import defaultdict
from functools import partial

import pytest
import requests
from freezegun import freeze_time
from in_memory import EXPIRED, LIFETIME, LONG, STALE, Answer, Gate, TokenEndpoint, auth_with, session_with, warnings
from stores import Failing, File

from requests_mentionme import InvalidClientError, MentionMeAuth, TokenEndpointError

DAY = 86_400
DUE = 900.0  # seconds after it was obtained: the middle of the margin, by which every process has renewed
SECRET = "the-s3cret"
NOW = 4_000_000_000  # 2096-10-02 07:06:40
NO_NUMBERS = [None, [NOW], "soon", True, float("nan"), float("inf")]
# The margin of a reader, the age of a token, and whether it is used.
AGES = [(300, STALE - 1, True), (300, DUE, False), (100, 899, True), (100, 950, False), (0, 989, True), (0, 990, False)]
Redis = type("Redis", (dict,), {"__getitem__": lambda *at: dict.__getitem__(*at).encode()})  # it returns bytes


@pytest.fixture
def store():
    return Failing()  # at nothing, but it tells its calls


def stored(token, obtained_at, lifetime=LIFETIME):
    return json.dumps({"access_token": token, "obtained_at": obtained_at, "lifetime": lifetime})


def holding(content):
    return defaultdict(lambda: content)


def put(store, token):
    """Put this token, obtained now, in the only place of the store that is in use, as another process would."""
    (key,) = store
    dict.__setitem__(store, key, stored(token, time.time()))


def stored_token(store):
    (value,) = store.values()
    return json.loads(value)["access_token"]


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
    assert (len(store), endpoint.count, warnings(caplog)) == (0, 2, [])


def test_other_processes_use_the_stored_token_without_a_token_request_and_without_a_trace_in_the_log(caplog):
    caplog.set_level("DEBUG", "requests_mentionme")
    endpoint = TokenEndpoint("hidden-token", requests.ConnectionError("down"))
    store = {}
    assert [auth_with(endpoint, store=store).access_token() for _ in range(4)] == ["hidden-token"] * 4
    assert (endpoint.count, warnings(caplog)) == (1, [])
    assert sum("from the store" in record.getMessage() for record in caplog.records) == 3
    assert not re.search(f"hidden|{SECRET}", caplog.text)


@pytest.mark.parametrize(
    ("client_id", "secret", "environment"),
    [
        ("other-id", SECRET, "demo"),
        ("an-id", "another-secret", "demo"),
        ("an-idt", "he-s3cret", "demo"),  # together, the same characters
        ("an-id", SECRET, "production"),
        ("\ud800-id", "\udfff-s\u00e9cret", "demo"),  # halves of surrogate pairs
    ],
)
def test_each_key_and_environment_has_a_place_of_its_own(*, endpoint, store, client_id, secret, environment):
    auth_with(endpoint, store=store).access_token()
    options = {"environment": environment, "session": session_with(endpoint), "store": store}
    assert [MentionMeAuth(client_id, secret, **options).access_token() for _ in range(2)] == ["token-2"] * 2
    assert len(store) == 2


@freeze_time("1970-01-01")  # as many a suite does
def test_what_is_stored_is_the_token_its_start_and_its_lifetime_under_a_digest_in_the_first_second_too(endpoint, store):
    assert [auth_with(endpoint, store=store).access_token() for _ in range(2)] == ["token-1"] * 2
    ((key, value),) = store.items()
    assert (type(key), type(value)) == (str, str)
    assert re.fullmatch(r"requests-mentionme:[0-9a-f]{64}", key)
    assert json.loads(value) == json.loads(stored("token-1", 0.0))


def test_the_store_is_read_when_a_token_is_needed_or_due_and_written_when_one_was_obtained(clock, endpoint, store):
    """A token from the store is due as long after it was obtained as any other one."""
    auth, reader = (auth_with(endpoint, store=store) for _ in range(2))
    auth.access_token()
    clock.tick(STALE - 1)
    auth.claims()
    assert (auth.access_token(), store.calls) == ("token-1", ["read", "write"])
    reader.access_token()
    clock.tick(1 - STALE)  # set back, but not before its start: it is fresh
    assert (reader.access_token(), store.calls) == ("token-1", ["read", "write", "read"])
    clock.tick(DUE)
    assert (reader.access_token(), store.calls[3:]) == ("token-2", ["read", "write"])
    store.calls.clear()
    reader.invalidate()
    reader.invalidate()  # by now there is nothing to drop
    assert store.calls == ["read", "remove"]


@pytest.mark.parametrize(
    ("margin", "age", "lifetime", "is_used", "is_rubbish"),  # the margin of the reader
    [
        *[(margin, age, LIFETIME, is_used, False) for margin, age, is_used in AGES],
        *[(300, -ahead, LIFETIME, ahead <= 60, ahead > 60) for ahead in (60, 60.5)],
        *[(300, 0, lifetime, 0 < lifetime <= DAY, not 0 < lifetime <= DAY) for lifetime in (0.5, DAY, 0, -1, DAY + 1)],
    ],
)
def test_a_stored_token_is_used_if_fresh_to_its_reader(*, clock, caplog, margin, age, lifetime, is_used, is_rubbish):
    """The clocks of machines differ by a minute, and it counts as obtained now. No token lives for more than a day."""
    store = holding(stored("hidden-token", time.time() - age, lifetime))
    auth = auth_with(TokenEndpoint(), store=store, refresh_margin=margin)
    assert [auth.access_token() for _ in range(2)] == ["hidden-token" if is_used else "token-1"] * 2
    assert len(warnings(caplog)) == is_rubbish
    assert "hidden" not in caplog.text


def moments_of_renewal(fleet, clock, step):
    """Return after how many steps of the clock each has another token. The first half of the margin has 100 steps."""
    (old,) = {auth.access_token() for auth in fleet}
    moments = {}
    for number in range(1, 102):
        clock.tick(step)
        moments |= {auth: number for auth in fleet if auth not in moments and auth.access_token() != old}
    return [moments[auth] for auth in fleet]


@pytest.mark.parametrize(("margin", "start", "end"), [(300, STALE, DUE), (12, 988, EXPIRED)])
def test_the_first_of_a_fleet_renews_and_the_others_find_its_token(*, clock, endpoint, store, margin, start, end):
    """Each does so at a moment of its own, another one for each token, so that one process is not always the first."""
    fleet = [auth_with(endpoint, store=store, refresh_margin=margin) for _ in range(50)]
    step = (end - start) / 100
    generations = []
    for count in (2, 4):
        assert {auth.access_token() for auth in fleet} == {f"token-{count - 1}"}
        clock.tick(start - step)
        store.calls.clear()
        generations.append(moments := moments_of_renewal(fleet, clock, step))
        assert min(moments) < 25
        assert max(moments) > 75
        assert len(set(moments)) > 20
        assert (store.calls, endpoint.count) == (["read", "write", *["read"] * 49], count)
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


@pytest.mark.parametrize("age", [0, DUE, EXPIRED])
def test_a_token_that_was_invalidated_or_is_due_is_not_taken_again_from_the_store(clock, age):
    """Not even if it was put back with a later start, as by a clock that is ahead, or could not be removed."""
    store = Failing(OSError(), "remove")
    auth = auth_with(TokenEndpoint(), store=store)
    auth.access_token()
    clock.tick(age)
    if age == 0:
        auth.invalidate()
    put(store, "token-1")
    assert auth.access_token() == stored_token(store) == "token-2"
    store.note = lambda call: call == "remove" and auth.access_token()  # as another thread may just before that
    auth.invalidate()
    assert auth.access_token() == "token-3"


@pytest.mark.parametrize("in_store", ["token-1", "another"])
def test_a_refused_token_leaves_the_store_and_only_the_endpoint_replaces_it(endpoint, store, in_store):
    """A younger token in the store may be refused just as well; the next process must not take the refused one."""
    auth, reader = (auth_with(endpoint, store=store) for _ in range(2))
    auth.access_token()
    put(store, in_store)
    endpoint.script = [Answer(401)]
    with pytest.raises(InvalidClientError):
        auth.access_token(refused="token-1")
    assert len(store) == (0 if in_store == "token-1" else 1)
    assert auth.access_token(refused="token-1") == stored_token(store) == "token-3"
    assert reader.access_token() == "token-3"
    assert reader.access_token(refused="token-3") == stored_token(store) == "token-4"


@pytest.mark.parametrize("in_store", ["refused", "another"])
def test_a_401_that_joins_a_renewal_from_the_store_is_healed(clock, start, crowd, monkeypatch, in_store):
    """The store may hold the refused token itself, or one that is refused next: either way, a renewal follows."""
    monkeypatch.setattr(time, "sleep", clock.tick)
    gate = Gate(stored(in_store, time.time()))
    auth = auth_with(TokenEndpoint(requests.ConnectionError(), "token-1"), store=defaultdict(gate.pass_through))
    leader = start(auth.access_token)
    gate.wait_until_reached()
    (waiter,) = crowd.ask(1, lambda: auth.access_token(refused="refused"))
    crowd.expect(1)
    gate.open()
    assert leader.result(LONG) == in_store
    assert waiter.result(LONG) == ("token-1" if in_store == "refused" else "another")
    assert auth.access_token(refused=in_store) == "token-1"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "OSError: '[Errno 28] No space left on device'"),
        (type("RedisError", (Exception,), {})("host:6379 is down."), "RedisError: 'host:6379 is down.'"),
        (ValueError("a line\nand another"), "ValueError: 'a line and another'"),
        (ValueError("long " * 50), f"ValueError: {('long ' * 50)[:200]!r}"),
        (ValueError("x" * 19), f"ValueError: '{'x' * 19}'"),
        (ValueError("x" * 20), "ValueError"),
        (MemoryError(), "MemoryError"),
        (ValueError(f"can't store 'hidden.{'token' * 20}'"), "ValueError"),  # some libraries quote the value
    ],
)
def test_a_warning_says_in_one_line_why_a_store_failed_without_words_as_long_as_a_token(caplog, error, reason):
    auth_with(TokenEndpoint(), store=Failing(error, "read", "write")).access_token()
    assert warnings(caplog) == [f"The token store can't be {call}: {reason}" for call in ("read", "written")]


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


def test_a_store_that_fails_as_it_asks_for_a_token_itself_leaves_no_trace_in_the_error_of_the_token_request(caplog):
    """As one behind the API would."""
    store = defaultdict(str)
    auth = auth_with(TokenEndpoint(Answer(404)), store=store)
    store.default_factory = auth.access_token
    with pytest.raises(TokenEndpointError) as raised:
        auth.access_token()
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)
    assert auth.access_token() == "token-2"
    assert ["RuntimeError" in warning for warning in warnings(caplog)] == [True, True]


@pytest.mark.parametrize(("method", "number"), [("read", 1), ("write", 2), ("remove", 2)])
def test_an_interrupt_within_the_store_comes_through_and_leaves_the_auth_usable(caplog, method, number):
    store = Failing(KeyboardInterrupt(), method)
    auth = auth_with(TokenEndpoint(), store=store)
    with pytest.raises(KeyboardInterrupt):
        auth.access_token() and auth.invalidate()
    store.methods = ()
    assert (auth.access_token(), warnings(caplog)) == (f"token-{number}", [])


RUBBISH = {
    "of another type": [None, 7, {"access_token": "a-token", "obtained_at": NOW, "lifetime": 3600}],
    "no text": [b"\xff\xfe\xff", stored("a-token", NOW).replace("{", '{"more": "\ud800", ')],
    "no JSON object": ["", "[" * 100_000, "null", f"[{stored('a-token', NOW)}]"],
    "cut off": [stored("a-token", NOW)[:-1], stored("a-token", NOW)[:-1].encode()],
    "no token": [stored(odd, NOW) for odd in (None, "", ["a-token"], "a-token\n", "a-token ", "a-token\u00f6")],
    "no number": [stored("a-token", *numbers) for odd in NO_NUMBERS for numbers in ((odd,), (NOW, odd))],
}


@freeze_time("2096-10-02 07:06:40")
@pytest.mark.parametrize("contents", RUBBISH.values(), ids=RUBBISH)
def test_rubbish_in_the_store_is_not_shown_and_costs_a_warning_and_a_normal_token_request(caplog, contents):
    for content in contents:
        caplog.clear()
        assert auth_with(TokenEndpoint("new"), store=holding(content)).access_token() == "new"
        (warning,) = warnings(caplog)
        assert re.match("The token store (holds no valid token, or one from the future$|can't be read: )", warning)
        assert "a-t" not in caplog.text


@freeze_time("2096-10-02 07:06:40")
def test_the_rubbish_of_these_tests_is_rubbish_for_one_reason():
    """Without it, what is stored is used: the same start and lifetime, more fields, numbers in strings, bytes."""
    texts = [stored("a-token", kind(NOW), kind(LIFETIME)).replace("{", '{"more": [], ') for kind in (int, str, float)]
    for content in [*texts, *(text.encode() for text in texts)]:
        assert auth_with(TokenEndpoint(), store=holding(content)).access_token() == "a-token"


def test_the_place_in_the_store_follows_the_key_of_the_provider_which_is_asked_first(endpoint, store):
    keys = [("an-id", SECRET), ("an-id", SECRET), ("new-id", "new-secret"), ("new-id", "new-secret")]
    provided = partial(MentionMeAuth.from_provider, keys.pop, session=session_with(endpoint), store=store)
    assert [provided().access_token() for _ in range(4)] == ["token-1"] * 2 + ["token-2"] * 2
    store.calls.clear()
    with pytest.raises(IndexError):
        provided().access_token()
    assert store.calls == []


def test_invalidate_removes_the_token_that_is_dropped_though_a_renewal_with_a_new_key_has_failed(clock, store):
    keys = [("new-id", "new-secret"), ("an-id", SECRET)]
    endpoint = TokenEndpoint("token-1", Answer(401))
    auth = MentionMeAuth.from_provider(keys.pop, session=session_with(endpoint), store=store)
    assert auth.access_token() == "token-1"
    clock.tick(DUE)
    assert (auth.access_token(), keys) == ("token-1", [])
    auth.invalidate()
    assert store == {}
