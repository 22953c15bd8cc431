"""What .ci/run does in each situation, with stand-ins for the programs that it calls."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fvt.overlay import ROOT

STAND_INS = {
    "bin/make": 'echo "make $*" >>"$LOG"; [ "$1" != fvt-cluster ] || { sleep "$SLOW"; exit "$BUILD"; }',
    "bin/id": "echo 1000",
    "hack/native-cluster": """
        echo "native-cluster $*" >>"$LOG"
        case $1 in check) exit "$CHECK" ;; status) exit "$STATUS" ;; exec) exit "$FVT" ;; esac
    """,
    ".venv/bin/python": "exit 0",
}
"""The last words of each decide its status: CHECK, STATUS, BUILD and FVT."""
GOOD = {"CHECK": "0", "STATUS": "1", "BUILD": "0", "FVT": "0", "SLOW": "0"}
NOT_RUN = "THE FUNCTIONAL VERIFICATION DID NOT RUN"
VERIFY = "native-cluster exec -- .venv/bin/python -m fvt tutorial cases alone --short"
DOWN = "native-cluster down"


@pytest.mark.parametrize(
    ("situation", "status", "verified", "ended"),
    [
        pytest.param({}, 0, True, True, id="good"),
        pytest.param({"STATUS": "0"}, 0, True, False, id="a cluster that was there stays"),
        pytest.param({"CHECK": "1"}, 0, False, False, id="cannot run one"),
        pytest.param({"BUILD": "3"}, 3, False, True, id="a build fails"),
        pytest.param({"SLOW": "9"}, 0, False, True, id="a build takes too long"),
        pytest.param({"FVT": "2"}, 2, True, True, id="a case fails"),
    ],
)
def test_it_verifies_or_says_that_it_did_not(
    tmp_path: Path, situation: dict[str, str], status: int, *, verified: bool, ended: bool
) -> None:
    for name, text in STAND_INS.items():
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/bash\n{text}\n")
        program.chmod(0o755)
    (tmp_path / ".ci").mkdir()
    script = Path(shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run"))
    if "SLOW" in situation:
        script.write_text(script.read_text().replace("BUILT_BY=2400", "BUILT_BY=1"))
    log = tmp_path / "log"
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    environment = os.environ | GOOD | situation | {"LOG": str(log), "PATH": path}
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status, done.stderr
    calls = log.read_text().splitlines()
    assert calls[:3] == ["make lint", "make verify", "make test"]
    assert (VERIFY in calls) == verified
    assert (NOT_RUN in done.stderr) == (not verified and status == 0)
    assert (DOWN in calls) == ended
