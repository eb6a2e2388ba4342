"""Many threads, greenlets and processes at once, through the public class and over real sockets.

How many token requests there were is counted by the sandbox. What a moment needs is arranged (a gate in the way of the
token request, a token that is old before its time), so that nothing depends on luck.
"""

import collections
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from requests_mentionme import MentionMeAuth, TokenEndpointError
from requests_mentionme._token import Token
from requests_mentionme.sandbox import Sandbox

LONG = 20.0  # seconds for what takes far less, unless something hangs
FORKS = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),  # that is what is tested here
]


class Gate(HTTPAdapter):
    """An adapter for the lent session, in whose way requests wait until it is opened."""

    def __init__(self, session: requests.Session) -> None:
        super().__init__()
        self._session = session
        self.close_again()
        session.mount("http://", self)

    def close_again(self) -> None:
        """Be as if nobody had come by."""
        self.reached, self.opened = threading.Event(), threading.Event()

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Wait, then send."""
        self.reached.set()
        assert self.opened.wait(LONG), "nobody opened the gate"
        return super().send(*args, **kwargs)

    def wait_until_reached(self) -> None:
        """Return once a request stands before the gate."""
        assert self.reached.wait(LONG), "no token request arrived here"

    def remove(self) -> None:
        """Be in nobody's way that comes later."""
        self._session.mount("http://", HTTPAdapter())


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """A session to lend."""
    with requests.Session() as lent:
        yield lent


@pytest.fixture
def gate(session: requests.Session) -> Iterator[Gate]:
    """A gate in the way of the lent session."""
    gate = Gate(session)
    yield gate
    gate.opened.set()


@pytest.fixture
def gated(sandbox: Sandbox, session: requests.Session, gate: Gate) -> MentionMeAuth:
    """An auth that has a token; its next token request waits before the gate."""
    auth = auth_for(sandbox, session=session)
    gate.opened.set()
    auth.access_token()
    gate.close_again()
    return auth


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads enough for each test."""
    with ThreadPoolExecutor(64) as threads:
        yield threads


def auth_for(sandbox: Sandbox, **options: Any) -> MentionMeAuth:
    """Return a new auth for *sandbox*."""
    return MentionMeAuth(sandbox.client_id, sandbox.client_secret, environment=sandbox.environment, **options)


def url_of(sandbox: Sandbox) -> str:
    """Return the URL of something that takes a token and nothing else."""
    return f"{sandbox.url}/api/merchant/v2/coupons/validate/SAMPLE"


def get(sandbox: Sandbox, auth: MentionMeAuth) -> int:
    """Make an API request, and return its status."""
    with requests.get(url_of(sandbox), auth=auth, timeout=LONG) as response:
        return response.status_code


def together(pool: ThreadPoolExecutor, count: int, call: Callable[..., Any], *args: Any) -> "list[Future[Any]]":
    """Start *call* in so many threads, all at the same moment."""
    barrier = threading.Barrier(count)

    def at_once() -> Any:
        barrier.wait(LONG)
        return call(*args)

    return [pool.submit(at_once) for _ in range(count)]


def results(futures: "list[Future[Any]]") -> list[Any]:
    """Return what they ended in, once they have."""
    return [future.result(LONG) for future in futures]


def until(condition: Callable[[], bool]) -> None:
    """Return once *condition* holds."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.002)


def make_old(auth: MentionMeAuth, *, expired: bool = False) -> str:
    """Make the current token stale, or expired, before its time, and return it."""
    token = auth._source._token
    end = 0.0 if expired else token.expired_at
    auth._source._token = Token(token.value, token.authorization, token.obtained_at, 0.0, end, token.lifetime)
    return token.value


def refusable(sandbox: Sandbox, auth: MentionMeAuth) -> requests.PreparedRequest:
    """Return a request that carries the current token, to be sent when that is not any more what it was."""
    return requests.Request("GET", url_of(sandbox), auth=auth).prepare()


def send(request: requests.PreparedRequest) -> int:
    """Send a prepared request, and return the final status."""
    with requests.Session() as session, session.send(request, timeout=LONG) as response:
        return response.status_code


