"""What sinfo, squeue and scontrol print, as one host: its queues are Slurm's partitions.

Slots are CPUs.  The host's figures are those of the kind of node that has most of them.
Source: sinfo(1) and squeue(1), the fields of --format; slurm.conf(5), "PARTITION CONFIGURATION".
No I/O happens here.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gridmad.information.glue import UNSET
from gridmad.information.model import Attribute, HostAttributes

NODES_FORMAT: Final = "%R|%a|%N|%C|%c|%m|%e|%d|%l|%s|%p|%g"
JOBS_FORMAT: Final = "%t|%P"

_STATES: Final = {"up": "Production", "down": "Queueing", "drain": "Draining", "inact": "Closed"}
"""Of a partition in GLUE 1's words: where it is down it takes jobs and starts none."""
_TIME = re.compile(r"(?:([0-9]{1,6})-)?([0-9]{1,6})(?::([0-9]{2}))?(?::([0-9]{2}))?")
_FACT = re.compile(r"(?:^| )(Arch|OS)=(\S+)(?: ([0-9][\w.]*))?")


class Node(NamedTuple):
    """One node."""

    name: str
    usable: int
    """CPUs that jobs have or may get."""
    idle: int
    cpus: int
    memory: int
    """MB."""
    free_memory: int | None
    disk: int
    """MB of its TmpFS; 0 where Slurm was not told."""


@dataclass
class Partition:
    """One partition and its nodes."""

    name: str
    state: str
    max_minutes: int
    max_nodes: int | None
    priority: str
    groups: str
    nodes: list[Node] = field(default_factory=list)


class Facts(NamedTuple):
    """What scontrol tells of a node, "" where it does not."""

    architecture: str = ""
    system: str = ""
    version: str = ""


def partitions(output: bytes) -> tuple[list[Partition], list[str]]:
    """The partitions that `sinfo --Node` printed in NODES_FORMAT, sorted by name, and the lines
    that could not be read.
    """
    found: dict[str, Partition] = {}
    problems = []
    for line in _lines(output):
        words = line.split("|")
        try:
            (
                name,
                state,
                node,
                cpu_states,
                cpus,
                memory,
                free,
                disk,
                time,
                size,
                priority,
                groups,
            ) = words
            allocated, idle, _, _ = map(int, cpu_states.split("/"))
            known = Node(
                node,
                allocated + idle,
                idle,
                int(cpus),
                int(memory),
                int(free) if free.isdecimal() else None,
                int(disk),
            )
            most = size.rpartition("-")[2]
            partition = Partition(
                name,
                state,
                minutes(time),
                int(most) if most.isdecimal() else None,
                priority,
                groups,
            )
        except ValueError:
            problems.append(f"sinfo printed {line[:80]!r}")
            continue
        found.setdefault(name, partition).nodes.append(known)
    return [found[name] for name in sorted(found)], problems


def jobs(output: bytes) -> Mapping[str, Counter[str]]:
    """How many jobs of each state (PD, R) each partition has, as `squeue --array` printed it in
    JOBS_FORMAT; one that waits for several partitions counts in each.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for line, count in Counter(_lines(output)).items():
        state, _, names = line.partition("|")
        for name in names.split(","):
            counts[name][state] += count
    return counts


def minutes(text: str) -> int:
    """A limit of time (`days-hours:minutes:seconds`, minutes, infinite) in minutes.

    Raises ValueError where it is none.
    """
    if text.lower() in ("infinite", "unlimited", "n/a"):
        return UNSET
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(text)
    days, first, second, third = (int(part or 0) for part in match.groups())
    if match[1] or match[4]:
        seconds = first * 3600 + second * 60 + third
    elif match[3]:
        seconds = first * 60 + second
    else:
        seconds = first * 60
    return max(1, days * 1440 + seconds // 60)


def facts(output: bytes) -> Facts:
    """What `scontrol --oneliner show node` tells of one."""
    found = {match[1]: match for match in _FACT.finditer(output.decode("utf-8", "replace"))}
    system = found.get("OS")
    return Facts(
        found["Arch"][2] if "Arch" in found else "",
        system[2] if system else "",
        (system[3] or "") if system else "",
    )


def typical_node(found: Iterable[Partition]) -> Node | None:
    """The first node of the kind that has most CPUs."""
    nodes = {node.name: node for partition in found for node in partition.nodes}
    kinds: Counter[tuple[int, int]] = Counter()
    for node in nodes.values():
        kinds[node.cpus, node.memory] += node.cpus
    if not kinds:
        return None
    largest = max(kinds, key=lambda kind: (kinds[kind], kind))
    return min(node for node in nodes.values() if (node.cpus, node.memory) == largest)


def host(
    name: str, found: Sequence[Partition], counts: Mapping[str, Counter[str]], told: Facts
) -> HostAttributes:
    """The cluster as one host of this name."""
    nodes = {node.name: node for partition in found for node in partition.nodes}
    typical = typical_node(found)
    free = [n.free_memory for n in nodes.values() if n.free_memory is not None and n.usable]
    memory = typical.memory if typical else 0
    attributes: dict[str, Attribute] = {
        "HOSTNAME": name,
        "ARCH": told.architecture,
        "NODECOUNT": sum(node.usable for node in nodes.values()),
        "LRMS_NAME": "jobmanager-slurm",
        "LRMS_TYPE": "slurm",
        "FORK_NAME": "jobmanager-slurm",
        "OS_NAME": told.system,
        "OS_VERSION": told.version,
        "CPU_SMP": typical.cpus if typical else 0,
        "FREE_MEM_MB": max(free, default=memory),
        "SIZE_MEM_MB": memory,
    }
    if typical and typical.disk:
        attributes["SIZE_DISK_MB"] = typical.disk
    return HostAttributes(attributes, [_queue(p, counts.get(p.name, Counter())) for p in found])


def _queue(partition: Partition, counts: Mapping[str, int]) -> dict[str, Attribute]:
    slots = sum(node.usable for node in partition.nodes)
    most = slots
    if partition.max_nodes is not None:
        cpus = sorted((node.cpus for node in partition.nodes), reverse=True)
        most = min(slots, sum(cpus[: partition.max_nodes]))
    is_open = partition.groups.lower() in ("all", "")
    groups = [] if is_open else partition.groups.split(",")
    return {
        "QUEUE_NAME": partition.name,
        "QUEUE_NODECOUNT": slots,
        "QUEUE_FREENODECOUNT": sum(node.idle for node in partition.nodes),
        "QUEUE_MAXTIME": partition.max_minutes,
        "QUEUE_MAXCPUTIME": partition.max_minutes,
        # Slurm limits users and accounts, not the jobs of a partition.
        "QUEUE_MAXJOBSINQUEUE": UNSET,
        "QUEUE_MAXRUNNINGJOBS": slots,
        "QUEUE_STATUS": _STATES.get(partition.state, partition.state),
        "QUEUE_DISPATCHTYPE": "batch",
        "QUEUE_PRIORITY": partition.priority,
        "QUEUE_JOBWAIT": str(counts.get("PD", 0)),
        "QUEUE_ACCESS": "".join(f":{group}:" for group in groups),
        "QUEUE_MAXCOUNT": most,
        "QUEUE_JOBRUN": counts.get("R", 0),
    }


def _lines(output: bytes) -> Iterator[str]:
    return (line for line in output.decode("utf-8", "replace").split("\n") if line.strip())
