"""The benchmark: prints a Markdown table, and whether the goals are met. Exit status 1 says that one is missed.

From a clone, in an environment of its own (without `niquests`, which takes the place of `urllib3`):

    python3 -m venv .venv-benchmark
    .venv-benchmark/bin/pip install . diskcache
    .venv-benchmark/bin/pip install requests-auth requests-oauth2client authlib requests-oauthlib google-auth
    .venv-benchmark/bin/python tests/benchmarks/run.py [--quick]

What is not installed is left out, and named. The full form takes about nine minutes, `--quick` one and a half.
Let nothing else run meanwhile. It is for Linux only.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from contestants import CONTESTANTS, FLOOR, OURS
from rows import GROUPS, Check, Plan, Row

PEERS = [name for name in CONTESTANTS if name not in (FLOOR, OURS)]
NOTES = """
Medians, with the quartiles in brackets, of rounds in which the contestants take turns; × is the ratio within a round,
to the floor: an auth that sets a constant header and registers one response hook. *Attach* calls the auth on a new
request, a new URL each time: for Authlib the `token_auth` of its session; for requests-oauthlib and google-auth, whose
sessions have none, what they call instead, `client.add_token` and `credentials.before_request`. A *whole request* ends
in an adapter that sends nothing. *Import* comes on top of that of `requests`; *with `jwt`* is what it comes to with the
first token. The token endpoint takes 0.1 s, on *renewal* 0.5 s: there 16 threads go on while their token falls due, and
what takes more than 0.25 s is delayed. What a session does not do by itself (Authlib's gets no first token,
requests-oauthlib's none at all), its caller does, as documented. The *processes* share a token through a store, and
their token endpoint takes 0.2 s. Those that are simulated have tokens of 3600 s and look at them at random times; the
others are real, share a `diskcache`, and their first token request is not counted.
"""


def main() -> int:
    """Print the table and the verdict; return the exit status."""
    options = _options()
    missing = [name for name in (*PEERS, "cryptography", "diskcache") if _version(name) is None]
    peers = [] if options.no_peers else [name for name in PEERS if name not in missing]
    rows = _measured(options, peers)
    _print_table(rows, [FLOOR, OURS, *peers])
    if missing:
        print(f"Left out, as they are not installed: {', '.join(missing)}.\n")
    checks = [check for row in rows for check in row.checks]
    _print_verdict(checks)
    return 0 if all(check.is_met for check in checks) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures this library beside its peers, and checks the goals.")
    parser.add_argument("--quick", action="store_true", help="take fewer rounds, and no real fleet")
    parser.add_argument("--no-peers", action="store_true", help="measure the floor and this library alone")
    parser.add_argument("--only", type=_groups, default=[*GROUPS], metavar="GROUP,...", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--fleet-runs", type=int, metavar="N", help="runs of the real fleet, 40 s each (1; 0 if quick)")
    options = parser.parse_args()
    if options.fleet_runs is None:
        options.fleet_runs = 0 if options.quick else 1
    return options


def _groups(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in GROUPS:
            raise argparse.ArgumentTypeError(f"there is no group {name!r}, only {', '.join(GROUPS)}")
    return names


def _measured(options: argparse.Namespace, peers: Sequence[str]) -> list[Row]:
    if options.quick:
        plan = Plan(quick=True, peers=peers, few=3, many=10, pair=60, fleet_runs=options.fleet_runs)
    else:
        plan = Plan(quick=False, peers=peers, few=11, many=200, pair=200, fleet_runs=options.fleet_runs)
    rows = []
    start = time.monotonic()
    for group in options.only:
        for row in GROUPS[group](plan):
            rows.append(row)
            print(f"{time.monotonic() - start:.0f} s: {row.title}", file=sys.stderr)
    return rows


def _print_table(rows: Sequence[Row], contestants: Sequence[str]) -> None:
    heads = [name if name == FLOOR else f"{name} {_version(name)}" for name in contestants]
    lines = [["", *heads, "target"], ["---"] * (len(heads) + 2)]
    lines += [[row.title, *(row.cells.get(name, "") for name in contestants), row.target] for row in rows]
    print(*(f"| {' | '.join(line)} |" for line in lines), NOTES, sep="\n")
    versions = ", ".join(f"{name} {_version(name)}" for name in ("requests", "urllib3", "PyJWT", "cryptography"))
    machine = f"{platform.system()} on {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}"
    print(f"Python {platform.python_version()}, {versions}; {machine}.\n")


def _print_verdict(checks: Sequence[Check]) -> None:
    for check in checks:
        word = "met" if check.is_met else "MISSED"
        print(f"{word:6} {check.what}: {check.figure:.4g}, goal: at most {check.goal:g}")
    missed = sum(not check.is_met for check in checks)
    print(f"{len(checks) - missed} of {len(checks)} goals met.")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
