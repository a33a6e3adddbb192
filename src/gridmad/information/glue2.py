"""GLUE 2 entries to host attributes.

    MappingPolicy --> ComputingShare --> ComputingService <-- ComputingEndpoint
                            |                    ^
                            v                    |
    Benchmark --> ExecutionEnvironment --> ComputingManager

A host is what the shares of services at one host name have in common.  Its queues are the
shares grouped by the queue that they map to: a site may publish one for each VO, and one
without a policy, which then stands for all of them.  What a site does not publish is None,
and nothing here raises for what is absent or broken.  Times are seconds, disks are GB.
Source: GFD.147, the GLUE specification 2.0; GFD.218, its LDAP rendering; the EGI profile.
No I/O happens here.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from gridmad.information.glue import (
    UNSET,
    Decoded,
    Known,
    PublishedHost,
    access,
    lets_in,
    state,
    state_of,
    text_of,
)
from gridmad.information.glue2_directory import Directory, Share, cpus_of, known_text, limit
from gridmad.information.glue2_schema import ARCHITECTURES
from gridmad.information.ldap import Entry
from gridmad.information.model import Attribute

STATES: Final = ("Production", "Queueing", "Draining", "Closed")
"""In GLUE 1's words, the best first."""
SPEC_INT_OF_HEPSPEC: Final = 250
"""The SPECint2000 that one HEP-SPEC06 counts as in the accounting of WLCG."""

_VALUE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*")


def decode(
    entries: Mapping[str, Iterable[Entry]], vos: Iterable[str] = (), *, only: bool = False
) -> Decoded:
    """The hosts that `entries`, by object class, describe, their queues sorted by name.

    Figures are those of the shares that a policy maps `vos` to, where some are named.  With
    `only`, a queue whose policies let none of them in is left out, and QUEUE_ACCESS tells of
    no others.
    """
    problems: list[str] = []
    directory = Directory(entries, problems)
    wanted = frozenset(vo.lower() for vo in vos)
    found: defaultdict[str, defaultdict[str, list[Share]]] = defaultdict(lambda: defaultdict(list))
    for share in directory.shares():
        if share.host is None:
            problems.append(f"GLUE2ShareID {share.identity!r} leads to no host: left out")
        elif not share.queue:
            problems.append(f"GLUE2ShareID {share.identity!r} names no queue: left out")
        else:
            found[share.host][share.queue].append(share)
    hosts = {}
    for host in sorted(found):
        queues = {
            queue: sorted(shares, key=lambda share: share.identity)
            for queue, shares in found[host].items()
            if not only or _is_open(shares, wanted)
        }
        if queues:
            hosts[host] = _published(host, queues, directory, wanted, only)
            if not any(s.around.environments for shares in queues.values() for s in shares):
                problems.append(f"host {host}: its shares lead to no GLUE2ExecutionEnvironment")
    return Decoded(hosts, problems)


def _is_open(shares: Sequence[Share], vos: Collection[str]) -> bool:
    """Whether some policy of a queue lets one of `vos` in, or it has none."""
    rules = [rule for share in shares for rule in share.rules]
    return not rules or lets_in(rules, vos)


def _published(
    host: str,
    queues: Mapping[str, Sequence[Share]],
    directory: Directory,
    vos: Collection[str],
    only: bool,
) -> PublishedHost:
    """A host with its queues, each of the shares that map to it."""
    around = [share.around for shares in queues.values() for share in shares]
    counted = Counter((each.lrms_name, each.lrms_type) for each in around)
    # Of several batch systems on a host gwd can address one: that of most shares.
    manager, lrms_type = min(counted, key=lambda key: (-counted[key], key))
    environments: dict[str, Entry] = {}
    managers: dict[str, Entry] = {}
    for each in around:
        environments.update(each.environments)
        managers.update(each.managers)
    cpus = {key: cpus_of(entry) for key, entry in environments.items()}
    largest = min(cpus, key=lambda key: (-cpus[key], key), default="")
    nodes = environments.get(largest, {})
    sizes = (limit(e, "glue2executionenvironmentmainmemorysize") for e in environments.values())
    memory = min((size for size in sizes if size), default=None)
    platform = known_text(nodes, "glue2executionenvironmentplatform") or ""
    slots = max((each.slots or 0 for each in around), default=0)
    attributes: dict[str, Known] = {
        "HOSTNAME": host,
        "ARCH": ARCHITECTURES.get(platform.lower(), platform) or None,
        "NODECOUNT": slots or sum(cpus.values()) or None,
        "LRMS_NAME": manager or None,
        "LRMS_TYPE": lrms_type or None,
        "OS_NAME": known_text(nodes, "glue2executionenvironmentosname")
        or known_text(nodes, "glue2executionenvironmentosfamily"),
        "OS_VERSION": known_text(nodes, "glue2executionenvironmentosversion"),
        "CPU_MODEL": known_text(nodes, "glue2executionenvironmentcpumodel"),
        "CPU_MHZ": limit(nodes, "glue2executionenvironmentcpuclockspeed"),
        "CPU_SMP": limit(nodes, "glue2executionenvironmentlogicalcpus"),
        "FREE_MEM_MB": memory,
        "SIZE_MEM_MB": memory,
    }
    more = _disks(managers.values())
    if site := next((each.site for each in around if each.site), ""):
        more["SITE_NAME"] = site
    more |= _benchmarks(directory.benchmarks(largest))
    told_queues = {name: _queue(name, queues[name], vos, only) for name in sorted(queues)}
    return PublishedHost(attributes, told_queues, more)


