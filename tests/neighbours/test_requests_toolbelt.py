"""Beside `requests-toolbelt`: base URLs, and bodies that are read while they are sent."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import requests

from requests_mentionme import MentionMeAuth
from requests_mentionme.sandbox import Sandbox

toolbelt = pytest.importorskip("requests_toolbelt", reason="requests-toolbelt is not installed")
sessions = pytest.importorskip("requests_toolbelt.sessions", reason="requests-toolbelt is not installed")


def encoder() -> Any:
    """Return a multipart body."""
    return toolbelt.MultipartEncoder({"file": ("customers.csv", io.BytesIO(b"ada@example.com"), "text/csv")})


def monitor() -> Any:
    """Return a multipart body that calls back."""
    return toolbelt.MultipartEncoderMonitor(encoder())


def streaming_iterator() -> Any:
    """Return a body of a known size that comes in pieces."""
    return toolbelt.StreamingIterator(4, iter([b"da", b"ta"]))


def test_a_session_with_a_base_url_is_authenticated_and_healed(sandbox: Sandbox, auth: MentionMeAuth) -> None:
    """The auth sees whole URLs, as it runs when they have been joined."""
    with sessions.BaseUrlSession(f"{sandbox.url}/api/merchant/v2/") as session:
        session.auth = auth
        assert session.get("coupons/validate/SAMPLE").ok
        sandbox.revoke()
        healed = session.get("coupons/validate/SAMPLE")
    assert [answer.status_code for answer in (*healed.history, healed)] == [401, 200]


def test_a_lent_session_with_a_base_url_asks_the_token_endpoint_of_the_environment(sandbox: Sandbox) -> None:
    """The URL of the token endpoint is a whole one, to which a base URL adds nothing."""
    with sessions.BaseUrlSession("https://elsewhere.example/base/") as lent:
        auth = MentionMeAuth(sandbox.client_id, sandbox.client_secret, environment=sandbox.environment, session=lent)
        assert auth.access_token() in sandbox.tokens


@pytest.mark.parametrize("body", [encoder, monitor, streaming_iterator])
def test_a_body_read_while_it_was_sent_is_not_sent_again(
    sandbox: Sandbox, auth: MentionMeAuth, body: Callable[[], Any]
) -> None:
    """The 401 is returned, and the token is renewed, so that a second try with a new body works."""
    url = f"{sandbox.url}/api/merchant/v2/customers"
    sandbox.fail_api_requests(status=401)
    sandbox.fail_api_requests(status=200)
    refused = requests.post(url, data=body(), auth=auth)
    assert (refused.status_code, refused.history) == (401, [])
    assert (sandbox.api_requests, sandbox.token_requests) == (1, 2)
    assert requests.post(url, data=body(), auth=auth).ok
    assert sandbox.requests[-1].token == sandbox.tokens[-1]
    assert sandbox.token_requests == 2


def test_a_multipart_body_made_into_bytes_is_sent_again(sandbox: Sandbox, auth: MentionMeAuth) -> None:
    """As is one that `requests` makes of `files=`."""
    url, body = f"{sandbox.url}/api/merchant/v2/customers", encoder()
    for multipart in (
        {"data": body.to_string(), "headers": {"Content-Type": body.content_type}},
        {"files": {"file": ("customers.csv", io.BytesIO(b"ada@example.com"), "text/csv")}},
    ):
        sandbox.fail_api_requests(status=401)
        sandbox.fail_api_requests(status=200)
        assert requests.post(url, auth=auth, **multipart).ok
        refused, _, answered = sandbox.requests[-3:]
        assert refused.body == answered.body
        assert b"ada@example.com" in answered.body
