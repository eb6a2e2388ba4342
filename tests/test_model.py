"""A perfect client, written down from the rules alone, against the real one, over schedules that nobody thought of.

There is a small world: a clock, a token endpoint with its faults, and an API. At each step the perfect client goes
through a copy of the world, and then the real one through the world itself. In the end both must have had the same
outcome, and the two worlds must be the same: the same token requests, the same tokens sent, the same time gone by.
"""

import base64
import copy
import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, ClassVar, NamedTuple

import pytest
import requests
import urllib3
from freezegun import freeze_time
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
from requests.adapters import HTTPAdapter

from requests_mentionme import DEMO, MentionMeAuth, _endpoint

NOON = 1_767_268_800  # 2026-01-01T12:00:00Z
API_URL = "https://demo.mention-me.com/api/merchant/v2/customers"
TIMEOUT = (5, 10)
BUDGET = 2 * sum(TIMEOUT)


class Grant(NamedTuple):
    """What a token response says; None is what it leaves out."""

    token: str
    expires_in: int | None
    iat: int | None
    exp: int | None
    date: int | None


class Fault(NamedTuple):
    """What happens to a token request instead."""

    name: str
    status: int = 0
    retry_after: int | None = None
    takes: int = 0


FAULTS = [
    Fault("ConnectionError"),
    Fault("ReadTimeout", takes=TIMEOUT[1]),
    Fault("TokenResponseError", 200),
    Fault("InvalidClientError", 401),
    Fault("TokenEndpointError", 404),
    Fault("TokenEndpointError", 503),
    Fault("TokenEndpointError", 503, retry_after=7),
    Fault("TokenEndpointError", 429, retry_after=0),
    Fault("TokenEndpointError", 429, retry_after=40),
    Fault("TokenEndpointError", 429, retry_after=200),
    Fault("slow", 200, takes=9),
]


class Issued(NamedTuple):
    """A token as the server knows it, in its own time."""

    issued_at: int
    expires_at: int
    exp: int | None
    iat: int | None


@dataclass
class World:
    """Everything outside the client."""

    now: int = NOON
    skew: int = 0  # how much the clock of the server is ahead
    lifetime: int = 1000
    says: frozenset[str] = frozenset({"expires_in", "exp", "iat", "date"})
    caches: bool = False  # the endpoint hands out the same token as long as it lives
    refuses_all: bool = False
    faults: list[Fault] = field(default_factory=list)
    issued: dict[str, Issued] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    token_requests: int = 0
    tokens_seen: list[str] = field(default_factory=list)

    def request_token(self) -> Grant | Fault:
        """Answer a token request."""
        self.token_requests += 1
        fault = self.faults.pop(0) if self.faults else None
        if fault:
            self.now += fault.takes
            if fault.name != "slow":
                return fault
        now = self.now + self.skew
        newest = next(reversed(self.issued), None)
        if newest is None or not self.caches or self.issued[newest].expires_at <= now:
            newest = self._issue(now)
        known = self.issued[newest]
        return Grant(
            newest,
            known.expires_at - now if "expires_in" in self.says else None,
            known.iat,
            known.exp,
            now if "date" in self.says else None,
        )

    def _issue(self, now: int) -> str:
        exp = now + self.lifetime if "exp" in self.says else None
        iat = now if "exp" in self.says and "iat" in self.says else None
        payload = {"number": len(self.issued), "exp": exp, "iat": iat}
        token = f"opaque-{len(self.issued)}" if exp is None else jwt(payload)
        self.issued[token] = Issued(now, now + self.lifetime, exp, iat)
        return token

    def serve(self, token: str) -> int:
        """Answer an API request with a status."""
        self.tokens_seen.append(token)
        known = self.issued[token]
        refused = self.refuses_all or token in self.revoked or self.now + self.skew >= known.expires_at
        return 401 if refused else 200