def _disks(managers: Iterable[Entry]) -> dict[str, Attribute]:
    """The largest working area."""
    disks: dict[str, Attribute] = {}
    largest = 0
    for manager in managers:
        size = limit(manager, "glue2computingmanagerworkingareatotal") or 0
        if size > largest:
            largest = size
            free = state_of(manager, "glue2computingmanagerworkingareafree")
            disks = {"SIZE_DISK_MB": size * 1024, "FREE_DISK_MB": (free or 0) * 1024}
    return disks


def _benchmarks(entries: Iterable[Entry]) -> dict[str, Attribute]:
    found: dict[str, Attribute] = {}
    for benchmark in entries:
        match = _VALUE.fullmatch(text_of(benchmark, "glue2benchmarkvalue"))
        kind = text_of(benchmark, "glue2benchmarktype").lower().replace("-", "")
        value = float(match[1]) if match else 0.0
        if kind in ("hepspec", "hepspec06"):
            kind, value = "specint2000", value * SPEC_INT_OF_HEPSPEC
        name = {"specint2000": "SPEC_INT", "specfp2000": "SPEC_FLOAT"}.get(kind)
        if name and round(value):
            found[name] = round(value)
    return found


def _queue(name: str, group: Sequence[Share], vos: Collection[str], only: bool) -> dict[str, Known]:
    """One queue of the shares that map to it."""
    shares = group
    if len(group) > 1 or vos:
        shares = [share for share in group if vos and lets_in(share.rules, vos)]
        shares = shares or [share for share in group if not share.rules] or group
    numbers = [share.numbers for share in shares]
    slots = _largest(share.max_running_jobs for share in shares)
    if slots is None:
        slots = _largest(share.around.slots for share in shares)
    waiting = _total(each.waiting_jobs for each in numbers)
    states = {share.state for share in shares if share.state}
    rules = [rule for share in group for rule in share.rules]
    queue: dict[str, Known] = {
        "QUEUE_NAME": name,
        "QUEUE_NODECOUNT": slots,
        "QUEUE_FREENODECOUNT": _largest(share.free_slots(slots) for share in shares),
        "QUEUE_MAXTIME": _largest(
            _minutes(each.max_wall_time or each.default_wall_time) for each in numbers
        ),
        "QUEUE_MAXCPUTIME": _largest(
            _minutes(each.max_cpu_time or each.default_cpu_time) for each in numbers
        ),
        "QUEUE_MAXJOBSINQUEUE": _largest(share.max_jobs for share in shares),
        "QUEUE_MAXRUNNINGJOBS": _largest(each.max_running_jobs for each in numbers) or None,
        "QUEUE_STATUS": next((s for s in STATES if s in states), min(states, default=None)),
        "QUEUE_DISPATCHTYPE": "batch",
        "QUEUE_PRIORITY": None,
        "QUEUE_JOBWAIT": None if waiting is None else str(waiting),
        "QUEUE_ACCESS": access(rules, vos if only else ()) or None,
        "QUEUE_MAXCOUNT": _largest(each.max_slots_per_job for each in numbers) or None,
    }
    running = _total(each.running_jobs for each in numbers)
    if running is not None:
        queue["QUEUE_JOBRUN"] = running
    response_time = _largest(state(each.average_waiting_time) for each in numbers)
    if response_time is not None:
        queue["QUEUE_RESPONSETIME"] = response_time
    return queue


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _total(values: Iterable[int | None]) -> int | None:
    """The sum of those that are known."""
    known = [value for value in map(state, values) if value is not None]
    return sum(known) if known else None


def _minutes(seconds: int | None) -> int | None:
    """A limit in minutes; one that nobody set as it is."""
    if not seconds:
        return None
    return seconds if seconds >= UNSET else max(1, seconds // 60)
