"""Each fault of the token endpoint at each moment of a token's life, through the public class and over real sockets.

A cell is a fault and a moment. It says what a caller gets, how many token requests are made, after which waits, and how
long it takes at most. Afterwards the endpoint is mended, and the same auth object must work again.

Of the 200 cells, 80 run by default: all faults at first use, the telling ones at the other moments too, and the rest
with `pytest -m slow`. A drip waits for about a second of real time, until nobody may wait any longer.
"""

import itertools
import json
import random
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from importlib import metadata
from typing import Any, NamedTuple

import pytest
import requests
import trustme
from loopback import PATIENCE, Answer, Loopback, Request, make_jwt, token_answer

from requests_mentionme import Environment, InvalidClientError, MentionMeAuth, TokenEndpointError, TokenResponseError

SECRET = "cs_never-to-be-seen"
LIFE = 1000  # seconds; stale from 800 on, expired from 990 on
SLACK = 5.0  # seconds that a busy machine may add
FIRST_USE = "first use"
STALE = "stale"
EXPIRED = "expired"
AFTER_A_401 = "after a 401"
MOMENTS = (FIRST_USE, STALE, EXPIRED, AFTER_A_401)
SHORT = (0.1, 0.25)  # (connect, read): a budget of 0.7 s, and others wait for 0.95 s


class Fault(NamedTuple):
    """What goes wrong, and what a renewal that may take three tries makes of it."""

    name: str  # one that begins with `*` runs at all moments by default
    answers: tuple[Answer, ...]  # the last one stays
    error: type[Exception] | None  # None where there is a token in the end
    waits: tuple[float, ...] = ()  # seconds between tries, all of which are made
    named: float | None = None  # the error's `retry_after`
    lasts: float = 0.0  # seconds that a try takes; where that is not 0, the timeout is `SHORT`
    way: str = "answers"  # another way to fail than by an answer


class Expected(NamedTuple):
    """What must come of a fault at a moment."""

    error: type[Exception] | None
    kept_on: bool  # whether the token in hand is used, with a WARNING
    waits: tuple[float, ...]
    named: float | None
    longest: float  # seconds


def expected(fault: Fault, moment: str) -> Expected:
    """Return what must happen: a stale token gets one try and goes on, all else gets three and raises."""
    if moment == STALE:
        lasts = 0.0 if fault.way == "slow head" else fault.lasts
        return Expected(None, fault.error is not None or fault.waits != (), (), fault.named, lasts)
    return Expected(
        fault.error, kept_on=False, waits=fault.waits, named=fault.named, longest=sum(fault.waits) + fault.lasts
    )


def answer(status: int, said: dict[str, str] | None = None, **headers: str) -> tuple[Answer]:
    """Return one answer as a script; *said* is its JSON."""
    body = b"" if said is None else json.dumps(said).encode()
    return (Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()}),)


def grant(**how: Any) -> tuple[Answer]:
    """Return an answer with a token as a script, and what goes wrong with it."""
    return (replace(GRANT, **how),)


GRANT = token_answer("to be replaced", LIFE)
RFC_6749 = {"error": "invalid_client", "error_description": "Unknown client."}
MENTION_ME = {"code": "401", "message": "Unknown client."}
NOW = "Tue, 24 Nov 2026 04:30:00 GMT"
SOON = "Tue, 24 Nov 2026 04:30:04 GMT"
PAST = "Tue, 17 Nov 2026 04:30:00 GMT"
AGAIN = (0.5, 1.0)  # seconds of backoff, with the most that jitter can add
REFUSED = InvalidClientError
BUSY = TokenEndpointError
UNUSABLE = TokenResponseError
NETWORK = requests.ConnectionError
SILENT = requests.ReadTimeout
UNTRUSTED = requests.exceptions.SSLError
BROKEN = requests.exceptions.ChunkedEncodingError
# urllib3 1.26 takes an answer that is shorter than it said as it came.
CHECKS_LENGTH = not metadata.version("urllib3").startswith("1.")
CUT = BROKEN if CHECKS_LENGTH else UNUSABLE
CUT_CLOSE = BROKEN if CHECKS_LENGTH else None

