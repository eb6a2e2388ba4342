"""Fixtures for all tests: an environment without surprises, and a sandbox."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from requests_mentionme import MentionMeAuth
from requests_mentionme.sandbox import Sandbox


@pytest.fixture(autouse=True)
def _no_surprises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the settings of the machine that runs the tests out of them."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("CLIENT_ID", "CLIENT_SECRET", "ENVIRONMENT"):
        monkeypatch.delenv(f"MENTIONME_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A running sandbox."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def auth(sandbox: Sandbox) -> MentionMeAuth:
    """An auth for the sandbox."""
    return MentionMeAuth(sandbox.client_id, sandbox.client_secret, environment=sandbox.environment)
