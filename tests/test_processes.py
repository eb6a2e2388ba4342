"""Copies and processes: pickle, copy and deepcopy; fork at any moment; spawn and forkserver."""

import copy
import functools
import multiprocessing
import os
import pickle
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from unittest.mock import Mock

import pytest
import requests
from forks import exit_status, forked, forks
from in_memory import API, EXPIRED, LONG, STALE, Answer, Gate, TokenEndpoint, auth_with, in_thread

from requests_mentionme import MentionMeAuth


@pytest.fixture
def everything(monkeypatch):
    endpoint = TokenEndpoint()  # for all sessions, those that were copied or unpickled too
    monkeypatch.setattr(requests.Session, "get_adapter", lambda *_, **__: endpoint)
    return endpoint


key = functools.partial(tuple, ["an-id", "the-s3cret"])  # a provider that can be pickled


def unpickled(value):
    return pickle.loads(pickle.dumps(value))


class ShopAuth(MentionMeAuth):
    shop = "none"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, unpickled])
@pytest.mark.parametrize("source", ["key", "provider"])
@pytest.mark.parametrize("lent", [None, "yes"])
def test_a_copy_or_one_in_a_copied_session_has_all_but_token_and_renewal(everything, start, duplicate, source, lent):
    holder = requests.Session()
    holder.headers["X-Lent"] = lent
    options = {"environment": "demo", "session": holder if lent else None, "refresh_margin": 1}
    auth = ShopAuth(*key(), **options) if source == "key" else ShopAuth.from_provider(key, **options)
    auth.shop = "Acme"
    everything.script = ["token-1", gate := Gate("renewed")]
    leader = start(lambda: auth.access_token(refused=auth.access_token()))
    gate.wait_until_reached()
    twin = duplicate(auth)
    assert twin.access_token() == "token-3"
    gate.open()
    assert leader.result(LONG) == auth.access_token() == "renewed"
    assert (type(twin), twin.shop, twin.environment, repr(twin)) == (ShopAuth, "Acme", auth.environment, repr(auth))
    assert everything.requests[-1].body == everything.requests[0].body
    assert everything.requests[-1].headers.get("X-Lent") == lent
    twin.invalidate()
    holder.auth = auth
    sent = duplicate(holder).get(API).request.headers["Authorization"]
    assert sent == ("Bearer renewed" if duplicate is copy.copy else "Bearer token-4")  # a shallow copy holds `auth`
    assert auth.access_token() == "renewed"


@pytest.mark.parametrize("duplicate", [copy.deepcopy, unpickled])
def test_a_copied_request_or_response_has_no_credentials_and_an_inert_hook(everything, duplicate):
    auth = MentionMeAuth(*key(), environment="demo")
    everything.script = [None, Answer(401)]
    response = requests.get(API, auth=auth)
    assert [past.status_code for past in response.history] == [401]
    for pickled in (response, response.request, response.history):
        assert b"the-s3cret" not in pickle.dumps(pickled)
    for request in (duplicate(response.request), duplicate(response).request):
        everything.script = [Answer(401), Answer(401), None, Answer(200)]
        before = everything.count
        with requests.Session() as session:
            assert (session.send(request).status_code, everything.count) == (401, before + 1)
            assert (session.send(auth(request)).status_code, everything.count) == (200, before + 4)


def asked_by_several(auth, refused=None):
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(in_thread(lambda: auth.access_token(refused=refused))) for _ in range(4)]
        return {call.result(LONG) for call in calls}


@forks
class TestAForkedChildWorksAndItsParentGoesOn:
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
            assert (auth.access_token(), endpoint.count) == (f"token-{before + 1}", before + 1)
            assert moment == "stale" or len(tokens) == 1

        assert exit_status(forked(work)) == 0
        gate.open()
        assert leader.result(LONG) == "parent's"
        expected = {"token-1", "parent's"} if moment == "stale" else {"parent's"}
        assert {other.result(LONG) for other in others} <= expected
        assert (auth.access_token(), endpoint.count) == ("parent's", before)

    @pytest.mark.parametrize(("age", "own"), [(0, 0), (STALE, 1), (EXPIRED, 1)], ids=["fresh", "stale", "expired"])
    def test_with_a_token_in_hand_which_it_inherits_if_it_is_fresh(self, clock, age, own):
        auth = auth_with(endpoint := TokenEndpoint())
        auth.access_token()
        clock.tick(age)

        def work(generation):
            asked_by_several(auth)
            number = 1 + own * generation
            assert (auth.access_token(), endpoint.count) == (f"token-{number}", number)
            clock.tick(age)
            if generation == 1:
                assert exit_status(forked(lambda: work(2))) == 0

        assert exit_status(forked(lambda: work(1))) == 0
        assert auth.access_token() == f"token-{1 + own}"

    @pytest.mark.parametrize("is_obtained_before", [True, False], ids=["a token from before", "no token yet"])
    def test_with_a_store_each_at_a_moment_of_its_own(self, clock, is_obtained_before):
        store = {}  # each child has a copy, so none finds the token of another one
        auth, other = (auth_with(TokenEndpoint(*script), store=store) for script in ([], ["old"]))
        old = (auth if is_obtained_before else other).access_token()
        if is_obtained_before:
            store.clear()  # so that it is the token in hand that a child goes on with
        clock.tick(STALE - 1)

        def work():
            steps = 0
            while auth.access_token() == old:
                clock.tick(2)
                steps += 1
            return steps

        moments = [exit_status(child) for child in [forked(work) for _ in range(10)]]
        assert 0 < min(moments) < max(moments) < 60
        assert len(set(moments)) > 3

    def test_while_another_thread_holds_its_locks(self, monkeypatch, start):
        """The child makes new locks, and that goes without an error."""
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
                auth.access_token(refused=auth.access_token())
                auth.invalidate(auth.access_token())
                auth.invalidate()

        def work():
            asked_by_several(auth)
            auth.invalidate()
            asked_by_several(auth)

        users = [start(use) for _ in range(2)]
        try:
            assert [exit_status(forked(work)) for _ in range(rounds)] == [0] * rounds
        finally:
            finished = True
        assert [user.result(LONG) for user in users] == [None, None]


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_an_auth_in_use_is_pickled_for_each_call_in_another_process_and_gets_a_token_there(sandbox, auth, method):
    url = f"{sandbox.url}/api/merchant/v2/coupons/validate/SAMPLE"
    requests.get(url, auth=auth)
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as processes:
        calls = [processes.submit(requests.get, url, auth=auth) for _ in range(2)]
        assert [call.result(LONG).status_code for call in calls] == [200, 200]
    assert (requests.get(url, auth=auth).status_code, sandbox.token_requests) == (200, 3)
