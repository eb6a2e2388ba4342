"""A management command of Django: `manage.py`, and `shop/management/commands/lapse_customers.py`."""

import pytest

pytest.importorskip("django", reason="django is not installed")

EMAILS = [f"customer-{number}@example.com" for number in range(249)]
COMMAND = ("manage.py", "lapse_customers", *EMAILS, "grace@unknown.example")


def test_a_command_succeeds_although_its_token_is_refused(sandbox, run_program, report):
    """It sends three batches with one auth; the 401 for the first costs one more token request."""
    sandbox.fail_api_requests(status=401)
    ended = run_program(*COMMAND)
    report["requests"] = 3
    report["healed 401s"] = sandbox.rejections
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "249 of 250 accepted\n")
    assert sandbox.token_requests == 2
    assert sandbox.api_requests == 4


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("MENTIONME_CLIENT_ID", "", "CommandError: the environment variable MENTIONME_CLIENT_ID is not set. "),
        ("MENTIONME_CLIENT_SECRET", "wrong-secret", "CommandError: "),
    ],
    ids=["a variable is missing", "the secret is wrong"],
)
def test_a_failure_is_one_line_without_a_secret(run_program, variables, variable, value, expected):
    """Django prints the message of a `CommandError` alone."""
    variables[variable] = value
    ended = run_program(*COMMAND)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(expected)
    assert ended.stderr.count("\n") == 1
    assert "wrong-secret" not in ended.stderr
    print(ended.stderr)
