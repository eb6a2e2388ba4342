"""Beside `tenacity`: tries around a call, at the time that the token endpoint names."""

from typing import Any

import pytest
import requests

from requests_mentionme import InvalidClientError, MentionMeAuth, TokenEndpointError
from requests_mentionme.sandbox import Sandbox

tenacity = pytest.importorskip("tenacity", reason="tenacity is not installed")
pytestmark = pytest.mark.usefixtures("waits")

TRANSIENT = (TokenEndpointError, requests.ConnectionError, requests.Timeout)


def as_asked(state: Any) -> float:
    """Return how long to wait: as the token endpoint asked, or longer and longer."""
    asked = getattr(state.outcome.exception(), "retry_after", None)
    return asked or tenacity.wait_exponential_jitter()(state)


def retrying(wait: Any) -> Any:
    """Return what tries again after what may pass."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TRANSIENT),
        wait=wait,
        stop=tenacity.stop_after_attempt(5),
        reraise=True,
    )


def test_the_wait_is_the_one_that_the_token_endpoint_asks_for(
    sandbox: Sandbox, auth: MentionMeAuth, coupon: str, waits: list[float]
) -> None:
    """One longer than the auth itself would wait within a renewal, which it therefore leaves to the caller."""
    sandbox.fail_token_requests(status=429, headers={"Retry-After": "40"})
    assert retrying(as_asked)(requests.get, coupon, auth=auth).ok
    assert waits == [40]
    assert sandbox.token_requests == 2


def test_tries_that_come_too_early_do_not_reach_the_token_endpoint(
    sandbox: Sandbox, auth: MentionMeAuth, coupon: str, waits: list[float]
) -> None:
    """Whoever does not look at `retry_after` gets the error again, at once, until the time is over."""
    sandbox.fail_token_requests(status=429, headers={"Retry-After": "40"})
    assert retrying(tenacity.wait_fixed(15))(requests.get, coupon, auth=auth).ok
    assert waits == [15, 15, 15]
    assert sandbox.token_requests == 2


def test_wrong_credentials_are_not_tried_again(sandbox: Sandbox, coupon: str, waits: list[float]) -> None:
    """They would be as wrong the next time."""
    auth = MentionMeAuth("wrong", "wrong", environment=sandbox.environment)
    with pytest.raises(InvalidClientError):
        retrying(as_asked)(requests.get, coupon, auth=auth)
    assert waits == []
    assert sandbox.token_requests == 1
