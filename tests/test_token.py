"""The access token, a pure room: its three states, its lifetime, and the answers that hold none."""

import itertools
import json
import math
import re
from email.utils import formatdate
from typing import Any, NamedTuple

import jwt
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from requests_mentionme._token import Token, parse_token
from requests_mentionme._wire import json_object, server_words

SECRET = "s3cr3t-of-the-client"
NOW = 1_800_000_000
DAY = 86_400

SHORT = settings(max_examples=200, derandomize=True, deadline=None)
LONG = settings(max_examples=20_000, database=None, deadline=None)  # in each of six parts


def jwt_of(claims: dict[str, Any]) -> str:
    """Return an unsigned JWT."""
    return jwt.encode(claims, "", "none")


class Answer(NamedTuple):
    """A 2xx answer of the token endpoint, its `Date`, and when it was asked for it."""

    body: bytes
    date: str | None
    sent_at: float


def answer(body: bytes | dict[str, Any], *, date: float | str | None = None, sent_at: float = NOW) -> Answer:
    """Return a 2xx answer with this body, and with this `Date`: as it is, or of this time."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(content, formatdate(date, usegmt=True) if isinstance(date, float | int) else date, sent_at)


def token_in(answer: Answer, margin: float = 300) -> Token:
    """Return the token in an answer."""
    return parse_token(json_object(answer.body) or {}, answer.date, answer.sent_at, margin)


def token_for(lifetime: float, margin: float = 300) -> Token:
    """Return a token that came with this `expires_in`."""
    return token_in(answer({"access_token": "t", "expires_in": lifetime}), margin)


def flaw_of(answer: Answer) -> str:
    """Return the words of the error that an answer causes, which brings no other that could hold the answer."""
    outcome = outcome_of(answer, 300)
    assert isinstance(outcome, ValueError)
    assert (outcome.__cause__, outcome.__context__) == (None, None)
    return str(outcome)


# The token


@pytest.mark.parametrize("value", ["opaque", "!", "~", "a.b-c_d=", jwt_of({"exp": NOW + 60})])
def test_a_token_is_taken_as_it_is(value):
    """Whatever a header can carry is sent as the bearer token, a JWT or not."""
    token = token_in(answer({"access_token": value, "expires_in": 60}))
    assert (token.value, token.authorization, token.obtained_at) == (value, f"Bearer {value}", NOW)


@pytest.mark.parametrize(
    "kind", [{}, *({"token_type": kind} for kind in (None, "Bearer", "bearer", "BEARER"))], ids=str
)
def test_the_type_of_a_token_is_bearer_in_any_case_of_letters(kind):
    """RFC 6749 §5.1 compares it without case; an answer without one will do."""
    assert token_in(answer({"access_token": "t"} | kind)).value == "t"


def test_a_token_does_not_show_its_value():
    """What a debugger, a log or an assertion prints of it can't be used."""
    token = token_in(answer({"access_token": "hidden-token", "expires_in": 60}))
    for shown in (repr(token), str(token), f"{token}", repr([token])):
        assert "Token" in shown
        assert "hidden-token" not in shown


@pytest.mark.parametrize("attribute", ["value", "authorization", "obtained_at", "stale_at", "expired_at", "lifetime"])
def test_a_token_does_not_change(attribute):
    """Many threads read it without a lock."""
    with pytest.raises(AttributeError):
        setattr(token_for(60), attribute, 0)


# The three states


