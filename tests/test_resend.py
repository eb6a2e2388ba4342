"""The retry over real connections: bodies, draining, the pool, elapsed. A mock reads bodies and has no pool."""

import io
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import requests
from loopback import Answer, Loopback
from requests.adapters import BaseAdapter, HTTPAdapter

from requests_mentionme import MentionMeAuth
from requests_mentionme.sandbox import Sandbox

PATH = "/api/merchant/v2/customers"


class NotIterable:
    """A body with read, seek and tell that `requests` does not take for a file, as it can't be iterated."""

    def __init__(self, data: bytes) -> None:
        """Hold the data."""
        file = io.BytesIO(data)
        self.read, self.seek, self.tell, self.len = file.read, file.seek, file.tell, len(data)


class NoTell(io.BytesIO):
    """A body that can't tell where it is."""

    def tell(self) -> int:
        """Fail."""
        raise OSError


class OneWay(io.BytesIO):
    """A body that knows its start and has lost the way back."""

    lost = False

    def read(self, size: int | None = -1) -> bytes:
        """Read, and go on with no way back."""
        self.lost = True
        return super().read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Fail once reading has begun."""
        if self.lost:
            raise io.UnsupportedOperation
        return super().seek(offset, whence)


class ClosesItself(io.BytesIO):
    """A body that is closed once it was read, as by a caller who is quick to tidy up."""

    def read(self, size: int | None = -1) -> bytes:
        """Read, and close at the end."""
        data = super().read(size)
        if not data:
            self.close()
        return data


def at_offset() -> io.BytesIO:
    """Return a body of which the first part is not to be sent."""
    body = io.BytesIO(b"skip:data")
    body.seek(5)
    return body


def pipe() -> io.BufferedReader:
    """Return the reading end of a pipe."""
    reading, writing = os.pipe()
    os.write(writing, b"data")
    os.close(writing)
    return os.fdopen(reading, "rb")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(lambda: None, b"", id="no body"),
        pytest.param(lambda: "text", b"text", id="str"),
        pytest.param(lambda: b"data", b"data", id="bytes"),
        pytest.param(lambda: {"a": "1"}, b"a=1", id="form"),
        pytest.param(lambda: io.BytesIO(b"data"), b"data", id="file"),
        pytest.param(lambda: io.BytesIO(b"x" * 300_000), b"x" * 300_000, id="large file"),
        pytest.param(at_offset, b"data", id="file at an offset"),
    ],
)
def test_a_body_that_can_be_sent_again_is(
    sandbox: Sandbox, auth: MentionMeAuth, make: Callable[[], Any], expected: bytes
) -> None:
    """The retry carries the whole body, from where it started."""
    auth.access_token()
    sandbox.revoke()
    response = requests.post(sandbox.url + PATH, data=make(), auth=auth, timeout=5)
    assert [past.status_code for past in response.history] == [401]
    assert [seen.body for seen in sandbox.requests if seen.path == PATH] == [expected, expected]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: iter([b"da", b"ta"]), id="generator"),
        pytest.param(pipe, id="pipe"),
        pytest.param(lambda: NotIterable(b"data"), id="not iterable"),
        pytest.param(lambda: NoTell(b"data"), id="no tell"),
        pytest.param(lambda: OneWay(b"data"), id="no way back"),
        pytest.param(lambda: ClosesItself(b"data"), id="closed"),
        pytest.param(lambda: bytearray(b"data"), id="bytearray"),
    ],
)
def test_a_body_that_cannot_be_sent_again_gets_its_401_and_the_token_is_renewed(
    sandbox: Sandbox, auth: MentionMeAuth, make: Callable[[], Any]
) -> None:
    """The 401 is returned unread, nothing is sent twice or empty, and the caller's own next try works."""
    auth.access_token()
    sandbox.revoke()
    first, second = make(), make()
    response = requests.post(sandbox.url + PATH, data=first, auth=auth, stream=True, timeout=5)
    assert response.status_code == 401
    assert response.history == []
    assert response.raw.tell() == 0
    assert response.json()["code"] == "401"
    assert [seen.body for seen in sandbox.requests if seen.path == PATH] == [b"data"]
    assert sandbox.token_requests == 2
    assert requests.post(sandbox.url + PATH, data=second, auth=auth, timeout=5).status_code != 401
    assert sandbox.token_requests == 2
    for body in (first, second):
        getattr(body, "close", bool)()