def jwt(payload: dict[str, Any]) -> str:
    """Return a JWT; who signed it is no concern of the client."""
    parts = ({"alg": "HS256", "typ": "JWT"}, {name: value for name, value in payload.items() if value is not None})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2ln"])


class FailureError(Exception):
    """No token: the name of the error, and the seconds after which to try again."""

    def __init__(self, name: str, retry_after: float | None = None) -> None:
        super().__init__(name, retry_after)
        self.retry_after = retry_after


class Held(NamedTuple):
    """A token as the client knows it, in its own time."""

    value: str
    obtained_at: float
    stale_at: float
    expired_at: float


class PerfectClient:
    """The rules, for one thread."""

    def __init__(self, refresh_margin: float) -> None:
        self.refresh_margin = refresh_margin
        self.world = World()
        self.invalidate_all()

    def invalidate_all(self) -> None:
        """Forget the token, and every hold-off."""
        self.held: Held | None = None
        self.end_hold_offs()

    def end_hold_offs(self) -> None:
        """Forget what is held off."""
        self.stale_tries_from = 0.0
        self.named: tuple[float, float] | None = None  # until when requests fail, and the time that was named
        self.refused: tuple[str, float] | None = None

    def invalidate(self, token: str | None) -> None:
        """Drop the token, or only that one."""
        if self.held and token in (None, self.held.value):
            self.held = None
        self.end_hold_offs()

    def edges(self) -> list[float]:
        """Return the moments at which something changes."""
        moments = [self.held.stale_at, self.held.expired_at] if self.held else []
        moments += [self.stale_tries_from, *(self.named or ()), *(self.refused or ())[1:]]
        return [moment for moment in moments if moment > self.world.now]

    def token(self) -> str:
        """Return the token to send with a request."""
        if self.held and self.state() == "stale" and self.world.now >= self.stale_tries_from:
            try:
                return self.renew(tries=1).value
            except FailureError:
                self.stale_tries_from = max(self.stale_tries_from, self.world.now + 30)
        if self.held and self.state() != "expired":
            return self.held.value
        return self.renew_in_full().value

    def state(self) -> str:
        """Return the state of the token."""
        if not self.held.obtained_at <= self.world.now < self.held.expired_at:
            return "expired"
        return "stale" if self.world.now >= self.held.stale_at else "fresh"

    def renew_in_full(self) -> Held:
        """Renew, unless the endpoint asked not to be asked."""
        if self.named and self.world.now < self.named[0]:
            raise FailureError("TokenEndpointError", self.named[1] - self.world.now)
        return self.renew(tries=3)

    def renew(self, tries: int) -> Held:
        """Make a token request, up to so many times."""
        deadline = self.world.now + BUDGET
        while True:
            sent_at = self.world.now
            answer = self.world.request_token()
            if isinstance(answer, Grant):
                self.held = self.judge(answer, sent_at)
                self.stale_tries_from, self.named = 0.0, None
                return self.held
            tries -= 1
            passing = answer.name == "ConnectionError" or answer.status == 429 or answer.status >= 500
            wait = answer.retry_after or 0
            if not tries or not passing or self.world.now + wait >= deadline:
                if wait:
                    until = self.world.now + min(wait, 60)
                    self.named = until, self.world.now + wait
                    self.stale_tries_from = max(self.stale_tries_from, until)
                raise FailureError(answer.name, answer.retry_after)
            self.world.now += wait

    def judge(self, grant: Grant, sent_at: float) -> Held:
        """Return the token with its deadlines."""
        given = [grant.expires_in]
        if grant.exp is not None:
            given += [grant.exp - start if start is not None else None for start in (grant.iat, grant.date)]
        measures = [measure for measure in given if measure is not None]
        if grant.exp is not None and grant.date is None and all(measure <= 0 for measure in measures):
            measures.append(grant.exp - sent_at)
        positive = [measure for measure in measures if measure > 0]
        if measures and not positive:
            raise FailureError("TokenResponseError")
        lifetime = min(*positive, 86_400) if positive else 300
        margin = min(self.refresh_margin, 0.2 * lifetime)
        last_moment = min(10, 0.05 * lifetime)
        end = sent_at + lifetime
        return Held(grant.token, sent_at, end - max(margin, last_moment), end - last_moment)

    def send(self, token: str) -> int:
        """Send a request that was given *token*, and return its final status."""
        status = self.world.serve(token)
        if status != 401 or self.is_held_off(token):
            return status
        if self.held and self.held.value != token and self.state() != "expired":
            return self.world.serve(self.held.value)
        new = self.renew_in_full().value
        if new == token:
            self.hold_off()
            return status
        status = self.world.serve(new)
        if status == 401:
            self.hold_off()
        return status

    def is_held_off(self, token: str) -> bool:
        """Return whether a 401 for *token* is final."""
        if not self.held or not self.refused:
            return False
        value, until = self.refused
        return token == self.held.value == value and self.world.now < until

    def hold_off(self) -> None:
        """Let no 401 for the current token cause a renewal for a while."""
        self.refused = self.held.value, self.world.now + 30


