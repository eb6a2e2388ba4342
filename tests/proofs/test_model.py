"""A perfect client, written down from the rules alone, against the real one, over schedules that nobody thought of.

There is a small world: a clock, a token endpoint with its faults, and an API. At each step the perfect client goes
through a copy of it, and then the real one through the world itself. Both must have the same outcome, and leave the
same world: the same token requests, the same tokens sent, the same time gone by.
"""

import copy
import math
from dataclasses import dataclass, field
from email.utils import formatdate
from types import SimpleNamespace
from typing import NamedTuple

import jwt
import pytest
import requests
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from in_memory import API, TIMEOUT, Answer, TokenEndpoint, auth_with, session_with

LIFETIMES = st.sampled_from([1, 20, 60, 300, 1000, 3600, 100_000])


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
    *[Fault("TokenEndpointError", status) for status in (404, 503)],
    *[Fault("TokenEndpointError", 429, wait) for wait in (0, 7, 40, 200)],
    Fault("slow", takes=9),
]


class Issued(NamedTuple):
    """A token as the server knows it, in its own time, and what it says of it."""

    token: str
    expires_at: int
    claims: dict[str, int]
    expires_in: int | None = None
    date: int | None = None


@dataclass
class World:
    """Everything outside the client."""

    lifetime: int
    now: float = 1_767_268_800  # noon, where the clock of the tests begins
    skew: int = 0  # how much the clock of the server is ahead
    says: frozenset[str] = frozenset({"expires_in", "exp", "iat", "date"})
    caches: bool = False  # the endpoint hands out the same token as long as it lives
    refuses_all: bool = False
    faults: list[Fault] = field(default_factory=list)
    issued: dict[str, Issued] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    token_requests: int = 0
    tokens_seen: list[str] = field(default_factory=list)

    def request_token(self):
        self.token_requests += 1
        fault = self.faults.pop(0) if self.faults else None
        if fault:
            self.now += fault.takes
            if fault.name != "slow":
                return fault
        now = int(self.now) + self.skew
        newest = self.issued[next(reversed(self.issued))] if self.issued else None
        if newest is None or not self.caches or newest.expires_at <= now:
            claims = {name: value for name, value in (("exp", now + self.lifetime), ("iat", now)) if name in self.says}
            number = len(self.issued)
            token = jwt.encode({"number": number, **claims}, "", "none") if claims else f"opaque-{number}"
            self.issued[token] = newest = Issued(token, now + self.lifetime, claims)
        expires_in = newest.expires_at - now if "expires_in" in self.says else None
        return newest._replace(expires_in=expires_in, date=now if "date" in self.says else None)

    def serve(self, token):
        self.tokens_seen.append(token)
        ended = self.now + self.skew >= self.issued[token].expires_at
        return 401 if self.refuses_all or token in self.revoked or ended else 200


class FailureError(Exception):
    """No token: the name of the error, and the seconds after which to try again."""


