"""The README as its readers use it: examples are run as they stand, and what it quotes is really said."""

import asyncio
import contextlib
import logging
import re
import ssl
import time
from functools import partial
from pathlib import Path

import pytest
import requests
import responses
import trustme
from in_memory import STALE, TokenEndpoint, auth_with
from loopback import Answer, Loopback

from requests_mentionme import DEMO, PRODUCTION, MentionMeAuth, MentionMeAuthError
from requests_mentionme.sandbox import Sandbox

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
COUPON = f"{DEMO.base_url}/api/merchant/v2/coupons/validate/SAMPLE"
CUSTOMERS = "/api/merchant/v2/customers"
IDENTIFIERS = {"identifiers": [{"type": "email", "value": "ada@example.com"}]}
demo_auth = partial(MentionMeAuth, "client-id", "client-secret", environment="demo")


def blocks(language, mention=""):
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [block for block in found if mention in block]


def run(block, names):
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - our own README
    return names


@pytest.fixture
def demo():
    """The demo environment in memory. It gives one token and then another one, and knows one customer."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.add_passthru(re.compile(r"https?://(127\.0\.0\.1|localhost):"))
        for value in ("token-1", "token-2"):
            mock.post(DEMO.token_url, json={"access_token": value, "token_type": "bearer", "expires_in": 3600})
        mock.post(DEMO.base_url + CUSTOMERS, json={"data": ["Ada"]})
        yield mock


@pytest.fixture
def sandbox():
    with Sandbox(rate_limit=1, rate_window=5) as running:
        yield running


@pytest.fixture
def log(caplog, monkeypatch):
    """All records of level INFO and up. What an example sets up for logging is undone afterwards."""
    caplog.set_level(logging.INFO, logger="requests_mentionme")
    monkeypatch.setattr(logging.root, "handlers", [caplog.handler])
    return caplog


def test_the_examples_run_one_after_the_other_as_a_reader_would_paste_them(demo, log, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    logging.root.handlers.clear()  # so that the example for logging finds none, as a reader's does
    httpx = blocks("python", "import httpx")  # which has a test of its own
    names = run("".join(example for example in blocks("python") if example not in httpx), {})
    printed = capsys.readouterr()
    assert printed.out == '200 {"data": ["Ada"]}\n', "no error was met"
    assert re.search(r"(?m)^\S+ \S+ INFO requests_mentionme: Token obtained: demo, 3600 s to live$", printed.err)
    assert names["auth"].access_token() == "token-2"
    names["start_worker"]()
    assert names["worker_auth"].environment == DEMO
    with Sandbox(rate_limit=3) as sandbox:
        names["test_a_revoked_token_is_replaced"](sandbox)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}, "for its owner alone"


@pytest.mark.parametrize("language", ["python", "sh"])
def test_the_examples_for_proxies_and_certificates_reach_the_token_request_too(language, demo, monkeypatch):
    (example,) = blocks(language, "proxy.example")
    for name, value in re.findall(r"^export (\w+)=(.*)$", example, re.MULTILINE):
        monkeypatch.setenv(name, value)
    names = {"requests": requests, "MentionMeAuth": MentionMeAuth, "session": requests.Session()}
    session = run(example if language == "python" else "", names)["session"]
    session.post(DEMO.base_url + CUSTOMERS, auth=session.auth or demo_auth())
    assert [call.request.url for call in demo.calls] == [DEMO.token_url, DEMO.base_url + CUSTOMERS]
    certificate = "/etc/ssl/client.pem" if language == "python" else None
    for sent_with in [call.request.req_kwargs for call in demo.calls]:
        settings = (sent_with["proxies"]["https"], sent_with["verify"], sent_with["cert"])
        assert settings == ("http://proxy.example:8080", "/etc/ssl/company-ca.pem", certificate)


def test_the_async_example_heals_a_401_and_shows_no_other_host_the_token(auth, sandbox):
    pytest.importorskip("httpx", reason="httpx is not installed")
    names = run(*blocks("python", "import httpx"), {"auth": auth})
    auth.access_token()
    sandbox.revoke()

    async def post():
        async with names["client"] as client:
            return await client.post(CUSTOMERS, json=IDENTIFIERS)

    assert asyncio.run(post()).status_code == 200
    assert (sandbox.rejections, sandbox.token_requests) == (1, 2)
    names["auth"] = demo_auth()
    with pytest.raises(ValueError, match="must not see a token"):
        asyncio.run(anext(names["HttpxAuth"]().async_auth_flow(names["httpx"].Request("GET", sandbox.url))))


@pytest.fixture
def waits(monkeypatch):
    """The waits, which only set the clock forward."""
    noted = []
    real_time = time.time
    monkeypatch.setattr(time, "time", lambda: real_time() + sum(noted))
    monkeypatch.setattr(time, "sleep", noted.append)
    return noted


@pytest.fixture
def post(sandbox, auth, waits):
    with run(*blocks("python", "RateLimitRetry"), {"requests": requests, "auth": auth})["session"] as session:
        yield lambda: session.post(sandbox.url + CUSTOMERS, json=IDENTIFIERS).status_code


def test_the_recipe_for_rate_limits_warns_and_sends_a_request_up_to_three_times_again(post, sandbox, waits, log):
    """When the window is over, as the API asks for, in 1 to 300 s."""
    assert [post(), post(), sandbox.api_requests, len(waits)] == [200, 200, 3, 1]
    assert text(log).endswith(f"WARNING 429 from Mention Me: waiting for {waits[0]} s\n")
    for reset in ("17", "1767268800", "", "7", "0"):  # the fourth is returned
        sandbox.fail_api_requests(status=429, headers={"X-RateLimit-Reset": reset})
    sandbox.fail_api_requests(status=429, headers={"X-RateLimit-Reset": "17", "Retry-After": "3"})
    assert [post(), post(), waits[1:]] == [429, 200, [17, 300, 60, 1, 3]]


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 413}, {"reset": True}, {"garbage": True}], ids=str)
def test_the_recipe_for_rate_limits_repeats_nothing_but_a_429(post, waits, sandbox, fault):
    sandbox.fail_api_requests(**fault, headers={"Retry-After": "1"} if "status" in fault else None)
    with contextlib.suppress(requests.ConnectionError):
        assert post() == fault["status"]
    assert (sandbox.api_requests, waits) == (1, [])


def text(log):
    return "".join(f"{record.levelname} {record.message}\n" for record in log.records)


def error_of(call, *args, **kwargs):
    with pytest.raises(requests.RequestException) as caught:
        call(*args, **kwargs)
    return f"{caught.type.__name__}: {caught.value}"


def troubles(demo, waits):
    """Bring about what each row of "Troubleshooting" describes, in its order; yield what is raised, if anything."""
    demo.get(COUPON, status=401)
    for auth in (first := demo_auth(), first, demo_auth()):  # the last one gets the same token each time
        requests.get(COUPON, auth=auth)
    yield ""
    demo.replace(responses.GET, COUPON, status=403)
    assert requests.get(COUPON, auth=demo_auth()).status_code == 403
    yield ""
    demo.post(PRODUCTION.token_url, status=401)
    yield error_of(MentionMeAuth("client-id", "client-secret").access_token)
    for status in (403, 200):
        demo.replace(responses.POST, DEMO.token_url, status=status, body="<html>", content_type="text/html")
        yield error_of(demo_auth().access_token)
    yield error_of(requests.get, "https://mention-me.com/", auth=demo_auth())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(tls)
    with Loopback(Answer(), tls=tls) as server:
        error = error_of(MentionMeAuth("client-id", "client-secret", environment=server.url).access_token)
    stale = auth_with(TokenEndpoint("a-token", requests.exceptions.SSLError(error)))
    stale.access_token()
    waits.append(STALE)
    stale.access_token()
    yield error
    demo.replace(responses.GET, COUPON, status=401)
    demo.get(COUPON)
    assert [past.status_code for past in requests.get(COUPON, auth=auth_with(TokenEndpoint())).history] == [401]
    yield ""
    yield error_of(requests.Request("GET", server.url, auth=MentionMeAuth("a", "b", environment=server.url)).prepare)


def rows(section):
    """Return the cells of the table in a section, row by row, without its head."""
    (text,) = re.findall(rf"^## {section}\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    return [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")][2:]


def is_said(quote, said):
    """Return whether a line of *said* holds the quote, in which an ellipsis stands for anything."""
    return re.search(".*".join(map(re.escape, re.split(r" ?… ?", quote))), said) is not None


def test_what_troubleshooting_and_logging_quote_is_really_said(demo, log, waits):
    """A quote is what stands in backticks and has a space, in what one sees and in the log line."""
    heard = ""
    for (seen, logged, *_), error in zip(rows("Troubleshooting"), troubles(demo, waits), strict=True):
        said = text(log) + error
        for level, quote in re.findall(r"(WARNING |INFO |)`([^`]+)`", seen + logged):
            assert " " not in quote or is_said(level + quote, said), said
        assert "none" not in logged or "WARNING" not in said
        heard += said + "\n"
        log.clear()
    store = {}
    for _ in range(2):
        auth_with(TokenEndpoint(), store=store).access_token()
    store.update(dict.fromkeys(store, "rubbish"))
    auth_with(TokenEndpoint(), store=store).access_token()
    demo.replace(responses.GET, COUPON, status=401)
    requests.get(COUPON, data=iter([b"a"]), auth=auth_with(TokenEndpoint("a-token", requests.exceptions.SSLError())))
    for level, quotes in rows("Logging"):
        for quote in re.findall(r"`([^`]+)`", quotes):
            assert is_said(f"{level.strip()} {quote}", heard + text(log)), quote


def test_the_readme_names_each_option_and_error():
    options = MentionMeAuth.__init__.__kwdefaults__
    errors = [kind.__name__ for kind in MentionMeAuthError.__subclasses__()]
    assert [name for name in [*options, *errors] if not re.search(rf"\b{name}\b", README)] == []
