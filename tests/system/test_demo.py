"""`make demo`, as somebody who tries gridmad sees it: a real gwd, and a job that is watched."""

import subprocess
import sys

from tests.services import gwd, rabbitmq
from tests.services.required import skip_without


def test_the_demo_does_what_it_says() -> None:
    if problem := gwd.problem():
        skip_without("gwd", problem)
    if missing := rabbitmq.missing():
        skip_without("rabbitmq", missing)
    done = subprocess.run(
        [sys.executable, "-B", "-m", "tests.system.demo"],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # The wrapper of gwd writes the output into a file, and that is what was watched.
    assert " live | step 10 of 10: 100 % done" in done.stdout
    assert "is, byte for byte, the output that came back" in done.stdout
    assert "All 20 tasks ended with exit code 0" in done.stdout