class PerfectClient:
    """The rules, for one thread."""

    def __init__(self, world, refresh_margin):
        self.world = world
        self.refresh_margin = refresh_margin
        self.held = None
        self.hold_offs = {}  # what is not done until a moment, and for how long in all
        self.named_time = 0.0
        self.refused = ""

    def hold_off(self, what, length):
        self.hold_offs[what] = (self.world.now + length, length)

    def is_held_off(self, what):
        """Return whether it is; a hold-off counts only within its own length, so that no clock makes it last."""
        until, length = self.hold_offs.get(what, (0, 0))
        return 0 < until - self.world.now <= length

    def invalidate(self, token):
        if self.held and token in (None, self.held.value):
            self.held = None
        self.hold_offs.clear()

    def edges(self):
        moments = [self.named_time, *(until for until, _ in self.hold_offs.values())]
        moments += [self.held.stale_at, self.held.expired_at] if self.held else []
        return sorted(moment for moment in moments if moment > self.world.now)

    def state(self):
        if not self.held or not self.held.obtained_at <= self.world.now < self.held.expired_at:
            return "expired"
        return "stale" if self.world.now >= self.held.stale_at else "fresh"

    def token(self):
        if self.state() == "stale" and not self.is_held_off("stale tries") and not self.is_held_off("all tries"):
            try:
                return self.renew(tries=1)
            except FailureError:
                self.hold_off("stale tries", 30)
        return self.renew_in_full() if self.state() == "expired" else self.held.value

    def renew_in_full(self):
        """Renew, unless the endpoint asked not to be asked."""
        if self.is_held_off("all tries"):
            raise FailureError("TokenEndpointError", self.named_time - self.world.now)
        return self.renew(tries=3)

    def renew(self, tries):
        deadline = self.world.now + 2 * sum(TIMEOUT)
        while True:
            sent_at = self.world.now
            answer = self.world.request_token()
            if isinstance(answer, Issued):
                self.held = self.judge(answer, sent_at)
                self.hold_off("stale tries", 0)
                self.hold_off("all tries", 0)
                return self.held.value
            tries -= 1
            passing = answer.name == "ConnectionError" or answer.status == 429 or answer.status >= 500
            wait = answer.retry_after or 0
            if not tries or not passing or self.world.now + wait >= deadline:
                if wait:
                    self.hold_off("all tries", min(wait, 60))
                    self.named_time = self.world.now + wait
                raise FailureError(answer.name, answer.retry_after)
            self.world.now += wait

    def judge(self, answer, sent_at):
        measures = [] if answer.expires_in is None else [answer.expires_in]
        exp = answer.claims.get("exp")
        if exp is not None:
            measures += [exp - start for start in (answer.claims.get("iat"), answer.date) if start is not None]
            if answer.date is None and all(measure <= 0 for measure in measures):
                measures.append(exp - sent_at)
        positive = [measure for measure in measures if measure > 0]
        if measures and not positive:
            raise FailureError("TokenResponseError", None)
        lifetime = min(*positive, 86_400) if positive else 300
        end = sent_at + lifetime
        expired_at = end - min(10, 0.05 * lifetime)
        stale_at = min(end - min(self.refresh_margin, 0.2 * lifetime), expired_at)
        return SimpleNamespace(value=answer.token, obtained_at=sent_at, stale_at=stale_at, expired_at=expired_at)

    def send(self, token):
        status = self.world.serve(token)
        is_refused_again = self.held and token == self.held.value == self.refused
        if status != 401 or (is_refused_again and self.is_held_off("refusals")):
            return status
        if self.held and self.held.value != token and self.state() != "expired":
            return self.world.serve(self.held.value)
        new = self.renew_in_full()
        if new != token:
            status = self.world.serve(new)
        if status == 401:
            self.refused = new
            self.hold_off("refusals", 30)
        return status


def token_in(request):
    return request.headers["Authorization"].removeprefix("Bearer ")