FAULTS = [
    Fault("*refused connection", (), NETWORK, AGAIN, way="refused"),
    Fault("*reset before the answer", (Answer(fault="reset"),), NETWORK, AGAIN),
    Fault("reset within the head", grant(fault="reset", within="head"), NETWORK, AGAIN),
    Fault("reset within the body", grant(fault="reset", within="body"), BROKEN),
    Fault("closed before the answer", (Answer(fault="close"),), NETWORK, AGAIN),
    Fault("*reset once", (Answer(fault="reset"), GRANT), None, AGAIN[:1]),
    Fault("hang before the head", (Answer(fault="hang"),), SILENT, lasts=0.25),
    Fault("hang within the head", grant(fault="hang", within="head"), SILENT, lasts=0.25),
    Fault("hang within the body", grant(fault="hang", within="body"), NETWORK, lasts=0.25),
    Fault("drip of the body", grant(times=10, fault="drip", within="body", interval=0.02), BUSY, lasts=0.7),
    Fault(
        "drip of the head, for those who wait",
        grant(headers={"X-Long": "x" * 9000}, fault="drip", within="head", interval=0.02),
        BUSY,
        lasts=0.95,
        way="slow head",
    ),
    Fault("truncated body", grant(fault="close", within="body"), CUT),
    Fault("truncated chunks", grant(chunked=True, fault="close", within="body"), BROKEN),
    Fault("Content-Length too large", grant(headers={"Content-Length": "999"}, close=True), CUT_CLOSE),
    Fault("Content-Length too small", grant(headers={"Content-Length": "9"}), UNUSABLE),
    Fault("gzip garbage", (Answer(200, b"\x1f\x8bgarbage", {"Content-Encoding": "gzip"}),), UNUSABLE),
    Fault("garbage instead of HTTP", (Answer(raw=b"\x16\x03\x01 garbage\r\n\r\n"),), NETWORK, AGAIN),
    Fault("a page of HTML", (Answer(200, b"<html>Sign in to this network</html>"),), UNUSABLE),
    Fault("body without an end", (Answer(200, b" " * 65_536, times=3200),), UNUSABLE),
    Fault("redirect to itself", answer(307, Location="/api/oauth/token"), BUSY),
    Fault("*redirect to another host", answer(302, Location="{foreign}/"), BUSY),
    Fault("400 of RFC 6749", answer(400, RFC_6749), REFUSED),
    Fault("401 of RFC 6749", answer(401, RFC_6749), REFUSED),
    Fault("*401 of Mention Me", answer(401, MENTION_ME), REFUSED),
    Fault("403 of Mention Me", answer(403, MENTION_ME), REFUSED),
    Fault("404", answer(404, MENTION_ME), BUSY),
    Fault("429", answer(429, MENTION_ME), BUSY, AGAIN),
    Fault("*429, Retry-After of 4 s", answer(429, Retry_After="4"), BUSY, (4, 4), 4),
    Fault("429, Retry-After of 20 s", answer(429, Retry_After="20"), BUSY, (20,), 20),
    Fault("*429, Retry-After of an hour", answer(429, Retry_After="3600"), BUSY, (), 3600),
    Fault("429, Retry-After with a date", answer(429, Date=NOW, Retry_After=SOON), BUSY, (4, 4), 4),
    Fault("429, Retry-After with a past date", answer(429, Date=NOW, Retry_After=PAST), BUSY, AGAIN, 0),
    Fault("429, Retry-After of 0 s", answer(429, Retry_After="0"), BUSY, AGAIN, 0),
    Fault("429, Retry-After below 0", answer(429, Retry_After="-1e9"), BUSY, AGAIN, 0),
    Fault("429, Retry-After of aeons", answer(429, Retry_After="9" * 300), BUSY, (), 86_400),
    Fault("429, Retry-After of no number", answer(429, Retry_After="nan"), BUSY, AGAIN),
    Fault("429, spent for 4 s", answer(429, X_RateLimit_Remaining="0", X_RateLimit_Reset="4"), BUSY, (4, 4), 4),
    Fault("429, spent for 299 s", answer(429, X_RateLimit_Remaining="0", X_RateLimit_Reset="299"), BUSY, (), 299),
    Fault("429, spent until a timestamp", answer(429, X_RateLimit_Reset="1764000000"), BUSY, (), 86_400),
    Fault("429, some left", answer(429, X_RateLimit_Reset="299", X_RateLimit_Remaining="9"), BUSY, AGAIN),
    Fault("429 once", (*answer(429, Retry_After="4"), GRANT), None, (4,), 4),
    Fault("500 once", (Answer(500), GRANT), None, AGAIN[:1]),
    Fault("502 twice", (Answer(502), Answer(502), GRANT), None, AGAIN),
    Fault("500 for ever", answer(500, MENTION_ME), BUSY, AGAIN),
    Fault("*503 for ever", answer(503), BUSY, AGAIN),
    Fault("503 for ever, Retry-After of an hour", answer(503, Retry_After="3600"), BUSY, (), 3600),
    Fault("*TLS not trusted", (), UNTRUSTED, way="not trusted"),
    Fault("TLS expired", (), UNTRUSTED, way="expired"),
    Fault("*none: HTTP/1.0 with close", grant(version="HTTP/1.0"), None),
    Fault("none: chunked", grant(chunked=True), None),
]


