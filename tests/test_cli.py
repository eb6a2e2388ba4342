"""The command line: what it prints, where, with which exit status, and what it never does."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st
from loopback import Answer, Loopback, make_jwt, token_answer

from requests_mentionme import MentionMeAuth, _cli
from requests_mentionme.__main__ import main
from requests_mentionme._version import __version__
from requests_mentionme.sandbox import Sandbox

SECRET = "a-secret-of-the-tests"
PATIENCE = 30.0
COMMAND = [sys.executable, "-m", "requests_mentionme"]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A sandbox that the environment variables lead to."""
    with Sandbox(client_secret=SECRET) as running:
        lead_to(monkeypatch, running.url)
        yield running


def lead_to(monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    """Set the three variables."""
    for name, value in {"CLIENT_ID": "sandbox-id", "CLIENT_SECRET": SECRET, "ENVIRONMENT": environment}.items():
        monkeypatch.setenv(f"MENTIONME_{name}", value)


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": PATIENCE} | options
    return subprocess.run([*COMMAND, *arguments], text=True, check=False, **options)


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command beside the test; it and what it started is killed at the end, or when it takes too long."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        too_long = threading.Timer(PATIENCE, os.killpg, (process.pid, signal.SIGKILL))
        too_long.start()
        try:
            yield process
        finally:
            too_long.cancel()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def facts_of(payload: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what `whoami --json` prints where a token holds *payload*."""
    with Loopback(token_answer(make_jwt(**payload))) as server:
        lead_to(monkeypatch, server.url)
        assert main(["whoami", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def one_line(printed: Any) -> str:
    """Return the error that was printed, after a check that it is one line, on stderr, and holds no secret."""
    assert printed.out == ""
    assert SECRET not in printed.err
    assert re.fullmatch(r"requests-mentionme: [^\n]+\n", printed.err)
    return str(printed.err)


# token


def test_token_prints_the_access_token_alone(api: Sandbox) -> None:
    """It is fit for `$(...)`."""
    finished = run("token")
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, f"{api.tokens[0]}\n", "")


@pytest.mark.parametrize("command", ["token", "whoami"])
def test_an_environment_given_takes_the_place_of_the_variable(
    command: str, api: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even where the variable is none."""
    monkeypatch.setenv("MENTIONME_ENVIRONMENT", "nowhere")
    assert main([command, "--environment", api.url]) == 0
    assert capsys.readouterr().err == ""
    assert api.token_requests == 1


def test_warnings_of_the_library_do_not_show_on_stderr() -> None:
    """It logs them for programs that run on; a command tells in its one line what matters."""
    warn = "lambda _: logging.getLogger('requests_mentionme').warning('clutter') or 0"
    script = f"import logging; from requests_mentionme import __main__ as cli; cli.token = {warn}; cli.main(['token'])"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=PATIENCE, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, b"", b"")


# whoami


def test_whoami_tells_one_fact_on_each_line(api: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    """Names on the left, facts on the right."""
    assert main(["whoami"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    pattern = (
        r"environment  demo\n"
        r"merchant     4259\n"
        r"scopes       customers:read customers:write customers:delete rewards:read\n"
        r"issued       \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00\n"
        r"expires in   (3600|35\d\d) s\n"
    )
    assert re.fullmatch(pattern, printed.out)
    assert api.api_requests == 0


def test_whoami_tells_a_machine_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object, with numbers for numbers."""
    payload = {"claims": {"env": "demo", "merchantId": 4259}, "scope": "a b", "iat": 1.7e9, "exp": time.time() + 600}
    facts = facts_of(payload, monkeypatch, capsys)
    assert 500 < facts.pop("expires_in") <= 600
    assert facts == {
        "environment": "demo",
        "merchant": 4259,
        "scopes": ["a", "b"],
        "issued": "2023-11-14 22:13:20+00:00",
    }


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"scope": "a b"}, {"scopes": ["a", "b"]}),
        ({"scope": ["a", "b"]}, {"scopes": ["a", "b"]}),
        ({"claims": {"scope": "a b"}}, {"scopes": ["a", "b"]}),
        ({"claims": {"scope": ["a", "b"]}}, {"scopes": ["a", "b"]}),
        ({"scope": ""}, {"scopes": []}),
        ({"scope": 7}, {"scopes": 7}),
        ({"claims": {"merchantId": "4259"}}, {"merchant": "4259"}),
        ({"claims": {"merchantId": 4259}}, {"merchant": 4259}),
        ({"env": "demo", "merchantId": 4259}, {"environment": "demo", "merchant": 4259}),
        ({"claims": {"env": "live", "other": None}}, {"environment": "live"}),
        ({"claims": ["env"]}, {}),
        ({"claims": "demo"}, {}),
        ({"iat": "1700000000"}, {"issued": "2023-11-14 22:13:20+00:00"}),
        ({"iat": 0}, {"issued": "1970-01-01 00:00:00+00:00"}),
        ({"iat": "today"}, {}),
        ({"iat": True}, {}),
        ({"iat": 1e11 * 365}, {}),
        ({"iat": -1e300}, {}),
        ({"exp": "soon"}, {}),
        ({}, {}),
    ],
    ids=repr,
)
def test_whoami_takes_claims_of_any_form(
    payload: dict[str, Any],
    expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is missing or makes no sense is null, and hides nothing else."""
    unknown = dict.fromkeys(("environment", "merchant", "scopes", "issued", "expires_in"))
    assert facts_of(payload, monkeypatch, capsys) == unknown | expected


def test_whoami_takes_an_expiry_by_another_clock(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That it is past is a fact as well; a diagnosis needs it."""
    facts = facts_of({"iat": time.time() - 7200, "exp": str(time.time() - 3600)}, monkeypatch, capsys)
    assert -3700 < facts["expires_in"] <= -3600


def test_whoami_knows_nothing_of_a_token_that_is_no_jwt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is no error: such a token works."""
    with Loopback(token_answer("opaque")) as server:
        lead_to(monkeypatch, server.url)
        assert main(["whoami"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[13:] for line in lines] == ["unknown"] * 5


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMES = ("env", "merchantId", "scope", "iat", "exp")
CLAIMS = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, JSON))


@settings(max_examples=50, deadline=None)
@given(CLAIMS, CLAIMS | JSON)
@example({"scope": ["a", "\x1b[2J"]}, {"env": "demo\nmerchant 1", "merchantId": "\N{RIGHT-TO-LEFT OVERRIDE}"})
def test_whatever_the_claims_hold_each_fact_is_one_line_of_plain_text(outer: dict[str, Any], inner: Any) -> None:
    """A server can neither break out of a line nor reach the terminal, nor make the command fail."""
    facts = _cli._facts({**outer, "claims": inner})
    assert list(facts) == ["environment", "merchant", "scopes", "issued", "expires_in"]
    json.dumps(facts)
    for fact in facts.values():
        assert re.fullmatch(r"[ -~]*", _cli._shown(fact))


# sandbox


@pytest.mark.parametrize(
    ("interruption", "before"),
    [(signal.SIGTERM, ""), (signal.SIGINT, ""), (signal.SIGINT, "trap '' INT;")],
    ids=["SIGTERM", "SIGINT", "SIGINT in a background job"],
)
def test_sandbox_serves_until_interrupted(
    interruption: signal.Signals, before: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints the variables, lets go of stdout, serves the other commands, and succeeds."""
    with running("/bin/sh", "-c", f'{before} exec "$@"', "sh", *COMMAND, "sandbox", "--lifetime", "50") as process:
        assert process.stdout
        assert process.stderr
        exports = re.fullmatch(r"(?:export MENTIONME_\w+=[\w:/.-]+\n){3}", process.stdout.read())
        assert exports
        for line in exports[0].splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            monkeypatch.setenv(name, value)
        assert os.environ["MENTIONME_ENVIRONMENT"].startswith("http://127.0.0.1:")
        assert main(["whoami", "--json"]) == 0
        assert 0 < json.loads(capsys.readouterr().out)["expires_in"] <= 50
        process.send_signal(interruption)
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == ""


def test_a_shell_can_evaluate_what_sandbox_prints() -> None:
    """The sandbox goes on in the background while the shell goes on with the next command."""
    script = 'eval "$("$@" sandbox & echo pid=$! )"; trap \'kill "$pid"\' EXIT; "$@" token'
    with running("/bin/sh", "-c", script, "sh", *COMMAND) as process:
        out, err = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == 0
    assert re.fullmatch(r"eyJ[\w.-]+\n", out)
    assert err == ""


def test_sandbox_takes_the_port_that_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    """Here one that is taken, which is told."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["sandbox", "--port", str(taken.getsockname()[1])]) == 1
    assert "in use" in one_line(capsys.readouterr())


# What goes wrong


@pytest.mark.parametrize("command", ["token", "whoami"])
def test_refused_credentials_are_one_line_and_status_1(
    command: str, api: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line says what the server said."""
    monkeypatch.setenv("MENTIONME_CLIENT_ID", "stranger")
    assert main([command]) == 1
    assert "answered 401, 'Unknown client or wrong secret.'" in one_line(capsys.readouterr())
    assert api.token_requests == 1


@pytest.mark.parametrize(
    ("environment", "statuses"),
    [("http://127.0.0.1:9", (1,)), ("https://a..b", (1, 2))],
    ids=["no server", "a host name that is none"],
)
def test_a_fault_of_the_network_is_one_line(
    environment: str, statuses: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the libraries below make of it: some versions have the second pass as a bare `ValueError`."""
    monkeypatch.setattr("requests_mentionme._endpoint.time.sleep", lambda _: None)
    lead_to(monkeypatch, environment)
    assert main(["token"]) in statuses
    one_line(capsys.readouterr())


def test_a_missing_ca_bundle_is_one_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is an `OSError`, and none of those that `requests` has for itself."""
    lead_to(monkeypatch, "https://localhost:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem")
    assert main(["token"]) == 1
    assert "/nowhere/bundle.pem" in one_line(capsys.readouterr())


@pytest.mark.parametrize(
    ("error", "status"),
    [(requests.RequestException, 1), (requests.exceptions.InvalidURL, 1), (ValueError, 2)],
    ids=["of requests", "of requests and a ValueError", "ValueError"],
)
@pytest.mark.usefixtures("api")
def test_an_error_of_many_lines_is_told_in_one(
    error: type[Exception], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that it stays one line of a log."""

    def fail(_: MentionMeAuth) -> str:
        raise error("one\ntwo\r\n  three")

    monkeypatch.setattr(MentionMeAuth, "access_token", fail)
    assert main(["token"]) == status
    assert one_line(capsys.readouterr()) == "requests-mentionme: one two three\n"


@pytest.mark.parametrize("command", ["token", "whoami"])
@pytest.mark.parametrize("missing", ["MENTIONME_CLIENT_ID", "MENTIONME_CLIENT_SECRET"])
def test_a_missing_variable_is_named_and_status_2(
    missing: str, command: str, api: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no other way to pass credentials."""
    monkeypatch.delenv(missing)
    assert main([command]) == 2
    assert missing in one_line(capsys.readouterr())
    assert api.token_requests == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["token", "--environment", ""],
        ["whoami", "--environment", "live"],
        ["token", "--environment", f"https://user:{SECRET}@host.example"],
        ["sandbox", "--port", "65536"],
        ["sandbox", "--lifetime", "0"],
        ["sandbox", "--lifetime", "nan"],
    ],
    ids=lambda arguments: " ".join(arguments).replace(SECRET, "***"),
)
def test_a_value_out_of_range_is_one_line_and_status_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The value of a variable is no different: see `--environment`."""
    lead_to(monkeypatch, "demo")
    assert main(arguments) == 2
    one_line(capsys.readouterr())


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["demo", "--fast"],
        ["token", "--json"],
        ["token", "--env", "demo"],
        ["whoami", "id:secret"],
        ["sandbox", "--port", "any"],
    ],
    ids=["none", "unknown", "unknown option", "option of another", "abbreviation", "credentials", "no number"],
)
def test_a_wrong_call_is_status_2_and_usage_on_stderr(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As argparse has it."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("usage: requests-mentionme")


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Have new processes heed SIGINT, even where the tests run in a background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_is_status_130_and_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here in the middle of a token request."""
    with Loopback(Answer(fault="hang", within="nothing")) as server:
        lead_to(monkeypatch, server.url)
        with subprocess.Popen(
            [*COMMAND, "token"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert server.until(lambda: bool(server.requests))
            process.send_signal(signal.SIGINT)
            printed = process.communicate(timeout=PATIENCE)
    assert (process.returncode, printed) == (130, ("", ""))


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("command", ["token", "whoami", "--help", "sandbox"])
def test_a_reader_who_has_left_is_no_reason_to_complain(
    command: str, unbuffered: str, api: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `requests-mentionme ... | true`, where nobody sees the status either."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        finished = run(command, stdout=writer)
    finally:
        os.close(writer)
    assert finished.stderr == ""
    # argparse forgives what it could not print itself.
    assert finished.returncode in ((0, 1) if command == "--help" else (1,))
    assert api.token_requests == (command in ("token", "whoami"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_is_one_line_and_status_1(api: Sandbox) -> None:
    """A token that was not written is not there."""
    with Path("/dev/full").open("wb") as full:
        finished = run("token", stdout=full)
    assert (finished.returncode, finished.stderr) == (1, "requests-mentionme: [Errno 28] No space left on device\n")
    assert api.token_requests == 1


def test_leaving_a_stdout_that_is_none_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python has it where it was closed from the start."""
    monkeypatch.setattr(sys, "stdout", None)
    _cli.leave_stdout()


# The rest


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout."""
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert not ended.value.code
    assert capsys.readouterr().out == f"requests-mentionme {__version__}\n"