ROUNDS = [1, pytest.param(50, marks=pytest.mark.slow)]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_cold_start_of_64_threads_makes_one_token_request(sandbox, pool, rounds):
    """All of them get their answer with the one token."""
    for number in range(1, rounds + 1):
        auth = auth_for(sandbox)

        assert results(together(pool, 64, get, sandbox, auth)) == [200] * 64
        assert sandbox.token_requests == number
    assert sandbox.rejections == 0


@pytest.mark.parametrize("rounds", ROUNDS)
def test_64_threads_that_meet_a_401_for_one_token_make_one_token_request(sandbox, auth, pool, rounds):
    """Each request was refused, each is retried with the one new token, and each succeeds."""
    auth.access_token()
    for number in range(1, rounds + 1):
        requests_to_send = [refusable(sandbox, auth) for _ in range(64)]
        sandbox.revoke()

        assert results(together(pool, 64, lambda stack: send(stack.pop()), requests_to_send)) == [200] * 64
        assert sandbox.rejections == 64 * number
        assert sandbox.token_requests == 1 + number


def test_401s_for_an_old_token_that_come_late_make_no_token_request(sandbox, auth, pool):
    """However old the token is, it is the current one that they are retried with."""
    late = [refusable(sandbox, auth) for _ in range(16)]
    sandbox.revoke()
    assert get(sandbox, auth) == 200
    late += [refusable(sandbox, auth) for _ in range(16)]
    sandbox.revoke()
    assert get(sandbox, auth) == 200
    assert sandbox.token_requests == 3
    current = auth.access_token()

    assert results(together(pool, 32, lambda: send(late.pop()))) == [200] * 32
    assert sandbox.token_requests == 3
    assert auth.access_token() == current


def test_401s_of_two_generations_at_once_make_one_token_request(sandbox, auth, pool):
    """Half are refused for the current token; the others, for the one before it, may be retried with that."""
    older = [refusable(sandbox, auth) for _ in range(16)]
    sandbox.revoke()
    get(sandbox, auth)
    newer = [refusable(sandbox, auth) for _ in range(16)]
    sandbox.revoke()

    first = together(pool, 16, lambda: send(older.pop()))
    second = together(pool, 16, lambda: send(newer.pop()))
    assert set(results(first)) <= {200, 401}
    assert results(second) == [200] * 16
    assert sandbox.token_requests == 3


def test_while_a_stale_token_is_renewed_nobody_else_waits(sandbox, gated, gate, pool):
    """The others have their answers before the token request is even sent."""
    old = make_old(gated)
    leader = pool.submit(get, sandbox, gated)
    gate.wait_until_reached()

    assert results(together(pool, 32, get, sandbox, gated)) == [200] * 32
    assert sandbox.token_requests == 1
    assert not leader.done()
    gate.opened.set()
    assert leader.result(LONG) == 200
    assert gated.access_token() != old
    assert sandbox.token_requests == 2
    assert {seen.token for seen in sandbox.requests[1:33]} == {old}


def test_if_it_expires_meanwhile_all_wait_for_that_renewal(sandbox, gated, gate, pool):
    """There is no second token request, and the expired token is not sent."""
    make_old(gated)
    leader = pool.submit(get, sandbox, gated)
    gate.wait_until_reached()
    old = make_old(gated, expired=True)
    waiting = together(pool, 32, get, sandbox, gated)
    gate.opened.set()

    assert results([leader, *waiting]) == [200] * 33
    assert sandbox.token_requests == 2
    assert old not in {seen.token for seen in sandbox.requests}


def test_a_slow_endpoint_delays_one_request_at_most(sandbox, auth, pool):
    """The same with the usual session: the endpoint takes for ever, and so does the one thread that asks."""
    auth.access_token()
    make_old(auth)
    sandbox.fail_token_requests(delay=600)

    futures = together(pool, 16, get, sandbox, auth)
    until(lambda: sandbox.token_requests == 2 and sum(future.done() for future in futures) == 15)
    (delayed,) = (future for future in futures if not future.done())
    assert [future.result() for future in futures if future is not delayed] == [200] * 15
    sandbox.stop()
    assert isinstance(delayed.exception(LONG), requests.ConnectionError)


