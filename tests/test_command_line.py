"""The command line: what it prints, where, with which exit status, and what it never does."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, redirect_stdout, suppress
from io import BytesIO, TextIOWrapper
from unittest.mock import Mock

import pytest
import requests
from loopback import Answer, Loopback

from requests_mentionme import MentionMeAuth, __version__
from requests_mentionme._cli import main  # what the script `requests-mentionme` runs
from requests_mentionme.sandbox import Sandbox

SECRET = "a-secret-of-the-tests"
NAMES = ("environment", "merchant", "scopes", "issued")  # of the facts of whoami, beside the rest of life
DEAD = "http://127.0.0.1:9"  # nobody listens here
PATIENCE = 30.0  # seconds after which a process has failed
COMMAND = [sys.executable, "-m", "requests_mentionme"]
RUN = '"$1" -m requests_mentionme sandbox -- "$@"'
EVALUATE = 'eval "$("$1" -m requests_mentionme sandbox & echo pid=$! )"; "$@"; kill "$pid"'
STREAMS = 'cat; echo $MENTIONME_CLIENT_ID "$0" "$@"; yes | head -n 1; echo told >&2'
REFUSAL = "requests-mentionme: {} can't be started: {}\n"
# Prints its parent's number, its sandbox, and each signal. SIGTERM ends it, with 40 + the number of other signals.
HEEDFUL = """import os, signal, sys
heeded = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
print(os.getppid(), os.environ["MENTIONME_ENVIRONMENT"], flush=True)
for status in range(40, 50):
    number = signal.sigwait(heeded)
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM: break
sys.stdin.read()
sys.exit(status)"""


@pytest.fixture(autouse=True)
def api(monkeypatch):
    """A sandbox that the environment variables lead to. In this process, nobody waits between two tries."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with Sandbox(client_secret=SECRET) as running:
        monkeypatch.setenv("MENTIONME_CLIENT_ID", "sandbox-id")
        monkeypatch.setenv("MENTIONME_CLIENT_SECRET", SECRET)
        monkeypatch.setenv("MENTIONME_ENVIRONMENT", running.url)
        yield running


