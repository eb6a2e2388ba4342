"""The token request: what is sent and by which way, its tries and its budget, what it accepts, and what its errors say.

`proofs/test_fault_matrix.py` shows each fault at each moment of a token's life; here are the borders between them.
"""

import gc
import json
import pickle
import ssl
import time
from contextlib import nullcontext
from dataclasses import replace
from unittest import mock

import in_memory
import pytest
import requests
import responses
import trustme
from in_memory import API, auth_with
from loopback import Answer, Loopback, make_jwt, token_answer
from requests.exceptions import ProxyError, RetryError, SSLError
from requests.utils import select_proxy

import requests_mentionme
from requests_mentionme import InvalidClientError, MentionMeAuth, TokenEndpointError, TokenResponseError

SECRET = "cs_never-to-be-seen"
JWT = make_jwt()
OK = token_answer(JWT, 1000)
EAGER = requests.Session()  # to follow, whatever the answer says
EAGER.get_redirect_target = lambda response: response.url if response.status_code > 300 else None
KINDS = {200: TokenResponseError, **dict.fromkeys((400, 401, 403), InvalidClientError)}  # the rest: TokenEndpointError


@pytest.fixture
def server():
    with Loopback(OK) as running:
        yield running


@pytest.fixture
def waits(clock, monkeypatch):
    """The waits between tries. Only the frozen clock sees them pass, and each is as long as its jitter allows."""
    waited = []
    monkeypatch.setattr("time.sleep", lambda seconds: (waited.append(seconds), clock.tick(seconds)))
    monkeypatch.setattr("random.uniform", lambda _, longest: longest)
    return waited


def auth_at(server, secret=SECRET, **options):
    return MentionMeAuth("ci_sample", secret, environment=server.url, **options)


def failure(auth):
    with pytest.raises(requests.RequestException) as caught:
        auth.access_token()
    return caught.value


@pytest.mark.parametrize("lent", [None, requests.Session()])
def test_a_token_request_holds_exactly_what_is_documented(server, monkeypatch, tmp_path, lent):
    """It has no header that a `.netrc` file would add."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login netrc-user password netrc-password\n", encoding="ascii")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    requests.post(server.url)
    assert "authorization" in server.requests.pop().headers
    assert auth_at(server, session=lent).access_token() == JWT
    [request] = server.requests
    assert (request.method, request.target) == ("POST", "/api/oauth/token")
    assert request.json() == {"client_id": "ci_sample", "client_secret": SECRET, "grant_type": "client_credentials"}
    assert request.headers == {
        "host": f"127.0.0.1:{server.port}",
        "user-agent": f"requests-mentionme/{requests_mentionme.__version__}",
        "accept": "application/json",
        "accept-encoding": "identity",
        "connection": "keep-alive",
        "content-type": "application/json",
        "content-length": str(len(request.body)),
    }


@pytest.mark.parametrize("lent", [None, EAGER])
@pytest.mark.parametrize(("status", "location"), [(302, "{other}/"), (307, "{other}/"), (308, "http://[")])
def test_a_redirect_is_not_followed(server, status, location, lent):
    """The other host would see the secret."""
    with Loopback(OK) as other:
        server.play(Answer(status, b"moved", {"Location": location.format(other=other.url)}), OK)
        error = failure(auth_at(server, session=lent))
        assert (type(error), error.response.status_code, error.response.text) == (TokenEndpointError, status, "moved")
        assert (len(server.requests), other.connections) == (1, 0)


PROXY = "http://proxy.example:3128"
KIOSK = "https://kiosk.example"
LOCAL = "http://127.8.9.10:8080"
PROXIES = [  # a token URL, what names the proxy, and whether it is used
    *[(LOCAL, [by], False) for by in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "session")],
    ("http://[::1]:8080", ["ALL_PROXY"], False),
    *[(KIOSK, [by], True) for by in ("HTTPS_PROXY", "ALL_PROXY", "session")],
    *[(KIOSK, by, False) for by in (["HTTP_PROXY"], ["HTTPS_PROXY", "NO_PROXY"])],
]


@pytest.mark.parametrize(("url", "named_by", "is_used"), PROXIES)
def test_a_proxy_is_used_for_any_token_url_but_one_on_this_machine(monkeypatch, url, named_by, is_used):
    """Plain `http` is allowed here, and a proxy would read the secret."""
    for name in named_by:
        monkeypatch.setenv(name, "kiosk.example" if name == "NO_PROXY" else PROXY)
    with requests.Session() as session, responses.RequestsMock() as web:
        if "session" in named_by:
            session.proxies = dict.fromkeys(("http", "https", "all", "http://127.8.9.10", "all://127.8.9.10"), PROXY)
        web.post(f"{url}/api/oauth/token", body=OK.body)
        for lent in (session,) if "session" in named_by else (None, session):
            MentionMeAuth("ci_sample", SECRET, environment=url, session=lent).access_token()
            request = web.calls[-1].request
            assert select_proxy(request.url, request.req_kwargs["proxies"]) == (PROXY if is_used else None)


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("name", ["localhost", "other.example"])
def test_tls_is_verified_with_the_bundle_that_the_environment_names(tmp_path, monkeypatch, variable, name):
    """For another host it is an `SSLError` after one connection: no fault that passes."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))
    with Loopback(OK, tls=context) as server:
        if name == server.host:
            assert auth_at(server).access_token() == JWT
        else:
            assert type(failure(auth_at(server))) is SSLError
            assert (server.connections, server.requests) == (1, [])