def test_32_threads_with_an_expired_token_make_one_token_request(sandbox, auth, pool):
    """The expired one is not sent to the API, not even to find out."""
    auth.access_token()
    old = make_old(auth, expired=True)

    assert results(together(pool, 32, get, sandbox, auth)) == [200] * 32
    assert sandbox.token_requests == 2
    assert old not in {seen.token for seen in sandbox.requests}


def test_invalidating_in_the_middle_of_a_renewal_keeps_it(sandbox, gated, gate, pool):
    """What it brings is newer than the reason to invalidate: all use it."""
    make_old(gated)
    leader = pool.submit(get, sandbox, gated)
    gate.wait_until_reached()
    gated.invalidate()
    waiting = together(pool, 16, get, sandbox, gated)
    gate.opened.set()

    assert results([leader, *waiting]) == [200] * 17
    assert sandbox.token_requests == 2


@pytest.mark.parametrize("timeout", [0.5, pytest.param(2.0, marks=pytest.mark.slow)])
def test_32_threads_at_an_endpoint_that_hangs_fail_together(sandbox, pool, timeout):
    """In one timeout, not one after another; each with an error of its own."""
    sandbox.fail_token_requests(times=100, delay=600)
    auth = auth_for(sandbox, timeout=timeout)

    begun = time.monotonic()
    futures = together(pool, 32, get, sandbox, auth)
    errors = [future.exception(LONG) for future in futures]
    taken = time.monotonic() - begun

    assert {type(error) for error in errors} == {requests.ReadTimeout}
    assert len({id(error) for error in errors}) == 32
    assert timeout <= taken < 4 * timeout
    assert sandbox.token_requests == 1
    assert sandbox.api_requests == 0


def test_32_threads_at_an_endpoint_that_names_a_time_fail_together(sandbox, auth, pool):
    """Whether they wait for the one token request, or come after it: nobody asks again before that time."""
    sandbox.fail_token_requests(status=429, headers={"Retry-After": "50"})

    errors = [future.exception(LONG) for future in together(pool, 32, auth.access_token)]
    errors += [future.exception(LONG) for future in together(pool, 32, auth.access_token)]
    assert {type(error) for error in errors} == {TokenEndpointError}
    assert len({id(error) for error in errors}) == 64
    assert all(0 < error.retry_after <= 50 for error in errors)
    assert sandbox.token_requests == 1


@pytest.mark.parametrize("death", [KeyboardInterrupt, SystemExit])
def test_a_leader_killed_within_the_token_request_frees_the_others(sandbox, session, pool, death):
    """One of them leads next, and all but the dead one succeed."""
    others_are_here = threading.Event()
    victims: list[int] = []

    def kill(response: requests.Response, **_: Any) -> None:
        if not victims:
            victims.append(threading.get_ident())
            assert others_are_here.wait(LONG)
            response.close()  # `requests` leaves that to a hook that raises
            raise death

    session.hooks["response"].append(kill)
    auth = auth_for(sandbox, session=session)
    leader = pool.submit(get, sandbox, auth)
    until(lambda: bool(victims))
    waiting = together(pool, 8, get, sandbox, auth)
    others_are_here.set()

    assert isinstance(leader.exception(LONG), death)
    assert results(waiting) == [200] * 8
    assert sandbox.token_requests == 2


@pytest.mark.parametrize("state", ["no token", "stale"])
def test_a_hook_of_the_lent_session_that_asks_for_a_token_gets_an_error(sandbox, session, state):
    """It would wait for itself; the error says so, and once the hook is gone all is well."""
    auth = auth_for(sandbox, session=session)
    if state == "stale":
        auth.access_token()
        make_old(auth)
    caught: list[BaseException] = []

    def ask(response: requests.Response, **_: Any) -> None:
        with pytest.raises(RuntimeError, match="by a lent session's hook") as raised:
            get(sandbox, auth)
        caught.append(raised.value)

    session.hooks["response"].append(ask)
    assert get(sandbox, auth) == 200
    session.hooks["response"].clear()

    assert len(caught) == 1
    assert get(sandbox, auth) == 200
    assert sandbox.token_requests == (1 if state == "no token" else 2)
    assert sandbox.rejections == 0


