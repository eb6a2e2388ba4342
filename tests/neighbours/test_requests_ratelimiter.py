"""Beside `requests-ratelimiter`: which requests its limit counts. Two requests may be sent in an hour."""

import pytest
import requests

from requests_mentionme import MentionMeAuth
from requests_mentionme.sandbox import Sandbox

ratelimiter = pytest.importorskip("requests_ratelimiter", reason="requests-ratelimiter is not installed")

TWO = {"per_hour": 2, "max_delay": 0.1}


def test_a_limiting_session_does_not_count_a_retry(sandbox: Sandbox, auth: MentionMeAuth, coupon: str) -> None:
    """Nor a token request: the one goes by the adapter, the other by a session of its own."""
    with ratelimiter.LimiterSession(**TWO) as session:
        session.auth = auth
        session.get(coupon)
        sandbox.revoke()
        assert session.get(coupon).ok
        with pytest.raises(requests.Timeout):
            session.get(coupon)
    assert (sandbox.api_requests, sandbox.token_requests) == (3, 2)


def test_a_limiting_adapter_counts_a_retry(sandbox: Sandbox, auth: MentionMeAuth, coupon: str) -> None:
    """As the API does. A retry that would have to wait too long raises in place of the 401."""
    with requests.Session() as session:
        session.auth = auth
        session.mount(sandbox.url, ratelimiter.LimiterAdapter(**TWO))
        session.get(coupon)
        sandbox.revoke()
        with pytest.raises(requests.Timeout):
            session.get(coupon)
    assert (sandbox.api_requests, sandbox.token_requests) == (2, 2)


def test_a_limiting_session_that_is_lent_counts_token_requests(sandbox: Sandbox) -> None:
    """Over the limit, no token can be had, and the error is the limiter's."""
    with ratelimiter.LimiterSession(**TWO) as lent:
        auth = MentionMeAuth(sandbox.client_id, sandbox.client_secret, environment=sandbox.environment, session=lent)
        for _ in range(2):
            auth.invalidate()
            auth.access_token()
        auth.invalidate()
        with pytest.raises(requests.Timeout):
            auth.access_token()
    assert sandbox.token_requests == 2
