"""Copies and processes: pickle, copy and deepcopy; fork at any moment; spawn and forkserver."""

import copy
import multiprocessing
import os
import pickle
import random
import signal
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
import requests
from in_memory import EXPIRED, LONG, STALE, Answer, Gate, TokenEndpoint, auth_with, in_thread
from stores import File

from requests_mentionme import MentionMeAuth
from requests_mentionme.sandbox import Sandbox

API = "https://demo.mention-me.com/api/merchant/v2/customers"
SECRET = "the-s3cret"
FORKS = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),  # that is what is tested here
]


# Copies


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> TokenEndpoint:
    """An endpoint that answers all requests of all sessions, those that were copied or unpickled too."""
    endpoint = TokenEndpoint()
    monkeypatch.setattr(requests.Session, "get_adapter", lambda *_, **__: endpoint)
    return endpoint


def unpickled(value: Any) -> Any:
    """Return a value as another process gets it."""
    return pickle.loads(pickle.dumps(value))


def key() -> tuple[str, str]:
    """Be a provider that can be pickled."""
    return "an-id", SECRET


class ShopAuth(MentionMeAuth):
    """An auth that knows more."""

    shop = "none"


duplicates = pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, unpickled])


@duplicates
@pytest.mark.parametrize("source", ["key", "provider"])
@pytest.mark.parametrize("lent", [False, True], ids=["own sessions", "lent session"])
def test_a_copy_has_the_credentials_and_options_but_no_token(everything, start, duplicate, source, lent):
    """Locks do not travel either: a renewal that is under way in the original is not in the copy."""
    session = requests.Session() if lent else None
    if session:
        session.headers["X-Lent"] = "yes"
    options: dict[str, Any] = {"environment": "demo", "session": session, "refresh_margin": 1}
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
def test_a_copy_of_a_session_that_holds_the_auth_works(everything, duplicate):
    """Its requests get a token; one of its own, where the auth was copied along."""
    holder = requests.Session()
    holder.auth = MentionMeAuth("an-id", SECRET, environment="demo")
    holder.auth.access_token()
    twin = duplicate(holder)
    assert twin.get(API).ok
    number = 1 if twin.auth is holder.auth else 2
    assert everything.requests[-1].headers["Authorization"] == f"Bearer token-{number}"


@pytest.mark.parametrize("duplicate", [copy.deepcopy, unpickled])
@pytest.mark.parametrize("of", ["request", "response"])
def test_a_copied_request_or_response_has_an_inert_hook_and_no_credentials(everything, duplicate, of):
    """Such a request lets a 401 pass, until an auth acts on it again."""
    auth = MentionMeAuth("an-id", SECRET, environment="demo")
    response = requests.get(API, auth=auth)
    original = response.request if of == "request" else response
    assert SECRET.encode() not in pickle.dumps(original)
    request = duplicate(original) if of == "request" else duplicate(original).request
    everything.script = [Answer(401)]
    before = everything.count
    with requests.Session() as session:
        assert session.send(request).status_code == 401
        assert everything.count == before + 1
        everything.script = [Answer(401), "new", Answer(200)]
        assert session.send(auth(request)).status_code == 200
    assert everything.count == before + 4


# Forks


def forked(work: Callable[[], object]) -> int:
    """Do *work* in a forked child, and return its process id; the child's exit status is 0 if nothing went wrong."""
    child = os.fork()
    if child:
        return child
    signal.alarm(int(LONG))  # ends a child that hangs, whatever it waits for
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, it must not go on as if it were the parent
        traceback.print_exc()
    finally:
        os._exit(status)