def test_an_error_of_such_a_hook_reaches_the_request(sandbox, session):
    """Where nothing catches it; and the next request can ask again."""
    auth = auth_for(sandbox, session=session)

    def ask(response: requests.Response, **_: Any) -> None:
        response.close()
        auth.access_token()

    session.hooks["response"].append(ask)
    with pytest.raises(RuntimeError, match="by a lent session's hook"):
        get(sandbox, auth)
    session.hooks["response"].clear()

    assert get(sandbox, auth) == 200


def test_the_lent_session_may_have_this_very_auth(sandbox, session):
    """A token request is not authenticated by the token that it is for."""
    auth = auth_for(sandbox, session=session)
    session.auth = auth

    with session.get(url_of(sandbox), timeout=LONG) as response:
        assert response.status_code == 200
    assert sandbox.token_requests == 1


def test_in_continuous_use_a_renewal_delays_one_thread_at_most(sandbox, gated, gate, pool):
    """However long it takes, the fifteen others go on and on."""
    done: collections.Counter[int] = collections.Counter()
    finished = threading.Event()

    def work() -> None:
        with requests.Session() as session:
            session.auth = gated
            while not finished.is_set():
                with session.get(url_of(sandbox), timeout=LONG) as response:
                    assert response.status_code in (200, 429)
                done[threading.get_ident()] += 1

    workers = together(pool, 16, work)
    until(lambda: len(done) == 16)
    make_old(gated)
    gate.wait_until_reached()
    before = done.copy()
    until(lambda: sum(count >= 5 for count in (done - before).values()) == 15)
    gate.opened.set()
    until(lambda: len(done - before) == 16)
    finished.set()
    results(workers)

    assert sandbox.token_requests == 2
    assert sandbox.rejections == 0


@pytest.mark.slow
def test_in_continuous_use_a_renewal_that_takes_a_second_delays_one_request_at_most(sandbox, auth, pool):
    """Each request of sixteen threads that never pause is measured."""
    auth.access_token()
    spans: list[tuple[float, float]] = []
    finished = threading.Event()

    def work() -> None:
        with requests.Session() as session:
            session.auth = auth
            while not finished.is_set():
                begun = time.monotonic()
                with session.get(url_of(sandbox), timeout=LONG) as response:
                    assert response.status_code in (200, 429)
                spans.append((begun, time.monotonic()))

    workers = together(pool, 16, work)
    until(lambda: len(spans) >= 32)
    sandbox.fail_token_requests(delay=1.0)
    make_old(auth)
    until(lambda: sandbox.token_requests == 2)
    begun = time.monotonic()
    until(lambda: len(sandbox.tokens) == 2)
    time.sleep(0.2)
    finished.set()
    results(workers)

    during = [(start, end) for start, end in spans if end > begun and start < begun + 1.0]
    assert sum(end - start >= 0.5 for start, end in during) == 1
    assert len(during) > 32
    assert sandbox.token_requests == 2


@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_nothing_of_this_depends_on_when_threads_are_switched(sandbox, pool, rounds):
    """At the smallest interval, in each state, there is one token request for all."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        auth = auth_for(sandbox)
        for number in range(rounds):
            assert results(together(pool, 16, get, sandbox, auth)) == [200] * 16
            assert sandbox.token_requests == 4 * number + 1
            make_old(auth)
            assert results(together(pool, 16, get, sandbox, auth)) == [200] * 16
            assert sandbox.token_requests == 4 * number + 2
            make_old(auth, expired=True)
            assert results(together(pool, 16, get, sandbox, auth)) == [200] * 16
            assert sandbox.token_requests == 4 * number + 3
            sent = [refusable(sandbox, auth) for _ in range(16)]
            sandbox.revoke()
            assert results(together(pool, 16, lambda stack: send(stack.pop()), sent)) == [200] * 16
            assert sandbox.token_requests == 4 * number + 4
            auth.invalidate()
    finally:
        sys.setswitchinterval(interval)


def fork(work: Callable[[], object]) -> int:
    """Do *work* in a forked child, and return its process id; the child's exit status is 0 if nothing went wrong."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, it must not go on as if it were the parent
        traceback.print_exc()
    finally:
        os._exit(status)


