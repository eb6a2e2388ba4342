"""The measures: each takes its figures once, and `in_turns` repeats it so that noise hits all alike."""

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier
from typing import Any

from contestants import CONTESTANTS, Client
from requests import PreparedRequest, Request, Session
from requests.hooks import default_hooks
from stand_ins import API, Api, TokenServer, new_url

_REQUEST = Request("GET", API, headers=Session().headers).prepare()
IMPORT = """
import importlib, requests
def memory():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
before, start = memory(), time.perf_counter()
for module in sys.argv[3].split():
    importlib.import_module(module)
print(json.dumps([(time.perf_counter() - start) * 1e3, memory() - before]))
"""
FIRST_REQUEST = """
from contestants import CONTESTANTS
from stand_ins import API, Api
client = CONTESTANTS[sys.argv[1]].connect(sys.argv[2])
client.session.mount(API, Api())
start = time.perf_counter()
client.get(API)
print(json.dumps([(time.perf_counter() - start) * 1e3]))
"""
_server = TokenServer()


def in_turns(rounds: int, names: Sequence[Any], measure: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    """Measure all so many times, in turns, each time beginning with another one."""
    results: dict[Any, list[Any]] = {name: [] for name in names}
    gc.disable()
    for number in range(rounds):
        gc.collect()
        shift = number % len(names)
        for name in (*names[shift:], *names[:shift]):
            results[name].append(measure(name))
    gc.enable()
    return results


def _together(threads: int, task: Callable[[int], object]) -> float:
    """Have so many threads do *task* with their number; return the seconds from the first start to the last end."""
    gate = Barrier(threads)

    def work(number: int) -> tuple[float, float]:
        gate.wait(60)
        start = time.perf_counter()
        task(number)
        return start, time.perf_counter()

    with ThreadPoolExecutor(threads) as crew:
        starts, ends = zip(*crew.map(work, range(threads)), strict=True)
    return max(ends) - min(starts)


def _connect(name: str, delay: float = 0.0) -> Client:
    client = CONTESTANTS[name].connect(_server.url)
    client.session.mount(API, Api(delay))
    return client


def ready(name: str) -> Client:
    """Set up a contestant with a token that lives for an hour, at an API that is an adapter."""
    _server.behave()
    client = _connect(name)
    client.get(new_url())
    return client


def _prepared(number: int) -> list[PreparedRequest]:
    requests = [_REQUEST.copy() for _ in range(number)]
    for request in requests:
        request.url = new_url()
        request.hooks = default_hooks()  # a copy shares them
    return requests


def attach(team: Sequence[Client], number: int) -> float:
    """Return the nanoseconds to attach a token to a request, to so many requests, by the clients of *team* in turns."""
    work = list(zip([client.attach for client in team] * (number // len(team)), _prepared(number), strict=True))
    start = time.perf_counter_ns()
    for call, request in work:
        call(request)
    return (time.perf_counter_ns() - start) / number


def attach_in_threads(client: Client, threads: int) -> float:
    """Return the same by the wall clock, for so many threads that share *client*."""
    work = [_prepared(12_800 // threads) for _ in range(threads)]
    return _together(threads, lambda number: [client.attach(request) for request in work[number]]) / 12_800 * 1e9


def whole_request(client: Client, threads: int) -> float:
    """Return the seconds of a request that sends nothing, for so many threads that share *client*."""
    work = [[new_url() for _ in range(160 // threads)] for _ in range(threads)]
    return _together(threads, lambda number: [client.get(url) for url in work[number]]) / 160


def in_new_process(name: str, code: str, *, cryptography: bool) -> tuple[float, ...] | None:
    """Return the figures of *code* for a contestant or for modules; None if it fails, as for want of cryptography."""
    _server.behave(delay=0.1)
    environment = {variable: value for variable, value in os.environ.items() if variable != "PYTHONDONTWRITEBYTECODE"}
    block = "" if cryptography else "sys.modules['cryptography'] = None\n"
    modules = CONTESTANTS[name].module if name in CONTESTANTS else name
    command = [sys.executable, "-c", f"import json, os, sys, time\n{block}{code}", name, _server.url, modules]
    folder = Path(__file__).parent
    ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    return None if ended.returncode else json.loads(ended.stdout)


def cold_threads(name: str) -> tuple[int, float]:
    """Return the token requests, and the seconds until all are served, of 64 threads that start without a token."""
    return _served(_connect(name))


def storm(name: str) -> tuple[int, float]:
    """Return the same for threads whose token is refused to all at once."""
    client = ready(name)
    api = client.session.get_adapter(API)
    api.revoked = client.get(new_url()).request.headers["Authorization"]
    api.gate = Barrier(64)
    return _served(client)


def _served(client: Client) -> tuple[int, float]:
    _server.behave(delay=0.1)
    seconds = _together(64, lambda _: client.get(new_url()).raise_for_status())
    return next(_server.asked), seconds


def renewal(name: str, *, fails: bool) -> str:
    """Tell how 16 threads fare while their token falls due, at an endpoint that takes 0.5 s, or fails after that."""
    client = _connect(name, delay=0.01)
    outcomes = []
    _server.behave(lifetime=CONTESTANTS[name].lifetime)
    due = time.monotonic() + CONTESTANTS[name].due
    client.get(new_url())
    _server.behave(delay=0.5, fails=fails)
    time.sleep(max(due - 1 - time.monotonic(), 0))

    def use(_: int) -> None:
        while True:
            start = time.perf_counter()
            ok = False
            with suppress(Exception):  # it may be anything
                ok = client.get(new_url()).ok
            outcomes.append((time.perf_counter() - start, ok))
            if time.monotonic() >= due + 1:
                return

    _together(16, use)
    seconds, oks = zip(*outcomes, strict=True)
    return f"{sum(each > 0.25 for each in seconds)} delayed, {max(seconds):.2f} s; {oks.count(False)} failed"
