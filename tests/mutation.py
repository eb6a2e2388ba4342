"""Breaks the core in small ways, one at a time, and reports the breakages that no test notices.

    python tests/mutation.py                  all of the core; what was found before is kept, so a run can be resumed
    python tests/mutation.py --room _token    one room
    python tests/mutation.py --sample 60      so many, chosen at random but always the same ones
    python tests/mutation.py --matrix FILE    does not stop at the first test, and writes which tests notice what

A survivor that no test can notice stands in `mutation-equivalent.txt` with a reason. Any other one is a failure.

Why not mutmut 3: it deletes no statement, and leaves out module-level code, class bodies, `__new__` and decorated
functions, so the limits, the checks of an environment and the redaction of secrets. It numbers its mutants, so that a
list of equivalent ones would not outlive the next edit.
"""

import argparse
import difflib
import hashlib
import importlib
import json
import os
import random
import resource
import select
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path

import coverage
import pytest
from breakages import NAMED, Mutant, mutants_of

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "requests_mentionme"
NOT_CORE = {"__init__", "__main__", "_cli", "_demo", "_version"}
BREAKAGES = Path(__file__).with_name("breakages.py")
EQUIVALENT = Path(__file__).with_name("mutation-equivalent.txt")
CACHE = ROOT / ".cache" / "mutation"
SEED = 12
MOST_MEMORY = 4 << 30  # bytes for a run of tests, since some breakages make an endless loop

# --- One run of tests, in a fork of this process, which has imported everything but the package ---