def exit_status(child: int) -> int:
    """Return the exit status of a child; kill it if it hangs."""
    ended: list[int] = []

    def is_over() -> bool:
        process, status = os.waitpid(child, os.WNOHANG)
        if process:
            ended.append(os.waitstatus_to_exitcode(status))
        return bool(process)

    try:
        until(is_over)
    finally:
        if not ended:
            os.kill(child, 9)
            os.waitpid(child, 0)
    return ended[0]


class TestForked:
    """A child that was forked at a bad moment works."""

    pytestmark = FORKS

    def test_while_another_thread_leads_a_renewal(self, sandbox, auth, pool):
        """That thread is not there in the child, which asks for a token itself."""
        sandbox.fail_token_requests(delay=0.2)
        leader = pool.submit(get, sandbox, auth)
        until(lambda: sandbox.token_requests == 1)

        assert exit_status(fork(lambda: check(get(sandbox, auth) == 200))) == 0
        assert leader.result(LONG) == 200
        assert sandbox.token_requests == 2

    def test_while_others_wait_for_a_renewal(self, sandbox, gated, gate, pool):
        """Neither the leader nor those who wait are there; several threads of the child ask together."""
        gated.invalidate()
        threads = together(pool, 8, get, sandbox, gated)
        gate.wait_until_reached()

        assert exit_status(fork(lambda: several(sandbox, gated, gate))) == 0
        assert sandbox.token_requests == 2
        gate.opened.set()
        assert results(threads) == [200] * 8
        assert sandbox.token_requests == 3

    def test_while_the_lock_is_held(self, sandbox, auth, pool):
        """Nobody in the child would ever let go of it."""
        taken, done = threading.Event(), threading.Event()

        def hold() -> None:
            with auth._source._lock:
                taken.set()
                assert done.wait(LONG)

        holder = pool.submit(hold)
        assert taken.wait(LONG)
        child = fork(lambda: check(get(sandbox, auth) == 200))
        try:
            assert exit_status(child) == 0
        finally:
            done.set()
        holder.result(LONG)
        assert get(sandbox, auth) == 200
        assert sandbox.token_requests == 2

    def test_with_a_stale_token(self, sandbox, auth):
        """Parent and child renew it, each for itself."""
        auth.access_token()
        make_old(auth)

        assert exit_status(fork(lambda: several(sandbox, auth))) == 0
        assert sandbox.token_requests == 2
        assert get(sandbox, auth) == 200
        assert sandbox.token_requests == 3

    @pytest.mark.parametrize("expired", [False, True], ids=["stale", "expired meanwhile"])
    def test_while_a_stale_token_is_renewed(self, sandbox, gated, gate, pool, expired):
        """What the parent's try brings does not reach the child, which makes its own."""
        make_old(gated)
        leader = pool.submit(get, sandbox, gated)
        gate.wait_until_reached()
        make_old(gated, expired=expired)

        assert exit_status(fork(lambda: several(sandbox, gated, gate))) == 0
        assert sandbox.token_requests == 2
        gate.opened.set()
        assert leader.result(LONG) == 200
        assert sandbox.token_requests == 3

    def test_in_the_middle_of_401s(self, sandbox, gated, gate, pool):
        """Parent and child each retry their own requests."""
        sent = [refusable(sandbox, gated) for _ in range(12)]
        sandbox.revoke()
        threads = together(pool, 8, lambda: send(sent.pop()))
        gate.wait_until_reached()
        until(lambda: sandbox.rejections == 8)

        def work() -> None:
            gate.remove()
            check(len(sent) == 4)
            with ThreadPoolExecutor(4) as children:
                check(results(together(children, 4, lambda: send(sent.pop()))) == [200] * 4)

        assert exit_status(fork(work)) == 0
        assert sandbox.token_requests == 2
        gate.opened.set()
        assert results(threads) == [200] * 8
        assert sandbox.token_requests == 3

    @pytest.mark.parametrize("used_before", [True, False], ids=["used before", "not used before"])
    def test_by_a_server_that_preloads_the_application(self, sandbox, auth, used_before):
        """One auth for all workers: they inherit the token where there is one, and get their own where not."""
        if used_before:
            assert get(sandbox, auth) == 200
        children = [fork(lambda: several(sandbox, auth)) for _ in range(4)]

        assert [exit_status(child) for child in children] == [0] * 4
        assert sandbox.token_requests == (1 if used_before else 4)
        assert get(sandbox, auth) == 200

    def test_again_from_a_child(self, sandbox, auth):
        """A grandchild is no worse off."""
        auth.access_token()

        def work() -> None:
            make_old(auth, expired=True)
            check(get(sandbox, auth) == 200)
            auth.invalidate()
            check(exit_status(fork(lambda: several(sandbox, auth))) == 0)

        assert exit_status(fork(work)) == 0
        assert sandbox.token_requests == 3


