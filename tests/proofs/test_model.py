"""A perfect client, written down from the rules alone, against the real one, over schedules that nobody thought of.

There is a small world: a clock, a token endpoint with its faults, and an API. At each step the perfect client goes
through a copy of the world, and then the real one through the world itself. Both must have the same outcome, and the
two worlds must be the same: the same token requests, the same tokens sent, the same time gone by.
"""

import copy
import math
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, ClassVar, NamedTuple

import jwt
import pytest
import requests
from freezegun.api import FrozenDateTimeFactory
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from in_memory import TIMEOUT, Answer, TokenEndpoint, auth_with, session_with

NOON = 1_767_268_800  # where the clock of the tests begins
API_URL = "https://demo.mention-me.com/api/merchant/v2/customers"
BUDGET = 2 * sum(TIMEOUT)


class Fault(NamedTuple):
    """What happens to a token request instead."""

    name: str
    status: int = 0
    retry_after: int | None = None
    takes: int = 0


FAULTS = [
    Fault("ConnectionError"),
    Fault("ReadTimeout", takes=int(TIMEOUT[1])),
    Fault("TokenResponseError", 200),
    Fault("InvalidClientError", 401),
    Fault("TokenEndpointError", 404),
    *[Fault("TokenEndpointError", 503, wait) for wait in (None, 7)],
    *[Fault("TokenEndpointError", 429, wait) for wait in (0, 40, 200)],
    Fault("slow", takes=9),
]


class Issued(NamedTuple):
    """A token as the server knows it, in its own time; `exp`, `iat` and `date` are None where it does not say them."""

    token: str
    expires_at: int
    exp: int | None
    iat: int | None
    expires_in: int | None = None
    date: int | None = None


@dataclass
class World:
    """Everything outside the client."""

    lifetime: int
    now: float = NOON
    skew: int = 0  # how much the clock of the server is ahead
    says: frozenset[str] = frozenset({"expires_in", "exp", "iat", "date"})
    caches: bool = False  # the endpoint hands out the same token as long as it lives
    refuses_all: bool = False
    faults: list[Fault] = field(default_factory=list)
    issued: dict[str, Issued] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    token_requests: int = 0
    tokens_seen: list[str] = field(default_factory=list)

    def request_token(self) -> Issued | Fault:
        """Answer a token request."""
        self.token_requests += 1
        fault = self.faults.pop(0) if self.faults else None
        if fault:
            self.now += fault.takes
            if fault.name != "slow":
                return fault
        now = int(self.now) + self.skew
        newest = self.issued[next(reversed(self.issued))] if self.issued else None
        if newest is None or not self.caches or newest.expires_at <= now:
            newest = self._issue(now)
        expires_in = newest.expires_at - now if "expires_in" in self.says else None
        return newest._replace(expires_in=expires_in, date=now if "date" in self.says else None)

    def _issue(self, now: int) -> Issued:
        exp = now + self.lifetime if "exp" in self.says else None
        iat = now if "iat" in self.says and exp is not None else None
        claims = {name: value for name, value in (("exp", exp), ("iat", iat)) if value is not None}
        number = len(self.issued)
        token = f"opaque-{number}" if exp is None else jwt.encode({"number": number, **claims}, "", "none")
        self.issued[token] = Issued(token, now + self.lifetime, exp, iat)
        return self.issued[token]

    def serve(self, token: str) -> int:
        """Answer an API request with a status."""
        self.tokens_seen.append(token)
        ended = self.now + self.skew >= self.issued[token].expires_at
        return 401 if self.refuses_all or token in self.revoked or ended else 200


class FailureError(Exception):
    """No token: the name of the error, and the seconds after which to try again."""


class Held(NamedTuple):
    """A token as the client knows it, in its own time."""

    value: str
    obtained_at: float
    stale_at: float
    expired_at: float


class HoldOff(NamedTuple):
    """What is not done until a moment; it counts only within its own length, so that no clock makes it last."""

    until: float
    length: float

    def counts(self, now: float) -> bool:
        """Return whether it is in force."""
        return 0 < self.until - now <= self.length


OVER = HoldOff(-math.inf, 0)