@pytest.mark.parametrize(
    ("lifetime", "margin", "stale_after", "expired_after"),
    [
        pytest.param(3600, 300, 3300, 3590, id="an hour"),
        pytest.param(DAY, 7200, DAY - 7200, DAY - 10, id="a day, margin of two hours"),
        pytest.param(1500, 300, 1200, 1490, id="the margin is 20 %"),
        pytest.param(1000, 300, 800, 990, id="the margin is more than 20 %"),
        pytest.param(3600, 10**9, 2880, 3590, id="the margin is more than the lifetime"),
        pytest.param(200, 300, 160, 190, id="10 s are 5 %"),
        pytest.param(100, 300, 80, 95, id="10 s are more than 5 %"),
        pytest.param(1, 300, 0.8, 0.95, id="a second"),
        pytest.param(3600, 11, 3589, 3590, id="the margin is above the last moment"),
        pytest.param(40, 5, 35, 38, id="a short life, the margin is above the last moment"),
        pytest.param(3600, 0, 3590, 3590, id="no margin"),
        pytest.param(3600, 5, 3590, 3590, id="the margin is below the last moment"),
        pytest.param(3600, 10, 3590, 3590, id="the margin is the last moment"),
        pytest.param(40, 2, 38, 38, id="a short life, the margin is the last moment"),
    ],
)
def test_a_token_is_fresh_then_stale_then_expired(lifetime, margin, stale_after, expired_after):
    """Each state begins with its first moment; a margin that is not above the last moment means no stale state."""
    token = token_for(lifetime, margin)
    assert token.lifetime == lifetime
    assert token.stale_at == pytest.approx(NOW + stale_after, abs=1e-6)
    assert token.expired_at == pytest.approx(NOW + expired_after, abs=1e-6)
    schedule = [("expired", -math.inf), ("fresh", token.obtained_at), ("stale", token.stale_at)]
    if stale_after == expired_after:
        assert token.stale_at == token.expired_at
        schedule.pop()
    schedule.append(("expired", token.expired_at))
    for (before, _), (state, first_moment) in itertools.pairwise(schedule):
        assert token.state(math.nextafter(first_moment, -math.inf)) == before
        assert token.state(first_moment) == state
        assert token.state(math.nextafter(first_moment, math.inf)) == state
    assert token.state(NOW + lifetime) == "expired"
    assert [token.state(NOW - set_back) for set_back in (0.001, 3600, NOW)] == ["expired"] * 3


@pytest.mark.parametrize("lifetime", [1e-9, 1e-300, 5e-324])
def test_a_token_that_lives_less_than_a_tick_is_never_sent(lifetime):
    """Where the clock can't tell the end from the beginning, there is no moment to use a token in."""
    token = token_for(lifetime)
    assert token.obtained_at == token.stale_at == token.expired_at
    assert token.state(NOW) == "expired"


# The lifetime

LIFETIMES = {  # expires_in, claims, date, lifetime
    "expires_in alone": [(3600, {}, None, 3600), (0.5, {}, None, 0.5), (3600, {}, NOW + 99, 3600)],
    "exp - iat alone": [(None, {"exp": 5000, "iat": 3200}, None, 1800)],
    "exp - Date alone": [(None, {"exp": NOW + 900}, NOW, 900)],
    "exp - local clock as last resort": [(None, {"exp": NOW + 700}, None, 700)],
    "expires_in is the smallest": [(600, {"exp": NOW + 900, "iat": NOW - 900}, NOW, 600)],
    "exp - iat is the smallest": [(3600, {"exp": NOW + 900, "iat": NOW + 300}, NOW, 600)],
    "exp - Date is the smallest": [(3600, {"exp": NOW + 600, "iat": NOW - 3000}, NOW, 600)],
    "no local clock beside expires_in": [(3600, {"exp": NOW + 60}, None, 3600), (1, {"exp": NOW + 0.25}, None, 1)],
    "no local clock beside exp - iat": [(None, {"exp": NOW + 60, "iat": NOW - 900}, None, 960)],
    "no local clock beside exp - Date": [(None, {"exp": NOW + 60}, NOW - 900, 960)],
    "local clock where the others are useless": [
        (None, {"exp": NOW + 700}, "yesterday", 700),
        (0, {"exp": NOW + 700}, None, 700),
        (None, {"exp": NOW + 700, "iat": NOW + 700}, None, 700),
    ],
    "past exp beside a positive measure": [
        (3600, {"exp": NOW - 5, "iat": NOW}, NOW, 3600),
        (None, {"exp": NOW - 5, "iat": NOW - 605}, NOW, 600),
    ],
    "iat after exp beside exp - Date": [(None, {"exp": NOW + 900, "iat": NOW + 905}, NOW, 900)],
    "expires_in of 0 or less": [(0, {"exp": NOW + 900}, NOW, 900), (-1, {"exp": 5000, "iat": 3200}, None, 1800)],
    "five minutes where nothing is given": [
        (None, {}, None, 300),
        (None, {}, NOW, 300),
        (None, {"iat": NOW}, NOW, 300),
    ],
    "at most a day in expires_in": [(DAY, {}, None, DAY), (DAY + 1, {}, None, DAY), (1e300, {}, None, DAY)],
    "at most a day in exp": [(None, {"exp": NOW + 10 * DAY}, date, DAY) for date in (NOW, None)],
    "infinite exp - iat": [(None, {"exp": 1e308, "iat": -1e308}, None, DAY)],
    "text of numbers": [("3600", {}, None, 3600), ("59.5", {}, None, 59.5)],
    "exp and iat as text or floats": [
        (None, {"exp": "5000", "iat": "3200.5"}, None, 1799.5),
        (None, {"exp": 5000.25, "iat": 3200.0}, None, 1800.25),
    ],
    "expires_in is no number": [
        (odd, {}, None, 300) for odd in (True, False, math.nan, math.inf, -math.inf, 10**4000, "an hour", [3600])
    ],
    "exp is no number": [
        (None, {"exp": odd, "iat": 0}, NOW, 300) for odd in (True, math.nan, math.inf, 10**400, "tomorrow", {})
    ],
    "iat is no number": [(None, {"exp": NOW + 900, "iat": odd}, NOW, 900) for odd in (True, math.nan, "now")],
}


