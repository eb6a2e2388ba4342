"""Beside `responses`, which takes the place of the adapters' sending: token requests are mocked as any other."""

import pytest
import requests

from requests_mentionme import MentionMeAuth, TokenEndpointError

responses = pytest.importorskip("responses", reason="responses is not installed")

DEMO = "https://demo.mention-me.com"
COUPON = f"{DEMO}/api/merchant/v2/coupons/validate/SAMPLE"


@pytest.fixture
def auth() -> MentionMeAuth:
    """An auth for the demo environment."""
    return MentionMeAuth("an-id", "a-secret", environment="demo")


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between the tries of a token request, which are left out."""
    asked: list[float] = []
    monkeypatch.setattr("time.sleep", asked.append)
    return asked


def test_a_401_is_healed_with_the_next_mocked_token(auth: MentionMeAuth) -> None:
    """Answers registered for one URL come one after the other; the retry takes one too."""
    with responses.RequestsMock() as mock:
        mock.post(f"{DEMO}/api/oauth/token", json={"access_token": "one"})
        mock.post(f"{DEMO}/api/oauth/token", json={"access_token": "two"})
        mock.get(COUPON, status=401)
        mock.get(COUPON, json={}, match=[responses.matchers.header_matcher({"Authorization": "Bearer two"})])
        healed = requests.get(COUPON, auth=auth)
    assert [answer.status_code for answer in (*healed.history, healed)] == [401, 200]


def test_a_mocked_fault_of_the_token_endpoint_is_tried_three_times(auth: MentionMeAuth, waits: list[float]) -> None:
    """With waits in between, about a second in all, unless they are left out as here."""
    with responses.RequestsMock() as mock:
        token = mock.post(f"{DEMO}/api/oauth/token", status=503)
        with pytest.raises(TokenEndpointError):
            requests.get(COUPON, auth=auth)
        assert token.call_count == 3
    assert len(waits) == 2
    assert sum(waits) <= 1.5


def test_a_token_request_that_is_not_mocked_fails_the_test(auth: MentionMeAuth) -> None:
    """The error is the mock's own, and names the token endpoint."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.get(COUPON, json={})
        with pytest.raises(requests.ConnectionError, match=f"{DEMO}/api/oauth/token"):
            requests.get(COUPON, auth=auth)
