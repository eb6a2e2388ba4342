"""A pool of processes, and three ways to give its workers an auth.

    python pool.py initializer SAMPLE USED ...
    python pool.py store SAMPLE USED ...
    python pool.py argument SAMPLE USED ...    # a trap: a token request for each code

An auth that is an argument of a task is pickled for each task, without its token, since a token is a secret. So each
task asks for one of its own. Either make the auth in the worker, once, or give it a store that the processes share.
"""

import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import requests

from requests_mentionme import MentionMeAuth

WORKERS = 4

session = requests.Session()  # in each worker


def validate(auth, code):
    """Return what Mention Me says of a coupon code."""
    url = f"{auth.environment.base_url}/api/merchant/v2/coupons/validate/{code}"
    response = session.get(url, auth=auth, timeout=10)
    response.raise_for_status()
    return response.json()["validityResponseCode"]


def start_worker():
    """Make the auth of a worker, which serves all its tasks."""
    session.auth = MentionMeAuth.from_env()


def validate_in_worker(code):
    """Do it with the auth of the worker."""
    return validate(session.auth, code)


def with_initializer(codes):
    """Make one auth in each worker: as many token requests as workers."""
    with ProcessPoolExecutor(WORKERS, initializer=start_worker) as pool:
        return list(pool.map(validate_in_worker, codes))


def with_store(codes):
    """Pass an auth with a store that can be pickled: one token request in all."""
    from diskcache import Cache  # noqa: PLC0415 - only this one needs it

    # The folder is for this user alone. Choose one that stays, and the next run needs no token request either.
    with tempfile.TemporaryDirectory() as folder, Cache(folder) as cache:
        auth = MentionMeAuth.from_env(store=cache)
        auth.access_token()  # before the workers start, or each of them may ask
        with ProcessPoolExecutor(WORKERS) as pool:
            return list(pool.map(partial(validate, auth), codes))


def with_argument(codes):
    """Pass an auth without a store. This is the trap."""
    auth = MentionMeAuth.from_env()
    auth.access_token()  # it does not help: the token does not travel
    with ProcessPoolExecutor(WORKERS) as pool:
        return list(pool.map(partial(validate, auth), codes))


if __name__ == "__main__":
    way = {"initializer": with_initializer, "store": with_store, "argument": with_argument}[sys.argv[1]]
    print(*way(sys.argv[2:]), sep="\n")
