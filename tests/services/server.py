"""What all servers of the tests have in common."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Server(ABC):
    """A server that, as a context manager, is started, and closed whatever happens."""

    @abstractmethod
    def start(self) -> None:
        """Start, and wait until it answers."""

    @abstractmethod
    def close(self) -> None:
        """End what has been started; nothing is left of it."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
