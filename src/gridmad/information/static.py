"""gw_im_mad_static: hosts and their attributes from files."""

import argparse
from collections.abc import Mapping, Sequence

from gridmad.errors import DriverError
from gridmad.information.driver import InformationDriver
from gridmad.information.hostlist import HostList
from gridmad.information.model import HostAttributes


class StaticInformation(InformationDriver):
    """Serves a host list; whoever edits its files is heard within a tenth of a second."""

    summary = "Hosts and their attributes from files that are re-read when they change."

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self._list = HostList(options.host_list)

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """Declare -l."""
        parser.add_argument(
            "-l",
            "--host-list",
            metavar="FILE",
            required=True,
            help="a line for each host: HOST ATTRIBUTE_FILE; paths are relative to $GW_LOCATION, "
            "and an attribute file holds assignments such as "
            'QUEUE_NAME[0]="short" QUEUE_NODECOUNT[0]=4',
        )

    def discover(self) -> Sequence[str]:
        """Every host of the list whose attributes could be read."""
        self._list.refresh()
        return list(self._list.attributes)

    def monitor(self, hosts: Sequence[str]) -> Mapping[str, HostAttributes | DriverError]:
        """The attributes as they stand in the files."""
        self._list.refresh()
        return self._list.attributes


DRIVER = StaticInformation