class World:
    """An API, its token endpoint, a host that is neither, an auth, and the clocks of this process."""

    def __init__(self, fault: Fault, servers: list[Loopback], good_tls: Any, bad_tls: Any) -> None:
        self.api, self.endpoint, self.foreign = servers
        self.good_tls, self.bad_tls = good_tls, bad_tls
        self.issued: list[str] = []
        self.ahead = 0.0
        self.waits: list[float] = []
        environment = Environment("loopback", f"{self.endpoint.url}/api/oauth/token", frozenset({self.api.url}))
        options: dict[str, Any] = {"timeout": SHORT} if fault.lasts else {}
        self.auth = MentionMeAuth("ci_sample", SECRET, environment=environment, **options)
        self.mend()
        self.api.play(self.judge)

    def sleep(self, seconds: float) -> None:
        """Take the place of `time.sleep`."""
        self.waits.append(seconds)
        self.ahead += seconds

    def get(self) -> requests.Response:
        """Send a request to the API."""
        with requests.Session() as session:
            session.auth = self.auth
            return session.get(f"{self.api.url}/customers", timeout=PATIENCE)

    def grant(self, _: Request, like: Answer = GRANT) -> Answer:
        """Issue another token, in an answer like another one."""
        self.issued.append(make_jwt())
        return replace(like, body=token_answer(self.issued[-1], LIFE).body)

    def judge(self, request: Request) -> Answer:
        """Accept what was issued and is still known."""
        token = request.headers["authorization"].removeprefix("Bearer ")
        return Answer(200 if token in self.issued else 401)

    def reach(self, moment: str) -> str | None:
        """Have the auth be at a moment of its token's life, and return the token if there is one."""
        if moment == FIRST_USE:
            return None
        assert self.get().status_code == 200
        self.ahead += {STALE: 850, EXPIRED: 995, AFTER_A_401: 0}[moment]
        return self.issued[-1] if moment != AFTER_A_401 else self.issued.pop()

    def fail(self, fault: Fault) -> None:
        """Have the endpoint fail."""
        if fault.way == "refused":
            self.endpoint.refuse()
        elif fault.way in ("not trusted", "expired"):
            self.endpoint.tls = self.bad_tls
        else:
            self.endpoint.play(*map(self.step, fault.answers))

    def step(self, answer: Answer) -> Any:
        """Return an answer with a token of its own, if it is to grant one, and the address of the other host."""
        if answer.body == GRANT.body and answer.fault is None:
            return lambda request: self.grant(request, answer)
        headers = {name: value and value.format(foreign=self.foreign.url) for name, value in answer.headers.items()}
        return replace(answer, headers=headers)

    def mend(self) -> None:
        """Have the endpoint work."""
        self.endpoint.tls = self.good_tls
        self.endpoint.play(self.grant)

    @property
    def tried(self) -> int:
        """How often the endpoint was tried, as far as it can tell."""
        return len(self.endpoint.requests)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """TLS contexts of a server by what is wrong with their certificates, and the bundle that they are judged by."""
    trusted = trustme.CA()
    bundle = tmp_path_factory.mktemp("ca") / "ca.pem"
    trusted.cert_pem.write_to_path(bundle)
    begin, end = (datetime(year, 1, 1, tzinfo=timezone.utc) for year in (2001, 2002))
    certificates = {
        "": trusted.issue_cert("localhost"),
        "not trusted": trustme.CA().issue_cert("localhost"),
        "expired": trusted.issue_cert("localhost", not_before=begin, not_after=end),
    }
    contexts: dict[str, Any] = {"bundle": str(bundle)}
    for name, certificate in certificates.items():
        contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(contexts[name])
    return contexts


@pytest.fixture
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, contexts: dict[str, Any]) -> Iterator[World]:
    """A world in which nothing has happened yet; its endpoint speaks TLS where the fault is one of TLS."""
    fault: Fault = request.getfixturevalue("fault")
    bad = contexts.get(fault.way)
    good = contexts[""] if bad else None
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", contexts["bundle"])
    with Loopback(Answer()) as api, Loopback(Answer(), tls=good) as endpoint, Loopback(Answer()) as foreign:
        world = World(fault, [api, endpoint, foreign], good, bad)
        wall, monotonic = time.time, time.monotonic
        monkeypatch.setattr(time, "time", lambda: wall() + world.ahead)
        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + world.ahead)
        monkeypatch.setattr(time, "sleep", world.sleep)
        monkeypatch.setattr(random, "uniform", lambda _, most: most)
        yield world