class Clients(RuleBasedStateMachine):
    """Both clients, and all that may happen around them. The test says what `clock` is."""

    @initialize(margin=st.sampled_from([0, 1, 60, 300, 3000]), lifetime=LIFETIMES)
    def begin(self, margin, lifetime):
        Clients.running = self
        self.clock.move_to("2026-01-01T12:00:00Z")
        self.world = World(lifetime)
        self.perfect = PerfectClient(self.world, margin)
        self.prepared = []
        self.endpoint = TokenEndpoint()
        self.endpoint.send = self.answer
        self.session = session_with(self.endpoint)
        self.auth = auth_with(self.endpoint, refresh_margin=margin)

    def answer(self, request, **_):
        """Carry a request of the real client into the world."""
        if request.url == API:
            return self.endpoint._response(request, Answer(self.world.serve(token_in(request))))
        begun = self.world.now
        answer = self.world.request_token()
        self.clock.tick(self.world.now - begun)
        if isinstance(answer, Issued):
            fields = {} if answer.expires_in is None else {"expires_in": answer.expires_in}
            headers = {} if answer.date is None else {"Date": formatdate(answer.date, usegmt=True)}
            granted = Answer(fields={"access_token": answer.token, **fields}, headers=headers)
            return self.endpoint._response(request, granted)
        if not answer.status:
            raise getattr(requests, answer.name)(request=request)
        headers = {} if answer.retry_after is None else {"Retry-After": str(answer.retry_after)}
        return self.endpoint._response(request, Answer(answer.status, headers=headers))

    def both(self, perfect, real):
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

    @rule()
    def request(self):
        self.both(
            lambda: self.perfect.send(self.perfect.token()), lambda: self.session.get(API, auth=self.auth).status_code
        )

    @rule()
    def access_token(self):
        self.both(self.perfect.token, self.auth.access_token)

    @rule()
    def prepare(self):

        def real():
            request = self.session.prepare_request(requests.Request("GET", API, auth=self.auth))
            self.prepared.append(request)
            return token_in(request)

        self.both(self.perfect.token, real)

    @precondition(lambda self: self.prepared)
    @rule(which=st.integers(0, 9))
    def send(self, which):
        request = self.prepared.pop(which % len(self.prepared))
        token = token_in(request)
        self.both(lambda: self.perfect.send(token), lambda: self.session.send(request).status_code)

    @rule(seconds=st.one_of(st.integers(0, 60), st.sampled_from([100, 300, 900, 3600, 90_000])))
    def time_passes(self, seconds):
        self.world.now += seconds
        self.perfect.world = self.world
        self.clock.tick(seconds)

    @rule(which=st.integers(0, 4), later=st.sampled_from([-1, 0, 0, 1]))
    def time_passes_up_to_an_edge(self, which, later):
        """Let just the time pass after which something is different, and send a request then."""
        if edges := self.perfect.edges():
            self.time_passes(max(math.ceil(edges[which % len(edges)]) + later - self.world.now, 0))
            self.request()

    @rule(seconds=st.sampled_from([1, 40, 3600]))
    def the_clock_is_set_back(self, seconds):
        """Set that of the client back; the server's goes on."""
        self.time_passes(-seconds)
        self.world.skew += seconds

    @rule(which=st.sampled_from(["any", "the current one", "the first one", "another one"]))
    def invalidate(self, which):
        held = self.perfect.held.value if self.perfect.held else ""
        first = next(iter(self.world.issued), "")
        token = {"any": None, "the current one": held, "the first one": first, "another one": "x"}[which]
        self.perfect.invalidate(token)
        self.auth.invalidate(token)

    @precondition(lambda self: self.world.issued)
    @rule(how_many=st.sampled_from([0, -1]))
    def the_server_revokes_all_its_tokens_or_its_newest(self, how_many):
        self.world.revoked |= set(list(self.world.issued)[how_many:])

    @rule(faults=st.lists(st.sampled_from(FAULTS), max_size=4))
    def the_endpoint_fails(self, faults):
        """Let the next token requests go wrong, or no more where the list is empty; the next one is made at once."""
        self.world.faults = list(faults)
        self.request()

    @rule(
        lifetime=LIFETIMES,
        skew=st.sampled_from([0, 0, 3, -3, 5000, -5000]),
        says=st.frozensets(st.sampled_from(["expires_in", "exp", "iat", "date"])),
        caches=st.booleans(),
        refuses_all=st.sampled_from([False, False, True]),
    )
    def the_server_changes(self, **how):
        vars(self.world).update(how)


SHORT = {"max_examples": 20, "stateful_step_count": 40, "derandomize": True}
LONG = {"max_examples": 3000, "stateful_step_count": 80}


@pytest.mark.parametrize("size", [SHORT, pytest.param(LONG, marks=pytest.mark.slow)], ids=["short", "long"])
def test_the_client_does_what_a_perfect_one_would(clock, monkeypatch, size):
    Clients.clock = clock

    def sleep(seconds):
        Clients.running.world.now += int(seconds)
        clock.tick(seconds)

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("random.uniform", lambda *_: 0)
    how = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), **size)
    run_state_machine_as_test(Clients, settings=how)
