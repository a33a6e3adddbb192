"""Sessions that are kept for the next one who needs a place at the same endpoint."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from gridmad.errors import DriverError, TransientError
from gridmad.transfer.failure import TransientToldError, about
from gridmad.transfer.storage import Session, Storage
from gridmad.transfer.url import Url

log = logging.getLogger(__name__)

IDLE_TIME: Final = 60.0
"""Seconds after which a session that nobody uses is closed, give or take half of it."""


class StaleSessionError(TransientToldError):
    """A session that was kept had come to its end; a new one may do."""


class _Endpoint:
    """The sessions at one endpoint that nobody uses, and those who wait for one.

    One is connected at a time: to log in may cost a server more than many small files, and by
    then an earlier session may be free.
    """

    def __init__(self) -> None:
        self.idle: list[tuple[Session, float]] = []
        """With the time since when; the last used is the last."""
        self.waiting: deque[asyncio.Future[Session | None]] = deque()
        """Each gets a session, or None to connect one itself."""
        self.is_connecting = False
        self.users = 0
        """Those who have a session, or wait for one."""

    @property
    def is_unused(self) -> bool:
        return not (self.idle or self.users)

    def hand_over(self, session: Session | None) -> bool:
        """Give it to who waits longest."""
        while self.waiting:
            future = self.waiting.popleft()
            if not future.done():
                future.set_result(session)
                return True
        return False

    def fail(self, error: TransientError) -> None:
        """All who wait would find the same."""
        while self.waiting:
            future = self.waiting.popleft()
            if not future.done():
                future.set_exception(error)


class Sessions:
    """The sessions of all storages."""

    def __init__(self, idle_time: float = IDLE_TIME) -> None:
        self._idle_time = idle_time
        self._endpoints: dict[str, _Endpoint] = {}
        self._opening: dict[Storage, asyncio.Lock] = {}
        self._open: set[Storage] = set()
        self._watching: list[asyncio.Task[None]] = []
        self._tidying: asyncio.Task[None] | None = None
        self._is_ending = False

    @contextlib.asynccontextmanager
    async def session(self, storage: Storage, url: Url) -> AsyncIterator[Session]:
        """A session for one user, who leaves it in order or not at all.

        Raises StaleSessionError in place of the TransientError of a session that was kept.
        """
        name = storage.endpoint(url)
        endpoint = self._endpoints.setdefault(name, _Endpoint())
        endpoint.users += 1
        try:
            session = await self._kept(endpoint)
            is_kept = session is not None
            if session is None:
                session = await self._connect(endpoint, storage, url)
            is_sound = False
            try:
                yield session
                is_sound = session.is_open
            except TransientError as error:
                if is_kept and not isinstance(error, StaleSessionError):
                    # Those that were kept with it have most likely gone the same way.
                    await self._close(endpoint)
                    raise StaleSessionError(str(error)) from None
                raise
            except DriverError:
                is_sound = session.is_open
                raise
            finally:
                if self._is_ending:
                    await session.abandon()
                elif is_sound:
                    self._keep(endpoint, session)
                else:
                    await session.close()
        finally:
            endpoint.users -= 1
            if endpoint.is_unused:
                self._endpoints.pop(name, None)

    def end(self) -> None:
        """The process is about to end: keep no session any more."""
        self._is_ending = True

    async def close(self) -> None:
        """Close all sessions, and all storages."""
        self.end()
        for task in (self._tidying, *self._watching):
            if task is not None:
                task.cancel()
        for endpoint in self._endpoints.values():
            endpoint.fail(TransientError("the driver was stopped"))
            await self._close(endpoint)
        for storage in self._open:
            await storage.close()
        self._open.clear()

    async def _kept(self, endpoint: _Endpoint) -> Session | None:
        """A session that is free, now or soon; None for who is to connect one."""
        while True:
            while endpoint.idle:
                session, _ = endpoint.idle.pop()
                if session.is_open:
                    return session
                await session.close()
            if not endpoint.is_connecting:
                return None
            future = asyncio.get_running_loop().create_future()
            endpoint.waiting.append(future)
            try:
                given: Session | None = await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled() and future.exception() is None:
                    if (left := future.result()) is not None:
                        self._keep(endpoint, left)
                    else:
                        endpoint.hand_over(None)
                raise
            if given is not None:
                return given

    async def _connect(self, endpoint: _Endpoint, storage: Storage, url: Url) -> Session:
        endpoint.is_connecting = True
        try:
            await self._make_ready(storage)
            with about("reach", storage.endpoint(url)):
                return await storage.connect(url)
        except TransientError as error:
            endpoint.fail(error)
            raise
        finally:
            endpoint.is_connecting = False
            endpoint.hand_over(None)

    def _keep(self, endpoint: _Endpoint, session: Session) -> None:
        if endpoint.hand_over(session):
            return
        loop = asyncio.get_running_loop()
        endpoint.idle.append((session, loop.time()))
        if self._tidying is None:
            self._tidying = loop.create_task(self._tidy())

    async def _tidy(self) -> None:
        """Close what was not used for long, until nothing is kept."""
        loop = asyncio.get_running_loop()
        while self._endpoints:
            await asyncio.sleep(self._idle_time / 2)
            latest = loop.time() - self._idle_time
            for name, endpoint in list(self._endpoints.items()):
                old = [session for session, since in endpoint.idle if since <= latest]
                endpoint.idle = [kept for kept in endpoint.idle if kept[1] > latest]
                if endpoint.is_unused:
                    del self._endpoints[name]
                for session in old:
                    await session.close()
        self._tidying = None

    async def _close(self, endpoint: _Endpoint) -> None:
        idle, endpoint.idle = endpoint.idle, []
        for session, _ in idle:
            await session.close()

    async def _make_ready(self, storage: Storage) -> None:
        if storage in self._open:
            return
        async with self._opening.setdefault(storage, asyncio.Lock()):
            if storage not in self._open:
                await storage.open()
                self._open.add(storage)
                loop = asyncio.get_running_loop()
                self._watching += [
                    loop.create_task(watch.run(log.info)) for watch in storage.credentials()
                ]
