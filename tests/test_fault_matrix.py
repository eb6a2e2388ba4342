"""Each fault of the token endpoint at each moment of a token's life, through the public class and over real sockets.

A cell is a fault and a moment. It says what a caller gets, how many token requests are made, after which waits, and how
long it takes at most; afterwards the endpoint is mended, and the same auth object must work again.

`python tests/test_fault_matrix.py` prints what is expected of each of the 200 cells. 80 run by default: all faults at
first use, the telling ones at the other moments too. `pytest -m slow` runs the rest.
"""

import itertools
import logging
import random
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from loopback import PATIENCE, Answer, Loopback, Request, Step, make_jwt, token_answer

from requests_mentionme import Environment, InvalidClientError, MentionMeAuth, TokenEndpointError, TokenResponseError

SECRET = "cs_never-to-be-seen"
LIFE = 1000  # seconds; stale from 800 on, expired from 990 on
SLACK = 5.0  # seconds that a busy machine may add

FIRST_USE, STALE, EXPIRED, AFTER_A_401 = MOMENTS = ("first use", "stale", "expired", "after a 401")
BACKOFF = (0.5, 1.0)  # seconds, with the most that jitter can add

# urllib3 1.26 takes an answer that is shorter than it said as it came.
CHECKS_LENGTH = not metadata.version("urllib3").startswith("1.")
BROKEN = requests.exceptions.ChunkedEncodingError
CUT = BROKEN if CHECKS_LENGTH else TokenResponseError


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and what a renewal that may take three tries makes of it.

    Attributes:
        answers: What the endpoint answers; the last one stays.
        error: What is raised; None where there is a token in the end.
        waits: Seconds between tries, all of which are made.
        named: The error's `retry_after`.
        lasts: Seconds that a try takes.
        way: Another way to fail than by an answer.
        everywhere: Whether all moments are run by default.
    """

    name: str
    answers: tuple[Step, ...]
    error: type[Exception] | None
    waits: tuple[float, ...] = ()
    named: float | None = None
    lasts: float = 0.0
    timeout: tuple[float, float] = (5, 10)
    way: str = "answers"
    everywhere: bool = False


@dataclass(frozen=True)
class Expected:
    """What must come of a fault at a moment."""

    error: type[Exception] | None
    new_token: bool  # if there is no error
    tries: int
    waits: tuple[float, ...]
    named: float | None
    longest: float  # seconds

    @property
    def result(self) -> str:
        """In words."""
        if self.error is not None:
            return self.error.__name__
        return "200, new token" if self.new_token else "200, token in hand, WARNING"


def expected(fault: Fault, moment: str) -> Expected:
    """Return what must happen: a stale token gets one try and goes on, all else gets three and raises."""
    if moment == STALE:
        works = fault.error is None and not fault.waits
        lasts = 0.0 if fault.way == "drip of the head" else fault.lasts
        return Expected(None, works, 1, (), fault.named, lasts)
    longest = sum(fault.waits) + fault.lasts
    return Expected(fault.error, fault.error is None, len(fault.waits) + 1, fault.waits, fault.named, longest)


GRANT = token_answer("to be replaced", LIFE)
SHORT = (0.2, 0.3)  # (connect, read): a budget of 1 s, and others wait for 1.3 s
HANG: dict[str, Any] = {"lasts": 0.3, "timeout": SHORT}
DATED = {"Date": "Tue, 24 Nov 2026 04:30:00 GMT", "Retry-After": "Tue, 24 Nov 2026 04:30:04 GMT"}
PAST = {"Date": "Tue, 24 Nov 2026 04:30:00 GMT", "Retry-After": "Mon, 23 Nov 2026 04:30:00 GMT"}
RFC_6749 = b'{"error": "invalid_client", "error_description": "Unknown client."}'
MENTION_ME = b'{"code": "401", "message": "Unknown client."}'
SPENT = {"X_RateLimit_Remaining": "0"}
NETWORK, BUSY, UNUSABLE = requests.ConnectionError, TokenEndpointError, TokenResponseError


def _limited(status: int, **headers: str) -> tuple[Answer]:
    return (Answer(status, MENTION_ME, {name.replace("_", "-"): value for name, value in headers.items()}),)


FAULTS = [
    Fault("refused connection", (), NETWORK, BACKOFF, way="refused", everywhere=True),
    Fault("reset before the answer", (Answer(fault="reset"),), NETWORK, BACKOFF, everywhere=True),
    Fault("reset within the head", (replace(GRANT, fault="reset", within="head"),), NETWORK, BACKOFF),
    Fault("reset within the body", (replace(GRANT, fault="reset", within="body"),), BROKEN),
    Fault("closed before the answer", (Answer(fault="close"),), NETWORK, BACKOFF),
    Fault("reset once", (Answer(fault="reset"), GRANT), None, BACKOFF[:1], everywhere=True),
    Fault("hang before the head", (Answer(fault="hang"),), requests.ReadTimeout, **HANG),
    Fault("hang within the head", (replace(GRANT, fault="hang", within="head"),), requests.ReadTimeout, **HANG),
    Fault("hang within the body", (replace(GRANT, fault="hang", within="body"),), NETWORK, **HANG),
    Fault(
        "drip of the body",
        (replace(GRANT, times=10, fault="drip", within="body", interval=0.02),),
        BUSY,
        lasts=1.0,
        timeout=SHORT,
    ),
    Fault(
        "drip of the head, for those who wait",
        (replace(GRANT, headers={"X-Long": "x" * 9000}, fault="drip", within="head", interval=0.02),),
        BUSY,
        lasts=1.3,
        timeout=SHORT,
        way="drip of the head",
    ),
    Fault("truncated body", (replace(GRANT, fault="close", within="body"),), CUT),
    Fault("truncated chunks", (replace(GRANT, chunked=True, fault="close", within="body"),), BROKEN),
    Fault(
        "Content-Length too large",
        (replace(GRANT, headers={"Content-Length": "999"}, close=True),),
        CUT if CHECKS_LENGTH else None,
    ),
    Fault("Content-Length too small", (replace(GRANT, headers={"Content-Length": "9"}),), UNUSABLE),
    Fault("gzip garbage", (Answer(200, b"\x1f\x8bgarbage", {"Content-Encoding": "gzip"}),), UNUSABLE),
    Fault("garbage instead of HTTP", (Answer(raw=b"\x16\x03\x01 garbage\r\n\r\n"),), NETWORK, BACKOFF),
    Fault("a page of HTML", (Answer(200, b"<html>Sign in to this network</html>"),), UNUSABLE),
    Fault("body without an end", (Answer(200, b" " * 65_536, times=3200),), UNUSABLE),
    Fault("redirect to itself", (Answer(307, headers={"Location": "/api/oauth/token"}),), BUSY),
    Fault("redirect to another host", (Answer(302, headers={"Location": "{foreign}/"}),), BUSY, everywhere=True),
    Fault("400 of RFC 6749", (Answer(400, RFC_6749),), InvalidClientError),
    Fault("401 of RFC 6749", (Answer(401, RFC_6749),), InvalidClientError),
    Fault("401 of Mention Me", (Answer(401, MENTION_ME),), InvalidClientError, everywhere=True),
    Fault("403 of Mention Me", (Answer(403, MENTION_ME),), InvalidClientError),
    Fault("404", (Answer(404, MENTION_ME),), BUSY),
    Fault("429", _limited(429), BUSY, BACKOFF),
    Fault("429, Retry-After of 4 s", _limited(429, Retry_After="4"), BUSY, (4, 4), 4, everywhere=True),
    Fault("429, Retry-After of 20 s", _limited(429, Retry_After="20"), BUSY, (20,), 20),
    Fault("429, Retry-After of an hour", _limited(429, Retry_After="3600"), BUSY, (), 3600, everywhere=True),
    Fault("429, Retry-After with a date", _limited(429, **DATED), BUSY, (4, 4), 4),
    Fault("429, Retry-After with a past date", _limited(429, **PAST), BUSY, BACKOFF, 0),
    Fault("429, Retry-After of 0 s", _limited(429, Retry_After="0"), BUSY, BACKOFF, 0),
    Fault("429, Retry-After below 0", _limited(429, Retry_After="-1e9"), BUSY, BACKOFF, 0),
    Fault("429, Retry-After of aeons", _limited(429, Retry_After="9" * 300), BUSY, (), 86_400),
    Fault("429, Retry-After of no number", _limited(429, Retry_After="nan"), BUSY, BACKOFF),
    Fault("429, X-RateLimit-Reset of 4 s", _limited(429, **SPENT, X_RateLimit_Reset="4"), BUSY, (4, 4), 4),
    Fault("429, X-RateLimit-Reset of 299 s", _limited(429, **SPENT, X_RateLimit_Reset="299"), BUSY, (), 299),
    Fault("429, X-RateLimit-Reset of a timestamp", _limited(429, X_RateLimit_Reset="1764000000"), BUSY, (), 86_400),
    Fault(
        "429, X-RateLimit-Reset with some left",
        _limited(429, X_RateLimit_Reset="299", X_RateLimit_Remaining="9"),
        BUSY,
        BACKOFF,
    ),
    Fault("429 once", (*_limited(429, Retry_After="4"), GRANT), None, (4,), 4),
    Fault("500 once", (Answer(500), GRANT), None, BACKOFF[:1]),
    Fault("502 twice", (Answer(502), Answer(502), GRANT), None, BACKOFF),
    Fault("500 for ever", (Answer(500, MENTION_ME),), BUSY, BACKOFF),
    Fault("503 for ever", (Answer(503),), BUSY, BACKOFF, everywhere=True),
    Fault("503 for ever, Retry-After of an hour", _limited(503, Retry_After="3600"), BUSY, (), 3600),
    Fault("TLS not trusted", (), requests.exceptions.SSLError, way="not trusted", everywhere=True),
    Fault("TLS expired", (), requests.exceptions.SSLError, way="expired"),
    Fault("none: HTTP/1.0 with close", (replace(GRANT, version="HTTP/1.0"),), None, everywhere=True),
    Fault("none: chunked", (replace(GRANT, chunked=True),), None),
]
CELLS = [
    pytest.param(
        fault,
        moment,
        id=f"{fault.name}, {moment}",
        marks=() if moment == FIRST_USE or fault.everywhere else pytest.mark.slow,
    )
    for fault, moment in itertools.product(FAULTS, MOMENTS)
]


class Clock:
    """The clocks of this process, which `sleep` and `advance` put forward."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        """Take their place, and that of chance."""
        self.ahead, self.waits = 0.0, list[float]()
        wall, monotonic = time.time, time.monotonic
        patch.setattr(time, "time", lambda: wall() + self.ahead)
        patch.setattr(time, "monotonic", lambda: monotonic() + self.ahead)
        patch.setattr(time, "sleep", self.sleep)
        patch.setattr(random, "uniform", lambda _, most: most)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.ahead += seconds

    def sleep(self, seconds: float) -> None:
        """Let time pass, and keep how much."""
        self.waits.append(seconds)
        self.advance(seconds)


@dataclass
class World:
    """An API, its token endpoint, a host that is neither, and an auth."""

    api: Loopback
    endpoint: Loopback
    foreign: Loopback
    clock: Clock
    timeout: tuple[float, float]
    good_tls: ssl.SSLContext | None = None
    bad_tls: ssl.SSLContext | None = None
    issued: list[str] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Make the auth, and have the servers grant and check tokens."""
        token_url = f"{self.endpoint.url}/api/oauth/token"
        environment = Environment("loopback", token_url, frozenset({self.api.url}))
        self.auth = MentionMeAuth("ci_sample", SECRET, environment=environment, timeout=self.timeout)
        self.mend()
        self.api.play(self.judge)

    def get(self) -> requests.Response:
        """Send a request to the API."""
        with requests.Session() as session:
            session.auth = self.auth
            return session.get(f"{self.api.url}/customers", timeout=PATIENCE)

    def grant(self, _: Request, answer: Answer = GRANT) -> Answer:
        """Issue another token, in an answer like *answer*."""
        self.issued.append(make_jwt())
        return replace(answer, body=token_answer(self.issued[-1], LIFE).body)

    def judge(self, request: Request) -> Answer:
        """Accept what was issued and not revoked."""
        token = request.headers["authorization"].removeprefix("Bearer ")
        return Answer(200 if token in self.issued and token not in self.revoked else 401)

    def reach(self, moment: str) -> None:
        """Have the auth be at a moment of its token's life."""
        if moment != FIRST_USE:
            assert self.get().status_code == 200
        if moment in (STALE, EXPIRED):
            self.clock.advance(850 if moment == STALE else 995)
        if moment == AFTER_A_401:
            self.revoked.update(self.issued)
        self.clock.waits.clear()

    def fail(self, fault: Fault) -> None:
        """Have the endpoint fail."""
        if fault.way == "refused":
            self.endpoint.refuse()
        elif fault.way in ("not trusted", "expired"):
            self.endpoint.tls = self.bad_tls
        else:
            self.endpoint.play(*map(self.step, fault.answers))

    def step(self, answer: Step) -> Step:
        """Return an answer with a token of its own, if it is to grant one, and the address of the other host."""
        assert isinstance(answer, Answer)
        if answer.body == GRANT.body and answer.fault is None:
            return lambda request: self.grant(request, answer)
        headers = {name: value and value.format(foreign=self.foreign.url) for name, value in answer.headers.items()}
        return replace(answer, headers=headers)

    def mend(self) -> None:
        """Have the endpoint work."""
        self.endpoint.tls = self.good_tls
        self.endpoint.play(self.grant)

    def held(self) -> str | None:
        """Return the token in hand."""
        return self.issued[-1] if self.issued else None

    def tried(self) -> int:
        """Return how often the endpoint was tried, as far as it can tell."""
        return len(self.endpoint.requests)


