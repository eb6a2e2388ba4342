"""An asynchronous client of httpx that takes its tokens from a `MentionMeAuth`.

`access_token` may block: it does when a token is due, for the time of a token request. So it is called in a thread, and
the event loop goes on. `access_token(refused=...)` is all it takes to get over a 401.

Use the client for Mention Me alone: unlike `MentionMeAuth` with `requests`, this gives the token to any host.
"""

import asyncio
import sys

import httpx

from requests_mentionme import MentionMeAuth


class MentionMeHttpxAuth(httpx.Auth):
    """Authenticates the requests of an `httpx.AsyncClient`."""

    def __init__(self, auth):
        self._auth = auth

    async def async_auth_flow(self, request):
        """Send a request with a token, and once more with another token after a 401."""
        token = await asyncio.to_thread(self._auth.access_token)
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:
            token = await asyncio.to_thread(self._auth.access_token, refused=token)
            request.headers["Authorization"] = f"Bearer {token}"
            yield request


def new_client():
    """Return a client for the environment that the variables name."""
    auth = MentionMeAuth.from_env()
    return httpx.AsyncClient(base_url=auth.environment.base_url, auth=MentionMeHttpxAuth(auth), timeout=30)


async def validate(client, code):
    """Return what Mention Me says of a coupon code."""
    response = await client.get(f"/api/merchant/v2/coupons/validate/{code}")
    response.raise_for_status()
    return response.json()["validityResponseCode"]


async def main(codes):
    """Validate all coupon codes at the same time."""
    async with new_client() as client:
        print(*await asyncio.gather(*(validate(client, code) for code in codes)), sep="\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
