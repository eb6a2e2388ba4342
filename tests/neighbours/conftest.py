"""Fixtures for the tests beside other libraries, whose modules are skipped where theirs is not installed."""

from collections.abc import Iterator

import pytest
from freezegun import freeze_time

from requests_mentionme import MentionMeAuth
from requests_mentionme.sandbox import Sandbox


@pytest.fixture
def coupon(sandbox: Sandbox) -> str:
    """The URL of a GET that any token may do."""
    return f"{sandbox.url}/api/merchant/v2/coupons/validate/SAMPLE"


@pytest.fixture
def other_merchant(sandbox: Sandbox) -> MentionMeAuth:
    """An auth with another API key than `auth`."""
    sandbox.add_client("other-id", "other-secret")
    return MentionMeAuth("other-id", "other-secret", environment=sandbox.environment)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The waits, for which the clock is put forward."""
    asked: list[float] = []
    with freeze_time() as clock:

        def sleep(seconds: float) -> None:
            asked.append(seconds)
            clock.tick(seconds)

        monkeypatch.setattr("time.sleep", sleep)
        yield asked
