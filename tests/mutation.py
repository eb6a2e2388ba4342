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
import itertools
import json
import multiprocessing
import os
import random
import resource
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
from breakages import NAMED, mutants_of

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "requests_mentionme"
NOT_CORE = {"__init__", "__main__", "_cli", "_demo", "_version"}
BREAKAGES = Path(__file__).with_name("breakages.py")
EQUIVALENT = Path(__file__).with_name("mutation-equivalent.txt")
CACHE = ROOT / ".cache" / "mutation"
MOST_MEMORY = 4 << 30  # bytes for a run of tests, since some breakages make an endless loop
ENDED = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
FORK = multiprocessing.get_context("fork")  # a child has all modules that its parent has imported


class Reporter:
    """A pytest plugin that runs the chosen tests in the given order, and tells the parent what happens."""

    def __init__(self, pipe, tests, measured):
        self.say = pipe.send
        self.measured = measured
        self.data_files = set()
        self.rank = {test: place for place, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items):
        if self.rank:
            items[:] = sorted((it for it in items if it.nodeid in self.rank), key=lambda it: self.rank[it.nodeid])

    def pytest_collectreport(self, report):
        if report.failed:
            self.say(("failed", report.nodeid if self.measured else "import"))

    def pytest_runtest_logstart(self, nodeid):
        self.say(("began", nodeid))
        if self.measured:
            self.measured.switch_context(nodeid)

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.say(("failed", report.nodeid))

    def pytest_runtest_logfinish(self, nodeid):
        self.say(("ended", nodeid))
        if self.measured:  # what the forks and programs of this test have measured
            own = Path(self.measured.get_data().data_filename())
            files = {*own.parent.glob(".coverage.*")} - {own} - self.data_files
            self.data_files |= files
            for file in files:
                self.say(("data", (nodeid, file)))


def run_pytest(tree, pipe, tests):
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
    if measured:
        measured.start()
    options = ["-p", "no:cacheprovider", "--basetemp", str(tree / "tmp")]
    what = sorted({test.partition("::")[0] for test in tests}) or ["--continue-on-collection-errors"]
    status = pytest.main([*options, *what], plugins=[Reporter(pipe, tests, measured)])
    if measured:
        measured.stop()
        measured.save()
        pipe.send(("data", ("", measured.get_data().data_filename())))
    pipe.send(("status", int(status)))


@dataclass
class Outcome:
    """What a run of tests has told."""

    failed: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # of each test that has ended
    data: list[tuple[str, str]] = field(default_factory=list)  # a test, and a file of coverage data
    status: int | None = None
    test: str = "import"  # the last one that has begun; where there is no status, it hangs or has crashed


def run(tree, tests, seconds, until=float("inf"), *, stop_at_first=False):
    """Run *tests* in a child until it has ended, or hangs: a test lasts far longer than the *seconds* that it takes."""
    outcome = Outcome()
    hears, says = FORK.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        try:
            run_pytest(tree, says, tests)
        finally:
            os._exit(0)
    says.close()
    began = time.monotonic()
    try:
        with suppress(EOFError):  # it has crashed
            while outcome.status is None and not (stop_at_first and outcome.failed):
                patience = 20 + 10 * seconds.get(outcome.test, 4)
                if not hears.poll(max(0, min(began + patience, until) - time.monotonic())):
                    break
                kind, what = hears.recv()
                if kind == "failed" and what not in outcome.failed:
                    outcome.failed.append(what)
                elif kind == "data":
                    outcome.data.append(what)
                elif kind == "status":
                    outcome.status = what
                elif kind == "began":
                    outcome.test = what
                    began = time.monotonic()
                elif kind == "ended":
                    outcome.seconds[what] = time.monotonic() - began
    finally:
        for kill in (os.killpg, os.kill):
            with suppress(ProcessLookupError):
                kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        hears.close()
    return outcome


class Known:
    """What was found before, so that a run can be resumed; of the unbroken suite, time and lines of each test."""

    def __init__(self, tree):
        CACHE.mkdir(parents=True, exist_ok=True)
        sources = sorted([ROOT / "pyproject.toml", *ROOT.glob(f"{PACKAGE}/*.py"), *ROOT.glob("tests/**/*.py")])
        texts = [(path.name, path.read_bytes()) for path in sources if path not in (Path(__file__), BREAKAGES)]
        self.state = hashlib.sha256(repr((sys.version, NAMED, texts)).encode()).hexdigest()
        self.results = {}
        self.hints = {}
        self.kills = Counter()
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
        self.lines = {line: set(tests) for line, tests in lines.items()}

    def add(self, mutant, noticed_by, *, everything):
        """Keep one result: which tests notice the breakage, the first of them or *everything*."""
        self.results[mutant.name, everything] = noticed_by
        self.kills.update((mutant.room, test) for test in noticed_by)
        with self.file.open("a", encoding="utf-8") as file:
            print(json.dumps([self.state, everything, mutant.name, noticed_by]), file=file)

    def tests_for(self, mutant):
        """Return the tests that run what is broken, those first that are likely to notice it soon."""
        near = {line for line in self.lines if line.startswith(f"{mutant.room}:")}
        if mutant.lines is not None:
            near &= {f"{mutant.room}:{number}" for number in mutant.lines}
        near_tests = set().union(*(self.lines[line] for line in near))
        hint = self.hints.get(mutant.name, [])

        def cost(test):
            price = (self.seconds[test] + 0.01) / (1 + 5 * self.kills[mutant.room, test])
            return test not in hint, test not in near_tests, price

        may_concern_all = mutant.lines is None or "import" in near_tests
        return sorted(self.seconds if may_concern_all else near_tests, key=cost)


