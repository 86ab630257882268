"""How often somebody may call: a fixed window counted in Redis for all processes, here while Redis is away.

A round trip to Redis for each request would cost more than many a request. So a process takes small parts of a
window's allowance, at most a hundredth, less as it runs out and in the end one at a time, and counts them down itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.auth.address import keys_required
from app.settings import Settings

logger = logging.getLogger("gradsmith.rates")

DEFAULT_RATE = "6000/minute"
REDIS_PAUSE_SECONDS = 5.0  # how long Redis is left alone after it did not answer
MOST_REMEMBERED = 10_000


def rates_of(settings: Settings, redis: Redis) -> RateLimits | None:
    """None: nobody is limited. Without keys that is the default, so that nobody's own machine stops him by surprise."""
    rate = settings.rate_limit or (DEFAULT_RATE if keys_required(settings) else "off")
    return None if rate == "off" else RateLimits(rate, redis)


def of_address(address: str) -> str:
    """The account that calls from `address` without a valid key count on. For IPv6 it is the /64 network, since whoever
    has one address of it has them all; an IPv4-mapped IPv6 address counts as the IPv4 address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # a unix socket's path, or a test's name
        return f"address:{address}"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            return f"address:{ipaddress.ip_network((int(found) >> 64 << 64, 64))}"
        found = found.ipv4_mapped
    return f"address:{found}"


@dataclass(frozen=True)
class Standing:
    """Where somebody stands after a call: `remaining` calls until the window ends in `reset_seconds`."""

    allowed: bool
    remaining: int
    reset_seconds: int
    limit: int
    window_seconds: int


@dataclass
class _Window:
    left: int  # of the part that this process took
    elsewhere: int  # of the allowance that nobody has taken, when this process last looked
    ends: float


class RateLimits:
    """One per process, used on its event loop. `rate` is such as `6000/minute` (raises ValueError otherwise)."""

    def __init__(self, rate: str, redis: Redis, clock: Callable[[], float] = time.time) -> None:
        self._item: RateLimitItem = parse(rate)
        # The address is not looked at: the pool is that of the process's other calls, with their time limits.
        shared = RedisStorage(
            "redis://shared:6379", implementation="redispy", key_prefix="gradsmith:rate",
            connection_pool=redis.connection_pool,  # type: ignore[arg-type]  # as its documentation has it
        )  # fmt: skip
        self._shared = FixedWindowRateLimiter(shared)
        self._alone = FixedWindowRateLimiter(MemoryStorage())
        self._clock = clock
        self._redis_again = 0.0
        self._windows: dict[str, _Window] = {}
        self._taking: dict[str, asyncio.Lock] = {}

    async def hit(self, who: str) -> Standing:
        """Count one call of `who`."""
        standing = self._here(who)
        if standing is not None:
            return standing
        lock = self._taking.setdefault(who, asyncio.Lock())
        async with lock:
            standing = self._here(who)  # another call may have taken a part meanwhile
            if standing is None:
                window = await self._take(who)
                self._remember(who, window)
                allowed = window.left > 0
                window.left -= allowed
                standing = self._standing(window, allowed=allowed)
        if not lock.locked():
            self._taking.pop(who, None)
        return standing

    def spent(self, who: str) -> Standing | None:
        """Where `who` stands if he has used up his window, as far as this process knows. Counts nothing."""
        window = self._windows.get(who)
        if window is None or window.ends <= self._clock() or window.left + window.elsewhere > 0:
            return None
        return self._standing(window, allowed=False)

    def _here(self, who: str) -> Standing | None:
        """The answer that needs no round trip, if there is one."""
        window = self._windows.get(who)
        if window is None or window.ends <= self._clock():
            return None
        if window.left > 0:
            window.left -= 1
            return self._standing(window, allowed=True)
        return self._standing(window, allowed=False) if window.elsewhere == 0 else None

    def _remember(self, who: str, window: _Window) -> None:
        self._windows.pop(who, None)
        while len(self._windows) >= MOST_REMEMBERED:
            del self._windows[next(iter(self._windows))]
        self._windows[who] = window

    async def _take(self, who: str) -> _Window:
        before = self._windows.get(who)
        unclaimed = before.elsewhere if before is not None and before.ends > self._clock() else self._item.amount
        part = max(1, min(self._item.amount // 100, unclaimed // 20))
        if self._clock() >= self._redis_again:
            try:
                return await self._take_from(self._shared, who, part)
            except (RedisError, OSError) as error:
                logger.warning("Redis is unreachable; each process counts its own calls: %s", error)
                self._redis_again = self._clock() + REDIS_PAUSE_SECONDS
        return await self._take_from(self._alone, who, part)

    async def _take_from(self, limiter: FixedWindowRateLimiter, who: str, part: int) -> _Window:
        taken = await limiter.hit(self._item, who, cost=part)
        stats = await limiter.get_window_stats(self._item, who)
        return _Window(part if taken else 0, max(0, stats.remaining) if taken else 0, stats.reset_time)

    def _standing(self, window: _Window, *, allowed: bool) -> Standing:
        return Standing(
            allowed=allowed,
            remaining=window.left + window.elsewhere,
            reset_seconds=max(1, round(window.ends - self._clock() + 0.5)),
            limit=self._item.amount,
            window_seconds=self._item.get_expiry(),
        )
