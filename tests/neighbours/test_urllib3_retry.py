"""Beside `urllib3`'s own `Retry`, on the adapter: it acts below the auth, on each request by itself."""

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from requests_mentionme import MentionMeAuth
from requests_mentionme.sandbox import Sandbox


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits, which are left out."""
    asked: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", asked.append)
    return asked


def test_a_429_is_repeated_in_the_retry_of_a_401_too(
    sandbox: Sandbox, auth: MentionMeAuth, coupon: str, waits: list[float]
) -> None:
    """The retry goes through the same adapter, with the same `Retry`."""
    with requests.Session() as session:
        session.auth = auth
        session.mount(sandbox.url, HTTPAdapter(max_retries=Retry(1, status_forcelist=[429], allowed_methods=None)))
        sandbox.fail_api_requests(status=429, headers={"Retry-After": "7"})
        sandbox.fail_api_requests(status=401)
        sandbox.fail_api_requests(status=429, headers={"Retry-After": "9"})
        healed = session.get(coupon)
    assert [answer.status_code for answer in (*healed.history, healed)] == [401, 200]
    assert waits == [7, 9]
    tokens = [request.token for request in sandbox.requests if request.path.startswith("/api/merchant")]
    assert tokens == [sandbox.tokens[0]] * 2 + [sandbox.tokens[1]] * 2


def test_a_401_that_is_repeated_below_never_reaches_the_auth(
    sandbox: Sandbox, auth: MentionMeAuth, coupon: str
) -> None:
    """It ends in a `RetryError`, after requests with the refused token: leave 401 out of `status_forcelist`."""
    with requests.Session() as session:
        session.auth = auth
        session.mount(sandbox.url, HTTPAdapter(max_retries=Retry(2, status_forcelist=[401])))
        auth.access_token()
        sandbox.revoke()
        with pytest.raises(requests.exceptions.RetryError):
            session.get(coupon)
    assert (sandbox.api_requests, sandbox.token_requests) == (3, 1)


def test_a_401_that_is_returned_after_repeats_is_healed(sandbox: Sandbox, auth: MentionMeAuth, coupon: str) -> None:
    """With `raise_on_status=False` the auth gets its turn, after repeats that could not help."""
    with requests.Session() as session:
        session.auth = auth
        retry = Retry(2, status_forcelist=[401], raise_on_status=False)
        session.mount(sandbox.url, HTTPAdapter(max_retries=retry))
        auth.access_token()
        sandbox.revoke()
        assert session.get(coupon).ok
    assert (sandbox.api_requests, sandbox.token_requests) == (4, 2)


def test_a_lent_session_with_a_retry_of_its_own_multiplies_the_tries(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the auth's three tries is repeated by the adapter too."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    with requests.Session() as lent:
        retry = Retry(2, status_forcelist=[503], allowed_methods=None, raise_on_status=False)
        lent.mount(sandbox.url, HTTPAdapter(max_retries=retry))
        auth = MentionMeAuth(sandbox.client_id, sandbox.client_secret, environment=sandbox.environment, session=lent)
        sandbox.fail_token_requests(times=8, status=503)
        assert auth.access_token()
    assert sandbox.token_requests == 9
