"""Submissions: gw_em_mad_fork against DRM4G's execution driver."""

from pathlib import Path

from bench import drm4g
from bench.conftest import IS_QUICK, Contest
from bench.players import BIN, Player

JOB = """<job> <executable>/bin/true</executable> \
<environment> <name>GW_JOB_ID</name> <value>1</value></environment> \
<stdout>stdout.bench</stdout> <stderr>stderr.bench</stderr> <count>1</count></job>"""


def test_submit(contest: Contest, tmp_path: Path) -> None:
    """Each job is submitted when the one before was answered."""
    count = 10 if IS_QUICK else 50
    description = tmp_path / "job.rsl"
    description.write_text(JOB)
    ours_home, theirs_home = tmp_path / "ours", tmp_path / "theirs"
    ours_home.mkdir()
    ours_command = [str(BIN / "gw_em_mad_fork"), "--state", str(tmp_path / "state")]
    with (
        Player(ours_command, {"HOME": str(ours_home)}) as ours,
        Player(
            drm4g.driver("gw_em_mad_drm4g.py"), drm4g.environment(theirs_home), tmp_path
        ) as theirs,
    ):
        ours.initialise()
        theirs.initialise()
        # Its transfer driver would have made it.
        (theirs_home / ".drm4g" / "jobs").mkdir()

        def closed(player: Player) -> None:
            for number in range(count):
                request = f"SUBMIT {number} {drm4g.HOST}/fork {description}\n".encode()
                answer = player.ask(request)
                while b"SUBMIT" not in answer:  # a CALLBACK of a job before
                    answer += player.ask(b"")
                assert b"SUBMIT %d SUCCESS" % number in answer

        contest.run(
            "SUBMIT of /bin/true, one at a time",
            lambda: closed(ours),
            lambda: closed(theirs),
            against="DRM4G's execution driver",
            floor=3,
            ambition=4.6,
            rounds=4,
            note=lambda seconds: f"{count / seconds:.0f} a second",
        )
