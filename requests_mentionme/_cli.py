"""The command line: `requests-mentionme`, or `python -m requests_mentionme`.

Only what a command is asked for goes to stdout. When a command fails, one line on stderr says why. Credentials come
from environment variables alone, because every user of the machine can read the arguments of a command.
"""

import argparse
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn, cast

from requests_mentionme._auth import MentionMeAuth
from requests_mentionme._demo import run_demo
from requests_mentionme._version import __version__
from requests_mentionme._wire import number
from requests_mentionme.sandbox import Sandbox

_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_NO_PROXY_VARIABLES = ("no_proxy", "NO_PROXY")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of the command line.

    Args:
        arguments: The name of the command and its options. By default those that this process was started with.

    Returns:
        The exit status: 0 if the command succeeded, 1 if it failed, 2 if a variable or a value is wrong, 130 if it
        was interrupted. `sandbox -- COMMAND` returns the status of the command that it ran.

    Raises:
        SystemExit: With 2 for a wrong call, with 0 after `--help` or `--version`.
    """
    _replace_closed_streams()
    # Without a handler, Python would print the warnings of the library on stderr.
    logging.getLogger("requests_mentionme").addHandler(logging.NullHandler())
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # The reader of stdout has left, as `head` does. That is no reason to complain.
        return 1
    except OSError as error:  # This comes first: what `requests` raises is an OSError, and may be a ValueError too.
        _complain(error)
        return 1
    except ValueError as error:
        _complain(error)
        return 2


def _run(arguments: Sequence[str]) -> int:
    """Run the command, and write out what it printed."""
    try:
        options = _parse(arguments)
        return int(options.run(options))
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            _leave_stdout()  # Otherwise Python would try again when it exits, and print an error of its own.
            raise


def _replace_closed_streams() -> None:
    """Put something in the place of each standard stream that is closed.

    Otherwise the next socket or file would get the number of the stream, and `print(file=sys.stderr)` would print to
    stdout, since `sys.stderr` is None. What goes to a closed stderr is lost. To write to a closed stdout is an error,
    because an answer that nobody gets is no success. A command that is started still finds the streams closed, because
    Python does not pass on what it opens itself.
    """
    descriptor = 0
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDONLY)  # This takes the lowest number that is free.
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w")
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - it stays open as long as the process runs


def _leave_stdout() -> None:
    """Point stdout at nothing: a pipe ends here, and what could not be written is lost without a second error."""
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())


def _complain(reason: object) -> None:
    """Print why a command failed, in one line."""
    print("requests-mentionme:", *str(reason).split(), file=sys.stderr)


# --- The parser -------------------------------------------------------------------------------


def _parse(arguments: Sequence[str]) -> Namespace:
    """Return the options of a command; `run` is the function that runs it."""
    # Versions of argparse differ in what they make of `--`. So it never sees it, nor the COMMAND that follows.
    separator = arguments.index("--") if "--" in arguments else len(arguments)
    parser = _parser()
    options = parser.parse_args(arguments[:separator])
    if separator < len(arguments):
        options.command = arguments[separator + 1 :]
        if options.run is not _sandbox:
            parser.error("only `sandbox` takes a COMMAND after `--`")
        if not options.command:
            parser.error("a COMMAND is expected after `--`")
        options.run = _sandbox_for_command
    return options


def _parser() -> argparse.ArgumentParser:
    about = "Credentials: MENTIONME_CLIENT_ID, MENTIONME_CLIENT_SECRET, MENTIONME_ENVIRONMENT (a name or a base URL)."
    parser = argparse.ArgumentParser(prog="requests-mentionme", description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[Namespace], int], summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        command.set_defaults(run=run)
        return command

    add("demo", _demo, "watch a session get a token, use it, renew it and survive a 401, in a sandbox")
    whoami = add("whoami", _whoami, "tell the environment, merchant, scopes and expiry of an access token")
    whoami.add_argument("--json", action="store_true", help="print a JSON object; what is unknown is null")
    token = add("token", _token, "print an access token")
    for command in (whoami, token):
        command.add_argument("--environment", metavar="NAME_OR_URL", help="in place of MENTIONME_ENVIRONMENT")
    sandbox = add(
        "sandbox",
        _sandbox,
        "play Mention Me on this machine: while a COMMAND runs, with the variables that lead to it; "
        "without one until interrupted, and print the variables",
    )
    sandbox.usage = f"{sandbox.prog} [-h] [--port PORT] [--lifetime SECONDS] [-- COMMAND ...]"
    sandbox.add_argument("--port", type=int, default=0, help="the port to listen on; by default a free one")
    sandbox.add_argument(
        "--lifetime",
        metavar="SECONDS",
        type=float,
        default=3600,
        help="how many seconds a token lives; by default an hour",
    )
    return parser


# --- demo, token, whoami ----------------------------------------------------------------------


def _demo(_: Namespace) -> int:
    return 0 if run_demo() else 1


def _token(options: Namespace) -> int:
    """Print an access token alone, for `$(...)`."""
    print(_auth(options).access_token())
    return 0


def _whoami(options: Namespace) -> int:
    """Print what is known of an access token: one fact on each line, or a JSON object."""
    auth = _auth(options)
    facts = _facts(auth.claims())
    # The library takes the lifetime from the server, so a wrong clock on this machine does no harm. To compare the
    # claim `exp` with the time of this machine would.
    # No public method tells how long a token lives.
    token = auth._source.token()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    facts["expires_in"] = round(token.seconds_left(time.time()))
    if options.json:
        print(json.dumps(facts))
        return 0
    for name, fact in facts.items():
        unit = " s" if name == "expires_in" else ""
        print(f"{name.replace('_', ' '):11}  {_shown(fact)}{unit}")
    return 0


def _auth(options: Namespace) -> MentionMeAuth:
    if options.environment is None:
        return MentionMeAuth.from_env()
    return MentionMeAuth.from_env(environment=options.environment)


def _facts(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the payload of a token tells, None for what it does not tell.

    Little of its form is documented, so any form is accepted: a claim may stand in `claims` or beside it.
    """
    claims = dict(payload)
    inner = payload.get("claims")
    if isinstance(inner, dict):
        claims = cast("dict[str, Any]", inner) | claims
    scope = claims.get("scope")
    return {
        "environment": claims.get("env"),
        "merchant": claims.get("merchantId"),
        "scopes": scope.split() if isinstance(scope, str) else scope,
        "issued": _moment(number(claims.get("iat"))),
    }


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    with suppress(ValueError, OverflowError, OSError):  # Some years have no date.
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(" ", "seconds")
    return None