def test_a_lent_session_is_used_with_all_its_settings_but_its_auth():
    """The library's own headers come first."""
    endpoint = in_memory.TokenEndpoint()
    endpoint.send = mock.Mock(wraps=endpoint.send)
    hook = mock.Mock(return_value=None)
    lent = in_memory.session_with(endpoint)
    vars(lent).update(verify="a-bundle.pem", cert="a-certificate.pem", auth=mock.Mock())
    lent.headers.update({"X-Team": "growth", "User-Agent": "caller/1", "Accept-Encoding": "gzip"})
    lent.hooks["response"].append(hook)
    auth_with(endpoint, session=lent, timeout=(3, 4)).access_token()
    assert (lent.auth.call_count, hook.call_count) == (0, 1)
    options = endpoint.send.call_args.kwargs
    assert (options["verify"], options["cert"], options["stream"]) == ("a-bundle.pem", "a-certificate.pem", True)
    assert options["timeout"] == pytest.approx((3, 4))
    headers = endpoint.requests[0].headers
    assert (headers["X-Team"], headers["Accept-Encoding"]) == ("growth", "identity")
    assert headers["User-Agent"] == f"requests-mentionme/{requests_mentionme.__version__}"


def test_a_session_may_be_lent_to_its_own_auth(server):
    server.play(OK, Answer())
    with requests.Session() as session:
        session.auth = auth_at(server, session=session)
        assert session.get(f"{server.url}/customers", timeout=5).ok
    assert [request.headers.get("authorization") for request in server.requests] == [None, f"Bearer {JWT}"]


class Marked(requests.Session):
    """Sends what it keeps in slots. One slot is empty, an attribute is lacking, and the finalizer closes it."""

    __slots__ = ("__mark", "region")

    def __init__(self):
        super().__init__()
        self.__mark = "mark"
        del self.max_redirects

    def __del__(self):
        self.close()

    def send(self, request, **kwargs):
        request.headers["X-Mark"] = self.__mark
        return super().send(request, **kwargs)


@pytest.mark.parametrize(("kind", "mark"), [(requests.Session, None), (Marked, "mark")])
def test_a_lent_session_of_any_class_is_neither_changed_nor_closed(server, waits, kind, mark):
    """Its connection, attributes, hooks and cookies stay, whatever comes of a renewal; its cookies go out."""
    lent = kind()
    lent.cookies.set("mine", "1")
    lent.auth = ("user", "password")
    lent.hooks["response"].append(lambda *_, **__: None)
    auth = auth_at(server, session=lent)
    before = {name: (id(value), repr(value)) for name, value in vars(lent).items()}
    for status in (200, 302, 401, 503, 200):
        server.play(replace(OK, status=status, headers={"Set-Cookie": "theirs=1", "Location": "/"}))
        auth.invalidate()
        with nullcontext() if status == 200 else pytest.raises(requests.RequestException):
            auth.access_token()
        gc.collect()
    assert {name: (id(value), repr(value)) for name, value in vars(lent).items()} == before
    assert (server.connections, len(server.requests), len(waits)) == (1, 7, 2)
    for headers in (server.requests[0].headers, server.requests[-1].headers):
        assert [headers.get(name) for name in ("cookie", "authorization", "x-mark")] == ["mine=1", None, mark]
    lent.close()
    assert server.until(lambda: not server.open)