@pytest.fixture(scope="module")
def authorities() -> tuple[trustme.CA, trustme.CA]:
    """Two certificate authorities."""
    return trustme.CA(), trustme.CA()


@pytest.fixture
def world(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    authorities: tuple[trustme.CA, trustme.CA],
) -> Iterator[World]:
    """A world in which nothing has happened yet; its endpoint speaks TLS where the fault is one of TLS."""
    fault: Fault = request.getfixturevalue("fault")
    good = bad = None
    if fault.way in ("not trusted", "expired"):
        trusted, other = authorities
        years = {"not_before": 2001, "not_after": 2002}
        past: dict[str, Any] = {name: datetime(year, 1, 1, tzinfo=timezone.utc) for name, year in years.items()}
        good, bad = (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for _ in range(2))
        trusted.issue_cert("localhost").configure_cert(good)
        unfit = other.issue_cert("localhost") if fault.way == "not trusted" else trusted.issue_cert("localhost", **past)
        unfit.configure_cert(bad)
        trusted.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with Loopback(Answer()) as api, Loopback(Answer(), tls=good) as endpoint, Loopback(Answer()) as foreign:
        yield World(api, endpoint, foreign, Clock(monkeypatch), fault.timeout, good, bad)


def assert_outcome(world: World, expectation: Expected, held: str | None) -> None:
    """Send a request while the token *held* is in hand, and assert that what is expected comes of it."""
    if expectation.error is None:
        response = world.get()
        assert response.status_code == 200
        token = world.issued[-1] if expectation.new_token else held
        assert response.request.headers["Authorization"] == f"Bearer {token}"
        return
    with pytest.raises(requests.RequestException) as caught:
        world.get()
    assert type(caught.value) is expectation.error
    assert getattr(caught.value, "retry_after", None) == (
        None if expectation.named is None else pytest.approx(expectation.named, abs=0.001)
    )
    assert SECRET not in f"{caught.value} {caught.value!r}"


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged as a WARNING."""
    assert SECRET not in caplog.text
    records = [record for record in caplog.records if record.name == "requests_mentionme"]
    return [record.getMessage() for record in records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(("fault", "moment"), CELLS)
def test_a_fault_has_the_outcome_of_its_cell_and_nothing_is_lost(
    world: World, fault: Fault, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller gets what the table says, in time; the mended endpoint brings the same auth back to work."""
    caplog.set_level(logging.INFO, logger="requests_mentionme")
    expectation = expected(fault, moment)
    world.reach(moment)
    api_before, before, held = len(world.api.requests), world.tried(), world.held()
    world.fail(fault)
    caplog.clear()

    if fault.way == "drip of the head":
        assert_those_who_wait_are_bounded(world, expectation)
    else:
        started = time.monotonic()
        assert_outcome(world, expectation, held)
        assert time.monotonic() - started < expectation.longest + SLACK

        reached = fault.way not in ("refused", "not trusted", "expired")
        assert world.tried() - before == (expectation.tries if reached else 0)
        assert world.clock.waits == list(expectation.waits)
        api_saw = (expectation.error is None) + (moment == AFTER_A_401)
        assert len(world.api.requests) - api_before == api_saw
    assert world.foreign.connections == 0
    warnings = warnings_in(caplog)
    kept_on = expectation.error is None and not expectation.new_token
    assert len(warnings) == kept_on, warnings
    assert not kept_on or warnings[0].startswith("Renewal failed")

    world.mend()
    if fault.way == "refused":
        world.endpoint.listen()
    assert_nothing_is_lost(world, expectation, held, already=fault.way == "drip of the head" and not kept_on)


