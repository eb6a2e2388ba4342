"""The access token, a pure room: its three states, its lifetime, and the answers that hold none.

`proofs/test_properties.py` makes up other answers.
"""

import itertools
import math
from email.utils import formatdate
from typing import Any

import jwt
import pytest

from requests_mentionme._token import Token, parse_token

SECRET = "s3cr3t-of-the-client"
NOW = 1_800_000_000
DAY = 86_400


def jwt_of(claims: dict[str, Any]) -> str:
    """Return an unsigned JWT."""
    return jwt.encode(claims, "", "none")


def token_in(fields: dict[str, Any], *, date: object = None, sent_at: float = NOW, margin: float = 300) -> Token:
    """Return the token in the fields of an answer with this `Date`: as it is, or of this time."""
    as_date = formatdate(date, usegmt=True) if isinstance(date, float | int) else date
    return parse_token(fields, as_date, sent_at, margin)


def token_for(lifetime: float, margin: float = 300) -> Token:
    """Return a token that came with this `expires_in`."""
    return token_in({"access_token": "t", "expires_in": lifetime}, margin=margin)


def flaw_of(fields: dict[str, Any], **answer: Any) -> str:
    """Return the words of the error that an answer causes, which brings no other that could hold the answer."""
    with pytest.raises(ValueError, match=r"access_token|token_type") as raised:
        token_in(fields, **answer)
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)
    return str(raised.value)


# The token


@pytest.mark.parametrize("value", ["opaque", "!", "~", "a.b-c_d=", jwt_of({"exp": NOW + 60})])
def test_a_token_is_taken_as_it_is(value):
    """Whatever a header can carry is sent as the bearer token, a JWT or not."""
    token = token_in({"access_token": value, "expires_in": 60})
    assert (token.value, token.authorization, token.obtained_at) == (value, f"Bearer {value}", NOW)


@pytest.mark.parametrize("kind", [None, "Bearer", "bearer", "BEARER"])
def test_the_type_of_a_token_is_bearer_in_any_case_of_letters(kind):
    """RFC 6749 §5.1 compares it without case; an answer without one will do."""
    assert token_in({"access_token": "t", "token_type": kind}).value == token_in({"access_token": "t"}).value == "t"


def test_a_token_does_not_show_its_value():
    """What a debugger, a log or an assertion prints of it can't be used."""
    token = token_in({"access_token": "hidden-token", "expires_in": 60})
    assert repr(token) == str(token) == f"{token}" == "<Token, 60 s to live from 1800000000>"


@pytest.mark.parametrize("attribute", ["value", "authorization", "obtained_at", "stale_at", "expired_at", "lifetime"])
def test_a_token_does_not_change(attribute):
    """Many threads read it without a lock."""
    with pytest.raises(AttributeError):
        setattr(token_for(60), attribute, 0)


# The three states

STATES = {  # lifetime, margin, and the ages at which it is stale and expired
    "an hour": (3600, 300, 3300, 3590),
    "a day, margin of two hours": (DAY, 7200, DAY - 7200, DAY - 10),
    "the margin is 20 %": (1500, 300, 1200, 1490),
    "the margin is more than 20 %": (1000, 300, 800, 990),
    "the margin is more than the lifetime": (3600, 10**9, 2880, 3590),
    "10 s are 5 %": (200, 300, 160, 190),
    "10 s are more than 5 %": (100, 300, 80, 95),
    "a second": (1, 300, 0.8, 0.95),
    "the margin is above the last moment": (3600, 11, 3589, 3590),
    "a short life, the margin is above the last moment": (40, 5, 35, 38),
    "no margin": (3600, 0, 3590, 3590),
    "the margin is the last moment": (3600, 10, 3590, 3590),
    "a short life, the margin is the last moment": (40, 2, 38, 38),
}


