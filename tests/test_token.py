"""The access token, a pure room: its three states, its lifetime, and the answers that hold none."""

import math
from email.utils import formatdate

import jwt
import pytest

from requests_mentionme._token import parse_token

NOW = 1_800_000_000
DAY = 86_400


def jwt_of(claims):
    return jwt.encode(claims, "", "none")


def token_in(fields, *, date=None, sent_at=NOW, margin=300):
    as_date = formatdate(date, usegmt=True) if isinstance(date, float | int) else date
    return parse_token(fields, as_date, sent_at, margin)


def token_for(lifetime, margin=300):
    return token_in({"access_token": "t", "expires_in": lifetime}, margin=margin)


@pytest.mark.parametrize("kind", [{}, *({"token_type": kind} for kind in (None, "Bearer", "bearer", "BEARER"))])
def test_a_token_is_taken_as_it_is_and_its_type_is_bearer_in_any_case_of_letters(kind):
    for value in ("opaque", "!", "~", "a.b-c_d=", jwt_of({"exp": NOW + 60})):
        token = token_in({"access_token": value, "expires_in": 60, **kind})
        assert (token.value, token.authorization, token.obtained_at) == (value, f"Bearer {value}", NOW)


def test_a_token_does_not_show_its_value_and_does_not_change():
    token = token_in({"access_token": "hidden-token", "expires_in": 60})
    for attribute in ("value", "authorization", "obtained_at", "stale_at", "expired_at", "lifetime"):
        with pytest.raises(AttributeError):
            setattr(token, attribute, 0)
    assert repr(token) == str(token) == f"{token}" == "<Token, 60 s to live from 1800000000>"


@pytest.mark.parametrize(
    ("lifetime", "margin", "stale_after", "expired_after"),
    [
        pytest.param(3600, 300, 3300, 3590, id="an hour"),
        pytest.param(1500, 300, 1200, 1490, id="the margin is 20 %"),
        pytest.param(200, 300, 160, 190, id="10 s are 5 %"),
        pytest.param(100, 300, 80, 95, id="10 s are more than 5 %"),
        pytest.param(3600, 11, 3589, 3590, id="the margin is above the last moment"),
        pytest.param(40, 2, 38, 38, id="the margin is the last moment"),
        pytest.param(3600, 0, 3590, 3590, id="no margin"),
    ],
)
def test_a_token_is_fresh_then_stale_then_expired(lifetime, margin, stale_after, expired_after):
    """Each state begins with its first moment; a margin that is not above the last moment means no stale state."""
    token = token_for(lifetime, margin)
    assert (token.lifetime, token.seconds_left(NOW + 7)) == (lifetime, lifetime - 7)
    assert (token.stale_at, token.expired_at) == pytest.approx((NOW + stale_after, NOW + expired_after), abs=1e-6)
    assert (token.stale_at == token.expired_at) == (stale_after == expired_after)
    before = {moment: math.nextafter(moment, 0) for moment in (NOW, token.stale_at, token.expired_at)}
    assert {token.state(moment) for moment in (0, before[NOW], token.expired_at, NOW + lifetime)} == {"expired"}
    assert {token.state(moment) for moment in (NOW, before[token.stale_at])} == {"fresh"}
    if stale_after != expired_after:
        assert {token.state(moment) for moment in (token.stale_at, before[token.expired_at])} == {"stale"}


def test_a_token_that_lives_less_than_a_tick_is_never_sent():
    """Where the clock can't tell the end from the beginning, there is no moment to use a token in."""
    assert {token_for(lifetime).state(NOW) for lifetime in (1e-9, 5e-324)} == {"expired"}