@pytest.mark.parametrize("stream", [False, True], ids=["read", "stream"])
@pytest.mark.parametrize("block", [False, True], ids=["may open more", "blocks"])
def test_the_retry_uses_the_connection_of_the_401(
    sandbox: Sandbox, auth: MentionMeAuth, *, stream: bool, block: bool
) -> None:
    """A pool of one that blocks is enough, with a body of each kind; the connection is the same throughout."""
    auth.access_token()
    before = sandbox.connections
    with requests.Session() as session:
        session.auth = auth
        session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=1, pool_block=block))
        for data in (b"data", io.BytesIO(b"data")):
            sandbox.revoke()
            with session.post(sandbox.url + PATH, data=data, stream=stream, timeout=5) as response:
                assert [past.status_code for past in response.history] == [401]
                assert response.content
    tokens = 2
    assert sandbox.connections == before + 1 + tokens


def test_elapsed_is_that_of_the_retrys_own_exchange(sandbox: Sandbox, auth: MentionMeAuth) -> None:
    """The response has a time of its own, neither zero nor that of the refused request."""
    auth.access_token()
    sandbox.revoke()
    sandbox.fail_api_requests(delay=0.2)
    response = requests.post(sandbox.url + PATH, json={}, auth=auth, timeout=5)
    assert timedelta(0) < response.elapsed < timedelta(seconds=0.2) <= response.history[0].elapsed


@pytest.mark.parametrize(
    ("refusal", "connections", "readable"),
    [
        pytest.param(Answer(401, b"short"), 1, 5, id="short"),
        pytest.param(Answer(401), 1, 0, id="empty"),
        pytest.param(Answer(401, b"abc", chunked=True), 1, 3, id="chunked"),
        pytest.param(Answer(401, b"x" * 65_536), 1, 65_536, id="as long as can be"),
        pytest.param(Answer(401, b"x" * 4096, times=20), 2, 65_537, id="too long"),
        pytest.param(Answer(401, b"x" * 65_536, times=500), 2, 65_537, id="far too long"),
        pytest.param(Answer(401, b"broken off", fault="close", within="body"), 2, 0, id="broken off"),
        pytest.param(Answer(401, b"not gzip", {"Content-Encoding": "gzip"}), 1, 0, id="not to be decoded"),
    ],
)
def test_a_401_is_drained_if_it_is_short_and_cut_off_otherwise(
    refusal: Answer, connections: int, readable: int
) -> None:
    """Up to 64 KiB are worth a connection; what was read stays readable, and the retry works in any case."""
    with Loopback(refusal, Answer(body=b"fine")) as api, requests.Session() as session:
        session.auth = _auth_between(api)
        response = session.get(f"{api.url}/thing", timeout=5)
        assert response.text == "fine"
        (refused,) = response.history
        assert refused.status_code == 401
        read = b"".join(refused.iter_content(5000))  # first, as `content` makes sure that this works
        assert read == refused.content
        assert readable <= len(read) < 100_000
        assert (refusal.body * refusal.times).startswith(refused.content)
        assert api.connections == connections
        assert api.until(lambda: len(api.open) == 1), "the connection of the 401 was left open"


def _auth_between(api: Loopback) -> MentionMeAuth:
    """Return an auth for *api*, whose tokens come from a mounted adapter without a socket."""
    lent = requests.Session()
    lent.mount(f"{api.url}/api/oauth/token", Tokens())
    return MentionMeAuth("an-id", "a-secret", environment=api.url, session=lent)


class Tokens(BaseAdapter):
    """Answers each token request with a token of its own."""

    def __init__(self) -> None:
        """Begin to count."""
        super().__init__()
        self.count = 0

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
        """Issue a token."""
        self.count += 1
        response = requests.Response()
        response.status_code, response.request = 200, request
        response.raw = io.BytesIO(b'{"access_token": "token-%d"}' % self.count)
        return response

    def close(self) -> None:
        """Have nothing to close."""


def test_a_401_whose_renewal_fails_gives_its_connection_back(sandbox: Sandbox, auth: MentionMeAuth) -> None:
    """The error takes the place of the 401, which is drained: a pool of one goes on."""
    auth.access_token()
    before = sandbox.connections
    with requests.Session() as session:
        session.auth = auth
        session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=1, pool_block=True))
        sandbox.revoke()
        sandbox.fail_token_requests(status=404)
        with pytest.raises(requests.RequestException, match="answered 404"):
            session.post(sandbox.url + PATH, json={}, timeout=5)
        assert session.post(sandbox.url + PATH, json={}, timeout=5).status_code != 401
    tokens = 2
    assert sandbox.connections == before + 1 + tokens
