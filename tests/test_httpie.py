"""The plugin for HTTPie: in itself, with a stand-in for HTTPie, and run by HTTPie where that is installed."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests
import responses

from requests_mentionme import DEMO, PRODUCTION, Environment, MentionMeAuthError
from requests_mentionme.sandbox import Sandbox

SECRET = "a-secret-of-the-tests"
CUSTOMERS = "/api/merchant/v2/customers"
IDENTIFIERS = {"identifiers": [{"type": "email", "value": "ada@example.com"}]}


@pytest.fixture
def api() -> Iterator[Sandbox]:
    """A sandbox with a secret of its own."""
    with Sandbox(client_secret=SECRET) as running:
        yield running


def test_the_package_offers_the_plugin_to_httpie() -> None:
    """HTTPie finds it by the metadata of the distribution."""
    (found,) = metadata.entry_points(group="httpie.plugins.auth.v1", name="mentionme")
    assert found.value == "requests_mentionme._httpie:MentionMePlugin"


# In itself


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin, loaded as HTTPie loads it, but upon a stand-in."""
    httpie, plugins = ModuleType("httpie"), ModuleType("httpie.plugins")
    vars(plugins)["AuthPlugin"] = type("AuthPlugin", (), {})
    monkeypatch.setitem(sys.modules, "httpie", httpie)
    monkeypatch.setitem(sys.modules, "httpie.plugins", plugins)
    spec = importlib.util.find_spec("requests_mentionme._httpie")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert issubclass(module.MentionMePlugin, vars(plugins)["AuthPlugin"])
    return module.MentionMePlugin()


