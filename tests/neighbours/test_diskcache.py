"""Beside `diskcache`: a `Cache` is a token store, for threads and processes."""

import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from requests_mentionme import MentionMeAuth
from requests_mentionme.sandbox import Sandbox

diskcache = pytest.importorskip("diskcache", reason="diskcache is not installed")

SCRIPT = """
import sys

import diskcache

from requests_mentionme import MentionMeAuth

with diskcache.Cache(sys.argv[1]) as store:
    print(MentionMeAuth.from_env(store=store).access_token())
"""


def auth_for(sandbox: Sandbox, store: object) -> MentionMeAuth:
    """Return a new auth, as another process would have it."""
    return MentionMeAuth(sandbox.client_id, sandbox.client_secret, environment=sandbox.environment, store=store)


def test_processes_share_a_token(sandbox: Sandbox, tmp_path: Path) -> None:
    """This one, and two that run at the same time while it has the cache open."""
    variables = {
        "MENTIONME_CLIENT_ID": sandbox.client_id,
        "MENTIONME_CLIENT_SECRET": sandbox.client_secret,
        "MENTIONME_ENVIRONMENT": sandbox.url,
    }
    with diskcache.Cache(tmp_path) as store:
        token = auth_for(sandbox, store).access_token()
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(tmp_path)],
                env=os.environ | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for process in processes:
            with process:
                printed, complaints = process.communicate(timeout=30)
            assert (process.returncode, complaints, printed.split()) == (0, "", [token])
    assert sandbox.token_requests == 1


def test_a_token_is_replaced_and_removed(
    sandbox: Sandbox, coupon: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After a 401, and by `invalidate`, whether it is there or not; no warning."""
    with diskcache.Cache(tmp_path) as store:
        first, second = auth_for(sandbox, store), auth_for(sandbox, store)
        assert first.access_token() == second.access_token()
        sandbox.revoke()
        assert requests.get(coupon, auth=first, timeout=20).ok
        assert auth_for(sandbox, store).access_token() == first.access_token() == sandbox.tokens[1]
        first.invalidate()
        second.invalidate()
        assert len(store) == 0
        assert second.access_token() == auth_for(sandbox, store).access_token() == sandbox.tokens[2]
    assert sandbox.token_requests == 3
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_it_is_a_store_after_a_pickle_and_after_it_was_closed(sandbox: Sandbox, tmp_path: Path) -> None:
    """It opens again by itself."""
    with diskcache.Cache(tmp_path) as store:
        auth = auth_for(sandbox, store)
        token = auth.access_token()
        pickled = pickle.dumps(auth)
    assert token.encode() not in pickled
    twin = pickle.loads(pickled)
    assert twin.access_token() == token
    twin._store.close()  # nothing public gives the store of a twin, which would be left open
    assert sandbox.token_requests == 1