def exit_status(child: int) -> int:
    """Return the exit status of a child once it has ended, below 0 if it hung."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def asked_by_several(auth: MentionMeAuth, refused: str | None = None) -> set[str]:
    """Return the tokens that several threads of this process get together."""
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(in_thread(lambda: auth.access_token(refused=refused))) for _ in range(4)]
        return {call.result(LONG) for call in calls}


class TestForked:
    """A child that was forked at a bad moment works, and the parent goes on undisturbed."""

    pytestmark = FORKS

    @pytest.mark.parametrize("waiters", [0, 8])
    @pytest.mark.parametrize("moment", ["no token", "stale", "expired meanwhile", "refused"])
    def test_while_another_thread_leads_a_renewal(self, clock, start, moment, waiters):
        """Neither the leader nor those who wait are there in the child, whose threads share a renewal of their own."""
        gate = Gate("parent's")
        endpoint = TokenEndpoint() if moment == "no token" else TokenEndpoint("token-1")
        auth = auth_with(endpoint)
        refused = "token-1" if moment == "refused" else None
        if moment != "no token":
            auth.access_token()
            clock.tick(0 if moment == "refused" else EXPIRED - 5)
        endpoint.script = [gate]
        leader = start(lambda: auth.access_token(refused=refused))
        gate.wait_until_reached()
        clock.tick(5 if moment == "expired meanwhile" else 0)
        others = [start(lambda: auth.access_token(refused=refused)) for _ in range(waiters)]
        before = endpoint.count

        def work() -> None:
            tokens = asked_by_several(auth, refused)
            assert tokens <= {"token-1", f"token-{before + 1}"}
            assert auth.access_token() == f"token-{before + 1}"
            assert endpoint.count == before + 1
            assert moment == "stale" or len(tokens) == 1

        child = forked(work)
        assert exit_status(child) == 0
        gate.open()
        assert leader.result(LONG) == "parent's"
        expected = {"token-1", "parent's"} if moment == "stale" else {"parent's"}
        assert {other.result(LONG) for other in others} <= expected
        assert auth.access_token() == "parent's"
        assert endpoint.count == before

    @pytest.mark.parametrize(("age", "own"), [(0, 0), (STALE, 1), (EXPIRED, 1)], ids=["fresh", "stale", "expired"])
    def test_with_a_token_in_hand(self, clock, age, own):
        """A child inherits a fresh token, and renews any other for itself; a grandchild is no worse off."""
        endpoint = TokenEndpoint()
        auth = auth_with(endpoint)
        auth.access_token()
        clock.tick(age)

        def work(generation: int) -> None:
            asked_by_several(auth)
            assert auth.access_token() == f"token-{1 + own * generation}"
            assert endpoint.count == 1 + own * generation
            clock.tick(age)
            if generation == 1:
                assert exit_status(forked(lambda: work(2))) == 0

        children = [forked(lambda: work(1)) for _ in range(3)]
        assert [exit_status(child) for child in children] == [0] * 3
        assert auth.access_token() == f"token-{1 + own}"

    @pytest.mark.parametrize("is_obtained_before", [True, False], ids=["a token from before", "no token yet"])
    def test_with_a_store(self, clock, tmp_path, is_obtained_before):
        """The workers of a preloaded server share it, and renew the token one by one.

        That a generator of chance was seeded makes no two of a kind.
        """
        auth = auth_with(TokenEndpoint(), store=File(tmp_path / "token"))
        writer = auth if is_obtained_before else auth_with(TokenEndpoint(), store=File(tmp_path / "token"))
        writer.access_token()
        clock.tick(STALE - 1)

        def work(number: int) -> None:
            random.seed(1)
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

    @pytest.mark.parametrize("rounds", [10, pytest.param(500, marks=pytest.mark.slow)])
    def test_at_any_moment(self, auth, start, rounds):
        """Over real sockets, while other threads ask, are refused, and invalidate all the time."""
        finished = False

        def use() -> None:
            while not finished:
                token = auth.access_token()
                auth.access_token(refused=token)
                auth.invalidate(token)
                auth.invalidate()

        users = [start(use) for _ in range(2)]
        try:
            for _ in range(rounds):
                child = forked(lambda: (asked_by_several(auth), auth.invalidate(), asked_by_several(auth)))
                assert exit_status(child) == 0
        finally:
            finished = True
        assert [user.result(LONG) for user in users] == [None, None]


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_an_auth_that_is_in_use_travels_to_other_processes(sandbox: Sandbox, auth, method):
    """It is pickled for each call, and gets a token of its own over there; the answer comes back."""
    url = f"{sandbox.url}/api/merchant/v2/coupons/validate/SAMPLE"
    assert requests.get(url, auth=auth).ok
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as processes:
        calls = [processes.submit(requests.get, url, auth=auth) for _ in range(2)]
        assert [call.result(LONG).status_code for call in calls] == [200, 200]
    assert sandbox.token_requests == 3
    assert requests.get(url, auth=auth).ok
    assert sandbox.token_requests == 3
