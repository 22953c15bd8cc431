"""The controller as a process of its own."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import httpx

from tests.store.etcd_server import free_port

ROOT = Path(__file__).parents[2]
CONTROLLER = [sys.executable, "-m", "modelmesh", "controller"]


class ControllerProcess:
    """`modelmesh controller`, killed and started again as often as one likes."""

    def __init__(self, kubeconfig: Path, namespace: str, log: Path, *flags: str, **variables: str) -> None:
        self._environment = os.environ | {"KUBECONFIG": str(kubeconfig), "NAMESPACE": namespace} | variables
        self._flags = flags
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.spells = 0
        self.at_work = False

    async def work(self) -> None:
        """Starts it, again where the API server did not answer, and returns once it reconciles."""
        async with asyncio.timeout(90):
            while True:
                health = self._start()
                while self._runs:
                    if await _is_ready(health):
                        self.spells += 1
                        self.at_work = True
                        return
                    await asyncio.sleep(0.05)

    def _start(self) -> str:
        health = f"127.0.0.1:{free_port()}"
        flags = [f"--health-probe-bind-address={health}", "--metrics-addr=0", *self._flags]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*CONTROLLER, *flags], cwd=ROOT, env=self._environment, stderr=log
            )
        return health

    def kill(self) -> None:
        self.at_work = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def _runs(self) -> bool:
        return self._process is not None and self._process.poll() is None


async def _is_ready(address: str) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(f"http://{address}/readyz")).is_success
        except httpx.TransportError:
            return False
