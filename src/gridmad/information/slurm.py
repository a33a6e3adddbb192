"""gw_im_mad_slurm: a Slurm cluster as one host, whose queues are its partitions.

Every refresh is one `sinfo` and one `squeue`; one `scontrol` tells what system the nodes have,
asked again only when another kind of node is the usual one.  The partitions are those that
sinfo shows to the driver's user.
"""

import argparse
import asyncio
import re
from collections.abc import Awaitable

from gridmad.commands import Commands
from gridmad.errors import DriverError, TransientError, UsageError
from gridmad.information import slurm_tables
from gridmad.information.machine import check_name, own_name
from gridmad.information.model import HostAttributes
from gridmad.information.published import PublishedInformation
from gridmad.options import seconds

_PARTITIONS = re.compile(r"[A-Za-z0-9_][^\s,|]*(,[A-Za-z0-9_][^\s,|]*)*")


class SlurmInformation(PublishedInformation):
    """Partitions and nodes, by Slurm's own commands."""

    summary = "The partitions of a Slurm cluster as the queues of one host."
    source = "Slurm"
    refresh = 30.0

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        check_name(options.hostname)
        if options.partition is not None and not _PARTITIONS.fullmatch(options.partition):
            raise UsageError(f"--partition {options.partition!r}: write NAME or NAME,NAME")
        self._host: str = options.hostname or ""
        self._facts = slurm_tables.Facts()
        self._facts_of = ""

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare the host's name and what is shown of it."""
        parser.add_argument(
            "--hostname",
            metavar="NAME",
            help="name of the host that the cluster is (default: this machine's own)",
        )
        parser.add_argument(
            "--partition",
            metavar="NAME[,NAME...]",
            help="the partitions to show (default: all that the driver's user may see)",
        )
        parser.add_argument(
            "--timeout",
            metavar="SECONDS",
            type=seconds,
            default=30.0,
            help="time that each of Slurm's commands has (default: %(default)g)",
        )
        super().add_options(parser)

    async def start(self) -> None:
        """Find out this machine's name."""
        self._host = (self._host or await own_name()).lower()
        await super().start()

    @property
    def place(self) -> str:
        """The host."""
        return f"Slurm at {self._host}"

    def read(self) -> dict[str, HostAttributes]:
        """The one host."""
        return asyncio.run(self._ask())

    async def _ask(self) -> dict[str, HostAttributes]:
        commands = Commands(seconds=self.options.timeout)
        chosen = [f"--partition={self.options.partition}"] if self.options.partition else []
        nodes, jobs = await _both(
            _run(commands, "sinfo", "--noheader", "--Node", "--exact", *chosen,
                 f"--format={slurm_tables.NODES_FORMAT}"),
            _run(commands, "squeue", "--noheader", "--array", "--states=PENDING,RUNNING", *chosen,
                 f"--format={slurm_tables.JOBS_FORMAT}"),
        )  # fmt: skip
        partitions, problems = slurm_tables.partitions(nodes)
        for problem in problems:
            self.report(problem)
        typical = slurm_tables.typical_node(partitions)
        if typical is not None and typical.name != self._facts_of:
            words = ("scontrol", "--oneliner", "show", "node", typical.name)
            self._facts = slurm_tables.facts(await _run(commands, *words))
            self._facts_of = typical.name
        if not partitions:
            return {}
        counts = slurm_tables.jobs(jobs)
        return {self._host: slurm_tables.host(self._host, partitions, counts, self._facts)}


async def _both(first: Awaitable[bytes], second: Awaitable[bytes]) -> tuple[bytes, bytes]:
    """What both give.  Where one fails the other is waited for, too: none is left running."""
    one, other = await asyncio.gather(first, second, return_exceptions=True)
    if isinstance(one, BaseException):
        raise one
    if isinstance(other, BaseException):
        raise other
    return one, other


async def _run(commands: Commands, *words: str) -> bytes:
    """What a command prints.  Raises TransientError where it fails."""
    try:
        done = await commands.run(*words)
    except DriverError as error:
        raise TransientError(str(error)) from None
    if done.exit_code != 0:
        text = done.errors or f"exit code {done.exit_code}"
        raise TransientError(f"{words[0]}: {text.removeprefix(f'{words[0]}: ')}")
    return done.output


DRIVER = SlurmInformation
