"""The rate limit: whom it counts, for how long, and what its headers say."""

import pytest

WINDOWS = {
    "documented": ({}, (299.5, 0.5), ("300", "1")),
    "a minute": ({"rate_window": 60}, (20, 40), ("60", "40")),
    "half a second": ({"rate_window": 0.5}, (0.25, 0.25), ("1", "1")),
}


@pytest.mark.parametrize(("options", "times", "resets"), WINDOWS.values(), ids=WINDOWS)
def test_spent_rate_limit_is_a_429_until_the_window_ends(clock, serve, options, times, resets):
    client = serve(rate_limit=2, **options)
    token = client.new_token()
    assert client.call(token).limits == ("2", "1", resets[0])
    clock.tick(times[0])
    for status in (200, 429, 429):
        reply = client.call(token)
        assert (reply.status, reply.limits) == (status, ("2", "0", resets[1]))
    assert reply.json == {"code": "429", "message": "Rate limit exceeded."}
    # A clock that is set back starts a new window, too. Otherwise the reset would be far away.
    for seconds in (times[1], -3600):
        clock.tick(seconds)
        reply = client.call(token)
        assert (reply.status, reply.limits) == (200, ("2", "1", resets[0]))


def test_each_token_has_a_limit_of_its_own_which_a_401_spends_and_a_fault_does_not(serve):
    client = serve(rate_limit=1)
    client.sandbox.fail_api_requests(status=500)
    first, second, third = (client.new_token() for _ in range(3))
    assert client.call(first).limits == (None, None, None)
    assert [client.call(token).status for token in (first, second)] == [200, 200]
    client.sandbox.revoke()
    replies = [client.call(token) for token in (first, third, third)]
    assert [(reply.status, reply.limits[1]) for reply in replies] == [(401, "0")] * 3
