"""Copies and processes: pickle, copy and deepcopy; fork at any moment; spawn and forkserver."""

import copy
import multiprocessing
import os
import pickle
import random
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from unittest.mock import Mock

import pytest
import requests
from forks import exit_status, forked, forks
from in_memory import API, EXPIRED, LONG, STALE, Answer, Gate, TokenEndpoint, auth_with, in_thread
from stores import File

from requests_mentionme import MentionMeAuth

SECRET = "the-s3cret"


# Copies


@pytest.fixture
def everything(monkeypatch):
    """An endpoint that answers all requests of all sessions, those that were copied or unpickled too."""
    endpoint = TokenEndpoint()
    monkeypatch.setattr(requests.Session, "get_adapter", lambda *_, **__: endpoint)
    return endpoint


def unpickled(value):
    return pickle.loads(pickle.dumps(value))


def key():
    return "an-id", SECRET


class ShopAuth(MentionMeAuth):
    shop = "none"


duplicates = pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, unpickled])


@duplicates
@pytest.mark.parametrize("source", ["key", "provider"])
@pytest.mark.parametrize("lent", [False, True], ids=["own sessions", "lent session"])
def test_a_copy_has_the_credentials_and_options_but_no_token_and_no_renewal(everything, start, duplicate, source, lent):
    options = {"environment": "demo", "session": requests.Session() if lent else None, "refresh_margin": 1}
    if lent:
        options["session"].headers["X-Lent"] = "yes"
    auth = ShopAuth(*key(), **options) if source == "key" else ShopAuth.from_provider(key, **options)
    auth.shop = "Acme"
    assert auth.access_token() == "token-1"
    everything.script = [gate := Gate("renewed")]
    leader = start(lambda: auth.access_token(refused="token-1"))
    gate.wait_until_reached()
    twin = duplicate(auth)
    assert twin.access_token() == "token-3"
    gate.open()
    assert leader.result(LONG) == auth.access_token() == "renewed"
    assert (type(twin), twin.shop, repr(twin)) == (ShopAuth, "Acme", repr(auth))
    assert twin.environment == auth.environment
    assert everything.requests[-1].body == everything.requests[0].body
    assert everything.requests[-1].headers.get("X-Lent") == ("yes" if lent else None)
    twin.invalidate()
    assert auth.access_token() == "renewed"


@duplicates
def test_a_copy_of_a_session_that_holds_the_auth_gets_tokens(everything, duplicate):
    holder = requests.Session()
    holder.auth = MentionMeAuth(*key(), environment="demo")
    holder.auth.access_token()
    twin = duplicate(holder)
    assert twin.get(API).ok
    number = 1 if twin.auth is holder.auth else 2
    assert everything.requests[-1].headers["Authorization"] == f"Bearer token-{number}"


@pytest.mark.parametrize("duplicate", [copy.deepcopy, unpickled])
@pytest.mark.parametrize("of", ["request", "response"])
def test_a_copied_request_or_response_has_no_credentials_and_an_inert_hook(everything, duplicate, of):
    auth = MentionMeAuth(*key(), environment="demo")
    response = requests.get(API, auth=auth)
    original = response.request if of == "request" else response
    assert SECRET.encode() not in pickle.dumps(original)
    request = duplicate(original) if of == "request" else duplicate(original).request
    everything.script = [Answer(401)]
    with requests.Session() as session:
        assert session.send(request).status_code == 401
        assert everything.count == 3
        everything.script = [Answer(401), "new", Answer(200)]
        assert session.send(auth(request)).status_code == 200
    assert everything.count == 6


# Forks


def asked_by_several(auth, refused=None):
    """Return the tokens that several threads of this process get together."""
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(in_thread(lambda: auth.access_token(refused=refused))) for _ in range(4)]
        return {call.result(LONG) for call in calls}


