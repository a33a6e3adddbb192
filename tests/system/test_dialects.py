"""What a real gwd writes in the dialects that take a transfer driver with a URL of its own.

The dialects that need none run jobs in test_gwd.py.  Here jobs fail, for nothing brings their
files: what counts is the description that gwd left.
"""

from collections.abc import Iterator

import pytest

from gridmad.execution.description import JobDescription, StagedFile, parse_description
from tests.services import gwd
from tests.services.gwd import GridWay, Mad, wait_for
from tests.services.required import skip_without

DIALECTS = ("rsl_nsh", "xrsl", "jdl", "jsdl")
"""This gwd does not write ADL."""
URL = "gsiftp://gw.example:2811"
TRANSFER = f"""\
#!/bin/sh
# A transfer driver that has a URL, and nothing to do.
while read -r operation job file rest; do
    case $operation in
    INIT) echo "INIT - - SUCCESS {URL}" ;;
    FINALIZE) exit ;;
    CP) echo "CP $job $file SUCCESS -" ;;
    *) echo "$operation $job - SUCCESS -" ;;
    esac
done
"""


@pytest.fixture(scope="module")
def gridway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GridWay]:
    """A gwd that knows this machine once for each dialect, by its name."""
    if problem := gwd.problem():
        skip_without("gwd", problem)
    folder = tmp_path_factory.mktemp("dialects")
    transfer = folder / "transfer"
    transfer.write_text(TRANSFER)
    transfer.chmod(0o755)
    gridway = GridWay(
        folder,
        information=[
            Mad(f"im-{name}", "gw_im_mad_local", f"--hostname {name}", execution=f"em-{name}")
            for name in DIALECTS
        ],
        execution=[Mad(f"em-{name}", "gw_em_mad_fork", mode=name) for name in DIALECTS],
        transfer=[Mad("tm", str(transfer))],
    )
    with gridway:

        def are_known() -> bool:
            return {host.name for host in gridway.hosts() if host.queues} == set(DIALECTS)

        wait_for(are_known, 30, "all hosts", lambda: str(gridway.hosts()))
        yield gridway


@pytest.fixture(scope="module")
def jobs(gridway: GridWay, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """One job for each dialect, of which gwd has written the description."""
    jobs = {}
    for name in DIALECTS:
        template = {
            "NAME": "mine",
            "EXECUTABLE": "/no/such/program",
            "ARGUMENTS": '-n ${TASK_ID} "a b" --x="c d"',
            "INPUT_FILES": "file:///etc/hostname host, gsiftp://se.example/~/in, /not/staged",
            "OUTPUT_FILES": "out out.${TASK_ID}, same",
            "ENVIRONMENT": 'QUERY="a=1&b<2"',
            "REQUIREMENTS": f'HOSTNAME = "{name}"',
            "TYPE": "mpi",
            "NP": "4",
        }
        [jobs[name]] = gridway.submit(tmp_path_factory.mktemp(name), template)

    def are_submitted() -> bool:
        logs = {name: gridway.location / f"var/em-{name}.log" for name in DIALECTS}
        return all(f"job {jobs[name]}" in logs[name].read_text() for name in DIALECTS)

    wait_for(are_submitted, 30, "the jobs to reach their drivers", gridway.log)
    return jobs


@pytest.mark.parametrize("name", DIALECTS)
def test_what_gwd_writes_is_read(gridway: GridWay, jobs: dict[str, int], name: str) -> None:
    written = gridway.location / "var/000-099" / str(jobs[name])
    found = parse_description((written / "job.rsl.0").read_bytes())
    assert found.environment["GW_JOB_ID"] == str(jobs[name])
    assert found.environment["GW_HOSTNAME"] == name
    wrapper = f"{URL}/{gridway.location}/libexec/gw_wrapper.sh"
    folder = f"{URL}/{written}"
    assert (
        found
        == {
            "rsl_nsh": JobDescription(
                wrapper,
                (f"{folder}/job.env",),
                environment=found.environment,
                stdout=f"{folder}/stdout.wrapper.0",
                stderr=f"{folder}/stderr.wrapper.0",
                count=4,
                nodes=4,
                job_type="mpi",
                queue="default",
            ),
            "xrsl": JobDescription(
                "/no/such/program",
                ("-n", "${TASK_ID}", "a b", "--x=c d"),
                environment=found.environment,
                stdout="stdout.execution",
                stderr="stderr.execution",
                inputs=(
                    StagedFile("host", "file:///etc/hostname"),
                    StagedFile("in", "gsiftp://se.example/~/in"),
                ),
                outputs=(StagedFile("out", "out.${TASK_ID}"), StagedFile("same")),
                queue="default",
            ),
            "jdl": JobDescription(
                "gw_wrapper.sh",
                (f"{folder}/job.env",),
                environment=found.environment,
                stdout="stdout.wrapper.0",
                stderr="stderr.wrapper.0",
                inputs=(StagedFile("gw_wrapper.sh", wrapper, is_executable=True),),
                outputs=(
                    StagedFile("stdout.wrapper.0", f"{folder}/stdout.wrapper.0"),
                    StagedFile("stderr.wrapper.0", f"{folder}/stderr.wrapper.0"),
                ),
                count=4,
                job_type="mpi",
                queue="default",
                extra={"BatchSystem": '"fork"'},
            ),
            "jsdl": JobDescription(
                "./gw_wrapper.sh",
                # This gwd forgets a slash in each of these.
                (f"{folder}/job.env".replace(f"{URL}/", URL),),
                environment=found.environment,
                stdout="stdout.wrapper.0",
                stderr="stderr.wrapper.0",
                inputs=(StagedFile("gw_wrapper.sh", wrapper, is_executable=True),),
                outputs=(
                    StagedFile(
                        "stdout.wrapper.0", f"{folder}/stdout.wrapper.0".replace("/var/", "var/")
                    ),
                    StagedFile(
                        "stderr.wrapper.0", f"{folder}/stderr.wrapper.0".replace("/var/", "var/")
                    ),
                ),
                name="mine",
            ),
        }[name]
    )
    if name == "jsdl":
        assert found.environment["QUERY"] == "a=1&b<2"
