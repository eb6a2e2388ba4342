"""Beside `httpx` and `aiohttp`: clients with an event loop take their token from `access_token`, in a thread."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from requests_mentionme import MentionMeAuth
from requests_mentionme.sandbox import Sandbox

TASKS = 50
LONGEST_BLOCK = 0.25  # seconds; a few milliseconds where nothing else runs

Get = Callable[[str], Awaitable[int]]  # sends a request with a token, and returns the status of the answer


async def with_httpx(url: str, work: Callable[[Get], Awaitable[Any]]) -> Any:
    """Do the work with an `httpx.AsyncClient`."""
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")

    async def get(token: str) -> int:
        return (await client.get(url, headers={"Authorization": f"Bearer {token}"})).status_code

    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=30) as client:
        return await work(get)


async def with_aiohttp(url: str, work: Callable[[Get], Awaitable[Any]]) -> Any:
    """Do the work with an `aiohttp.ClientSession`."""
    aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed")

    async def get(token: str) -> int:
        async with session.get(url, headers={"Authorization": f"Bearer {token}"}) as response:
            return int(response.status)

    async with aiohttp.ClientSession() as session:
        return await work(get)


async def with_retry(auth: MentionMeAuth, get: Get) -> int:
    """Send a request with a token, and once more with another one after a 401."""
    token = await asyncio.to_thread(auth.access_token)
    status = await get(token)
    if status == 401:
        token = await asyncio.to_thread(auth.access_token, refused=token)
        status = await get(token)
    return status


async def longest_block(until: asyncio.Event) -> float:
    """Return for how many seconds the event loop was away at most, beyond what a tick takes."""
    longest = 0.0
    while not until.is_set():
        begun = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - begun - 0.001)
    return longest


@pytest.mark.parametrize("client", [with_httpx, with_aiohttp])
def test_many_tasks_with_a_revoked_token_share_one_token_request_and_do_not_block_the_loop(
    sandbox: Sandbox,
    auth: MentionMeAuth,
    coupon: str,
    client: Callable[[str, Any], Awaitable[Any]],
    record_property: Callable[[str, object], None],
) -> None:
    """The token request is slow, so that a loop that waited for it would be noticed."""

    async def work(get: Get) -> tuple[list[int], float]:
        assert await with_retry(auth, get) == 200
        sandbox.revoke()
        sandbox.fail_token_requests(delay=0.5)
        done = asyncio.Event()
        ticking = asyncio.create_task(longest_block(done))
        statuses = await asyncio.gather(*(with_retry(auth, get) for _ in range(TASKS)))
        done.set()
        return statuses, await ticking

    statuses, blocked = asyncio.run(client(coupon, work))  # type: ignore[arg-type]
    record_property("longest block in ms", round(blocked * 1000, 1))
    print(f"longest block: {blocked * 1000:.1f} ms")
    assert statuses == [200] * TASKS
    assert sandbox.token_requests == 2
    assert blocked < LONGEST_BLOCK


@pytest.mark.parametrize("client", [with_httpx, with_aiohttp])
def test_a_401_for_good_causes_no_token_request_for_each_call(
    sandbox: Sandbox, auth: MentionMeAuth, coupon: str, client: Callable[[str, Any], Awaitable[Any]]
) -> None:
    """A token that replaced a refused one, and is refused too, is returned as it is for a while."""
    sandbox.fail_api_requests(100, status=401)

    async def work(get: Get) -> list[int]:
        return [await with_retry(auth, get) for _ in range(5)]

    assert asyncio.run(client(coupon, work)) == [401] * 5  # type: ignore[arg-type]
    assert sandbox.token_requests == 2
