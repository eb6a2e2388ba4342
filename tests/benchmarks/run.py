"""The benchmark: prints one Markdown table, with the machine and versions it holds for. Linux only.

From a clone, in an environment of its own (without `niquests`, which takes the place of `urllib3`):

    python3 -m venv .venv-benchmark
    .venv-benchmark/bin/pip install . requests-auth requests-oauth2client authlib requests-oauthlib google-auth
    .venv-benchmark/bin/python tests/benchmarks/run.py [--quick]

The full form takes about six minutes, `--quick` one. Let nothing else run meanwhile.
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from statistics import median, quantiles

import measures
from contestants import CONTESTANTS, FLOOR, OURS
from measures import in_turns

QUICK = "--quick" in sys.argv
FEW, MANY = (3, 10) if QUICK else (11, 200)  # rounds
PEERS = [name for name in CONTESTANTS if name not in (FLOOR, OURS)]
WITH_JWT = "requests_mentionme jwt"
NOTES = """
Medians, with the quartiles in brackets, of rounds in which the contestants take turns; × is the ratio within a round,
to the floor: an auth that sets a constant header and registers one response hook. *Attach* calls the auth on a new
request, a new URL each time: for Authlib the `token_auth` of its session; for requests-oauthlib and google-auth, whose
sessions have none, what they call instead, `client.add_token` and `credentials.before_request`. A *whole request* ends
in an adapter that sends nothing. *Import* comes on top of that of `requests`; *with `jwt`* is what it comes to with the
first token. The token endpoint takes 0.1 s, on *renewal* 0.5 s: there 16 threads go on while their token falls due, and
what takes more than 0.25 s is delayed. What a session does not do by itself (Authlib's gets no first token,
requests-oauthlib's none at all), its caller does, as documented.
"""


def spread(values: Sequence[float], form: str) -> str:
    """Return the median, and the quartiles where they differ."""
    low, middle, high = (f"{each:{form}}" for each in (quantiles(values, n=4) if len(values) > 1 else [*values] * 3))
    return middle if low == high else f"{middle} ({low}-{high})"


def against(results: Mapping[str, list[float]], figure: Callable[[float], str]) -> dict[str, str]:
    """Return the figure of each median, and its ratio to that of the floor, taken within each round."""
    cells = {name: figure(median(values)) for name, values in results.items()}
    for name in cells.keys() - {FLOOR}:
        ratios = [mine / floor for mine, floor in zip(results[name], results[FLOOR], strict=True)]
        cells[name] += f" ×{spread(ratios, '.2f' if median(ratios) > 1.2 else '.3f')}"
    return cells


def several(results: Mapping[str, list[Sequence[float] | None]], *forms: str) -> dict[str, str]:
    """Return the spreads of measures that take several figures at once, each with its form and unit."""
    cells = dict.fromkeys(results, "needs it")
    for name, rounds in results.items():
        if None not in rounds:
            series = zip(zip(*rounds, strict=True), (form.partition(" ") for form in forms), strict=True)
            cells[name] = ", ".join(f"{spread(values, form)} {unit}".rstrip() for values, (form, _, unit) in series)
    return cells


def rows() -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """Take all measures; yield the title, the target and the cells of each row."""
    names, real = list(CONTESTANTS), [OURS, *PEERS]
    clients = {name: measures.ready(name) for name in names}
    results = in_turns(MANY, names, lambda name: measures.attach([clients[name]], 200))
    yield "attach, ns", "≤ ×1.6, the least of all", against(results, "{:,.0f}".format)
    for threads in (1, 4, 16):
        results = in_turns(MANY, names, lambda name, n=threads: measures.whole_request(clients[name], n))
        cells = against(results, lambda seconds: f"{seconds * 1e6:.0f} µs, {1 / seconds:,.0f}/s")
        yield f"whole request, threads: {threads}", "≤ ×1.03", cells

    pair = [FLOOR, OURS]
    teams = {name: [measures.ready(name) for _ in range(1000)] for name in pair}
    for size in (10, 1000):
        results = in_turns(MANY // 4, pair, lambda name, n=size: measures.attach(teams[name][:n], 2000))
        yield f"attach by {size:,} objects in turns, ns", "as by one", against(results, "{:,.0f}".format)
    for threads in (4, 16, 64):
        results = in_turns(MANY // 4, pair, lambda name, n=threads: measures.attach_in_threads(clients[name], n))
        yield f"attach in {threads} threads, ns", "as in one", against(results, "{:,.0f}".format)

    for suffix, has in (("", True), (" without `cryptography`", False)):
        measure = partial(measures.in_new_process, code=measures.IMPORT, cryptography=has)
        in_turns(1, [*real, WITH_JWT], measure)  # compiles
        cells = several(in_turns(FEW, [*real, WITH_JWT], measure), ".1f ms", ".1f MB")
        yield f"import{suffix}", "≤ 10 ms, 2 MB", cells | {OURS: f"{cells[OURS]}; with `jwt` {cells[WITH_JWT]}"}
        measure = partial(measures.in_new_process, code=measures.FIRST_REQUEST, cryptography=has)
        results = in_turns(FEW, real, measure)
        yield f"first request of a process{suffix}", "", several(results, ".0f ms")

    results = in_turns(1 if QUICK else 5, real, measures.cold_threads)
    yield "64 cold threads: token requests, time", "1, ≤ 0.13 s", several(results, ".0f", ".2f s")
    results = in_turns(FEW, [OURS], measures.storm)
    yield "64 threads get a 401: token requests, time", "1", several(results, ".0f", ".2f s")
    for title, fails in (("renewal", False), ("renewal that fails", True)):
        cells = {name: measures.renewal(name, fails=fails) for name in ([OURS] if QUICK else real)}
        yield title, "1 delayed, 0 failed", cells


def main() -> None:
    """Print the table."""
    heads = [name if name == FLOOR else f"{name} {version(name)}" for name in CONTESTANTS]
    table, start = [["", *heads, "target"], ["---"] * (len(heads) + 2)], time.monotonic()
    for title, target, cells in rows():
        table.append([title, *(cells.get(name, "") for name in CONTESTANTS), target])
        print(f"{time.monotonic() - start:.0f} s: {title}", file=sys.stderr)
    versions = ", ".join(f"{name} {version(name)}" for name in ("requests", "urllib3", "PyJWT", "cryptography"))
    machine = f"{platform.system()} on {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}"
    print(*(f"| {' | '.join(line)} |" for line in table), NOTES, sep="\n")
    print(f"Python {platform.python_version()}, {versions}; {machine}.")


if __name__ == "__main__":
    main()
