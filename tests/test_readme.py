"""The README's Python examples are run as they stand, one after the other, as a reader would paste them."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import requests
import responses
from loopback import Answer, Loopback, make_jwt

import requests_mentionme

README = Path(__file__).parent.parent / "README.md"
DEMO = "https://demo.mention-me.com"


def python_blocks() -> list[str]:
    """Return the README's Python examples, in order."""
    return re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_examples_run_as_they_stand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each example may use what those before it have defined; demo.mention-me.com is played, the sandbox is real."""
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks()
    assert len(blocks) >= 9
    namespace: dict[str, Any] = {}
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.add_passthru("http://127.0.0.1")
        token = {"access_token": make_jwt(), "token_type": "bearer", "expires_in": 3600}
        mock.post(f"{DEMO}/api/oauth/token", json=token)
        mock.post(f"{DEMO}/api/merchant/v2/customers", json={"data": [], "errors": []})
        mock.get(f"{DEMO}/api/merchant/v2/coupons/validate/SAMPLE", json={"validityResponseCode": "NOT_FOUND"})
        for number, block in enumerate(blocks, 1):
            exec(compile(block, f"README.md, example {number}", "exec"), namespace)  # noqa: S102 - our own README
        assert namespace["customers_of"](["ada@example.com"]) == {"data": [], "errors": []}
        assert namespace["auth"].access_token() == token["access_token"]
        namespace["session"].close()
    assert namespace["response"].status_code == 200
    assert namespace["token"] == token["access_token"]
    assert capsys.readouterr().out == "", "no error was met"


def with_the_recipe_for_rate_limits(session: requests.Session) -> None:
    """Have *session* use the adapter of the README's recipe for any URL."""
    (recipe,) = [block for block in python_blocks() if "class MentionMeRetry" in block]
    exec(compile(recipe, "README.md", "exec"), {"session": session})  # noqa: S102 - our own README
    session.mount("http://", session.get_adapter(f"{DEMO}/api"))


def test_the_recipe_for_rate_limits_waits_as_long_as_the_api_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A POST that got a 429 is sent again after X-RateLimit-Reset, or Retry-After where that is given."""
    waits: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waits.append)
    spent = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "17"}
    script = Answer(429, headers=spent), Answer(429, headers={**spent, "Retry-After": "3"}), Answer(body=b"{}")
    with Loopback(*script) as api, requests.Session() as session:
        with_the_recipe_for_rate_limits(session)
        assert session.post(f"{api.url}/api", json={"a": 1}, timeout=5).status_code == 200
        assert [request.json() for request in api.requests] == [{"a": 1}] * 3
    assert waits == [17, 3]


def test_the_recipe_for_rate_limits_repeats_nothing_that_may_have_been_done() -> None:
    """A POST or DELETE whose answer got lost is the caller's to repeat, or not."""
    with Loopback(Answer(fault="close")) as api, requests.Session() as session:
        with_the_recipe_for_rate_limits(session)
        with pytest.raises(requests.ConnectionError):
            session.delete(f"{api.url}/api", timeout=5)
        assert len(api.requests) == 1


def test_the_readme_names_each_option_and_error() -> None:
    """Its tables and text do not lag behind the signature."""
    text = README.read_text(encoding="utf-8")
    options = [
        name
        for name, parameter in inspect.signature(requests_mentionme.MentionMeAuth).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    assert options
    for name in [*options, "InvalidClientError", "TokenEndpointError", "TokenResponseError", "from_env"]:
        assert re.search(rf"\b{name}\b", text), name
