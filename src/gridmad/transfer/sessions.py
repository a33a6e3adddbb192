"""Sessions that are kept for the next one who needs a place at the same endpoint."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Final

from gridmad.errors import DriverError, TransientError
from gridmad.transfer.storage import Session, Storage
from gridmad.transfer.url import Url

log = logging.getLogger(__name__)

IDLE_TIME: Final = 60.0
"""Seconds after which a session that nobody uses is closed, give or take half of it."""


class StaleSessionError(TransientError):
    """A session that was kept had come to its end; a new one may do."""


class Sessions:
    """The sessions of all storages."""

    def __init__(self, idle_time: float = IDLE_TIME) -> None:
        self._idle_time = idle_time
        self._idle: dict[str, list[tuple[Session, float]]] = {}
        """By endpoint, with the time since when; the last used is the last."""
        self._opening: dict[Storage, asyncio.Lock] = {}
        self._open: set[Storage] = set()
        self._watching: list[asyncio.Task[None]] = []
        self._tidying: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def session(self, storage: Storage, url: Url) -> AsyncIterator[Session]:
        """A session for one user, who leaves it in order or not at all.

        Raises StaleSessionError in place of the TransientError of a session that was kept.
        """
        endpoint = storage.endpoint(url)
        session = await self._kept(endpoint)
        is_kept = session is not None
        if session is None:
            await self._make_ready(storage)
            session = await storage.connect(url)
        is_sound = False
        try:
            yield session
            is_sound = session.is_open
        except TransientError as error:
            if is_kept:
                # Those that were kept with it have most likely gone the same way.
                await self._close(endpoint)
                raise StaleSessionError(str(error)) from None
            raise
        except DriverError:
            is_sound = session.is_open
            raise
        finally:
            if is_sound:
                self._keep(endpoint, session)
            else:
                await session.close()

    async def close(self) -> None:
        """Close all sessions, and all storages."""
        if self._tidying is not None:
            self._tidying.cancel()
            self._tidying = None
        for endpoint in list(self._idle):
            await self._close(endpoint)
        for task in self._watching:
            task.cancel()
        self._watching.clear()
        for storage in self._open:
            await storage.close()
        self._open.clear()

    async def _kept(self, endpoint: str) -> Session | None:
        while sessions := self._idle.get(endpoint):
            session, _ = sessions.pop()
            if not sessions:
                del self._idle[endpoint]
            if session.is_open:
                return session
            await session.close()
        return None

    def _keep(self, endpoint: str, session: Session) -> None:
        loop = asyncio.get_running_loop()
        self._idle.setdefault(endpoint, []).append((session, loop.time()))
        if self._tidying is None:
            self._tidying = loop.create_task(self._tidy())

    async def _tidy(self) -> None:
        """Close what was not used for long, until nothing is kept."""
        loop = asyncio.get_running_loop()
        while self._idle:
            await asyncio.sleep(self._idle_time / 2)
            latest = loop.time() - self._idle_time
            for endpoint, sessions in list(self._idle.items()):
                old = [session for session, since in sessions if since <= latest]
                self._idle[endpoint] = [kept for kept in sessions if kept[1] > latest]
                if not self._idle[endpoint]:
                    del self._idle[endpoint]
                for session in old:
                    await session.close()
        self._tidying = None

    async def _close(self, endpoint: str) -> None:
        for session, _ in self._idle.pop(endpoint, []):
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