@pytest.mark.parametrize("answer", [OK, Answer(204), Answer(302), Answer(503)], ids=lambda it: f"{it.status}")
def test_each_renewal_closes_a_connection_of_its_own(server, monkeypatch, answer):
    """No session is lent, so none may be left open, stale or shared with a forked process."""
    monkeypatch.setattr("time.sleep", mock.Mock(side_effect=KeyboardInterrupt))
    server.play(answer)
    auth = auth_at(server)
    for number in (1, 2):
        auth.invalidate()
        with nullcontext() if answer is OK else pytest.raises((requests.RequestException, KeyboardInterrupt)):
            auth.access_token()
        assert server.connections == number
        assert server.until(lambda: not server.open)


FAULTS = [  # what comes of a try, the error, and the tries
    *[(in_memory.Answer(status), TokenEndpointError, 3) for status in (429, 599)],
    *[(in_memory.Answer(status), TokenEndpointError, 1) for status in (199, 300, 428, 430, 499)],
    *[(error(), error, 3) for error in (requests.ConnectTimeout, ProxyError)],
    (RetryError(), RetryError, 1),  # an adapter has retried
]


@pytest.mark.parametrize(("fault", "kind", "tries"), FAULTS)
def test_a_fault_that_may_pass_is_tried_three_times_in_all_and_any_other_once(waits, fault, kind, tries):
    """The last try tells what went wrong, and no wait follows it."""
    endpoint = in_memory.TokenEndpoint(*[fault] * 3)
    error = failure(auth_with(endpoint))
    assert (type(error), endpoint.count, waits) == (kind, tries, [0.5, 1.0][: tries - 1])
    if kind is TokenEndpointError:
        assert (error.response.status_code, error.response.reason, error.request is None) == (fault.status, "", False)


def test_waits_grow_and_are_jittered(monkeypatch):
    """Each is drawn from the upper half of a range that doubles, so that a fleet does not come back at once."""
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    auth = auth_with(in_memory.TokenEndpoint(*[in_memory.Answer(503)] * 180))
    for _ in range(60):
        failure(auth)
    assert len(waited) == 120
    for drawn, least in ((waited[::2], 0.25), (waited[1::2], 0.5)):
        assert least <= min(drawn) < least * 1.3 < least * 1.7 < max(drawn) <= least * 2


FITS = [((5, 10), "29.9", True), ((5, 10), "30", False), ((0.1, 0.15), "0", False)]  # with 0, it is the backoff


@pytest.mark.parametrize(("timeout", "named", "fits"), FITS)
def test_a_wait_is_not_begun_if_it_does_not_fit_the_budget(waits, timeout, named, fits):
    """The budget of all tries is twice (connect + read)."""
    endpoint = in_memory.TokenEndpoint(in_memory.Answer(429, headers={"Retry-After": named}))
    auth = auth_with(endpoint, timeout=timeout)
    if fits:
        assert auth.access_token() == "token-2"
    else:
        assert failure(auth).retry_after == float(named)
    assert (endpoint.count, waits) == (1 + fits, [float(named)] * fits)


@pytest.mark.parametrize(("overslept", "timeout"), [(0, (5, 6)), (3, (3, 3)), (50, (0.001, 0.001))])
def test_a_try_has_no_longer_timeouts_than_the_budget_left(monkeypatch, clock, overslept, timeout):
    """Where nothing is left of it, as a wait took longer than it should, next to nothing."""
    monkeypatch.setattr("time.sleep", lambda seconds: clock.tick(seconds + overslept))
    busy = in_memory.Answer(503, headers={"Retry-After": "24"})
    endpoint = in_memory.TokenEndpoint(busy, busy)
    endpoint.send = mock.Mock(wraps=endpoint.send)
    failure(auth_with(endpoint, timeout=(5, 10)))
    assert [call.kwargs["timeout"] for call in endpoint.send.call_args_list] == [(5, 10), pytest.approx(timeout)]


def test_a_body_that_drips_ends_with_the_budget(server, monkeypatch):
    """Each byte comes in time, and yet there is an end."""
    monkeypatch.setattr(time, "monotonic", lambda: 60 * time.perf_counter())  # so that 30 s last for half a second
    server.play(Answer(body=b" " * 1500, chunked=True, fault="drip", within="body", interval=0.01))
    assert "did not come to an end within 30 s" in str(failure(auth_at(server)))
    assert server.requests[0].sent < 1500


def test_a_body_is_not_read_on_once_the_budget_has_ended(server, clock):
    """Not by one byte, which may never come."""

    def answer_late(_):
        clock.tick(12)
        return Answer(body=b"{}", fault="hang", within="body")

    server.play(answer_late)
    error = failure(auth_at(server, timeout=(1, 5)))
    assert (type(error), error.response, error.retry_after) == (TokenEndpointError, None, None)
    assert str(error).endswith(f" answered 200, but the answer did not come to an end within 12 s. {AGAIN}")