@pytest.mark.parametrize("rows", LIFETIMES.values(), ids=LIFETIMES)
def test_the_lifetime_is_the_smallest_positive_measure(rows):
    """Of `expires_in`, `exp` - `iat` and `exp` - `Date`; by the local clock only where there is no other."""
    for expires_in, claims, date, lifetime in rows:
        fields = {"access_token": jwt_of(claims)} | ({} if expires_in is None else {"expires_in": expires_in})
        token = token_in(answer(fields, date=date))
        assert token.lifetime == pytest.approx(lifetime, abs=1e-6)
        assert token.expired_at == pytest.approx(NOW + lifetime - min(10, lifetime / 20), abs=1e-6)


@pytest.mark.parametrize("expires_in", [60, None])
def test_a_token_that_is_no_jwt_has_the_lifetime_of_its_answer(expires_in):
    """An opaque token has no `exp`: `expires_in` counts, or five minutes."""
    fields = {"access_token": "opaque.not.jwt", "expires_in": expires_in}
    assert token_in(answer(fields, date=NOW)).lifetime == (expires_in or 300)


@pytest.mark.parametrize("skew", [-10 * 365 * DAY, -5 * 3600, -1, 1, 5 * 3600, 10 * 365 * DAY])
@pytest.mark.parametrize(
    ("fields", "claims"),
    [
        pytest.param({"expires_in": 3600}, {"iat": NOW, "exp": NOW + 3600}, id="all measures"),
        pytest.param({"expires_in": 3600}, {}, id="expires_in"),
        pytest.param({}, {"iat": NOW, "exp": NOW + 3600}, id="exp - iat and exp - Date"),
        pytest.param({}, {"exp": NOW + 3600}, id="exp - Date"),
        pytest.param({"expires_in": 9999}, {"iat": NOW - 900, "exp": NOW + 3600}, id="from the server's cache"),
    ],
)
def test_a_wrong_local_clock_does_not_change_the_schedule(fields, claims, skew):
    """From the server only lengths of time are taken."""
    token = token_in(answer({"access_token": jwt_of(claims)} | fields, date=NOW, sent_at=NOW + skew))
    assert token.lifetime == 3600
    assert [token.obtained_at, token.stale_at, token.expired_at] == [NOW + skew + age for age in (0, 3300, 3590)]


# Answers without a token