def measure(tree):
    """Run the default suite once under coverage: the seconds of each test, the tests of each line."""
    print("The suite as it is, under coverage ...", flush=True)
    measured = run(tree, [], {})
    if not measured.seconds:
        sys.exit((tree / "log").read_text(encoding="utf-8", errors="replace")[-3000:])
    again = run(tree, [test for test in measured.failed if test in measured.seconds] or [measured.test], {})
    for outcome in (measured, again):
        if outcome.status is None:
            sys.exit(f"This hangs or crashes even without a breakage: {outcome.test}")
    for test in measured.failed:
        if test in again.failed or test not in measured.seconds:  # some fail under coverage alone
            print(f"Left out, since it fails even without a breakage: {test}")
            measured.seconds.pop(test, None)
    lines = defaultdict(set)
    for test, name in measured.data:
        data = coverage.CoverageData(name)
        data.read()
        for module in data.measured_files():
            for number, contexts in data.contexts_by_lineno(module).items():
                lines[f"{Path(module).stem}:{number}"] |= {test or context or "import" for context in contexts}
        Path(name).unlink()
    return measured.seconds, {line: sorted(tests & {*measured.seconds, "import"}) for line, tests in lines.items()}


def tests_that_notice(tree, mutant, tests, seconds, *, everything):
    """Break the package in *tree*, and return which tests fail: the first one, or *everything*."""
    module = tree / PACKAGE / f"{mutant.room}.py"
    for compiled in (module.parent / "__pycache__").glob(f"{module.stem}.*"):
        compiled.unlink()
    until = time.monotonic() + 60 + 5 * sum(seconds[test] for test in tests)
    file_of_best = tests[0].partition("::")[0] if tests else ""
    first = [test for test in tests if everything or test.partition("::")[0] == file_of_best]  # one file mostly does
    failed = []
    try:
        module.write_text(mutant.after, encoding="utf-8")
        for batch in (first, [test for test in tests if test not in first]):
            left = batch
            while left and time.monotonic() < until and (everything or not failed):
                outcome = run(tree, left, seconds, until, stop_at_first=not everything)
                failed += outcome.failed
                if outcome.status in ENDED:
                    break
                if outcome.test not in failed and (everything or not failed):  # it hangs, or has crashed
                    failed.append(outcome.test)
                left = left[left.index(outcome.test) + 1 :] if outcome.test in left else []
    finally:
        shutil.copy2(ROOT / PACKAGE / module.name, module)
    return failed