class PerfectClient:
    """The rules, for one thread."""

    def __init__(self, world: World, refresh_margin: float) -> None:
        self.world = world
        self.refresh_margin = refresh_margin
        self.held: Held | None = None
        self.end_hold_offs()

    def end_hold_offs(self) -> None:
        """Forget what is held off."""
        self.stale_tries = OVER
        self.named = OVER
        self.named_time = 0.0
        self.refusals = OVER
        self.refused = ""

    def invalidate(self, token: str | None) -> None:
        """Drop the token, or only that one."""
        if self.held and token in (None, self.held.value):
            self.held = None
        self.end_hold_offs()

    def edges(self) -> list[float]:
        """Return the moments at which something changes, in order."""
        moments = [self.stale_tries.until, self.named.until, self.named_time, self.refusals.until]
        moments += [self.held.stale_at, self.held.expired_at] if self.held else []
        return sorted(moment for moment in moments if moment > self.world.now)

    def state(self) -> str:
        """Return the state of the token."""
        if not self.held or not self.held.obtained_at <= self.world.now < self.held.expired_at:
            return "expired"
        return "stale" if self.world.now >= self.held.stale_at else "fresh"

    def token(self) -> str:
        """Return the token to send with a request."""
        held_off = any(each.counts(self.world.now) for each in (self.stale_tries, self.named))
        if self.state() == "stale" and not held_off:
            try:
                return self.renew(tries=1)
            except FailureError:
                self.stale_tries = HoldOff(self.world.now + 30, 30)
        return self.renew_in_full() if self.state() == "expired" else self.held.value

    def renew_in_full(self) -> str:
        """Renew, unless the endpoint asked not to be asked."""
        if self.named.counts(self.world.now):
            raise FailureError("TokenEndpointError", self.named_time - self.world.now)
        return self.renew(tries=3)

    def renew(self, tries: int) -> str:
        """Make a token request, up to so many times."""
        deadline = self.world.now + BUDGET
        while True:
            sent_at = self.world.now
            answer = self.world.request_token()
            if isinstance(answer, Issued):
                self.held = self.judge(answer, sent_at)
                self.stale_tries = self.named = OVER
                return self.held.value
            tries -= 1
            passing = answer.name == "ConnectionError" or answer.status == 429 or answer.status >= 500
            wait = answer.retry_after or 0
            if not tries or not passing or self.world.now + wait >= deadline:
                if wait:
                    self.named = HoldOff(self.world.now + min(wait, 60), min(wait, 60))
                    self.named_time = self.world.now + wait
                raise FailureError(answer.name, answer.retry_after)
            self.world.now += wait

    def judge(self, answer: Issued, sent_at: float) -> Held:
        """Return the token with its deadlines."""
        measures = [] if answer.expires_in is None else [answer.expires_in]
        if answer.exp is not None:
            measures += [answer.exp - start for start in (answer.iat, answer.date) if start is not None]
            if answer.date is None and all(measure <= 0 for measure in measures):
                measures.append(answer.exp - sent_at)
        positive = [measure for measure in measures if measure > 0]
        if measures and not positive:
            raise FailureError("TokenResponseError", None)
        lifetime = min(*positive, 86_400) if positive else 300
        last_moment = min(10, 0.05 * lifetime)
        margin = min(self.refresh_margin, 0.2 * lifetime)
        end = sent_at + lifetime
        return Held(answer.token, sent_at, end - max(margin, last_moment), end - last_moment)

    def send(self, token: str) -> int:
        """Send a request that was given *token*, and return its final status."""
        status = self.world.serve(token)
        held_off = self.held and token == self.held.value == self.refused and self.refusals.counts(self.world.now)
        if status != 401 or held_off:
            return status
        if self.held and self.held.value != token and self.state() != "expired":
            return self.world.serve(self.held.value)
        new = self.renew_in_full()
        if new != token:
            status = self.world.serve(new)
        if status == 401:
            self.refused = new
            self.refusals = HoldOff(self.world.now + 30, 30)
        return status


