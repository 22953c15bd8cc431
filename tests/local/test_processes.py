import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from local.processes import Command, ContainerProcess
from tests.local.conftest import PARENT, SLEEPER, STUBBORN, start, until


async def output(folder: Path) -> str:
    async def written() -> str:
        return (folder / "log").read_text()

    await until(written, "output")
    return await written()


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_output_goes_to_the_log_and_the_status_comes_back(tmp_path: Path) -> None:
    process = await start("print('hello'); raise SystemExit(5)", tmp_path)
    assert await process.wait() == 5
    assert (tmp_path / "log").read_text() == "hello\n"


async def test_a_signal_counts_as_128_and_its_number(tmp_path: Path) -> None:
    process = await start(SLEEPER, tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    assert await process.wait() == 137


async def test_stopping_asks_first(tmp_path: Path) -> None:
    process = await start(SLEEPER, tmp_path)
    assert await process.stop(10) == 143


async def test_who_does_not_listen_is_killed_after_the_grace_period(tmp_path: Path) -> None:
    process = await start(STUBBORN, tmp_path)
    await output(tmp_path)
    assert await process.stop(0.2) == 137


async def test_what_a_killed_process_started_goes_with_it(tmp_path: Path) -> None:
    process = await start(PARENT, tmp_path)
    child = int(await output(tmp_path))
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()

    async def child_gone() -> bool:
        return gone(child)

    await until(child_gone, "the child to end")


async def test_a_program_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nonexistent"):
        await ContainerProcess.start(Command(["/nonexistent"], {}, tmp_path), tmp_path / "log")


async def test_a_process_dies_with_the_one_that_started_it(tmp_path: Path) -> None:
    starter = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from local.processes import Command, ContainerProcess\n"
        "async def main():\n"
        "    command = Command([sys.executable, '-c', 'import time; time.sleep(600)'], {}, Path('.'))\n"
        "    process = await ContainerProcess.start(command, Path('log'))\n"
        "    print(process.pid, flush=True)\n"
        "    await process.wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", starter),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()

    async def child_gone() -> bool:
        return gone(child)

    await until(child_gone, "the container to end")