class _Reporter:
    """A pytest plugin that runs the chosen tests in the given order, and tells the parent what happens."""

    def __init__(self, pipe: int, tests: list[str], measured: coverage.Coverage | None) -> None:
        self.pipe = pipe
        self.measured = measured
        self.data_files: set[Path] = set()
        self.rank = {test: place for place, test in enumerate(tests)}

    def say(self, *words: object) -> None:
        os.write(self.pipe, json.dumps(words, default=str).encode() + b"\n")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.rank:
            items[:] = sorted((it for it in items if it.nodeid in self.rank), key=lambda it: self.rank[it.nodeid])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.say("failed", report.nodeid if self.measured else "import")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.say("began", nodeid)
        if self.measured:
            self.measured.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.say("failed", report.nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.say("ended", nodeid)
        if self.measured:
            own = Path(self.measured.get_data().data_filename())
            files = {*own.parent.glob(".coverage.*")} - {own} - self.data_files
            self.data_files |= files
            for file in files:
                self.say("data", nodeid, file)


def run_pytest(tree: Path, pipe: int, tests: list[str]) -> None:
    """Be the child, in a copy of the project: run *tests*, or measure the default suite if there are none."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background lacks
    os.setsid()  # so that the parent can end whatever the tests start
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    log = os.open(tree / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # two breakages within a second would share it
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(tree))
    measured = None if tests else coverage.Coverage(data_file=str(tree / ".coverage"), config_file="pyproject.toml")
    reporter = _Reporter(pipe, tests, measured)
    if measured:
        measured.start()
    options = ["-p", "no:cacheprovider", "--basetemp", str(tree / "tmp")]
    what = sorted({test.partition("::")[0] for test in tests}) or ["--continue-on-collection-errors"]
    status = pytest.main([*options, *what], plugins=[reporter])
    if measured:
        measured.stop()
        measured.save()
        reporter.say("data", "", measured.get_data().data_filename())
    reporter.say("status", int(status))


@dataclass
class Run:
    """A child that runs tests, and what it has said so far."""

    tree: Path
    mutant: Mutant | None
    tests: list[str]
    later: list[str] = field(default_factory=list)  # tests for another child, if these don't fail
    failed: list[str] = field(default_factory=list)
    until: float = float("inf")  # by the monotonic clock: then what has not failed hangs
    seconds: dict[str, float] = field(default_factory=dict)  # of each test that has ended
    data: list[list[str]] = field(default_factory=list)  # a test, and a file of coverage data
    status: int | None = None
    test: str = "import"
    unread: bytes = b""

    def __post_init__(self) -> None:
        """Put the broken module into the tree, and start."""
        if self.mutant:
            room = self.tree / PACKAGE / f"{self.mutant.room}.py"
            room.write_text(self.mutant.after, encoding="utf-8")
            for compiled in (room.parent / "__pycache__").glob(f"{room.stem}.*"):
                compiled.unlink()
        self.since = time.monotonic()
        self.pipe, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                run_pytest(self.tree, theirs, self.tests)
            finally:
                os._exit(0)
        os.close(theirs)

    def read(self) -> bool:
        """Take in what the child has said; return whether it can say more."""
        said = os.read(self.pipe, 65536)
        *lines, self.unread = (self.unread + said).split(b"\n")
        for kind, word, *more in map(json.loads, lines):
            if kind == "failed" and word not in self.failed:
                self.failed.append(word)
            elif kind == "data":
                self.data.append([word, *more])
            elif kind == "status":
                self.status = word
            elif kind == "ended":
                self.seconds[word] = time.monotonic() - self.since
            elif kind == "began":
                self.test = word
            self.since = time.monotonic()
        return bool(said) and self.status is None

    def go_through(self) -> None:
        """Wait until all tests have run, in a tree without a breakage."""
        try:
            while select.select([self.pipe], [], [], 300)[0] and self.read():
                pass
        finally:
            self.end()
        if self.status is None:
            sys.exit(f"This hangs or crashes even without a breakage: {self.test}")

    def end(self) -> None:
        """End the child and all that it has started, and mend the module."""
        for kill in (os.killpg, os.kill):
            with suppress(ProcessLookupError):
                kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.pipe)
        if self.mutant:
            shutil.copy2(ROOT / PACKAGE / f"{self.mutant.room}.py", self.tree / PACKAGE)


# --- What is known --------------------------------------------------------------------------------


class Known:
    """What was found for the very same package and tests, so that a run can be resumed; of others, a hint.

    Of the suite without a breakage: the seconds of each test, and which tests run each line.
    """

    def __init__(self, tree: Path, *, anew: bool) -> None:
        if anew:
            shutil.rmtree(CACHE, ignore_errors=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        sources = sorted([ROOT / "pyproject.toml", *ROOT.glob(f"{PACKAGE}/*.py"), *ROOT.glob("tests/**/*.py")])
        texts = [(path.name, path.read_bytes()) for path in sources if path not in (Path(__file__), BREAKAGES)]
        self.state = hashlib.sha256(repr((sys.version, NAMED, texts)).encode()).hexdigest()
        self.results: dict[tuple[str, bool], list[str]] = {}
        self.hints: dict[str, list[str]] = {}
        self.kills = Counter[tuple[str, str]]()
        self.file = CACHE / "results.jsonl"
        suite = CACHE / "suite.json"
        for line in self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else ():
            state, everything, name, noticed_by = json.loads(line)
            self.hints[name] = noticed_by[:1]
            if state == self.state:
                self.results[name, everything] = noticed_by
        if not suite.exists() or json.loads(suite.read_text(encoding="utf-8"))[0] != self.state:
            suite.write_text(json.dumps([self.state, *measure(tree)]), encoding="utf-8")
        _, self.seconds, lines = json.loads(suite.read_text(encoding="utf-8"))
        self.lines: dict[str, set[str]] = {line: set(tests) for line, tests in lines.items()}

    def add(self, mutant: Mutant, noticed_by: list[str], *, everything: bool) -> None:
        """Keep one result: which tests notice the breakage, the first of them or *everything*."""
        self.results[mutant.name, everything] = noticed_by
        self.kills.update((mutant.room, test) for test in noticed_by)
        with self.file.open("a", encoding="utf-8") as file:
            print(json.dumps([self.state, everything, mutant.name, noticed_by]), file=file)

    def tests_for(self, mutant: Mutant) -> list[str]:
        """Return the tests that run what is broken, those first that are likely to notice it soon."""
        near = {line for line in self.lines if line.startswith(f"{mutant.room}:")}
        if mutant.lines is not None:
            near &= {f"{mutant.room}:{number}" for number in mutant.lines}
        near_tests = set[str]().union(*(self.lines[line] for line in near))
        hint = self.hints.get(mutant.name, [])

        def cost(test: str) -> tuple[bool, bool, float]:
            price = (self.seconds[test] + 0.01) / (1 + 5 * self.kills[mutant.room, test])
            return test not in hint, test not in near_tests, price

        return sorted(self.seconds if mutant.lines is None else near_tests, key=cost)


def measure(tree: Path) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Run the default suite once under coverage: the seconds of each test, the tests of each line."""
    print("The suite as it is, under coverage ...", flush=True)
    run = Run(tree, None, [])
    run.go_through()
    if not run.seconds:
        sys.exit((tree / "log").read_text(encoding="utf-8", errors="replace")[-3000:])
    again = Run(tree, None, [test for test in run.failed if test in run.seconds] or list(run.seconds)[:1])
    again.go_through()  # without coverage, which some tests can't bear
    for test in run.failed:
        if test in again.failed or test not in run.seconds:
            print(f"Left out, since it fails even without a breakage: {test}")
            run.seconds.pop(test, None)
    lines: dict[str, set[str]] = defaultdict(set)
    for test, name in run.data:
        data = coverage.CoverageData(name)
        data.read()
        for module in data.measured_files():
            for number, contexts in data.contexts_by_lineno(module).items():
                lines[f"{Path(module).stem}:{number}"] |= {test or context for context in contexts} - {""}
        Path(name).unlink()
    return run.seconds, {line: sorted(tests & run.seconds.keys()) for line, tests in lines.items()}


# --- All breakages --------------------------------------------------------------------------------


class Trial:
    """Runs the tests for one breakage after the other, in as many children at a time as there are trees."""

    def __init__(self, known: Known, trees: list[Path], *, everything: bool) -> None:
        self.known = known
        self.free = trees
        self.everything = everything
        self.selector = selectors.DefaultSelector()

    def go(self, mutants: list[Mutant]) -> None:
        """Try all these, and keep each result."""
        try:
            self.try_all(mutants)
        except KeyboardInterrupt:
            sys.exit("Stopped. What was found so far is kept.")
        finally:
            for run in self.running():
                run.end()

    def running(self) -> list[Run]:
        """Return the children that run now."""
        return [key.data for key in self.selector.get_map().values()]

    def try_all(self, mutants: list[Mutant]) -> None:
        """Begin children and end them until there is a result for each breakage."""
        started = time.monotonic()
        waiting = [mutant for mutant in reversed(mutants) if (mutant.name, self.everything) not in self.known.results]
        while waiting or self.running():
            if waiting and self.free:
                if len(waiting) % 25 == 0:
                    print(f"{time.monotonic() - started:.0f} s: {len(waiting)} breakages to go", flush=True)
                mutant = waiting.pop()
                tests = self.known.tests_for(mutant)
                first = [
                    test for test in tests if self.everything or test.startswith(tests[0].partition("::")[0] + "::")
                ]
                later = [test for test in tests if test not in first]  # one file mostly does
                until = time.monotonic() + 60 + 5 * sum(self.known.seconds[test] for test in tests)
                self.begin(mutant, first, later, [], until)
                continue
            ready = {key.fd for key, _ in self.selector.select(1)}
            for run in self.running():
                goes_on = run.read() if run.pipe in ready else True
                now = time.monotonic()
                hangs = now > run.until or now - run.since > 20 + 10 * self.known.seconds.get(run.test, 4)
                if hangs or not goes_on or (run.failed and not self.everything):
                    self.end(run)

    def begin(self, mutant: Mutant, tests: list[str], later: list[str], failed: list[str], until: float) -> None:
        """Start a child; or keep the result, if no tests or no time are left."""
        if tests and time.monotonic() < until:
            run = Run(self.free.pop(), mutant, tests, later, failed, until)
            self.selector.register(run.pipe, selectors.EVENT_READ, run)
        else:
            self.known.add(mutant, failed, everything=self.everything)

    def end(self, run: Run) -> None:
        """End a child; go on with the tests that are left."""
        self.selector.unregister(run.pipe)
        run.end()
        self.free.append(run.tree)
        left = run.later
        if run.status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
            if run.test not in run.failed and (self.everything or not run.failed):  # it hangs, or has crashed
                run.failed.append(run.test)
            left = run.tests[run.tests.index(run.test) + 1 :] if run.test in run.tests else []
        self.begin(run.mutant, left if self.everything or not run.failed else [], [], run.failed, run.until)


# --- What it comes to -----------------------------------------------------------------------------


def report(mutants: list[Mutant], known: Known, names_of_all: set[str]) -> bool:
    """Print all survivors and the score of each room; return whether each survivor is a known equivalent."""
    lines = [line.strip() for line in EQUIVALENT.read_text(encoding="utf-8").splitlines() if line[:1] not in ("", "#")]
    excused = dict(zip(lines[::2], lines[1::2], strict=True))
    noticed_by = {mutant.name: known.results[mutant.name, False] for mutant in mutants}
    survivors = [mutant for mutant in mutants if not noticed_by[mutant.name] and mutant.name not in excused]
    for mutant in survivors:
        print(f"\nSURVIVES: {mutant.name}\n({mutant.room}.py, line {mutant.lines.start if mutant.lines else '-'})")
        diff = difflib.unified_diff(mutant.before.splitlines(), mutant.after.splitlines(), lineterm="", n=1)
        print(*list(diff)[3:], sep="\n")
    print(f"\n{'room':<14}{'breakages':>11}{'equivalent':>12}{'survive':>9}{'noticed':>11}")
    for room in [*sorted({mutant.room for mutant in mutants}), "all"]:
        names = {mutant.name for mutant in mutants if room in (mutant.room, "all")}
        equal = sum(not noticed_by[name] for name in names & excused.keys())
        alive = len(names & {mutant.name for mutant in survivors})
        score = 100 - 100 * alive / max(len(names) - equal, 1)
        print(f"{room:<14}{len(names):>11}{equal:>12}{alive:>9}{score:>9.1f} %")
    for name in excused:
        if name not in names_of_all:
            print(f"Listed as equivalent, but there is no such breakage: {name}")
        if noticed_by.get(name):
            print(f"Listed as equivalent, but {noticed_by[name][0]} notices it: {name}")
    return not survivors


def report_matrix(mutants: list[Mutant], known: Known, file: Path) -> None:
    """Write which tests notice which breakage, and print how few would do."""
    matrix = {mutant.name: known.results[mutant.name, True] for mutant in mutants}
    file.write_text(json.dumps(matrix, indent=1), encoding="utf-8")
    functions = [{test.partition("[")[0] for test in tests} for tests in matrix.values()]
    unseen = [tests for tests in functions if tests - {"import"}]
    noticing = set[str]().union(*unseen) - {"import"}
    fewest: list[str] = []
    while unseen:
        fewest.append(max(sorted(noticing), key=lambda test: sum(test in tests for tests in unseen)))
        unseen = [tests for tests in unseen if fewest[-1] not in tests]
    print(f"{len(matrix)} breakages, {functions.count(set())} survive, {functions.count({'import'})} can't be imported")
    print(f"{len(noticing)} test functions notice something; these {len(fewest)} notice all that any of them does:")
    print(*fewest, sep="\n")


def prepare(place: Path, jobs: int) -> list[Path]:
    """Return copies of the project, one for each job. Import what tests import, so that a child starts in a moment."""
    (place / "empty").mkdir()
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        # pytest imports its plugins by itself, since it rewrites their assertions.
        pytest.main(["--collect-only", "-p", "no:cacheprovider", "-c", os.devnull, str(place / "empty")])
    for name in ("freezegun", "hypothesis.stateful", "jwt", "responses", "trustme", "http.server"):
        importlib.import_module(name)
    first, *others = trees = [place / str(number) for number in range(jobs)]
    shutil.copytree(
        ROOT, first, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "venv*", "mutants")
    )
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider"]
    surroundings = os.environ | {"PYTHONPATH": str(first)}
    subprocess.run(collect, cwd=first, env=surroundings, stdout=subprocess.DEVNULL, check=False)
    for other in others:
        shutil.copytree(first, other)  # with the compiled files, which save a second for each breakage
    return trees


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="Breaks the core, and reports the breakages that no test notices.")
    parser.add_argument("--room", action="append", help="only this module, such as _token; may be repeated")
    parser.add_argument(
        "--sample", type=int, metavar="NUMBER", help="only so many breakages, always the same: those of NAMED first"
    )
    parser.add_argument("--matrix", type=Path, metavar="FILE", help="run all tests on each, and write which notice it")
    parser.add_argument("--jobs", type=int, default=2, help="how many to try at a time; 2 by default")
    parser.add_argument("--anew", action="store_true", help="forget what was found before")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the children end, too
    rooms = [room for room in sorted((ROOT / PACKAGE).glob("_*.py")) if room.stem not in NOT_CORE]
    everything = [mutant for room in rooms for mutant in mutants_of(room)]
    mutants = [mutant for mutant in everything if mutant.room in (options.room or mutant.room)]
    if options.sample:
        random.Random(SEED).shuffle(mutants)
        mutants = sorted(mutants, key=lambda mutant: not mutant.name.startswith("named: "))[: options.sample]
    with tempfile.TemporaryDirectory(prefix="mutation-") as place:
        trees = prepare(Path(place), options.jobs)
        known = Known(trees[0], anew=options.anew)
        Trial(known, trees, everything=options.matrix is not None).go(mutants)
    if options.matrix:
        report_matrix(mutants, known, options.matrix)
    elif not report(mutants, known, {mutant.name for mutant in everything}):
        sys.exit(1)


if __name__ == "__main__":
    main()
