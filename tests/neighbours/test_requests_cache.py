"""Beside `requests-cache`: a cached answer is not the API's, and its key does not tell merchants apart."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from requests_mentionme import MentionMeAuth, TokenEndpointError
from requests_mentionme.sandbox import Sandbox

requests_cache = pytest.importorskip("requests_cache", reason="requests-cache is not installed")

KEYED_BY_TOKEN = {"match_headers": ["Authorization"], "ignored_parameters": []}


def test_a_cached_answer_is_returned_without_asking_the_api(sandbox: Sandbox, auth: MentionMeAuth, coupon: str) -> None:
    """The second answer comes from the cache, a renewal in between or not."""
    with requests_cache.CachedSession(backend="memory") as session:
        session.auth = auth
        first = session.get(coupon)
        auth.invalidate()
        second = session.get(coupon)
    assert (first.from_cache, second.from_cache) == (False, True)
    assert first.json() == second.json()
    assert sandbox.api_requests == 1


def test_a_cached_answer_needs_a_token_all_the_same(sandbox: Sandbox, auth: MentionMeAuth, coupon: str) -> None:
    """The auth runs when a request is prepared, before the cache is looked at; so its errors are raised."""
    with requests_cache.CachedSession(backend="memory", stale_if_error=True) as session:
        session.auth = auth
        session.get(coupon)
        auth.invalidate()
        sandbox.fail_token_requests(status=404)
        with pytest.raises(TokenEndpointError):
            session.get(coupon)


def test_a_cached_401_is_returned_as_it_is(sandbox: Sandbox, auth: MentionMeAuth, coupon: str) -> None:
    """It has no adapter to be sent again through. That 401s are cached at all must be asked for."""
    with requests_cache.CachedSession(backend="memory", allowable_codes=[401]) as session:
        session.auth = auth
        sandbox.fail_api_requests(status=401, times=2)
        assert not session.get(coupon).from_cache
        auth.invalidate()
        again = session.get(coupon)
    assert (again.status_code, again.from_cache) == (401, True)
    assert (sandbox.api_requests, sandbox.token_requests) == (2, 3)


@pytest.mark.parametrize(
    "options", [{}, {"match_headers": ["Authorization"]}, {"match_headers": True}], ids=["default", "listed", "all"]
)
def test_two_merchants_on_one_cache_see_each_others_answers(
    auth: MentionMeAuth, other_merchant: MentionMeAuth, coupon: str, options: dict[str, Any]
) -> None:
    """`Authorization` is among the `ignored_parameters`, which come before `match_headers`: give each its own cache."""
    with requests_cache.CachedSession(backend="memory", **options) as session:
        session.get(coupon, auth=auth)
        assert session.get(coupon, auth=other_merchant).from_cache
    with (
        requests_cache.CachedSession("one", backend="memory", **options) as mine,
        requests_cache.CachedSession("other", backend="memory", **options) as theirs,
    ):
        mine.get(coupon, auth=auth)
        assert not theirs.get(coupon, auth=other_merchant).from_cache


def test_a_cache_keyed_by_the_token_tells_merchants_apart_and_forgets_with_each_renewal(
    auth: MentionMeAuth, other_merchant: MentionMeAuth, coupon: str
) -> None:
    """With nothing ignored, the header is in the key, and the token in the cache."""
    with requests_cache.CachedSession(backend="memory", **KEYED_BY_TOKEN) as session:
        hits = [session.get(coupon, auth=each).from_cache for each in (auth, other_merchant, auth, other_merchant)]
        assert hits == [False, False, True, True]
        (stored, _) = session.cache.responses.values()
        assert stored.request.headers["Authorization"] == f"Bearer {auth.access_token()}"
        auth.invalidate()
        assert not session.get(coupon, auth=auth).from_cache


@pytest.mark.parametrize(("options", "kept"), [({}, True), ({"filter_fn": lambda answer: not answer.history}, False)])
def test_a_healed_answer_is_cached_with_the_refused_token_unless_it_is_left_out(
    *, sandbox: Sandbox, auth: MentionMeAuth, coupon: str, tmp_path: Path, options: dict[str, Any], kept: bool
) -> None:
    """The header is replaced by REDACTED in the answer, but not in its history: a `filter_fn` leaves those out."""
    refused = auth.access_token()
    sandbox.revoke()
    with requests_cache.CachedSession(tmp_path / "cache", backend="sqlite", **options) as session:
        session.auth = auth
        healed = session.get(coupon)
        assert [answer.status_code for answer in (*healed.history, healed)] == [401, 200]
        assert session.get(coupon).from_cache is kept
    with closing(sqlite3.connect(tmp_path / "cache.sqlite")) as database:
        stored = b"".join(value for (value,) in database.execute("SELECT value FROM responses"))
    assert (refused.encode() in stored) is kept
    assert auth.access_token().encode() not in stored


@pytest.mark.parametrize(
    ("methods", "kept"), [(("GET", "HEAD"), 0), (("GET", "POST"), 1)], ids=["default", "with POST"]
)
def test_a_lent_session_that_caches_posts_never_brings_a_new_token(
    sandbox: Sandbox, methods: tuple[str, ...], kept: int
) -> None:
    """And it keeps the secret and the token in the cache. One that caches as by default does well."""
    with requests_cache.CachedSession(backend="memory", allowable_methods=methods) as lent:
        auth = MentionMeAuth(sandbox.client_id, sandbox.client_secret, environment=sandbox.environment, session=lent)
        auth.access_token()
        auth.invalidate()
        auth.access_token()
        assert sandbox.token_requests == 2 - kept
        bodies = [answer.request.body for answer in lent.cache.responses.values()]
        assert sum(sandbox.client_secret.encode() in body for body in bodies) == kept