def check(holds: bool) -> None:  # noqa: FBT001 - it is the subject
    """Raise where it does not hold: an assertion for what pytest does not rewrite."""
    if not holds:
        raise AssertionError


def several(sandbox: Sandbox, auth: MentionMeAuth, gate: Gate | None = None) -> None:
    """Make requests in several threads, all of which must succeed; the gate that held up others is not for them."""
    if gate:
        gate.remove()
    with ThreadPoolExecutor(4) as threads:
        check(results(together(threads, 4, get, sandbox, auth)) == [200] * 4)


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_it_travels_to_other_processes(sandbox, auth, method):
    """An auth that is in use is pickled, and gets a token of its own over there; the answer comes back."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system can't start processes by {method}")
    assert get(sandbox, auth) == 200
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as processes:
        calls = [processes.submit(requests.get, url_of(sandbox), auth=auth, timeout=LONG) for _ in range(2)]
        assert [response.status_code for response in results(calls)] == [200, 200]

    assert sandbox.token_requests == 3
    assert get(sandbox, auth) == 200
    assert sandbox.token_requests == 3


GREENLETS = """
from gevent import monkey

monkey.patch_all()

import json
import sys

import gevent
import requests

from requests_mentionme import MentionMeAuth

url, client_id, secret = sys.argv[1:]
auth = MentionMeAuth(client_id, secret, environment=url)


def get():
    with requests.get(f"{url}/api/merchant/v2/coupons/validate/SAMPLE", auth=auth, timeout=20) as response:
        return response.status_code


# The endpoint is slow the first time: the leader is killed as it waits, and another takes over.
leader = gevent.spawn(get)
gevent.sleep(0.1)
others = [gevent.spawn(get) for _ in range(32)]
gevent.sleep(0.05)
leader.kill()
gevent.joinall(others, timeout=20, raise_error=True)
statuses = [each.value for each in others]
auth.invalidate()
cold = [gevent.spawn(get) for _ in range(32)]
gevent.joinall(cold, timeout=20, raise_error=True)
print(json.dumps({"killed": leader.value is not None, "others": statuses, "cold": [each.value for each in cold]}))
"""


@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")
def test_greenlets_share_a_renewal_like_threads(sandbox):
    """Under gevent's monkey patching one token request serves all, and a killed leader frees the others."""
    sandbox.fail_token_requests(delay=0.5)
    ran = subprocess.run(
        [sys.executable, "-c", GREENLETS, sandbox.url, sandbox.client_id, sandbox.client_secret],
        check=False,
        capture_output=True,
        text=True,
        timeout=2 * LONG,
    )

    assert ran.returncode == 0, ran.stderr
    outcome = json.loads(ran.stdout)
    assert outcome["others"] == [200] * 32
    assert outcome["cold"] == [200] * 32
    assert sandbox.token_requests == 3
