"""What back ends for a site's batch system have in common: tools, status files, one endpoint."""

import argparse
import shlex
from collections.abc import Mapping
from typing import ClassVar

from gridmad.commands import Commands, Finished
from gridmad.errors import DriverError
from gridmad.execution.model import Submission
from gridmad.execution.resource import Resource
from gridmad.execution.status_files import StatusFiles


class BatchSystem(Resource):
    """A batch system, spoken to by its command-line tools.

    `commands` and `status_files` are those of another host, where it is reached there.
    """

    looks = True
    submit_tool: ClassVar[str]
    """The tool that submits; without it there is nothing to begin with."""
    package: ClassVar[str]
    """What has its tools."""

    def __init__(
        self,
        options: argparse.Namespace,
        commands: Commands | None = None,
        status_files: StatusFiles | None = None,
    ) -> None:
        super().__init__(options)
        self.is_elsewhere = commands is not None
        self._commands = commands or Commands(seconds=options.timeout)
        self._files = status_files

    async def start(self) -> None:
        """Find the tools."""
        if not self._commands.has(self.submit_tool):
            raise DriverError(f"no {self.submit_tool} on the PATH: install {self.package}")

    def endpoint(self, submission: Submission) -> str:
        """There is one cluster, whatever gwd calls it."""
        return ""

    @property
    def _status_files(self) -> StatusFiles:
        if self._files is None:
            self._files = StatusFiles(self.folder)
        return self._files

    async def _run(
        self, *words: str, given: bytes = b"", environment: Mapping[str, str] | None = None
    ) -> Finished:
        return await self._commands.run(*words, given=given, environment=environment)


def add_native_option(parser: argparse.ArgumentParser, tool: str, example: str) -> None:
    """Declare --native."""
    parser.add_argument(
        "--native",
        metavar="WORDS",
        type=shlex.split,
        default=[],
        help=f"further words for every {tool}, as '{example}'",
    )