class Wire(HTTPAdapter):
    """Carries the requests of the real client into the world."""

    def __init__(self, world: World, clock: FrozenDateTimeFactory) -> None:
        super().__init__()
        self.world, self.clock = world, clock

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
        """Return the answer of the world."""
        if request.url == API_URL:
            return self._answer(request, self.world.serve(request.headers["Authorization"].removeprefix("Bearer ")))
        assert request.url == DEMO.token_url
        begun = self.world.now
        answer = self.world.request_token()
        self.clock.tick(self.world.now - begun)
        if isinstance(answer, Grant):
            fields = {"access_token": answer.token, "expires_in": answer.expires_in, "token_type": "bearer"}
            body = {name: value for name, value in fields.items() if value is not None}
            date = {} if answer.date is None else {"Date": formatdate(answer.date, usegmt=True)}
            return self._answer(request, 200, json.dumps(body), **date)
        if not answer.status:
            raise getattr(requests, answer.name)(request=request)
        headers = {} if answer.retry_after is None else {"Retry-After": str(answer.retry_after)}
        return self._answer(request, answer.status, "no JSON", **headers)

    def _answer(
        self, request: requests.PreparedRequest, status: int, body: str = "{}", **headers: str
    ) -> requests.Response:
        raw = urllib3.HTTPResponse(io.BytesIO(body.encode()), headers, status, preload_content=False)
        return self.build_response(request, raw)


