"""Jobs beside a sandbox of their own, by `requests-mentionme sandbox -- COMMAND`: no account, and no change to them."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

LONG = 60  # seconds
SANDBOX = ("-m", "requests_mentionme", "sandbox", "--")


@pytest.fixture
def variables(tmp_path):
    """The environment variables of a machine without an API key, whose proxy does not answer."""
    proxy = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    return os.environ | proxy | {"HOME": str(tmp_path)}


def test_a_pool_runs_beside_a_sandbox(run_program):
    """It gets the variables of the sandbox, and does not ask the proxy."""
    ended = run_program(*SANDBOX, sys.executable, "pool.py", "initializer", "SAMPLE", "USED", "OTHER")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split() == ["FOUND_REDEEMABLE", "FOUND_NOT_REDEEMABLE", "NOT_FOUND"]


def test_the_status_is_that_of_a_management_command(run_program):
    """It is 0 where the command succeeds, and 2 where an argument is missing."""
    pytest.importorskip("django", reason="django is not installed")
    ended = run_program(*SANDBOX, sys.executable, "manage.py", "lapse_customers", "ada@example.com")
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "1 of 1 accepted\n")
    ended = run_program(*SANDBOX, sys.executable, "manage.py", "lapse_customers")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "the following arguments are required: EMAIL" in ended.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_script_of_the_shell_hands_the_token_to_curl(run_program):
    """The script sends nothing where it gets no token, and tells why in one line."""
    script = (
        f'token=$("{sys.executable}" -m requests_mentionme token) && '
        'curl --silent --header "Authorization: Bearer $token" '
        '"$MENTIONME_ENVIRONMENT/api/merchant/v2/coupons/validate/SAMPLE"'
    )
    ended = run_program(*SANDBOX, "sh", "-c", script)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert '"FOUND_REDEEMABLE"' in ended.stdout
    ended = run_program(*SANDBOX, "sh", "-c", f"MENTIONME_CLIENT_SECRET=wrong; {script}")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""


def test_a_web_server_ends_when_its_sandbox_is_told_to(start_program):
    """The signal reaches gunicorn, which ends by itself and leaves no process behind."""
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    program = start_program(
        *(*SANDBOX, sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "gunicorn_app:application"),
        stderr=subprocess.PIPE,
    )
    answer = answer_of(port, program)
    assert (answer.status, answer.read()) == (200, b'{"validity": "FOUND_REDEEMABLE"}')
    program.send_signal(signal.SIGTERM)
    assert program.wait(LONG) == 0, program.stderr.read()
    with pytest.raises(ProcessLookupError):
        os.killpg(program.pid, 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def answer_of(port: int, program: "subprocess.Popen[str]") -> http.client.HTTPResponse:
    """Ask the web server as soon as it listens."""
    deadline = time.monotonic() + LONG
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
        try:
            connection.request("GET", "/SAMPLE")
        except ConnectionRefusedError:
            assert program.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return connection.getresponse()
