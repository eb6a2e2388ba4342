"""A web application in preloaded workers with threads: `gunicorn_app.py`."""

import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("gunicorn", reason="gunicorn is not installed")

WORKERS = 4
CLIENTS = 32
REQUESTS = 4_000
LONG = 60  # seconds


def test_no_request_fails_when_the_token_is_revoked_under_load(sandbox, start_program, report, tmp_path):
    """Each worker makes one token request at first, and one for the revoked token, however many threads it has."""
    with socket.create_server(("127.0.0.1", 0), backlog=CLIENTS) as listener, (tmp_path / "log").open("w") as log:
        port = listener.getsockname()[1]
        start_program(
            *("-m", "gunicorn", "--preload", "--workers", WORKERS, "--threads", 8),
            *("--bind", f"fd://{listener.fileno()}", "gunicorn_app:application"),
            pass_fds=[listener.fileno()],
            stderr=log,
        )

        def validity(number: int) -> object:
            if number == REQUESTS // 2:
                sandbox.revoke()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
            connection.request("GET", "/SAMPLE")
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            return json.loads(body)["validity"] if answer.status == 200 else answer.status

        with ThreadPoolExecutor(CLIENTS) as clients:
            answers = list(clients.map(validity, range(REQUESTS)))
    report["requests"] = REQUESTS
    report["failed requests"] = sum(answer != "FOUND_REDEEMABLE" for answer in answers)
    report["healed 401s"] = sandbox.rejections
    assert set(answers) == {"FOUND_REDEEMABLE"}, (tmp_path / "log").read_text()
    assert sandbox.rejections > 0
    assert 2 <= sandbox.token_requests <= 2 * WORKERS
    assert sandbox.api_requests == REQUESTS + sandbox.rejections
