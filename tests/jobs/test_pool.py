"""A pool of processes, and what each way to give its workers an auth costs: `pool.py`."""

import importlib.util

import pytest

TASKS = 40
WORKERS = 4


@pytest.mark.parametrize(
    ("way", "expected"),
    [("initializer", range(1, WORKERS + 1)), ("store", [1]), ("argument", [1 + TASKS])],
    ids=["initializer", "store", "argument: a trap"],
)
def test_the_token_requests_of_a_pool(sandbox, run_program, report, way, expected):
    """An initializer costs one for each worker, a store one in all, an argument one for each task and the parent."""
    if way == "store" and importlib.util.find_spec("diskcache") is None:
        pytest.skip("diskcache is not installed")
    ended = run_program("pool.py", way, *["SAMPLE", "USED"] * (TASKS // 2))
    report["tasks"] = TASKS
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split() == ["FOUND_REDEEMABLE", "FOUND_NOT_REDEEMABLE"] * (TASKS // 2)
    assert sandbox.token_requests in expected
    assert sandbox.rejections == 0
