"""Beside `niquests`, which brings a `urllib3` of its own: for an environment of its own.

Its `Session` takes the auth as it takes any callable. The errors are those of `requests`, which it knows nothing of; it
can't be lent; and its `AsyncSession` can't retry through it.
"""

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from requests_mentionme import InvalidClientError, MentionMeAuth
from requests_mentionme.sandbox import Sandbox

niquests = pytest.importorskip("niquests", reason="niquests is not installed")
urllib3 = pytest.importorskip("urllib3")

LOOK_UP = b'{"identifiers": [{"type": "email", "value": "ada@example.com"}]}'


def statuses(response: Any) -> list[int]:
    """Return the statuses of the answers that led to *response*, and its own."""
    return [answer.status_code for answer in (*response.history, response)]


@pytest.fixture
def session(auth: MentionMeAuth) -> Iterator[Any]:
    """A session of niquests."""
    with niquests.Session() as its_own:
        its_own.auth = auth
        yield its_own


def test_requests_is_authenticated_and_healed_on_the_other_urllib3(
    sandbox: Sandbox, auth: MentionMeAuth, coupon: str
) -> None:
    """The 401 is drained, so that its connection serves the retry."""
    assert int(urllib3.__version__.split(".")[-1]) >= 900, "this is the usual urllib3"
    with requests.Session() as session:
        session.auth = auth
        assert session.get(coupon).ok
        sandbox.revoke()
        assert statuses(session.get(coupon)) == [401, 200]
    assert sandbox.connections == 3  # one for the API, and one for each token


def test_requests_retries_faults_of_the_token_endpoint_on_the_other_urllib3(
    sandbox: Sandbox, auth: MentionMeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was reset is a `requests.ConnectionError` there too."""
    monkeypatch.setattr("requests_mentionme._endpoint.time.sleep", lambda _: None)
    sandbox.fail_token_requests(times=2, reset=True)
    assert auth.access_token()
    assert sandbox.token_requests == 3


def test_its_session_is_authenticated_and_healed(sandbox: Sandbox, session: Any, coupon: str) -> None:
    """The retry goes by its own adapter, and a file is rewound."""
    assert session.get(coupon).ok
    sandbox.revoke()
    healed = session.post(f"{sandbox.url}/api/merchant/v2/customers", data=io.BytesIO(LOOK_UP))
    assert statuses(healed) == [401, 200]
    assert sandbox.requests[-1].body == LOOK_UP


def test_its_session_sends_a_generator_once(sandbox: Sandbox, session: Any) -> None:
    """And renews the token for the next time."""
    sandbox.fail_api_requests(status=401)
    refused = session.post(f"{sandbox.url}/api/merchant/v2/customers", data=iter([LOOK_UP]))
    assert statuses(refused) == [401]
    assert (sandbox.api_requests, sandbox.token_requests) == (1, 2)


def test_its_session_raises_errors_that_are_not_its_own(sandbox: Sandbox, coupon: str) -> None:
    """They are `requests.RequestException`s, which `except niquests.RequestException` does not catch."""
    auth = MentionMeAuth("wrong", "wrong", environment=sandbox.environment)
    with pytest.raises(InvalidClientError) as raised:
        niquests.get(coupon, auth=auth)
    assert not isinstance(raised.value, niquests.RequestException)


def test_its_session_can_not_be_lent(sandbox: Sandbox) -> None:
    """Token requests go by `requests`."""
    with niquests.Session() as lent, pytest.raises(TypeError, match=r"requests\.Session"):
        MentionMeAuth("an-id", "a-secret", environment=sandbox.environment, session=lent)


def test_its_async_session_takes_tokens_but_no_retry(sandbox: Sandbox, auth: MentionMeAuth, coupon: str) -> None:
    """What works is an auth of its own kind around `access_token`, in a thread so that the loop goes on."""

    class Bearer(niquests.auth.AsyncAuthBase):  # type: ignore[name-defined,misc]
        async def __call__(self, r: Any) -> Any:
            r.headers["Authorization"] = f"Bearer {await asyncio.to_thread(auth.access_token)}"
            return r

    async def call() -> list[int]:
        async with niquests.AsyncSession() as session:
            first = await session.get(coupon, auth=Bearer())
            sandbox.revoke()
            refused = await session.get(coupon, auth=Bearer())
            auth.invalidate(sandbox.tokens[0])
            again = await session.get(coupon, auth=Bearer())
            return [first.status_code, refused.status_code, again.status_code]

    assert asyncio.run(call()) == [200, 401, 200]
    assert sandbox.token_requests == 2