@forks
class TestForked:
    """A child that was forked at a bad moment works, and the parent goes on undisturbed."""

    @pytest.mark.parametrize("moment", ["no token", "stale", "expired meanwhile", "refused"])
    def test_while_another_thread_leads_a_renewal_and_others_wait(self, clock, start, moment):
        auth = auth_with(endpoint := TokenEndpoint())
        refused = "token-1" if moment == "refused" else None
        if moment != "no token":
            auth.access_token()
            clock.tick(0 if moment == "refused" else EXPIRED - 5)
        endpoint.script = [gate := Gate("parent's")]
        leader = start(lambda: auth.access_token(refused=refused))
        gate.wait_until_reached()
        clock.tick(5 if moment == "expired meanwhile" else 0)
        others = [start(lambda: auth.access_token(refused=refused)) for _ in range(8)]
        before = endpoint.count

        def work():
            tokens = asked_by_several(auth, refused)
            assert tokens <= {"token-1", f"token-{before + 1}"}
            assert auth.access_token() == f"token-{before + 1}"
            assert endpoint.count == before + 1
            assert moment == "stale" or len(tokens) == 1

        assert exit_status(forked(work)) == 0
        gate.open()
        assert leader.result(LONG) == "parent's"
        expected = {"token-1", "parent's"} if moment == "stale" else {"parent's"}
        assert {other.result(LONG) for other in others} <= expected
        assert auth.access_token() == "parent's"
        assert endpoint.count == before

    @pytest.mark.parametrize(("age", "own"), [(0, 0), (STALE, 1), (EXPIRED, 1)], ids=["fresh", "stale", "expired"])
    def test_with_a_token_in_hand_which_it_inherits_if_it_is_fresh(self, clock, age, own):
        auth = auth_with(endpoint := TokenEndpoint())
        auth.access_token()
        clock.tick(age)

        def work(generation):
            asked_by_several(auth)
            assert auth.access_token() == f"token-{1 + own * generation}"
            assert endpoint.count == 1 + own * generation
            clock.tick(age)
            if generation == 1:
                assert exit_status(forked(lambda: work(2))) == 0

        assert exit_status(forked(lambda: work(1))) == 0
        assert auth.access_token() == f"token-{1 + own}"

    @pytest.mark.parametrize("is_obtained_before", [True, False], ids=["a token from before", "no token yet"])
    def test_with_a_store_each_at_a_moment_of_its_own(self, clock, tmp_path, is_obtained_before):
        auth, other = (auth_with(TokenEndpoint(), store=File(tmp_path / "token")) for _ in range(2))
        (auth if is_obtained_before else other).access_token()
        clock.tick(STALE - 1)

        def work(number):
            random.seed(1)  # a seeded generator of chance makes no two of a kind
            seconds = 0
            while auth.access_token() == "token-1":
                clock.tick(1)
                seconds += 1
            (tmp_path / f"moment-{number}").write_text(str(seconds))

        children = [forked(lambda: work(number)) for number in range(10)]  # noqa: B023 - called at once, in the child
        assert [exit_status(child) for child in children] == [0] * 10
        moments = [file.read_text() for file in tmp_path.glob("moment-*")]
        assert len(moments) == 10
        assert len(set(moments)) > 3

    def test_while_another_thread_holds_its_locks(self, monkeypatch, start):
        """Such a moment is short. The child makes new locks, and that goes without an error."""
        locks = [threading.RLock() for _ in range(9)]
        with monkeypatch.context() as patch:
            patch.setattr(threading, "RLock", Mock(side_effect=locks))
            auth = auth_with(TokenEndpoint(), store={})
        for lock in locks:
            start(lock.acquire).result(LONG)
        monkeypatch.setattr(sys, "unraisablehook", lambda _: os._exit(98))  # what a hook of a fork raises

        def work():
            auth(requests.Request("GET", "https://foreign.example").prepare())
            assert auth.access_token() == "token-1"

        assert exit_status(forked(work)) == 0

    @pytest.mark.parametrize("rounds", [10, pytest.param(500, marks=pytest.mark.slow)])
    def test_at_any_moment_over_real_sockets(self, auth, start, rounds):
        finished = False

        def use():
            while not finished:
                token = auth.access_token()
                auth.access_token(refused=token)
                auth.invalidate(token)
                auth.invalidate()

        def work():
            asked_by_several(auth)
            auth.invalidate()
            asked_by_several(auth)

        users = [start(use) for _ in range(2)]
        try:
            for _ in range(rounds):
                assert exit_status(forked(work)) == 0
        finally:
            finished = True
        assert [user.result(LONG) for user in users] == [None, None]


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_an_auth_in_use_is_pickled_for_each_call_in_another_process_and_gets_a_token_there(sandbox, auth, method):
    url = f"{sandbox.url}/api/merchant/v2/coupons/validate/SAMPLE"
    assert requests.get(url, auth=auth).ok
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as processes:
        calls = [processes.submit(requests.get, url, auth=auth) for _ in range(2)]
        assert [call.result(LONG).status_code for call in calls] == [200, 200]
    assert sandbox.token_requests == 3
    assert requests.get(url, auth=auth).ok
    assert sandbox.token_requests == 3