def _shown(fact: object) -> str:
    """Return *fact* as text that can't break out of its line, since a server wrote it."""
    if fact is None:
        return "unknown"
    text = " ".join(map(str, cast("list[object]", fact))) if isinstance(fact, list) else str(fact)
    return text if text.isascii() and text.isprintable() else ascii(text)


# --- sandbox ----------------------------------------------------------------------------------


def _sandbox(options: Namespace) -> int:
    """Serve until SIGINT or SIGTERM, and print the variables with which the other commands find the sandbox."""
    with suppress(KeyboardInterrupt), Sandbox(port=options.port, lifetime=options.lifetime) as running:
        # SIGINT is named too, because a shell script starts its background jobs with SIGINT ignored.
        for interruption in (signal.SIGINT, signal.SIGTERM):
            signal.signal(interruption, signal.default_int_handler)
        _print_variables(running)
        _leave_stdout()  # Otherwise eval "$(requests-mentionme sandbox &)" would wait for more.
        _serve_until_interrupted()
    return 0


def _print_variables(sandbox: Sandbox) -> None:
    """Print what a shell evaluates. A name that stands behind `export` can't be read as a command."""
    for name, value in _variables(sandbox).items():
        print(f"export {name}={value}")
    if any(os.environ.get(name) for name in _PROXY_VARIABLES):
        print("export", *(f"{name}={shlex.quote(value)}" for name, value in _proxy_exceptions().items()))
    sys.stdout.flush()