def assert_nothing_is_lost(world: World, expectation: Expected, held: str | None, *, already: bool) -> None:
    """Assert that the auth works again, if it did not *already*: at once, or after the time that the endpoint named."""
    before, issued = world.tried(), len(world.issued)
    named = min(expectation.named or 0, 60) if not expectation.new_token else 0
    kept_on = expectation.error is None and not expectation.new_token
    if kept_on or named:
        # Until then, no token request: the token in hand is used, or the same error raised.
        world.clock.advance(1)
        if kept_on:
            assert_outcome(world, expectation, held)
        else:
            with pytest.raises(TokenEndpointError) as caught:
                world.get()
            left = (expectation.named or 0) - 1
            assert left - SLACK < (caught.value.retry_after or 0) <= left
        assert world.tried() == before
        world.clock.advance(max(named, 30 if kept_on else 0))

    response = world.get()

    assert response.status_code == 200
    assert response.request.headers["Authorization"] == f"Bearer {world.issued[-1]}"
    assert world.tried() - before == len(world.issued) - issued == (not already and not expectation.new_token)
    assert world.clock.waits == list(expectation.waits)


def assert_those_who_wait_are_bounded(world: World, expectation: Expected) -> None:
    """Assert that one thread is kept by a drip of the head, and no other for long."""
    ended: list[str] = []

    def lead() -> None:
        try:
            ended.append(f"{world.get().status_code}")
        except requests.RequestException as error:
            ended.append(type(error).__name__)

    before, held = world.tried(), world.held()
    leader = threading.Thread(target=lead, daemon=True)
    leader.start()
    assert world.endpoint.until(lambda: world.tried() == before + 1)

    started = time.monotonic()
    assert_outcome(world, expectation, held)
    assert time.monotonic() - started < expectation.longest + SLACK
    assert world.tried() == before + 1

    # The next one begins another renewal, if it needs one, while the first is still under way.
    world.mend()
    assert world.get().status_code == 200
    assert world.tried() == before + (1 if expectation.error is None else 2)
    assert ended == []
    world.endpoint.hang_up()
    leader.join(PATIENCE)
    assert ended == ["200" if expectation.error is None else "TokenResponseError"]


def test_the_matrix_has_no_cell_twice() -> None:
    """Each fault has a name of its own, and each cell is asserted once."""
    assert len({cell.id for cell in CELLS}) == len(CELLS) == len(FAULTS) * len(MOMENTS)


def table() -> str:
    """Return what is expected of all cells, as a table."""
    rows = [("fault", "moment", "result", "tries", "retry_after", "longest, s")]
    for fault, moment in itertools.product(FAULTS, MOMENTS):
        cell = expected(fault, moment)
        named = "" if cell.named is None or cell.error is None else f"{cell.named:g}"
        rows.append((fault.name, moment, cell.result, str(cell.tries), named, f"{cell.longest:g}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join("  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)


if __name__ == "__main__":
    sys.stdout.write(table())
