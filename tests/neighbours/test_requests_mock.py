"""Beside `requests-mock`: mocked as a whole, or by an adapter, which the token request does not use by itself."""

import pytest
import requests

from requests_mentionme import MentionMeAuth

requests_mock = pytest.importorskip("requests_mock", reason="requests-mock is not installed")

DEMO = "https://demo.mention-me.com"
TOKENS = [{"json": {"access_token": "one"}}, {"json": {"access_token": "two"}}]
REFUSED_ONCE = [{"status_code": 401}, {"json": {}}]


def test_a_401_is_healed_with_the_next_mocked_token() -> None:
    """The token requests are in the mock's history as well."""
    auth = MentionMeAuth("an-id", "a-secret", environment="demo")
    with requests_mock.Mocker() as mock:
        mock.post(f"{DEMO}/api/oauth/token", TOKENS)
        mock.get(f"{DEMO}/api", REFUSED_ONCE)
        healed = requests.get(f"{DEMO}/api", auth=auth)
    assert [answer.status_code for answer in (*healed.history, healed)] == [401, 200]
    sent = [(request.method, request.headers.get("Authorization")) for request in mock.request_history]
    assert sent == [("POST", None), ("GET", "Bearer one"), ("POST", None), ("GET", "Bearer two")]


def test_a_mocking_adapter_serves_token_requests_when_its_session_is_lent() -> None:
    """Otherwise they go out by a session of their own, to the real token endpoint."""
    adapter = requests_mock.Adapter()
    adapter.register_uri("POST", f"{DEMO}/api/oauth/token", TOKENS)
    adapter.register_uri("GET", f"{DEMO}/api", REFUSED_ONCE)
    with requests.Session() as session:
        session.mount("https://", adapter)
        session.auth = MentionMeAuth("an-id", "a-secret", environment="demo", session=session)
        assert session.get(f"{DEMO}/api").ok
    assert adapter.call_count == 4
