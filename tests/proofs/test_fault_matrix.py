"""Each fault of the token endpoint at each moment of a token's life, through the public class and over real sockets.

A cell is a fault and a moment. It says what a caller gets, how many token requests are made, and after which waits.
Afterwards the endpoint is mended, and the same auth object must work again.

By default all faults run at first use, and the telling ones at the other moments too; the rest with `pytest -m slow`.
"""

import functools
import random
import time
from dataclasses import replace
from importlib import metadata
from typing import NamedTuple

import pytest
import requests
from loopback import PATIENCE, Answer, Loopback, make_jwt, token_answer
from urllib3.util import connection

from requests_mentionme import Environment, InvalidClientError, MentionMeAuth, TokenEndpointError, TokenResponseError

SECRET = "cs_never-to-be-seen"
LIFE = 1000  # seconds; stale from 800 on, expired from 990 on
SLACK = 5.0  # seconds that a busy machine may add
MOMENTS = {"first use": None, "stale": 850, "expired": 995, "after a 401": 0}  # seconds after the token came


class Fault(NamedTuple):
    name: str  # one that begins with `*` runs at all moments by default
    answers: tuple[Answer, ...]  # the last one stays; none where the connection is refused
    error: type[Exception] | None  # of a renewal that may take three tries; None where there is a token in the end
    waits: tuple[float, ...] = ()  # seconds between tries, all of which are made
    named: float | None = None  # the error's `retry_after`


GRANT = token_answer("to be replaced", LIFE)
SPENT = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "4"}
AGAIN = (0.5, 1.0)  # seconds of backoff, with the most that jitter can add
BROKEN = requests.exceptions.ChunkedEncodingError
# urllib3 1.26 takes an answer that is shorter than it said as it came.
CUT = TokenResponseError if metadata.version("urllib3").startswith("1.") else BROKEN

FAULTS = [
    Fault("*refused connection", (), requests.ConnectionError, AGAIN),
    Fault("*reset before the answer", (Answer(fault="reset"),), requests.ConnectionError, AGAIN),
    Fault("reset within the head", (replace(GRANT, fault="reset", within="head"),), requests.ConnectionError, AGAIN),
    Fault("reset within the body", (replace(GRANT, fault="reset", within="body"),), BROKEN),
    Fault("closed before the answer", (Answer(fault="close"),), requests.ConnectionError, AGAIN),
    Fault("*reset once", (Answer(fault="reset"), GRANT), None, AGAIN[:1]),
    Fault("hang before the head", (Answer(fault="hang"),), requests.ReadTimeout),
    Fault("hang within the body", (replace(GRANT, fault="hang", within="body"),), requests.ConnectionError),
    Fault("truncated body", (replace(GRANT, fault="close", within="body"),), CUT),
    Fault("truncated chunks", (replace(GRANT, chunked=True, fault="close", within="body"),), BROKEN),
    Fault("Content-Length too small", (replace(GRANT, headers={"Content-Length": "9"}),), TokenResponseError),
    Fault("garbage instead of HTTP", (Answer(version="\x16\x03\x01 garbage"),), requests.ConnectionError, AGAIN),
    Fault("body without an end", (Answer(200, b" " * 65_536, times=3200),), TokenResponseError),
    Fault("*redirect", (Answer(302, headers={"Location": "https://foreign.example/"}),), TokenEndpointError),
    Fault("*401", (Answer(401),), InvalidClientError),
    Fault("429", (Answer(429),), TokenEndpointError, AGAIN),
    Fault("429 once", (Answer(429, headers={"Retry-After": "4"}), GRANT), None, (4,), 4),
    Fault("*429 for 4 s", (Answer(429, headers={"Retry-After": "4"}),), TokenEndpointError, (4, 4), 4),
    Fault("*429 for an hour", (Answer(429, headers={"Retry-After": "3600"}),), TokenEndpointError, (), 3600),
    Fault("429, spent for 4 s", (Answer(429, headers=SPENT),), TokenEndpointError, (4, 4), 4),
    Fault("502 twice", (Answer(502), Answer(502), GRANT), None, AGAIN),
    Fault("*500 for ever", (Answer(500),), TokenEndpointError, AGAIN),
    Fault("*none: HTTP/1.0 with close", (replace(GRANT, version="HTTP/1.0"),), None),
    Fault("none: chunked", (replace(GRANT, chunked=True),), None),
]


