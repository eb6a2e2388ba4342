"""Beside `stamina`: tries around a call, at the time that the token endpoint names."""

import pytest
import requests

from requests_mentionme import InvalidClientError, MentionMeAuth, TokenEndpointError
from requests_mentionme.sandbox import Sandbox

stamina = pytest.importorskip("stamina", reason="stamina is not installed")
pytestmark = pytest.mark.usefixtures("waits")


def may_pass(error: Exception) -> bool | float:
    """Return how long to wait: as the token endpoint asked, or as stamina does (True); or not to try again (False)."""
    if isinstance(error, TokenEndpointError):
        return error.retry_after or True
    return isinstance(error, (requests.ConnectionError, requests.Timeout))


def test_the_wait_is_the_one_that_the_token_endpoint_asks_for(
    sandbox: Sandbox, auth: MentionMeAuth, coupon: str, waits: list[float]
) -> None:
    """One longer than the auth itself would wait within a renewal, which it therefore leaves to the caller."""
    sandbox.fail_token_requests(status=429, headers={"Retry-After": "40"})

    @stamina.retry(on=may_pass, attempts=3, timeout=120)
    def validate() -> requests.Response:
        return requests.get(coupon, auth=auth)

    assert validate().ok
    assert waits == [40]
    assert sandbox.token_requests == 2


def test_wrong_credentials_are_not_tried_again(sandbox: Sandbox, coupon: str, waits: list[float]) -> None:
    """They would be as wrong the next time."""
    auth = MentionMeAuth("wrong", "wrong", environment=sandbox.environment)
    with pytest.raises(InvalidClientError):
        stamina.retry(on=may_pass, attempts=3)(requests.get)(coupon, auth=auth)
    assert waits == []
    assert sandbox.token_requests == 1