USABLE = {"access_token": "hidden-token", "expires_in": 60}
FLAWS = {
    "access_token": [
        *({}, {"token": "hidden-token"}, {"error": f"bad {SECRET}"}),
        *({"access_token": odd} for odd in (None, "", 5, ["hidden-token"], {"jwt": "hidden-token"})),
    ],
    "token_type": [USABLE | {"token_type": odd} for odd in ("mac", "", "bearer ", ["bearer"], True, 0)],
    "header": [
        USABLE | {"access_token": place.format(char)}
        for char in " \n\r\t\x00\x1f\x7f\x80é€\ud800"
        for place in ("{}hidden-token", "hidden{}token", "hidden-token{}")
    ],
    "expired": [
        *(USABLE | {"expires_in": odd} for odd in (0, -3600)),
        *({"access_token": jwt_of({"exp": exp})} for exp in (NOW - 1, NOW, 0)),
        {"access_token": jwt_of({"exp": NOW - 100, "iat": NOW - 100}), "expires_in": 0},
    ],
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_an_answer_without_a_usable_token_is_an_error(flaw):
    """The error says what was wrong, and nothing that was in the answer."""
    for body in FLAWS[flaw]:
        words = flaw_of(answer(body))
        assert [name for name in FLAWS if name in words][-1] == flaw  # most of them name the access_token as well
        assert not any(text in words for text in ("hidden", SECRET, "eyJ"))


def test_a_token_that_has_expired_by_date_is_an_error():
    """Where a measure was given and none is positive, there is no token to use."""
    rows = [(0, {}, NOW), (None, {"exp": NOW - 1}, NOW), (None, {"exp": NOW}, NOW), (0, {"exp": NOW - 100}, NOW)]
    not_by_the_local_clock = (None, {"exp": NOW + 100}, NOW + 5000)
    iat_after_exp = (None, {"exp": NOW - 100, "iat": NOW}, NOW)
    for expires_in, claims, date in [*rows, not_by_the_local_clock, iat_after_exp]:
        fields = {"access_token": jwt_of(claims), "expires_in": expires_in}
        assert "expired" in flaw_of(answer(fields, date=date))


# Any answer at all

ODD = st.sampled_from([None, True, False, "", [], {}, [1], {"a": 1}, "Bearer", "bearer", "mac", "9" * 5000, 10**400])
NUMBERS = st.integers(-5, 2 * DAY) | st.integers(NOW - 2 * DAY, NOW + 2 * DAY) | st.floats(0, 1000) | st.floats()
TEXT = st.integers(0, 5000).map(str) | st.sampled_from(["NaN", "1e999", "-0", "0x10", " 7 ", "1_000"]) | st.text()
ANY = NUMBERS | ODD | TEXT
JWTS = st.fixed_dictionaries({}, optional={"exp": ANY, "iat": ANY}).map(jwt_of)
OPAQUE = (st.text() | st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E))).map("hidden-token".__add__)
KNOWN = {"token_type": st.just("Bearer") | ANY, "expires_in": ANY}
SAID = {"error": st.just(f"bad {SECRET}") | ANY, "message": st.just("x" * 195 + SECRET) | ANY}
OBJECTS = st.fixed_dictionaries({"access_token": JWTS | OPAQUE | ODD}, optional=KNOWN | SAID)
BODIES = OBJECTS | st.binary() | st.binary().map(lambda inner: b'{"access_token": "hidden-token' + inner + b'"}')
DATES = st.none() | st.integers(NOW - 2 * DAY, NOW + 2 * DAY).map(lambda at: formatdate(at, usegmt=True)) | st.text()
ANSWERS = st.builds(answer, BODIES, date=DATES, sent_at=st.floats(0, 2.0**33) | st.floats(NOW - DAY, NOW + DAY))
MARGINS = st.sampled_from([0, 1, 10, 300, 10**6]) | st.floats(0, 2 * DAY)


def outcome_of(answer: Answer, margin: float) -> Token | ValueError:
    """Return the token in an answer, or why there is none; any other error is one of the test, too."""
    try:
        return token_in(answer, margin)
    except ValueError as flaw:
        return flaw


def check(answer: Answer, margin: float) -> None:
    """Assert all that is promised about any answer: a token that keeps its limits, or an error that shows nothing."""
    said = server_words(json_object(answer.body), SECRET)
    assert said.isprintable()
    assert SECRET not in said
    outcome = outcome_of(answer, margin)
    event(type(outcome).__name__)
    if not isinstance(outcome, Token):
        assert any(words in str(outcome) for words in FLAWS)
        assert (outcome.__cause__, outcome.__context__) == (None, None)
        return
    assert not re.search("hidden-token|eyJ", repr(outcome))
    fields = json.loads(answer.body, parse_int=float)
    assert outcome.value == fields["access_token"]
    assert re.fullmatch("[!-~]+", outcome.value)
    assert outcome.authorization == f"Bearer {outcome.value}"
    assert outcome.obtained_at == answer.sent_at
    assert outcome.obtained_at <= outcome.stale_at <= outcome.expired_at <= answer.sent_at + outcome.lifetime
    assert 0 < outcome.lifetime <= DAY
    expires_in = fields.get("expires_in")
    if isinstance(expires_in, float) and 0 < expires_in < math.inf:
        assert outcome.lifetime <= expires_in


@SHORT
@given(answer=ANSWERS, margin=MARGINS)
def test_any_answer_gives_a_token_or_our_error(answer, margin):
    """Whatever the bytes of an answer are, and whatever its known fields hold."""
    check(answer, margin)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
@LONG
@given(answer=ANSWERS, margin=MARGINS)
def test_any_of_many_answers_gives_a_token_or_our_error(part, answer, margin):
    """As above, for long."""
    check(answer, margin)