def _serve_until_interrupted() -> NoReturn:
    while True:
        time.sleep(3600)


def _sandbox_for_command(options: Namespace) -> int:
    """Run a command with the variables of a sandbox, and return its status, or 128 + N if signal N killed it."""
    if sys.platform == "win32":  # pragma: no cover - Windows has no such signals; Ctrl-C reaches the command by itself
        with Sandbox(port=options.port, lifetime=options.lifetime) as sandbox:
            return subprocess.call(options.command, env=_command_environment(sandbox))  # noqa: S603 - the user's own
    # These signals are blocked, and taken one by one when there is a command to pass them on to. So none is lost, and
    # none ends this process first. A thread starts with the signals blocked that are blocked in the one that starts it:
    # so first block, then start the sandbox. They stay blocked, since nothing is left to do after the command.
    passed_on = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*passed_on, signal.SIGCHLD})
    signal.signal(signal.SIGCHLD, _do_nothing)  # Without a handler, some systems drop it.
    with Sandbox(port=options.port, lifetime=options.lifetime) as sandbox:
        program = options.command[0]
        try:
            process = os.posix_spawnp(
                program,
                options.command,
                _command_environment(sandbox),
                setsigmask=mask,
                # Python ignores the last two. A shell script has its background jobs ignore SIGINT.
                setsigdef=[signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ],
            )
        except OSError as error:
            _complain(f"{program!a} can't be started: {error.strerror}")
            return 127 if isinstance(error, FileNotFoundError) else 126  # as a shell does
        status = _wait_and_pass_on(process, passed_on)
    return status if status >= 0 else 128 - status


def _wait_and_pass_on(process: int, passed_on: set[signal.Signals]) -> int:
    """Pass signals on to *process* until it has ended; return its status, or -N if signal N killed it."""
    while True:
        received = _next_signal({*passed_on, signal.SIGCHLD})
        if received is not None and received in passed_on:
            os.kill(process, received)  # It is there even if it has ended, until it is waited for.
        ended, status = os.waitpid(process, os.WNOHANG)  # SIGCHLD also comes when it has only stopped, as by Ctrl-Z.
        if ended:
            return os.waitstatus_to_exitcode(status)


def _next_signal(awaited: set[signal.Signals]) -> int | None:
    """Wait for one of the signals, and return it if a process sent it.

    A terminal sends SIGINT to the command as well. If it were passed on too, the command would get it twice, and most
    programs take the second one for impatience.
    """
    if sys.platform == "darwin":  # pragma: no cover - macOS does not say who has sent a signal
        return signal.sigwait(awaited)
    received = signal.sigwaitinfo(awaited)
    return received.si_signo if received.si_code <= 0 else None  # see sigaction(2)


def _do_nothing(_signal: int, _frame: object) -> None:
    """Handle a signal that is waited for elsewhere."""


def _variables(sandbox: Sandbox) -> dict[str, str]:
    """Return the variables that lead `MentionMeAuth.from_env` and the other commands to *sandbox*."""
    return {
        "MENTIONME_CLIENT_ID": sandbox.client_id,
        "MENTIONME_CLIENT_SECRET": sandbox.client_secret,
        "MENTIONME_ENVIRONMENT": sandbox.url,
    }


def _command_environment(sandbox: Sandbox) -> dict[str, str]:
    return {**os.environ, **_variables(sandbox), **_proxy_exceptions()}


def _proxy_exceptions() -> dict[str, str]:
    """Return NO_PROXY, in both spellings, with the sandbox added: a proxy would not find it."""
    hosts = {name: os.environ[name] for name in _NO_PROXY_VARIABLES if os.environ.get(name)}
    known = next(iter(hosts.values()), "")
    return {name: _and_this_machine(hosts.get(name, known)) for name in _NO_PROXY_VARIABLES}


def _and_this_machine(hosts: str) -> str:
    if hosts.strip() == "*":  # This means every host, but only where nothing stands beside it.
        return hosts
    return f"{hosts},127.0.0.1" if hosts else "127.0.0.1"
