"""The demo, as the command line runs it."""

import subprocess
import sys

import pytest

from requests_mentionme import _demo
from requests_mentionme.__main__ import main
from requests_mentionme.sandbox import Sandbox


def test_the_demo_shows_each_step_and_succeeds() -> None:
    """A newcomer sees tokens obtained, used, renewed, revoked and kept from strangers, and nothing secret."""
    command = [sys.executable, "-m", "requests_mentionme", "demo"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stderr == ""
    steps = [line[:2] for line in finished.stdout.splitlines() if line[:1].isdigit()]
    assert steps == ["1.", "2.", "3.", "4.", "5."]
    assert finished.stdout.count("  ok: ") == 5
    assert finished.stdout.count("asks for a token") == 3
    assert finished.stdout.count("without a token") == 1
    assert finished.stdout.endswith("Every step held.\n")
    assert "sandbox-secret" not in finished.stdout
    assert "eyJ" not in finished.stdout


def test_the_demo_fails_where_a_step_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A revocation that has no effect is told, and is the exit status."""
    monkeypatch.setattr(_demo, "_LIFETIME", 0.4)
    monkeypatch.setattr(Sandbox, "revoke", lambda _: None)
    assert main(["demo"]) == 1
    printed = capsys.readouterr().out
    assert "  FAILED: the caller sees a 200, and the 401 in its history" in printed
    assert printed.endswith("A step did not hold.\n")