class World:
    def __init__(self, fault, api, endpoint):
        self.fault = fault
        self.api = api
        self.endpoint = endpoint
        self.issued = []
        self.ahead = 0.0
        self.waits = []
        environment = Environment("loopback", f"{endpoint.url}/api/oauth/token", [api.url])
        timeout = (5, 0.8) if any(answer.fault == "hang" for answer in fault.answers) else (5, 10)
        self.auth = MentionMeAuth("ci_sample", SECRET, environment=environment, timeout=timeout)
        api.play(self.judge)
        self.mend()

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.ahead += seconds

    def get(self):
        return requests.get(f"{self.api.url}/customers", auth=self.auth, timeout=PATIENCE)

    def grant(self, _, like=GRANT):
        """Issue another token, in an answer like another one."""
        self.issued.append(make_jwt())
        return replace(like, body=token_answer(self.issued[-1], LIFE).body)

    def judge(self, request):
        return Answer(200 if request.headers["authorization"].removeprefix("Bearer ") in self.issued else 401)

    def reach(self, moment):
        """Have the auth be at a moment of its token's life, and return the token if there is one."""
        if moment == "first use":
            return None
        assert self.get().status_code == 200
        self.ahead += MOMENTS[moment]
        return self.issued[-1] if moment != "after a 401" else self.issued.pop()

    def fail(self):
        """Have the endpoint fail. What is to grant a token has one of its own."""
        self.refuses = not self.fault.answers
        grants = [answer.body == GRANT.body and answer.fault is None for answer in self.fault.answers]
        steps = zip(self.fault.answers, grants, strict=True)
        self.endpoint.play(*[functools.partial(self.grant, like=it) if is_grant else it for it, is_grant in steps])

    def mend(self):
        self.refuses = False
        self.endpoint.play(self.grant)

    def assert_works_with(self, token=None):
        """Assert that a request is answered that carries this token, by default the newest."""
        response = self.get()
        assert response.status_code == 200
        assert response.request.headers["Authorization"] == f"Bearer {token or self.issued[-1]}"


@pytest.fixture
def world(fault, monkeypatch):
    with Loopback() as api, Loopback() as endpoint:
        world = World(fault, api, endpoint)
        wall = time.time
        monotonic = time.monotonic
        connect = connection.create_connection

        def create_connection(address, *args, **options):
            refused = world.refuses and address[1] == endpoint.port
            return connect((address[0], 1) if refused else address, *args, **options)  # nobody listens on port 1

        monkeypatch.setattr(time, "time", lambda: wall() + world.ahead)
        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + world.ahead)
        monkeypatch.setattr(time, "sleep", world.sleep)
        monkeypatch.setattr(random, "uniform", lambda _, most: most)
        monkeypatch.setattr(connection, "create_connection", create_connection)
        yield world


def cell(fault, moment):
    is_telling = moment == "first use" or fault.name[0] == "*"
    return pytest.param(fault, moment, marks=() if is_telling else pytest.mark.slow, id=f"{fault.name}, {moment}")


@pytest.mark.parametrize(("fault", "moment"), [cell(fault, moment) for fault in FAULTS for moment in MOMENTS])
def test_a_fault_has_the_outcome_of_its_cell_and_nothing_is_lost(world, fault, moment, caplog):
    """A stale token gets one try and goes on with a WARNING; all else gets three and raises."""
    caplog.set_level("INFO", logger="requests_mentionme")
    held = world.reach(moment)
    asked, tried = len(world.api.requests), len(world.endpoint.requests)
    is_stale = moment == "stale"
    kept_on = is_stale and (fault.error is not None or fault.waits != ())  # after one failed try
    error, waits = (None, []) if is_stale else (fault.error, list(fault.waits))
    world.fail()
    caplog.clear()
    started = time.monotonic()
    if error is None:
        world.assert_works_with(held if kept_on else None)
    else:
        with pytest.raises(requests.RequestException) as caught:
            world.get()
        assert (type(caught.value), getattr(caught.value, "retry_after", None)) == (error, fault.named)
        assert SECRET not in f"{caught.value} {caught.value!r}"
    assert time.monotonic() - started < sum(waits) + SLACK
    assert len(world.endpoint.requests) - tried == (len(waits) + 1 if fault.answers else 0)
    assert len(world.api.requests) - asked == (error is None) + (moment == "after a 401")
    assert world.waits == waits
    warned = [record.getMessage() for record in caplog.records if record.levelname != "INFO"]
    assert [text[:14] for text in warned] == ["Renewal failed"] * kept_on
    assert SECRET not in caplog.text
    world.mend()
    tried = len(world.endpoint.requests)
    named = (fault.named or 0) if kept_on or error else 0  # where the fault has passed, so has its time
    if kept_on or named:
        # Until then, no token request: the token in hand is used, or the same error raised.
        world.ahead += 1
        if kept_on:
            world.assert_works_with(held)
        else:
            with pytest.raises(TokenEndpointError) as caught:
                world.get()
            assert named - 1 - SLACK < caught.value.retry_after <= named - 1
        assert len(world.endpoint.requests) == tried
        world.ahead += max(min(named, 60), 30 if kept_on else 0)
    world.assert_works_with()
    assert len(world.endpoint.requests) - tried == (kept_on or error is not None)
    assert world.waits == waits