def test_the_plugin_authenticates_for_the_environment_of_the_variable(
    plugin: Any, api: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And retries a 401, as the auth does everywhere."""
    monkeypatch.setenv("MENTIONME_ENVIRONMENT", api.url)
    api.fail_api_requests(status=401)
    auth = plugin.get_auth(username=api.client_id, password=SECRET)
    response = requests.post(api.url + CUSTOMERS, json=IDENTIFIERS, auth=auth)
    assert response.ok
    assert [seen.token for seen in api.requests if seen.path == CUSTOMERS] == list(api.tokens)
    assert api.token_requests == 2


@pytest.mark.parametrize("variable", [None, "", "named"], ids=["unset", "empty", "named"])
@pytest.mark.parametrize(
    ("origin", "environment"),
    [
        ("https://mention-me.com", PRODUCTION),
        ("https://api.mention-me.com", PRODUCTION),
        ("https://demo.mention-me.com", DEMO),
        ("https://api-demo.mention-me.com", DEMO),
    ],
)
def test_without_the_variable_the_environment_is_the_built_in_one_that_trusts_the_url(
    origin: str, environment: Environment, variable: str | None, plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So each origin gets a token of its own environment."""
    if variable is not None:
        monkeypatch.setenv("MENTIONME_ENVIRONMENT", variable and environment.name)
    with responses.RequestsMock() as mock:
        mock.post(environment.token_url, json={"access_token": "a-token"})
        customers = mock.post(origin + CUSTOMERS, json={})
        requests.post(origin + CUSTOMERS, auth=plugin.get_auth("an-id", SECRET))
        assert customers.calls[0].request.headers["Authorization"] == "Bearer a-token"


@pytest.mark.parametrize(
    ("variable", "url", "named"),
    [
        ("", "https://example.com/x", "https://example.com"),
        ("", "http://demo.mention-me.com/x", "http://demo.mention-me.com"),
        ("", "https://mention-me.com.example/x", "https://mention-me.com.example"),
        ("", "https://mention-me.com:8443/x", "https://mention-me.com:8443"),
        ("", "https://user:pass@mention-me.com/x", "https://***@mention-me.com"),
        ("", "http://127.0.0.1:9/x", "http://127.0.0.1:9"),
        ("demo", "https://mention-me.com/x", "https://mention-me.com"),
        ("production", "https://demo.mention-me.com/x", "https://demo.mention-me.com"),
        ("http://127.0.0.1:9", "https://demo.mention-me.com/x", "https://demo.mention-me.com"),
    ],
)
def test_any_other_origin_is_an_error_and_nothing_is_sent(
    variable: str, url: str, named: str, plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secret does not go to whatever was typed."""
    monkeypatch.setenv("MENTIONME_ENVIRONMENT", variable)
    with responses.RequestsMock() as mock:
        with pytest.raises(MentionMeAuthError) as caught:
            requests.get(url, auth=plugin.get_auth("an-id", SECRET))
        assert not mock.calls
    trusted = {
        "": "https://api-demo.mention-me.com, https://api.mention-me.com, https://demo.mention-me.com, "
        "https://mention-me.com",
        "demo": "https://api-demo.mention-me.com, https://demo.mention-me.com",
        "production": "https://api.mention-me.com, https://mention-me.com",
        "http://127.0.0.1:9": "http://127.0.0.1:9",
    }
    assert str(caught.value) == f"No token is sent to {named}, only to {trusted[variable]}."


@pytest.mark.parametrize(
    ("variable", "username", "password"),
    [("", "an-id", ""), ("", "", SECRET), ("live", "an-id", SECRET), ("https://host/path", "an-id", SECRET)],
    ids=["no secret", "no id", "no environment", "no base URL"],
)
def test_what_is_wrong_with_the_arguments_is_raised_late(
    variable: str, username: str, password: str, plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPie has a line for what is raised when the request is made, and a traceback for what is raised before."""
    monkeypatch.setenv("MENTIONME_ENVIRONMENT", variable)
    auth = plugin.get_auth(username=username, password=password)
    assert SECRET not in repr(auth)
    with responses.RequestsMock() as mock:
        with pytest.raises(ValueError, match=r"must be|is needed|ends after") as caught:
            requests.get("https://demo.mention-me.com/x", auth=auth)
        assert not mock.calls
    assert SECRET not in str(caught.value)


# Run by HTTPie


@pytest.fixture
def https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs HTTPie, which looks for no updates and remembers nothing."""
    pytest.importorskip("httpie", reason="HTTPie is not installed")
    (tmp_path / "config.json").write_text(json.dumps({"disable_update_warnings": True}), encoding="utf-8")
    monkeypatch.setenv("HTTPIE_CONFIG_DIR", str(tmp_path))

    def run(*arguments: str, credentials: str = f"sandbox-id:{SECRET}") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "httpie", "--ignore-stdin", "--auth-type=mentionme", "-a", credentials]
        finished = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert SECRET not in finished.stdout + finished.stderr
        return finished

    return run


def test_httpie_gets_a_token_and_an_answer(https: Any, api: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """One token request, one request with the token."""
    monkeypatch.setenv("MENTIONME_ENVIRONMENT", api.url)
    finished = https("POST", api.url + CUSTOMERS, f"identifiers:={json.dumps(IDENTIFIERS['identifiers'])}")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert json.loads(finished.stdout)["data"][0]["email"] == "ada@example.com"
    assert [(seen.path, seen.token) for seen in api.requests] == [("/api/oauth/token", None), (CUSTOMERS, *api.tokens)]


def test_httpie_sees_the_answer_to_the_retry_of_a_401(
    https: Any, api: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the body sent again, and a new token."""
    monkeypatch.setenv("MENTIONME_ENVIRONMENT", api.url)
    api.fail_api_requests(status=401, headers={"Set-Cookie": "seen=1"})
    finished = https(
        "--check-status",
        "--headers",
        "POST",
        api.url + CUSTOMERS,
        f"identifiers:={json.dumps(IDENTIFIERS['identifiers'])}",
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("HTTP/1.1 200 ")
    refused, retried = (seen for seen in api.requests if seen.path == CUSTOMERS)
    assert (refused.status, retried.status) == (401, 200)
    assert json.loads(refused.body) == json.loads(retried.body) == IDENTIFIERS
    assert (refused.token, retried.token) == api.tokens
    assert retried.headers["cookie"] == "seen=1"


@pytest.mark.parametrize("variable", ["api", "unset"])
def test_httpie_sends_nothing_to_a_foreign_origin(
    variable: str, https: Any, api: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the request there nor a token request here, and says why."""
    if variable == "api":
        monkeypatch.setenv("MENTIONME_ENVIRONMENT", api.url)
    with Sandbox(client_secret=SECRET) as foreign:
        finished = https("POST", foreign.url + CUSTOMERS, "a=b")
        assert (api.connections, foreign.connections) == (0, 0)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert f"error: MentionMeAuthError: No token is sent to {foreign.url}, only to " in " ".join(
        finished.stderr.split()
    )
    assert "Traceback" not in finished.stderr


def test_a_redirect_takes_no_token_to_a_foreign_origin(
    https: Any, api: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even after a 401 from there."""
    monkeypatch.setenv("MENTIONME_ENVIRONMENT", api.url)
    with Sandbox(client_secret=SECRET) as foreign:
        api.fail_api_requests(status=307, headers={"Location": foreign.url + CUSTOMERS})
        finished = https("--follow", "--headers", "POST", api.url + CUSTOMERS, "a=b")
        assert [(seen.path, seen.token, seen.status) for seen in foreign.requests] == [(CUSTOMERS, None, 401)]
    assert finished.stdout.startswith("HTTP/1.1 401 ")
    assert api.token_requests == 1


def test_httpie_tells_that_the_credentials_were_refused(
    https: Any, api: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the API is not asked."""
    monkeypatch.setenv("MENTIONME_ENVIRONMENT", api.url)
    finished = https("POST", api.url + CUSTOMERS, credentials=f"stranger:{SECRET}")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert "error: InvalidClientError: " in finished.stderr
    assert "Traceback" not in finished.stderr
    assert api.api_requests == 0


@pytest.mark.parametrize("options", [["--verbose"], ["--debug"]], ids=lambda options: options[0])
def test_what_httpie_shows_of_a_request_is_the_token_and_not_the_secret(
    options: list[str], https: Any, api: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It prints the headers, the token among them, before they are sent; the token request it does not know."""
    monkeypatch.setenv("MENTIONME_ENVIRONMENT", api.url)
    finished = https(*options, "--verbose", "POST", api.url + CUSTOMERS, "a=b")
    assert finished.returncode == 0
    assert f"Authorization: Bearer {api.tokens[0]}" in finished.stdout


@pytest.mark.parametrize(
    ("credentials", "message"),
    [
        ("sandbox-id", "Unable to prompt for passwords because --ignore-stdin is set."),
        ("sandbox-id:", "client_secret must be a non-empty string"),
        (f":{SECRET}", "client_id must be a non-empty string"),
    ],
    ids=["nothing to prompt from", "no secret", "no id"],
)
def test_credentials_that_are_missing_are_an_error(
    credentials: str, message: str, https: Any, api: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a line, and nothing is sent. At a terminal, HTTPie asks for a secret that was left out."""
    monkeypatch.setenv("MENTIONME_ENVIRONMENT", api.url)
    finished = https("POST", api.url + CUSTOMERS, credentials=credentials)
    assert finished.returncode == 1
    assert message in " ".join(finished.stderr.split())
    assert "Traceback" not in finished.stderr
    assert api.connections == 0


def test_a_variable_that_names_no_environment_is_an_error(
    https: Any, api: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a line, too."""
    monkeypatch.setenv("MENTIONME_ENVIRONMENT", "live")
    finished = https("POST", api.url + CUSTOMERS)
    assert finished.returncode == 1
    assert "error: ValueError: environment must be " in finished.stderr
    assert "Traceback" not in finished.stderr
    assert api.connections == 0
