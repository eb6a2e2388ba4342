"""Tasks in the processes of a prefork worker: `celery_tasks.py`. The broker is a folder, so it needs no server."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

celery = pytest.importorskip("celery", reason="celery is not installed")

PROCESSES = 2
TASKS = 200
LONG = 60  # seconds


@pytest.fixture
def config(tmp_path: Path) -> dict[str, object]:
    """The configuration of the worker and of those who send it tasks."""
    for folder in ("broker", "control", "results"):
        (tmp_path / folder).mkdir()
    return {
        "broker_url": "filesystem://",
        "broker_transport_options": {
            "data_folder_in": str(tmp_path / "broker"),
            "data_folder_out": str(tmp_path / "broker"),
            "control_folder": str(tmp_path / "control"),
            "polling_interval": 0.05,  # seconds
        },
        "result_backend": (tmp_path / "results").as_uri(),
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
    }


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What the worker has to say, for a test that fails."""
    return tmp_path / "log"


@pytest.fixture
def send(config, variables, start_program, tmp_path, log) -> Iterator[Callable[..., "celery.result.AsyncResult"]]:
    """Sends a coupon code to a worker to be validated, with options of `apply_async`."""
    settings = "\n".join(f"{name} = {value!r}" for name, value in config.items())
    (tmp_path / "celeryconfig.py").write_text(settings)
    variables["PYTHONPATH"] = str(tmp_path)
    worker = ("-m", "celery", "--app", "celery_tasks", "worker", "--pool", "prefork", "--concurrency", PROCESSES)
    app = celery.Celery("sender", set_as_current=False)
    app.conf.update(config)
    with log.open("w") as output, app:
        program = start_program(*worker, "--without-gossip", "--without-mingle", stdout=output, stderr=output)
        yield lambda code, **options: app.send_task("celery_tasks.validate_coupon", [code], **options)
        program.kill()  # Celery takes six seconds to end by itself, even where it has nothing to do


def values(results: "list[celery.result.AsyncResult]") -> list[object]:
    """Return what each task returned, or the exception that ended it."""
    return [result.get(timeout=LONG, interval=0.05, propagate=False) for result in results]


def test_no_task_fails_when_the_token_is_revoked(sandbox, send, report, log):
    """Each process makes one token request at first, and one for the revoked token."""
    sent = [send("SAMPLE") for _ in range(TASKS // 2)]
    assert values(sent[:10]) == ["FOUND_REDEEMABLE"] * 10, log.read_text()
    sandbox.revoke()
    sent += [send("SAMPLE") for _ in range(TASKS // 2)]
    found = values(sent)
    report["tasks"] = TASKS
    report["failed tasks"] = sum(value != "FOUND_REDEEMABLE" for value in found)
    report["healed 401s"] = sandbox.rejections
    assert set(found) == {"FOUND_REDEEMABLE"}, log.read_text()
    assert sandbox.rejections == PROCESSES
    assert sandbox.token_requests == 2 * PROCESSES


def test_a_soft_time_limit_in_a_token_request_reaches_its_task_alone(sandbox, send, report, log):
    """The tasks of the other process go on, and so do the next tasks of this one."""
    assert values([send("SAMPLE")]) == ["FOUND_REDEEMABLE"], log.read_text()
    sandbox.revoke()
    before = sandbox.token_requests
    sandbox.fail_token_requests(delay=LONG)
    interrupted = send("SAMPLE", soft_time_limit=2)
    deadline = time.monotonic() + LONG
    while sandbox.token_requests == before:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    others = values([send("SAMPLE") for _ in range(20)])
    (failure,) = values([interrupted])
    later = values([send("SAMPLE") for _ in range(20)])
    report["tasks"] = 1 + len([interrupted, *others, *later])
    report["failed tasks"] = 1 + sum(value != "FOUND_REDEEMABLE" for value in [*others, *later])
    assert type(failure).__name__ == "SoftTimeLimitExceeded", log.read_text()
    assert set(others + later) == {"FOUND_REDEEMABLE"}, log.read_text()


def test_a_task_is_tried_again_after_the_time_that_the_token_endpoint_named(sandbox, send, report, log):
    """The library tries three times by itself. Only then is it a matter of the task, which does not sleep meanwhile."""
    sandbox.fail_token_requests(3, status=503, headers={"Retry-After": "1"})
    assert values([send("SAMPLE")]) == ["FOUND_REDEEMABLE"], log.read_text()
    assert sandbox.token_requests == 4
