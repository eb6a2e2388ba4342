"""What the log says, to the letter: it is what somebody reads at three in the morning."""

import json
import logging
import time
from typing import Any

import pytest
import requests
import responses
from stores import Failing

from requests_mentionme import MentionMeAuth

API = "https://demo.mention-me.com/api/merchant/v2/customers"
TOKEN_URL = "https://demo.mention-me.com/api/oauth/token"


def issue(mock: responses.RequestsMock, *tokens: str) -> None:
    """Have the token endpoint issue these tokens, one after the other."""
    for token in tokens:
        mock.post(TOKEN_URL, json={"access_token": token, "token_type": "bearer", "expires_in": 3600})


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the log's lines, with their levels."""
    assert {record.name for record in caplog.records} <= {"requests_mentionme"}
    return [f"{record.levelname}: {record.getMessage()}" for record in caplog.records]


@pytest.fixture
def mock(caplog: pytest.LogCaptureFixture) -> Any:
    """Play HTTP, and log all of it."""
    caplog.set_level(logging.INFO, "requests_mentionme")
    with responses.RequestsMock() as playing:
        yield playing


def test_a_healed_401(mock: responses.RequestsMock, caplog: pytest.LogCaptureFixture) -> None:
    """The tokens, with the seconds that they live, and the retry."""
    issue(mock, "one", "two")
    mock.get(API, status=401)
    mock.get(API)
    requests.get(API, auth=MentionMeAuth("an-id", "a-secret", environment="demo"))
    assert said(caplog) == [
        "INFO: Token obtained: demo, 3600 s to live",
        "INFO: Token obtained: demo, 3600 s to live",
        "INFO: Token refused by https://demo.mention-me.com, retrying once",
    ]


def test_a_401_for_a_new_token_too(mock: responses.RequestsMock, caplog: pytest.LogCaptureFixture) -> None:
    """What to look at: neither another token nor another try would help."""
    issue(mock, "one", "two")
    mock.get(API, status=401)
    requests.get(API, auth=MentionMeAuth("an-id", "a-secret", environment="demo"))
    assert said(caplog)[-1] == (
        "WARNING: New token refused by https://demo.mention-me.com: check the scopes and environment of the API key"
    )


def test_a_renewal_that_fails_for_a_401_that_can_not_be_retried(
    mock: responses.RequestsMock, caplog: pytest.LogCaptureFixture
) -> None:
    """Why, in the words of the error."""
    issue(mock, "one")
    mock.post(TOKEN_URL, status=404)
    mock.post(API, status=401)
    requests.post(API, data=iter([b"data"]), auth=MentionMeAuth("an-id", "a-secret", environment="demo"))
    assert said(caplog)[1:] == [f"WARNING: Renewal after a 401 failed: POST {TOKEN_URL} answered 404."]


def test_a_request_elsewhere(mock: responses.RequestsMock, caplog: pytest.LogCaptureFixture) -> None:
    """Where it went, and which environment has no such origin."""
    mock.get("https://foreign.example/")
    requests.get("https://foreign.example/", auth=MentionMeAuth("an-id", "a-secret", environment="demo"))
    assert said(caplog) == ["WARNING: No token for https://foreign.example: it is not an origin of demo"]


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("read", "WARNING: The token store can't be read: OSError"),
        ("write", "WARNING: The token store can't be written: OSError"),
        ("remove", "WARNING: The token store can't be written: OSError"),
    ],
)
def test_a_store_that_fails(
    mock: responses.RequestsMock, caplog: pytest.LogCaptureFixture, method: str, line: str
) -> None:
    """What could not be done, and the kind of error alone, as its text may hold what was stored."""
    issue(mock, "one")
    store = Failing(OSError("what it says is its own affair"), method)
    auth = MentionMeAuth("an-id", "a-secret", environment="demo", store=store)
    auth.access_token()
    auth.invalidate()
    assert sorted(said(caplog)) == ["INFO: Token obtained: demo, 3600 s to live", line]


@pytest.mark.parametrize(
    ("ahead", "lifetime", "line"),
    [
        (0, 3600, "INFO: Token taken from the store: demo"),
        (61, 3600, "WARNING: The token store holds no valid token, or one from the future"),
        (0, "long", "WARNING: The token store holds no valid token, or one from the future"),
    ],
    ids=["fresh", "from the future", "rubbish"],
)
def test_what_a_store_holds(caplog: pytest.LogCaptureFixture, ahead: float, lifetime: object, line: str) -> None:
    """Whether it was used, and if not, why."""
    caplog.set_level(logging.INFO, "requests_mentionme")
    store: dict[str, str] = {}
    with responses.RequestsMock() as mock:
        issue(mock, "one", "two")
        MentionMeAuth("an-id", "a-secret", environment="demo", store=store).access_token()
        (key,) = store
        store[key] = json.dumps({"access_token": "kept", "obtained_at": time.time() + ahead, "lifetime": lifetime})
        caplog.clear()
        MentionMeAuth("an-id", "a-secret", environment="demo", store=store).access_token()
        mock.assert_all_requests_are_fired = False
    assert said(caplog)[0] == line