class Wire(TokenEndpoint):
    """Carries the requests of the real client into the world."""

    def __init__(self, world: World, clock: FrozenDateTimeFactory) -> None:
        super().__init__()
        self.world = world
        self.clock = clock

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Return the answer of the world."""
        if request.url == API_URL:
            return self._response(request, Answer(self.world.serve(token_in(request))))
        begun = self.world.now
        answer = self.world.request_token()
        self.clock.tick(self.world.now - begun)
        if isinstance(answer, Issued):
            fields = {} if answer.expires_in is None else {"expires_in": answer.expires_in}
            date = {} if answer.date is None else {"Date": formatdate(answer.date, usegmt=True)}
            return self._response(request, Answer(fields={"access_token": answer.token, **fields}, headers=date))
        if not answer.status:
            raise getattr(requests, answer.name)(request=request)
        wait = {} if answer.retry_after is None else {"Retry-After": str(answer.retry_after)}
        return self._response(request, Answer(answer.status, headers=wait))


def token_in(request: requests.PreparedRequest) -> str:
    """Return the token that a request carries."""
    return request.headers["Authorization"].removeprefix("Bearer ")


class Clients(RuleBasedStateMachine):
    """Both clients, and all that may happen around them."""

    clock: ClassVar[FrozenDateTimeFactory]
    running: ClassVar["Clients"]
    prepared = Bundle("prepared")

    @initialize(
        margin=st.sampled_from([0, 1, 60, 300, 3000]), lifetime=st.sampled_from([20, 60, 300, 1000, 3600, 100_000])
    )
    def begin(self, margin: int, lifetime: int) -> None:
        """Neither client has a token yet."""
        Clients.running = self
        self.clock.move_to("2026-01-01T12:00:00Z")
        self.world = World(lifetime)
        self.perfect = PerfectClient(self.world, margin)
        wire = Wire(self.world, self.clock)
        self.session = session_with(wire)
        self.auth = auth_with(wire, refresh_margin=margin)

    def both(self, perfect: Any, real: Any) -> Any:
        """Let both clients do the same; return what they did, which must be the same."""
        self.perfect.world = copy.deepcopy(self.world)
        try:
            expected = perfect()
        except FailureError as failure:
            expected = failure.args
        try:
            outcome = real()
        except requests.RequestException as error:
            outcome = type(error).__name__, getattr(error, "retry_after", None)
        assert outcome == expected
        assert self.world == self.perfect.world
        return outcome

    @rule()
    def request(self) -> None:
        """An API request."""
        self.both(
            lambda: self.perfect.send(self.perfect.token()),
            lambda: self.session.get(API_URL, auth=self.auth).status_code,
        )

    @rule()
    def access_token(self) -> None:
        """A token for somebody else."""
        self.both(self.perfect.token, self.auth.access_token)

    @rule(target=prepared)
    def prepare(self) -> Any:
        """An API request that is sent later, or never."""
        made: list[requests.PreparedRequest] = []

        def real() -> str:
            made.append(self.session.prepare_request(requests.Request("GET", API_URL, auth=self.auth)))
            return token_in(made[0])

        self.both(self.perfect.token, real)
        return made

    @rule(late=consumes(prepared))
    def send(self, late: Any) -> None:
        """An API request with what was once the current token."""
        for request in late:
            token = token_in(request)
            self.both(lambda: self.perfect.send(token), lambda: self.session.send(request).status_code)  # noqa: B023

    @rule(seconds=st.one_of(st.integers(0, 60), st.sampled_from([100, 300, 900, 3600, 90_000])))
    def time_passes(self, seconds: int) -> None:
        """Any time."""
        self.pass_time(seconds)

    @rule(which=st.integers(0, 4), later=st.sampled_from([-1, 0, 0, 1]))
    def time_passes_up_to_an_edge(self, which: int, later: int) -> None:
        """Just the time after which something is different, and a request then."""
        if edges := self.perfect.edges():
            edge = edges[which % len(edges)]
            self.pass_time(max(math.ceil(edge) + later - self.world.now, 0))
            self.request()

    def pass_time(self, seconds: float) -> None:
        """Let the clocks go on."""
        self.world.now += seconds
        self.perfect.world = self.world
        self.clock.tick(seconds)

    @rule(seconds=st.sampled_from([1, 40, 3600]))
    def the_clock_is_set_back(self, seconds: int) -> None:
        """That of the client; the server's goes on."""
        self.pass_time(-seconds)
        self.world.skew += seconds

    @rule(which=st.sampled_from(["any", "the current one", "the first one", "another one"]))
    def invalidate(self, which: str) -> None:
        """The caller knows better."""
        held = self.perfect.held.value if self.perfect.held else ""
        first = next(iter(self.world.issued), "")
        token = {"any": None, "the current one": held, "the first one": first, "another one": "x"}[which]
        self.perfect.invalidate(token)
        self.auth.invalidate(token)

    @precondition(lambda self: self.world.issued)
    @rule(how_many=st.sampled_from([0, -1]))
    def revoke(self, how_many: int) -> None:
        """The server takes back all its tokens, or its newest."""
        self.world.revoked |= set(list(self.world.issued)[how_many:])

    @rule()
    def permission_changes(self) -> None:
        """The API refuses whatever token it gets, or ceases to do so."""
        self.world.refuses_all = not self.world.refuses_all

    @rule(faults=st.lists(st.sampled_from(FAULTS), max_size=4))
    def the_endpoint_fails(self, faults: list[Fault]) -> None:
        """The next token requests go wrong, or no more where the list is empty; the next one is made at once."""
        self.world.faults = list(faults)
        self.request()

    @rule(
        lifetime=st.sampled_from([1, 20, 60, 300, 1000, 3600, 100_000]),
        skew=st.sampled_from([0, 0, 3, -3, 5000, -5000]),
        says=st.frozensets(st.sampled_from(["expires_in", "exp", "iat", "date"])),
        caches=st.sampled_from([False, True]),
    )
    def the_server_changes(self, **how: Any) -> None:
        """Other tokens from now on, and another clock."""
        for name, value in how.items():
            setattr(self.world, name, value)


@pytest.mark.parametrize("examples", [20, pytest.param(3000, marks=pytest.mark.slow)], ids=["short", "long"])
def test_the_client_does_what_a_perfect_one_would(clock, monkeypatch, examples):
    """The same token requests at the same times, the same tokens sent, the same outcome of each request."""
    Clients.clock = clock

    def sleep(seconds: float) -> None:
        Clients.running.world.now += int(seconds)
        clock.tick(seconds)

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("random.uniform", lambda *_: 0)
    run_state_machine_as_test(
        Clients,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40 if examples < 1000 else 80,
            deadline=None,
            database=None,
            derandomize=examples < 1000,
            suppress_health_check=list(HealthCheck),
        ),
    )