def run(*arguments, redirection="", **options):
    """Run the command line as a background job of a shell, which ignores SIGINT; return its status and outputs."""
    command = ["/bin/sh", "-c", f"""trap '' INT; exec "$@" {redirection}""", "sh", *COMMAND, *arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    finished = subprocess.run(command, text=True, timeout=PATIENCE, check=False, **options)
    return finished.returncode, finished.stdout, finished.stderr


@contextmanager
def running(*command):
    """Run a command beside the test; it and what it started is killed at the end, or when it takes too long."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes, text=True, start_new_session=True) as process:
        too_long = threading.Timer(PATIENCE, os.killpg, (process.pid, signal.SIGKILL))
        too_long.start()
        try:
            yield process
        finally:
            too_long.cancel()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def one_line(printed):
    """Return the error that was printed, after a check that it is one line, on stderr, and holds no secret."""
    assert (printed.out, SECRET in printed.err) == ("", False)
    assert re.fullmatch(r"requests-mentionme: [^\n]+\n", printed.err)
    return printed.err


def test_whoami_tells_one_fact_on_each_line(api, clock, monkeypatch, capsys):
    """The server told a lifetime, of which 20 s are over. By this clock, the claim `exp` is past."""
    claims = MentionMeAuth.claims
    monkeypatch.setattr(MentionMeAuth, "claims", lambda auth: claims(auth) | {"exp": 0, "late": clock.tick(20)})
    monkeypatch.setenv("MENTIONME_ENVIRONMENT", "nowhere")  # the option takes its place
    assert main(["whoami", "--environment", api.url]) == 0
    expected = (
        "environment  demo\n"
        "merchant     4259\n"
        "scopes       customers:read customers:write customers:delete rewards:read\n"
        "issued       2026-01-01 12:00:00+00:00\n"
        "expires in   3580 s\n"
    )
    assert (*capsys.readouterr(), api.token_requests, api.api_requests) == (expected, "", 1, 0)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"scope": "a b", "env": {"a": [None]}}, {"scopes": ["a", "b"], "environment": {"a": [None]}}),
        ({"scope": ["a", "\x1b[2J"], "iat": 0}, {"scopes": ["a", "\x1b[2J"], "issued": "1970-01-01 00:00:00+00:00"}),
        ({"scope": 1.5, "merchantId": 4259, "claims": ["env"]}, {"scopes": 1.5, "merchant": 4259}),
        ({"claims": {"scope": "", "env": "demo", "x": 1}, "env": "live"}, {"scopes": [], "environment": "live"}),
        ({"claims": {"merchantId": "7"}, "env": "demo\nscopes x"}, {"merchant": "7", "environment": "demo\nscopes x"}),
        ({"iat": "1700000000", "merchantId": "\u202e"}, {"issued": "2023-11-14 22:13:20+00:00", "merchant": "\u202e"}),
        *(({"iat": odd}, {}) for odd in ("today", 1e11 * 365, -1e300, 10**400)),
        ({}, {}),  # no JWT
    ],
    ids=ascii,
)
def test_whoami_takes_claims_of_any_form(claims, expected, clock, monkeypatch, capsys):
    """A server can neither break out of a line nor reach the terminal. What makes no sense is null."""
    monkeypatch.setattr(MentionMeAuth, "claims", lambda _: claims)
    assert main(["whoami"]) == 0
    assert re.fullmatch("".join(rf"{name:11}  [ -~]*\n" for name in (*NAMES, "expires in")), capsys.readouterr().out)
    assert main(["whoami", "--json"]) == 0
    assert re.fullmatch(r"[ -~]+\n", printed := capsys.readouterr().out)
    assert json.loads(printed) == dict.fromkeys(NAMES) | expected | {"expires_in": 3600}


@pytest.mark.parametrize(("interruption", "before"), [(signal.SIGTERM, ""), (signal.SIGINT, "trap '' INT;")])
def test_sandbox_serves_until_interrupted(interruption, before, monkeypatch, capsys):
    """It prints the variables, and lets go of stdout. A background job ignores SIGINT."""
    with running("/bin/sh", "-c", f'{before} exec "$@"', "sh", *COMMAND, "sandbox", "--lifetime", "50") as process:
        exports = re.fullmatch(r"(?:export MENTIONME_\w+=[\w:/.-]+\n){3}", process.stdout.read())
        for name, value in re.findall("export (.*)=(.*)", exports[0]):
            monkeypatch.setenv(name, value)
        assert main(["whoami", "--json"]) == 0
        assert 0 < json.loads(capsys.readouterr().out)["expires_in"] <= 50
        process.send_signal(interruption)
        assert (process.wait(PATIENCE), process.stderr.read()) == (0, "")


@pytest.mark.parametrize(
    ("script", "before", "after"), [(RUN, "", "127.0.0.1"), (RUN, "*", "*"), (EVALUATE, "a, b;", "a, b;,127.0.0.1")]
)
def test_a_program_finds_its_sandbox_despite_a_proxy(script, before, after, monkeypatch):
    """Both spellings of NO_PROXY name the sandbox, beside what they held; `*` works only where it stands alone."""
    monkeypatch.setenv("HTTP_PROXY", DEAD)
    monkeypatch.setenv("NO_PROXY", before)
    program = """from os import environ; from urllib import request, error
try: request.urlopen(environ["MENTIONME_ENVIRONMENT"])
except error.HTTPError as answer: print(answer.code, environ["NO_PROXY"], environ["no_proxy"])"""
    command = ["/bin/sh", "-c", script, "sh", sys.executable, "-c", program]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (finished.stdout, finished.stderr) == (f"404 {after} {after}\n", "")


def test_sandbox_passes_signals_on_to_its_command_and_ends_after_it_with_its_status():
    with running(*COMMAND, "sandbox", "--", sys.executable, "-c", HEEDFUL) as process:
        parent, url = process.stdout.readline().split()
        assert int(parent) == process.pid
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            process.send_signal(number)
            assert process.stdout.readline() == f"{number.name}\n"
        assert requests.get(url, timeout=PATIENCE).status_code == 404
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(PATIENCE) == 42
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=PATIENCE)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who has sent a signal")
def test_a_command_gets_the_interrupt_of_a_terminal_once():
    """The terminal sends it to the command as well as to the sandbox, which does not pass it on."""
    terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    with running(sys.executable, "-c", terminal, *COMMAND, "sandbox", "--", sys.executable, "-c", HEEDFUL) as process:
        sandbox = int(process.stdout.readline().split()[0])
        os.kill(sandbox, signal.SIGSTOP)
        print(end="\x03", file=process.stdin, flush=True)
        assert process.stdout.readline().replace("^C", "") == "SIGINT\n"  # the terminal shows it as well
        os.kill(sandbox, signal.SIGTERM)  # It gets to this only after all that came before it.
        os.kill(sandbox, signal.SIGCONT)
        assert process.stdout.readline().replace("^C", "") == "SIGTERM\n"
        print(end="\x04", file=process.stdin, flush=True)
        assert process.wait(PATIENCE) == 41


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["sh", "-c", f"{STREAMS}; exit 7", "--", "--port", "-h"], (7, "said sandbox-id -- --port -h\ny\n", "told\n")),
        (["sh", "-c", "kill -INT $$"], (128 + 2, "", "")),
        (["no-such\nprogram"], (127, "", REFUSAL.format(r"'no-such\nprogram'", "No such file or directory"))),
        (["/"], (126, "", REFUSAL.format("'/'", "Permission denied"))),
    ],
)
def test_streams_arguments_and_status_are_those_of_the_command(command, expected):
    assert run("sandbox", "--port", "0", "--", *command, input="said ") == expected


def test_a_port_that_is_taken_is_one_line_and_status_1_before_a_command_is_started(api, capsys):
    taken = ["sandbox", "--port", api.url.rpartition(":")[2]]
    assert main(taken) == 1
    assert "in use" in (said := one_line(capsys.readouterr()))
    assert run(*taken, "--", "echo", "started") == (1, "", said)


@pytest.mark.parametrize(
    ("command", "changed", "status", "said"),
    [
        ("token", {"MENTIONME_CLIENT_ID": ""}, {2}, "MENTIONME_CLIENT_ID"),
        ("token", {"MENTIONME_CLIENT_SECRET": ""}, {2}, "MENTIONME_CLIENT_SECRET"),
        ("token", {"MENTIONME_CLIENT_ID": "stranger"}, {1}, "answered 401. The server says 'Unknown client"),
        ("token", {"MENTIONME_ENVIRONMENT": DEAD}, {1}, "refused"),
        ("token", {"MENTIONME_ENVIRONMENT": "https://a..b"}, {1, 2}, ""),  # some versions raise a bare ValueError
        ("token", {"MENTIONME_ENVIRONMENT": "https://localhost:9", "REQUESTS_CA_BUNDLE": "/no/ca"}, {1}, "/no/ca"),
        ("token --environment=", {}, {2}, ""),
        ("whoami --environment live", {}, {2}, "environment"),
        (f"token --environment https://user:{SECRET}@host.example", {}, {2}, ""),
        ("sandbox --port 65536", {}, {2}, "port"),
    ],
)
def test_a_failure_is_one_line_that_says_what_is_wrong(*, command, changed, status, said, monkeypatch, capsys):
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    assert main(command.split()) in status
    assert said in one_line(capsys.readouterr())


@pytest.mark.parametrize(("error", "status"), [(requests.exceptions.InvalidURL, 1), (ValueError, 2)])
def test_an_error_of_many_lines_is_told_in_one(error, status, monkeypatch, capsys):
    """An `InvalidURL` is a `ValueError` too, but of the network."""
    monkeypatch.setattr(MentionMeAuth, "access_token", Mock(side_effect=error("one\ntwo\r\n  three")))
    assert main(["token"]) == status
    assert one_line(capsys.readouterr()) == "requests-mentionme: one two three\n"


@pytest.mark.parametrize(
    "command", ["", "token --json", "token --env a", "whoami id:key", "sandbox --port a", "sandbox --", "token -- a"]
)
def test_a_wrong_call_is_status_2_and_usage_on_stderr(command, capsys):
    """As argparse has it; options can't be abbreviated, and credentials can't be given."""
    with pytest.raises(SystemExit, match=r"^2$"):
        main(command.split())
    out, err = capsys.readouterr()
    assert (out, err.startswith("usage: requests-mentionme")) == ("", True)


def test_an_interrupt_of_a_token_request_is_status_130_and_silence_of_the_log_too(monkeypatch):
    script = """import logging, runpy, signal
def warn_and_interrupt(*_):
    logging.getLogger("requests_mentionme").warning("clutter")
    raise KeyboardInterrupt
signal.signal(signal.SIGINT, warn_and_interrupt)  # A background job, as these tests may be, would ignore it.
runpy.run_module("requests_mentionme", run_name="__main__")"""
    with Loopback(Answer(fault="hang", within="nothing")) as server:
        monkeypatch.setenv("MENTIONME_ENVIRONMENT", server.url)
        with running(sys.executable, "-c", script, "token") as process:
            assert server.until(lambda: bool(server.requests))
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=PATIENCE) == ("", "")
    assert process.returncode == 130


@pytest.mark.parametrize(("command", "unbuffered"), [("token", ""), ("token", "1"), ("--help", ""), ("sandbox", "")])
def test_a_reader_who_has_left_is_no_reason_to_complain(command, unbuffered, api, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        assert run(command, stdout=pipe) == (1, None, "")
    assert api.token_requests == (command == "token")


@pytest.mark.parametrize(
    ("redirection", "command", "expected"),
    [
        ("2>&-", "token", (0, "TOKEN\n", "")),
        ("2>&-", "token --environment nowhere", (2, "", "")),
        ("2>&-", "dance", (2, "", "")),
        ("2>&-", "--version", (0, f"requests-mentionme {__version__}\n", "")),
        ("2>&-", "sandbox -- echo answer", (0, "answer\n", "")),
        (">&-", "token", (1, "", "requests-mentionme: [Errno 9] Bad file descriptor\n")),
        ("<&- >&- 2>&-", "sandbox -- test -e /proc/self/fd/0 -o -e /proc/self/fd/1 -o -e /proc/self/fd/2", (1, "", "")),
        ("> /dev/full", "token", (1, "", "requests-mentionme: [Errno 28] No space left on device\n")),
    ],
)
def test_only_the_answer_goes_to_stdout_where_a_stream_is_closed(redirection, command, expected, api):
    """A token that could not be written is not there; a COMMAND finds the streams as they are."""
    if "full" in redirection and sys.platform != "linux":
        pytest.skip("no device is always full")
    status, out, err = expected
    assert run(*command.split(), redirection=redirection) == (status, out.replace("TOKEN", "".join(api.tokens)), err)


def test_the_demo_shows_each_step_and_no_secret_and_tells_of_a_wait_before_it_begins(clock, monkeypatch):
    def sleep(seconds):
        *_, last = written.getvalue().decode().splitlines()
        assert last == f"(waiting {seconds:.1f} s until the token is about to expire ...)"
        assert seconds > 1
        clock.tick(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setenv("HTTP_PROXY", DEAD)  # which is not asked
    told = TextIOWrapper(written := BytesIO())
    with redirect_stdout(told):
        assert main(["demo"]) == 0
    printed = written.getvalue().decode()
    assert re.findall(r"^\d\.|waiting", printed, re.MULTILINE) == ["1.", "2.", "waiting", "3.", "4.", "5."]
    assert printed.endswith("Every step held.\n")
    parts = ("  ok: ", "asks for a token", "without a token", "sandbox-secret", "eyJ")
    assert [printed.count(part) for part in parts] == [5, 3, 1, 0, 0]


def test_the_demo_fails_where_a_step_does_not_hold(monkeypatch, capsys):
    monkeypatch.setattr(Sandbox, "revoke", lambda _: None)  # Without waits, the renewal fails as well.
    assert main(["demo"]) == 1
    printed = capsys.readouterr().out
    assert "  FAILED: one more token request, and no request was refused" in printed
    assert "  FAILED: the caller sees a 200, and the 401 in its history" in printed
    assert printed.endswith("A step did not hold.\n")
