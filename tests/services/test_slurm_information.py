"""gw_im_mad_slurm on a real Slurm."""

import argparse
import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from gridmad.errors import TransientError
from gridmad.information.slurm import DRIVER
from tests.information import Told, read_host
from tests.services.slurm import CPUS, NODES, SlurmCluster
from tests.services.slurm import own_slurm as own_slurm
from tests.services.slurm import slurm as slurm

HOST = "cluster.example.org"


def ask(*arguments: str) -> dict[str, Told]:
    """Every host that DISCOVER tells, with what MONITOR tells of it."""

    async def main() -> dict[str, Told]:
        parser = argparse.ArgumentParser()
        DRIVER.add_options(parser)
        options = parser.parse_args(["--hostname", HOST, *arguments])
        options.staleness = 1800.0
        driver = DRIVER(options)
        await driver.start()
        try:
            hosts = driver.discover()
            names = list(await hosts if isinstance(hosts, Awaitable) else hosts)
            values = driver.monitor(names)
            assert not isinstance(values, Awaitable)
            found = {}
            for name, value in values.items():
                found[name] = read_host(value)
            return found
        finally:
            await driver.stop()

    return asyncio.run(main())


def test_partitions_are_queues(slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    (attributes,) = ask().values()
    assert attributes.dropped == ()
    host = dict(attributes.host)
    assert (host["HOSTNAME"], host["LRMS_NAME"]) == (HOST, "jobmanager-slurm")
    assert (host["NODECOUNT"], host["CPU_SMP"], host["SIZE_MEM_MB"]) == (NODES * CPUS, CPUS, 16000)
    assert str(host["ARCH"]) in slurm.run("scontrol", "--oneliner", "show", "node", "n0")
    assert host["OS_NAME"] == "Linux"
    assert str(host["OS_VERSION"])[0].isdigit()
    queues = {str(queue["QUEUE_NAME"]): queue for queue in attributes.queues}
    assert {name: queue["QUEUE_MAXTIME"] for name, queue in queues.items()} == {
        "long": 1440,
        "short": 60,
    }
    for queue in queues.values():
        assert queue["QUEUE_NODECOUNT"] == NODES * CPUS
        assert queue["QUEUE_STATUS"] == "Production"


def test_one_partition(slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    (attributes,) = ask("--partition", "long").values()
    assert [queue["QUEUE_NAME"] for queue in attributes.queues] == ["long"]


def test_an_attribute_file_wins(
    slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    (tmp_path / "attributes").write_text("CPU_MHZ=2600 SIZE_MEM_MB=7")
    hosts = tmp_path / "host.list"
    hosts.write_text(f"{HOST} {tmp_path}/attributes\n")
    (attributes,) = ask("-l", str(hosts)).values()
    assert (attributes.host["CPU_MHZ"], attributes.host["SIZE_MEM_MB"]) == (2600, 7)


def test_jobs_states_and_a_controller_that_is_gone(
    own_slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", own_slurm.environment["SLURM_CONF"])
    own_slurm.run("scontrol", "update", "PartitionName=long", "State=DRAIN")
    own_slurm.run("scontrol", "update", "NodeName=n1", "State=DRAIN", "Reason=test")
    for held in ([], ["--hold", "--array=0-4"]):
        words = ["--partition=short", "--cpus-per-task=3", "--output=/dev/null", *held]
        own_slurm.run("sbatch", *words, "--wrap=sleep 60")

    def counted() -> tuple[object, ...]:
        (attributes,) = ask().values()
        queues = {str(queue["QUEUE_NAME"]): queue for queue in attributes.queues}
        names = ("NODECOUNT", "FREENODECOUNT", "JOBRUN", "JOBWAIT")
        short = tuple(queues["short"][f"QUEUE_{name}"] for name in names)
        return *short, queues["long"]["QUEUE_STATUS"], attributes.host["NODECOUNT"]

    # Of a job that runs Slurm's two commands tell a moment apart.
    expected = (CPUS, CPUS - 3, 1, "5", "Draining", CPUS)
    assert any(counted() == expected for _ in range(300)), counted()

    own_slurm.stop_controller()
    with pytest.raises(TransientError, match=r"sinfo|squeue"):
        ask("--timeout", "20")