HELD = [(503, "Thu, 01 Jan 2026 12:00:40 GMT", 40, 40), (404, "5", 5, 5), (429, "3600", 3600, 60)]  # it is 12:00:00


@pytest.mark.parametrize(("status", "wait", "named", "held"), HELD)
def test_until_the_time_that_was_named_the_same_error_is_raised_at_once(clock, status, wait, named, held):
    """That is for a minute at most."""
    endpoint = in_memory.TokenEndpoint(in_memory.Answer(status, headers={"Retry-After": wait}))
    auth = auth_with(endpoint)
    first = failure(auth)
    for seconds in (1, held - 1.5):
        clock.tick(seconds)
        again = failure(auth)
        assert (type(again), again.response.status_code, again is first) == (TokenEndpointError, status, False)
    assert again.retry_after == pytest.approx(named - held + 0.5)
    assert f"Try again in {named - held + 0.5:.0f} s." in str(again)
    assert (first.retry_after, endpoint.count) == (named, 1)
    clock.tick(0.6)
    assert auth.access_token() == "token-2"


@pytest.mark.parametrize(("status", "wait"), [(401, "40"), (404, "0"), (200, "40")])
def test_no_other_failure_is_remembered(status, wait):
    """Only a `TokenEndpointError` has a `retry_after`: to wait mends no credentials."""
    auth = auth_with(in_memory.TokenEndpoint(in_memory.Answer(status, headers={"Retry-After": wait})))
    error = failure(auth)
    assert hasattr(error, "retry_after") == isinstance(error, TokenEndpointError)
    assert auth.access_token() == "token-2"


def test_any_2xx_answer_of_up_to_64_kib_may_bring_a_token(server):
    server.play(Answer(299, OK.body.ljust(65_536), {"Content-Encoding": "Identity"}, chunked=True))
    assert auth_at(server).access_token() == JWT


UNREADABLE = {
    "compressed": Answer(401, b"{}", {"Content-Encoding": "gzip"}),
    "broken off": Answer(401, b"{}", fault="reset", within="body"),
    "endless": Answer(401, b"x" * 65_536, times=3200, version="HTTP/1.0"),  # 200 MB
    "an endless redirect": Answer(302, b"x" * 65_536, {"Location": "/elsewhere"}, times=3200, chunked=True),
}


@pytest.mark.parametrize("answer", UNREADABLE.values(), ids=UNREADABLE)
def test_a_refusal_whose_body_cannot_be_read_is_a_refusal_and_ends_the_connection(server, answer):
    """Of a redirect with a `Location`, `requests` itself would read all."""
    server.play(answer)
    with requests.Session() as lent:
        error = failure(auth_at(server, session=lent))
        assert server.until(lambda: not server.open)
    assert type(error) is KINDS.get(answer.status, TokenEndpointError)
    assert (error.response.status_code, error.response.content) == (answer.status, b"")
    assert server.requests[0].sent < 100_000_000


@pytest.mark.parametrize("kind", [TimeoutError, KeyboardInterrupt])
def test_what_a_signal_handler_raises_while_a_refusal_is_read_comes_through_without_the_secret(kind):
    """The caller's own requests in its causes and contexts are left alone."""
    error = kind()
    error.__context__ = requests.ConnectionError(request=requests.Request("POST", API, data="theirs").prepare())

    def interrupt(response, **_):
        error.__cause__ = requests.ConnectionError(response=response)
        response.iter_content = mock.Mock(side_effect=error)

    endpoint = in_memory.TokenEndpoint(in_memory.Answer(401))
    lent = in_memory.session_with(endpoint)
    lent.hooks["response"].append(interrupt)
    with pytest.raises(kind) as caught:
        auth_with(endpoint, session=lent).access_token()
    assert caught.value is error
    assert (error.__cause__.request.body, error.__context__.request.body) == ("[redacted]", "theirs")


def said(status, message="Not today."):
    return Answer(status, json.dumps({"code": "7", "message": message}).encode())


def typed(kind):
    return Answer(200, b"Sign in", {"Content-Type": kind})