def assert_outcome(world: World, cell: Expected, held: str | None) -> None:
    """Send a request while the token *held* is in hand, and assert that what is expected comes of it, in time."""
    started = time.monotonic()
    if cell.error is None:
        response = world.get()
        assert response.status_code == 200
        assert response.request.headers["Authorization"] == f"Bearer {held if cell.kept_on else world.issued[-1]}"
    else:
        with pytest.raises(requests.RequestException) as caught:
            world.get()
        assert type(caught.value) is cell.error
        named = None if cell.named is None else pytest.approx(cell.named, abs=0.001)
        assert getattr(caught.value, "retry_after", None) == named
        assert SECRET not in f"{caught.value} {caught.value!r}"
    assert time.monotonic() - started < cell.longest + SLACK


@pytest.mark.parametrize(
    ("fault", "moment"),
    [
        pytest.param(
            fault,
            moment,
            marks=() if moment == FIRST_USE or fault.name[0] == "*" else pytest.mark.slow,
            id=f"{fault.name.removeprefix('*')}, {moment}",
        )
        for fault, moment in itertools.product(FAULTS, MOMENTS)
    ],
)
def test_a_fault_has_the_outcome_of_its_cell_and_nothing_is_lost(world, fault, moment, caplog, start):
    """The caller gets what the table says, in time; the mended endpoint brings the same auth back to work."""
    caplog.set_level("INFO", logger="requests_mentionme")
    cell = expected(fault, moment)
    held = world.reach(moment)
    asked = len(world.api.requests)
    tried = world.tried
    world.fail(fault)
    caplog.clear()
    if fault.way == "slow head":
        assert_those_who_wait_are_bounded(world, cell, held, start)
    else:
        assert_outcome(world, cell, held)
        assert world.tried - tried == (len(cell.waits) + 1 if fault.answers else 0)
        assert len(world.api.requests) - asked == (cell.error is None) + (moment == AFTER_A_401)
    assert world.waits == list(cell.waits)
    assert world.foreign.connections == 0
    records = [record for record in caplog.records if record.name == "requests_mentionme"]
    warnings = [record.getMessage() for record in records if record.levelname != "INFO"]
    assert len(warnings) == cell.kept_on, warnings
    assert not cell.kept_on or warnings[0].startswith("Renewal failed")
    assert SECRET not in caplog.text
    world.mend()
    if fault.way == "refused":
        world.endpoint.listen()
    if fault.way != "slow head" or cell.kept_on:
        assert_nothing_is_lost(world, cell, held)


def assert_nothing_is_lost(world: World, cell: Expected, held: str | None) -> None:
    """Assert that the auth works again: at once, or after the time that the endpoint named, or after a stale try."""
    tried = world.tried
    new_token = cell.error is None and not cell.kept_on
    named = 0 if new_token else min(cell.named or 0, 60)
    if cell.kept_on or named:
        # Until then, no token request: the token in hand is used, or the same error raised.
        world.ahead += 1
        if cell.kept_on:
            assert_outcome(world, cell, held)
        else:
            with pytest.raises(TokenEndpointError) as caught:
                world.get()
            left = (cell.named or 0) - 1
            assert left - SLACK < (caught.value.retry_after or 0) <= left
        assert world.tried == tried
        world.ahead += max(named, 30 if cell.kept_on else 0)
    assert_outcome(world, Expected(None, kept_on=False, waits=(), named=None, longest=0), held)
    assert world.tried - tried == (not new_token)
    assert world.waits == list(cell.waits)


def assert_those_who_wait_are_bounded(
    world: World, cell: Expected, held: str | None, start: Callable[..., Any]
) -> None:
    """Assert that one thread is kept by a drip of the head, and no other for long."""
    tried = world.tried
    leader = start(world.get)
    assert world.endpoint.until(lambda: world.tried == tried + 1)
    assert_outcome(world, cell, held)
    assert world.tried == tried + 1
    # The next one begins another renewal, if it needs one, while the first is still under way.
    world.mend()
    assert world.get().status_code == 200
    assert world.tried == tried + (1 if cell.error is None else 2)
    assert not leader.done()
    world.endpoint.hang_up()
    if cell.error is None:
        assert leader.result(PATIENCE).status_code == 200
    else:
        assert type(leader.exception(PATIENCE)) is TokenResponseError