@pytest.mark.parametrize(("lifetime", "margin", "stale_after", "expired_after"), STATES.values(), ids=STATES)
def test_a_token_is_fresh_then_stale_then_expired(lifetime, margin, stale_after, expired_after):
    """Each state begins with its first moment; a margin that is not above the last moment means no stale state."""
    token = token_for(lifetime, margin)
    assert token.lifetime == lifetime
    assert token.seconds_left(NOW + 7) == lifetime - 7
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
    "exp - local clock as last resort": [(None, {"exp": NOW + left}, None, left) for left in (700, 0.5)],
    "expires_in is the smallest": [(600, {"exp": NOW + 900, "iat": NOW - 900}, NOW, 600)],
    "exp - iat is the smallest": [(3600, {"exp": NOW + 900, "iat": NOW + 300}, NOW, 600)],
    "exp - Date is the smallest": [(3600, {"exp": NOW + 600, "iat": NOW - 3000}, NOW, 600)],
    "no local clock beside expires_in": [(3600, {"exp": NOW + 60}, None, 3600), (1, {"exp": NOW + 0.25}, None, 1)],
    "no local clock beside exp - iat": [(None, {"exp": NOW + 60, "iat": NOW - 900}, None, 960)],
    "no local clock beside exp - Date": [(None, {"exp": NOW + 60}, NOW - 900, 960)],
    "local clock as the others are useless": [
        *((expires_in, {"exp": NOW + 700}, date, 700) for expires_in, date in ((None, "yesterday"), (0, None))),
        (None, {"exp": NOW + 700, "iat": NOW + 700}, None, 700),
    ],
    "past exp beside expires_in": [(3600, {"exp": NOW - 5, "iat": NOW}, NOW, 3600)],
    "past exp beside exp - iat": [(None, {"exp": NOW - 5, "iat": NOW - 605}, NOW, 600)],
    "iat after exp beside exp - Date": [(None, {"exp": NOW + 900, "iat": NOW + 905}, NOW, 900)],
    "expires_in of 0 or less": [(0, {"exp": NOW + 900}, NOW, 900), (-1, {"exp": 5000, "iat": 3200}, None, 1800)],
    "five minutes where nothing is given": [(None, {}, None, 300), (None, {"iat": NOW}, NOW, 300)],
    "at most a day in expires_in": [(DAY, {}, None, DAY), (DAY + 1, {}, None, DAY), (1e300, {}, None, DAY)],
    "at most a day in exp": [(None, {"exp": NOW + 10 * DAY}, date, DAY) for date in (NOW, None)],
    "infinite exp - iat": [(None, {"exp": 1e308, "iat": -1e308}, None, DAY)],
    "text of numbers": [("59.5", {}, None, 59.5), (None, {"exp": "5000", "iat": "3200.5"}, None, 1799.5)],
    "expires_in is no number": [(odd, {}, None, 300) for odd in (True, False, math.nan, math.inf, "an hour", [3600])],
    "exp is no number": [(None, {"exp": odd, "iat": 0}, NOW, 300) for odd in (True, math.nan, "tomorrow", {})],
    "iat is no number": [(None, {"exp": NOW + 900, "iat": odd}, NOW, 900) for odd in (True, math.nan, "now")],
}


@pytest.mark.parametrize("rows", LIFETIMES.values(), ids=LIFETIMES)
def test_the_lifetime_is_the_smallest_positive_measure(rows):
    """Of `expires_in`, `exp` - `iat` and `exp` - `Date`; by the local clock only where there is no other."""
    for expires_in, claims, date, lifetime in rows:
        fields = {"access_token": jwt_of(claims)} | ({} if expires_in is None else {"expires_in": expires_in})
        token = token_in(fields, date=date)
        assert token.lifetime == pytest.approx(lifetime, abs=1e-6)
        assert token.expired_at == pytest.approx(NOW + lifetime - min(10, lifetime / 20), abs=1e-6)


@pytest.mark.parametrize("expires_in", [60, None])
def test_a_token_that_is_no_jwt_has_the_lifetime_of_its_answer(expires_in):
    """An opaque token has no `exp`: `expires_in` counts, or five minutes."""
    fields = {"access_token": "opaque.not.jwt", "expires_in": expires_in}
    assert token_in(fields, date=NOW).lifetime == (expires_in or 300)


SCHEDULES = {  # the fields and claims of a token that lives for an hour
    "all measures": ({"expires_in": 3600}, {"iat": NOW, "exp": NOW + 3600}),
    "expires_in": ({"expires_in": 3600}, {}),
    "exp - iat and exp - Date": ({}, {"iat": NOW, "exp": NOW + 3600}),
    "exp - Date": ({}, {"exp": NOW + 3600}),
    "from the server's cache": ({"expires_in": 9999}, {"iat": NOW - 900, "exp": NOW + 3600}),
}


@pytest.mark.parametrize("skew", [-10 * 365 * DAY, -1, 5 * 3600])
@pytest.mark.parametrize(("fields", "claims"), SCHEDULES.values(), ids=SCHEDULES)
def test_a_wrong_local_clock_does_not_change_the_schedule(fields, claims, skew):
    """From the server only lengths of time are taken."""
    token = token_in({"access_token": jwt_of(claims)} | fields, date=NOW, sent_at=NOW + skew)
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
        words = flaw_of(body)
        assert [name for name in FLAWS if name in words][-1] == flaw  # most of them name the access_token as well
        assert not any(text in words for text in ("hidden", SECRET, "eyJ"))


def test_a_token_that_has_expired_by_date_is_an_error():
    """Where a measure was given and none is positive, there is no token to use."""
    rows = [(0, {}, NOW), (None, {"exp": NOW - 1}, NOW), (None, {"exp": NOW}, NOW), (0, {"exp": NOW - 100}, NOW)]
    not_by_the_local_clock = (None, {"exp": NOW + 100}, NOW + 5000)
    iat_after_exp = (None, {"exp": NOW - 100, "iat": NOW}, NOW)
    for expires_in, claims, date in [*rows, not_by_the_local_clock, iat_after_exp]:
        fields = {"access_token": jwt_of(claims), "expires_in": expires_in}
        assert "expired" in flaw_of(fields, date=date)