SAID = "The server says 'Not today.'"
KEY = "Check the client id and secret: are they of an API key of {url}?"
BETWEEN = "Or something on the way refused the request: a firewall, or an allow-list of addresses."
STAYS = "A redirect is not followed, since the client secret would go along. Check the token URL."
LIMIT = "The endpoint limits how often it may be asked."
AGAIN = "The next request that needs a token asks again."
JSON = "with the content type 'application/json'"
FLAW = "but the answer is not a JSON object."
NONE = "No token was obtained."
PAGE = f"A proxy or a login page may have answered in the place of the token endpoint. {NONE}"
HTML = "text/HTML; " + "y" * 200
LARGE = Answer(200, OK.body.ljust(65_537), chunked=True)
PACKED = replace(OK, headers={"Content-Encoding": "br"})
DEAD = token_answer("eyJ", 0, error="eyJ")
TEXTS = {  # the answer, and what the error says after "POST ... answered" and the status
    "400": (said(400, f"No client {SECRET}."), f". The server says 'No client [secret].' {KEY}"),
    "401": (Answer(401, b'{"error": "no_client"}'), f". The server says 'no_client'. {KEY}"),
    "403": (said(403), f". {SAID} {KEY} {BETWEEN}"),
    "300": (said(300), f". {SAID} {STAYS}"),
    "399": (Answer(399), f". {STAYS}"),
    "429": (Answer(429), f". {LIMIT} {AGAIN}"),
    "429, a time": (Answer(429, headers={"Retry-After": "9"}), f". {LIMIT} Try again in 9 s."),
    "499": (said(499), f". {SAID} Check that the token URL of the environment {{url}} is right."),
    "500": (said(500), f". {SAID} This is a fault on the side of the server. {AGAIN}"),
    "200, HTML": (typed(HTML), f" with the content type {HTML[:100]!r}, {FLAW} {PAGE}"),
    "200, no type": (typed(None), f" with the content type 'none', {FLAW} {NONE}"),
    "200, forged": (typed(f"\x1b[31m{SECRET}"), f" with the content type '\\x1b[31m[secret]', {FLAW} {NONE}"),
    "200, large": (LARGE, f" {JSON}, but the answer has more than 65536 bytes. {NONE}"),
    "200, packed": (PACKED, f" {JSON}, but the answer is compressed, which was ruled out. {NONE}"),
    "200, words": (said(200), f" {JSON}, but the answer has no access_token. {SAID} {NONE}"),
    "200, dead": (DEAD, f" {JSON}, but the answer has an access_token that has already expired. {NONE}"),
}


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize(("answer", "text"), TEXTS.values(), ids=TEXTS)
def test_what_goes_wrong_is_told_in_whole_sentences_in_a_pickle_too(server, answer, text):
    """An error about a 2xx answer carries no response, as that may hold a token."""
    server.play(answer)
    error = failure(auth_at(server))
    expected = f"POST {server.url}/api/oauth/token answered {answer.status}{text}".replace("{url}", server.url)
    kind = KINDS.get(answer.status, TokenEndpointError)
    assert (type(error), str(error)) == (kind, expected)
    assert getattr(error.response, "status_code", None) == (None if kind is TokenResponseError else answer.status)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy).get("retry_after")) == (kind, expected, vars(error).get("retry_after"))


@pytest.mark.parametrize(("status", "end"), [(400, "\n"), (403, "\N{NO-BREAK SPACE}")])
def test_a_refused_secret_that_ends_in_white_space_is_told_as_such(server, status, end):
    """It was probably read from a file. The message does not show it, and says nothing where there is no such end."""
    server.play(said(status))
    hint = " The client secret begins or ends with white space: was it copied by mistake?"
    for secret in (SECRET + end, SECRET):
        message = str(failure(auth_at(server, secret)))
        assert message.endswith(hint) == (secret != SECRET)
        assert SECRET not in message
    assert server.requests[0].json()["client_secret"] == SECRET + end


def test_the_response_of_an_error_is_like_any_other_but_for_the_secret(server):
    """Neither a part of the secret is replaced, nor what its characters would match as a pattern."""
    text = 'Straße abc a.b aXbXc a\\"b %2F + [secret'
    headers = {"Content-Type": "text/plain; charset=latin-1", "X-Text": text}
    server.play(Answer(404, text.encode("latin-1"), headers))
    response = failure(auth_at(server, "a.b.c")).response
    assert (response.url, response.reason, response.ok) == (f"{server.url}/api/oauth/token", "Not Found", False)
    assert b"".join(response.iter_content(5)) == response.content  # it can be read before `content` was
    assert (response.encoding, response.text, response.headers["x-text"]) == ("latin-1", text, text)
    assert response.elapsed.total_seconds() > 0
