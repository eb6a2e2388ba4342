"""Fixtures for the tests beside other libraries, whose modules are skipped where theirs is not installed."""

import pytest

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