LIFETIMES = {  # expires_in, claims (None where the token is no JWT), date, lifetime (None where the token has expired)
    "no JWT": [(60, None, NOW, 60), (None, None, NOW, 300)],
    "expires_in alone": [(3600, {}, None, 3600), (0.5, {}, None, 0.5), (3600, {}, NOW + 99, 3600)],
    "exp - iat, exp - Date": [(None, {"exp": 5000, "iat": 3200}, None, 1800), (None, {"exp": NOW + 900}, NOW, 900)],
    "exp - local clock as last resort": [(None, {"exp": NOW + left}, None, left) for left in (700, 0.5)],
    "expires_in is the smallest": [(600, {"exp": NOW + 900, "iat": NOW - 900}, NOW, 600)],
    "exp - iat is the smallest": [(3600, {"exp": NOW + 900, "iat": NOW + 300}, NOW, 600)],
    "exp - Date is the smallest": [(3600, {"exp": NOW + 600, "iat": NOW - 3000}, NOW, 600)],
    "no local clock beside expires_in": [(3600, {"exp": NOW + 60}, None, 3600), (1, {"exp": NOW + 0.25}, None, 1)],
    "no local clock beside exp - iat": [(None, {"exp": NOW + 60, "iat": NOW - 900}, None, 960)],
    "no local clock beside exp - Date": [(None, {"exp": NOW + 60}, NOW - 900, 960)],
    "local clock, no usable Date": [(given, {"exp": NOW + 700}, "yesterday", 700) for given in (None, 0)],
    "local clock, no usable iat": [(None, {"exp": NOW + 700, "iat": NOW + 700}, None, 700)],
    "past exp beside expires_in": [(3600, {"exp": NOW - 5, "iat": NOW}, NOW, 3600)],
    "past exp beside exp - iat": [(None, {"exp": NOW - 5, "iat": NOW - 605}, NOW, 600)],
    "iat after exp beside exp - Date": [(None, {"exp": NOW + 900, "iat": NOW + 905}, NOW, 900)],
    "expires_in of 0 or less": [(0, {"exp": NOW + 900}, NOW, 900), (-1, {"exp": 5000, "iat": 3200}, None, 1800)],
    "five minutes where nothing is given": [(None, {}, None, 300), (None, {"iat": NOW}, NOW, 300)],
    "at most a day in expires_in": [(DAY, {}, None, DAY), (DAY + 1, {}, None, DAY), (1e300, {}, None, DAY)],
    "at most a day in exp": [(None, {"exp": NOW + 10 * DAY}, date, DAY) for date in (NOW, None)],
    "infinite exp - iat": [(None, {"exp": 1e308, "iat": -1e308}, None, DAY)],
    "text of numbers": [("59.5", {}, None, 59.5), (None, {"exp": "5000", "iat": "3200.5"}, None, 1799.5)],
    "no number": [(True, {}, None, 300), (None, {"exp": True, "iat": 0}, NOW, 300)],
    "iat is no number": [(None, {"exp": NOW + 900, "iat": True}, NOW, 900)],
    "expired by expires_in": [(given, {}, None, None) for given in (0, -3600)],
    "expired by Date": [(given, {"exp": exp}, NOW, None) for given in (0, None) for exp in (NOW - 1, NOW)],
    "expired by Date, not by the local clock": [(None, {"exp": NOW + 100}, NOW + 5000, None)],
    "expired by the local clock": [(None, {"exp": exp}, None, None) for exp in (NOW - 1, NOW, 0)],
    "expired and iat after exp": [(0, {"exp": NOW - 100, "iat": NOW}, date, None) for date in (NOW, None)],
}


@pytest.mark.parametrize("rows", LIFETIMES.values(), ids=LIFETIMES)
def test_the_lifetime_is_the_smallest_positive_measure_if_there_is_one(rows):
    """Of `expires_in`, `exp` - `iat` and `exp` - `Date`; by the local clock only where there is no other."""
    for expires_in, claims, date, lifetime in rows:
        fields = {"access_token": "opaque.not.jwt" if claims is None else jwt_of(claims), "expires_in": expires_in}
        if lifetime is None:
            with pytest.raises(ValueError, match=r"^an access_token that has already expired$"):
                token_in(fields, date=date)
        else:
            assert token_in(fields, date=date).lifetime == pytest.approx(lifetime, abs=1e-6)


@pytest.mark.parametrize("skew", [-10 * 365 * DAY, -1, 5 * 3600])
def test_a_wrong_local_clock_does_not_change_the_schedule(skew):
    """From the server only lengths of time are taken. The last token comes from its cache."""
    exp = NOW + 3600
    for expires_in, claims in ((3600, {}), (None, {"exp": exp}), (9999, {"exp": exp, "iat": NOW - 900})):
        fields = {"access_token": jwt_of(claims), "expires_in": expires_in}
        token = token_in(fields, date=NOW, sent_at=NOW + skew)
        assert [at - NOW - skew for at in (token.obtained_at, token.stale_at, token.expired_at)] == [0, 3300, 3590]


USABLE = {"access_token": "hidden-token", "expires_in": 60}
FLAWS = {
    "no access_token": [
        {},
        {"token": "hidden-token"},
        {"error": "bad"},
        *({"access_token": odd} for odd in (None, "", 5, ["hidden-token"], {"jwt": "hidden-token"})),
    ],
    "a token_type other than bearer": [USABLE | {"token_type": odd} for odd in ("mac", "", "bearer ", ["bearer"], 0)],
    "an access_token with characters that a header can't carry": [
        USABLE | {"access_token": place.format(char)}
        for char in " \n\r\t\x00\x1f\x7f\x80é€\ud800"
        for place in ("{}hidden-token", "hidden{}token", "hidden-token{}")
    ],
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_an_answer_without_a_usable_token_is_an_error_that_shows_nothing_of_it(flaw):
    for fields in FLAWS[flaw]:
        with pytest.raises(ValueError, match=f"^{flaw}$") as raised:
            token_in(fields)
        assert (raised.value.__cause__, raised.value.__context__) == (None, None)