def work(tree, todo, done, seconds, *, everything):
    """Be a worker, which tries one breakage after the other in a tree of its own."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the run of tests ends, too
    with suppress(KeyboardInterrupt):
        for mutant, tests in iter(todo.get, None):
            done.put((mutant, tests_that_notice(tree, mutant, tests, seconds, everything=everything)))


def try_all(mutants, known, trees, *, everything):
    """Have a worker for each tree try these, and keep each result."""
    todo = FORK.SimpleQueue()
    done = FORK.SimpleQueue()
    options = {"everything": everything}
    workers = [FORK.Process(target=work, args=(tree, todo, done, known.seconds), kwargs=options) for tree in trees]
    for worker in workers:
        worker.start()
    started = time.monotonic()
    waiting = iter(mutants)
    try:
        for mutant in itertools.islice(waiting, len(trees)):
            todo.put((mutant, known.tests_for(mutant)))
        for left in range(len(mutants), 0, -1):
            if left % 25 == 0:
                print(f"{time.monotonic() - started:.0f} s: {left} breakages to go", flush=True)
            tried, noticed_by = done.get()
            known.add(tried, noticed_by, everything=everything)
            for mutant in itertools.islice(waiting, 1):
                todo.put((mutant, known.tests_for(mutant)))
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def report(mutants, known, names_of_all):
    """Print all survivors and the score of each room; return whether each survivor is a known equivalent."""
    lines = [line.strip() for line in EQUIVALENT.read_text(encoding="utf-8").splitlines() if line[:1] not in ("", "#")]
    excused = dict(zip(lines[::2], lines[1::2], strict=True))
    noticed_by = {mutant.name: known.results[mutant.name, False] for mutant in mutants}
    survivors = [mutant for mutant in mutants if not noticed_by[mutant.name] and mutant.name not in excused]
    for mutant in survivors:
        print(f"\nSURVIVES: {mutant.name}\n({mutant.room}.py, line {mutant.lines.start if mutant.lines else '-'})")
        diff = difflib.unified_diff(mutant.before.splitlines(), mutant.after.splitlines(), lineterm="", n=1)
        print(*list(diff)[3:], sep="\n")
    print(f"\n{'room':<18}{'breakages':>11}{'equivalent':>12}{'survive':>9}{'noticed':>11}")
    for room in [*sorted({mutant.room for mutant in mutants}), "all"]:
        names = {mutant.name for mutant in mutants if room in (mutant.room, "all")}
        equal = sum(not noticed_by[name] for name in names & excused.keys())
        alive = len(names & {mutant.name for mutant in survivors})
        score = 100 - 100 * alive / max(len(names) - equal, 1)
        print(f"{room:<18}{len(names):>11}{equal:>12}{alive:>9}{score:>9.1f} %")
    for name in excused:
        if name not in names_of_all:
            print(f"Listed as equivalent, but there is no such breakage: {name}")
        if noticed_by.get(name):
            print(f"Listed as equivalent, but {noticed_by[name][0]} notices it: {name}")
    return not survivors


def report_matrix(mutants, known, file):
    """Write which tests notice which breakage, and print how few would do."""
    matrix = {mutant.name: known.results[mutant.name, True] for mutant in mutants}
    file.write_text(json.dumps(matrix, indent=1), encoding="utf-8")
    functions = [{test.partition("[")[0] for test in tests} for tests in matrix.values()]
    unseen = [tests for tests in functions if tests - {"import"}]
    noticing = set().union(*unseen) - {"import"}
    fewest = []
    while unseen:
        fewest.append(max(sorted(noticing), key=lambda test: sum(test in tests for tests in unseen)))
        unseen = [tests for tests in unseen if fewest[-1] not in tests]
    print(f"{len(matrix)} breakages, {functions.count(set())} survive, {functions.count({'import'})} can't be imported")
    print(f"{len(noticing)} test functions notice something; these {len(fewest)} notice all that any of them does:")
    print(*fewest, sep="\n")


def prepare(place, jobs):
    """Return copies of the project, one for each job. Import what tests import, so that a child starts in a moment."""
    (place / "empty").mkdir()
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        # pytest imports its plugins by itself, since it rewrites their assertions.
        pytest.main(["--collect-only", "-p", "no:cacheprovider", "-c", os.devnull, str(place / "empty")])
    for name in ("freezegun", "hypothesis.stateful", "jwt", "responses", "trustme", "http.server"):
        importlib.import_module(name)
    first, *others = trees = [place / str(number) for number in range(jobs)]
    shutil.copytree(ROOT, first, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "venv*"))
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider"]
    surroundings = os.environ | {"PYTHONPATH": str(first)}
    subprocess.run(collect, cwd=first, env=surroundings, stdout=subprocess.DEVNULL, check=False)
    for other in others:
        shutil.copytree(first, other)  # with the compiled files, which save a second for each breakage
    return trees


def main():
    parser = argparse.ArgumentParser(description="Breaks the core, and reports the breakages that no test notices.")
    parser.add_argument("--room", action="append", help="only this module, such as _token; may be repeated")
    parser.add_argument("--sample", type=int, metavar="NUMBER", help="only so many, always the same; NAMED first")
    parser.add_argument("--matrix", type=Path, metavar="FILE", help="run all tests on each, and write which notice it")
    parser.add_argument("--jobs", type=int, default=2, help="how many to try at a time; 2 by default")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the workers end, too
    rooms = [room for room in sorted((ROOT / PACKAGE).glob("_*.py")) if room.stem not in NOT_CORE]
    every = [mutant for room in rooms for mutant in mutants_of(room)]
    mutants = [mutant for mutant in every if mutant.room in (options.room or mutant.room)]
    if options.sample:
        random.Random(12).shuffle(mutants)  # always the same way
        mutants = sorted(mutants, key=lambda mutant: not mutant.name.startswith("named: "))[: options.sample]
    with tempfile.TemporaryDirectory(prefix="mutation-") as place:
        trees = prepare(Path(place), options.jobs)
        known = Known(trees[0])
        everything = options.matrix is not None
        untried = [mutant for mutant in mutants if (mutant.name, everything) not in known.results]
        try:
            try_all(untried, known, trees, everything=everything)
        except KeyboardInterrupt:
            sys.exit("Stopped. What was found so far is kept.")
    if options.matrix:
        report_matrix(mutants, known, options.matrix)
    elif not report(mutants, known, {mutant.name for mutant in every}):
        sys.exit(1)


if __name__ == "__main__":
    main()
