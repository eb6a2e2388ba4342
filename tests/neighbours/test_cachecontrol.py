"""Beside `CacheControl`, which works in the adapter: its answers from the cache have a connection."""

from collections.abc import Iterator

import pytest
import requests
from loopback import Answer, Loopback, token_answer

from requests_mentionme import MentionMeAuth
from requests_mentionme.sandbox import Sandbox

cachecontrol = pytest.importorskip("cachecontrol", reason="CacheControl is not installed")


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """A session that keeps what the answers' headers let it keep."""
    with cachecontrol.CacheControl(requests.Session()) as caching:
        yield caching


@pytest.mark.parametrize(
    ("headers", "shared"), [({}, True), ({"Vary": "Authorization"}, False)], ids=["plain", "vary by token"]
)
def test_two_merchants_on_one_cache_see_each_others_answers_but_where_the_answer_varies(
    *,
    session: requests.Session,
    sandbox: Sandbox,
    auth: MentionMeAuth,
    other_merchant: MentionMeAuth,
    coupon: str,
    headers: dict[str, str],
    shared: bool,
) -> None:
    """The key is the URL. Neither the API's documentation nor the sandbox has headers that let an answer be kept."""
    sandbox.fail_api_requests(status=200, headers={"Cache-Control": "max-age=60", **headers}, body="{}")
    session.get(coupon, auth=auth)
    assert session.get(coupon, auth=auth).from_cache  # type: ignore[attr-defined]
    assert session.get(coupon, auth=other_merchant).from_cache is shared  # type: ignore[attr-defined]


def test_a_401_is_healed_and_not_kept(
    session: requests.Session, sandbox: Sandbox, auth: MentionMeAuth, coupon: str
) -> None:
    """The retry goes through the same adapter, and it is its answer that is kept."""
    sandbox.fail_api_requests(status=401, headers={"Cache-Control": "max-age=60"})
    sandbox.fail_api_requests(status=200, headers={"Cache-Control": "max-age=60"}, body="{}")
    session.auth = auth
    healed, kept = session.get(coupon), session.get(coupon)
    assert [answer.status_code for answer in (*healed.history, healed)] == [401, 200]
    assert (kept.status_code, kept.from_cache) == (200, True)  # type: ignore[attr-defined]


def test_a_401_to_a_revalidation_is_healed(session: requests.Session) -> None:
    """The retry asks with the same `If-None-Match`, so its 304 brings the answer in the cache."""
    api = (
        Answer(body=b"kept", headers={"ETag": '"1"', "Cache-Control": "max-age=0"}),
        Answer(401),
        token_answer("two"),
        Answer(304, headers={"ETag": '"1"'}),
    )
    with Loopback(token_answer("one"), *api) as server:
        session.auth = MentionMeAuth("an-id", "a-secret", environment=server.url)
        session.get(f"{server.url}/api")
        healed = session.get(f"{server.url}/api")
        assert (healed.text, healed.from_cache) == ("kept", True)  # type: ignore[attr-defined]
        assert [request.headers.get("if-none-match") for request in server.requests] == [None, None, '"1"', None, '"1"']
        assert server.requests[-1].headers["authorization"] == "Bearer two"
        session.close()