class Clients(RuleBasedStateMachine):
    """Both clients, and all that may happen around them."""

    clock: ClassVar[FrozenDateTimeFactory]
    sleeping_world: ClassVar[World]  # where the real client's pauses take place
    prepared = Bundle("prepared")

    @initialize(
        margin=st.sampled_from([0, 1, 60, 300, 3000]), lifetime=st.sampled_from([20, 60, 300, 1000, 3600, 100_000])
    )
    def begin(self, margin: int, lifetime: int) -> None:
        """Neither client has a token yet."""
        self.world = World(lifetime=lifetime)
        type(self).sleeping_world = self.world
        self.clock.move_to("2026-01-01T12:00:00Z")
        self.perfect = PerfectClient(margin)
        self.wire = Wire(self.world, self.clock)
        self.lent, self.session = requests.Session(), requests.Session()
        for session in (self.lent, self.session):
            session.trust_env = False
            session.mount("https://", self.wire)
        self.auth = MentionMeAuth(
            "id", "secret", environment=DEMO, session=self.lent, timeout=TIMEOUT, refresh_margin=margin
        )

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

        def perfect() -> int:
            return self.perfect.send(self.perfect.token())

        self.both(perfect, lambda: self.session.get(API_URL, auth=self.auth).status_code)

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
            return made[0].headers["Authorization"].removeprefix("Bearer ")

        token = self.both(self.perfect.token, real)
        return (token, made[0]) if made else None

    @rule(late=consumes(prepared))
    def send(self, late: Any) -> None:
        """An API request with what was once the current token."""
        if late:
            token, request = late
            self.both(lambda: self.perfect.send(token), lambda: self.session.send(request).status_code)

    @rule(seconds=st.one_of(st.integers(0, 60), st.sampled_from([100, 300, 900, 3600, 90_000])))
    def time_passes(self, seconds: int) -> None:
        """Any time."""
        self.pass_time(seconds)

    @rule(which=st.integers(0, 4), later=st.sampled_from([-1, 0, 0, 1]))
    def time_passes_up_to_an_edge(self, which: int, later: int) -> None:
        """Just the time after which something is different."""
        edges = sorted(self.perfect.edges())
        if edges:
            edge = edges[which % len(edges)]
            self.pass_time(max(math.ceil(edge) + later - self.world.now, 0))

    def pass_time(self, seconds: int) -> None:
        """Let the clocks go on."""
        self.world.now += seconds
        self.perfect.world.now = self.world.now
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
        token = {"any": None, "the current one": held, "the first one": next(iter(self.world.issued), "")}.get(
            which, "x"
        )
        self.perfect.invalidate(token)
        self.auth.invalidate(token)

    @precondition(lambda self: self.world.issued)
    @rule(everything=st.booleans())
    def revoke(self, everything: bool) -> None:  # noqa: FBT001 - hypothesis passes it by name
        """The server takes back its newest token, or all."""
        self.world.revoked |= set(self.world.issued if everything else list(self.world.issued)[-1:])

    @rule()
    def permission_changes(self) -> None:
        """The API refuses whatever token it gets, or ceases to do so."""
        self.world.refuses_all = not self.world.refuses_all

    @rule(faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=4))
    def the_endpoint_fails(self, faults: list[Fault]) -> None:
        """The next token requests go wrong."""
        self.world.faults.extend(faults)

    @rule()
    def the_endpoint_recovers(self) -> None:
        """No more faults."""
        self.world.faults.clear()

    @rule(
        lifetime=st.sampled_from([1, 20, 60, 300, 1000, 3600, 100_000]),
        skew=st.sampled_from([0, 0, 3, -3, 5000, -5000]),
        says=st.sets(st.sampled_from(["expires_in", "exp", "iat", "date"])),
        caches=st.booleans(),
    )
    def the_server_changes(self, lifetime: int, skew: int, says: set[str], caches: bool) -> None:  # noqa: FBT001
        """Other tokens from now on, and another clock."""
        self.world.lifetime, self.world.skew, self.world.caches = lifetime, skew, caches
        self.world.says = frozenset(says)

    def teardown(self) -> None:
        """Close the sessions."""
        if hasattr(self, "lent"):
            self.lent.close()
            self.session.close()


@contextmanager
def still_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Freeze the time for both clients; pauses between tries last as long as they must, and not longer."""

    def sleep(seconds: float) -> None:
        Clients.sleeping_world.now += int(seconds)
        Clients.clock.tick(seconds)

    with freeze_time("2026-01-01T12:00:00Z", ignore=["_pytest.timing"]) as clock:
        Clients.clock = clock
        monkeypatch.setattr(_endpoint.time, "sleep", sleep)
        monkeypatch.setattr(_endpoint.random, "uniform", lambda *_: 0)
        yield


@pytest.mark.parametrize(
    ("examples", "steps"), [(60, 40), pytest.param(3000, 80, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_the_client_does_what_a_perfect_one_would(monkeypatch, examples, steps):
    """The same token requests at the same times, the same tokens sent, the same outcome of each request."""
    with still_time(monkeypatch):
        run_state_machine_as_test(
            Clients,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                derandomize=examples < 1000,
                suppress_health_check=list(HealthCheck),
            ),
        )
