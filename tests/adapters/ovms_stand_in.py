"""A STAND-IN for OpenVINO Model Server, of which no package registry has the program.

It speaks the server's REST configuration API as its documentation tells it: `GET /v1/config`, and
`POST /v1/config/reload`, which reads the configuration file and answers 201 where something changed, 200
where nothing did, and an error where a model failed. A model with a file named `bad` fails. It serves no
inference: what it proves is how the adapter manages models, not that the real server behaves so.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from aiohttp import web


class OvmsStandIn:
    """One server, in this process."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.status: dict[str, Any] = {}
        self.reloads: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.unload_delay = 0
        self._runner: web.AppRunner | None = None

    async def start(self, port: int) -> None:
        """Reads the configuration and listens."""
        self._read()
        app = web.Application()
        app.router.add_get("/v1/config", self._get)
        app.router.add_post("/v1/config/reload", self._post)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()

    async def kill(self) -> None:
        """Ends, and forgets all models."""
        if self._runner:
            await self._runner.cleanup()
            self._runner = None
        self.status = {}

    async def _get(self, _: web.Request) -> web.Response:
        answer = web.json_response(self.status)
        if self.unload_delay:
            self.unload_delay -= 1
            if not self.unload_delay:
                self._end("UNLOADING")
        return answer

    async def _post(self, _: web.Request) -> web.Response:
        await self.gate.wait()
        before = json.dumps(self.status)
        failed = self._read()
        self.reloads.append(sorted(self.names))
        if failed:
            text = f"Reloading config file failed. Models failed: {failed}"
            return web.json_response({"error": text}, status=409)
        return web.json_response(self.status, status=200 if before == json.dumps(self.status) else 201)

    def _read(self) -> list[str]:
        content = json.loads(self.config.read_text())
        configs = [item["config"] for item in content["model_config_list"]]
        self.names = {config["name"] for config in configs}
        failed = []
        for config in configs:
            versions = sorted(Path(config["base_path"]).iterdir())
            bad = any((version / "bad").exists() for version in versions)
            failed += [config["name"]] if bad else []
            error = {"error_code": "LOADING_FAILED", "error_message": "cannot compile"} if bad else {}
            self.status[config["name"]] = {
                "model_version_status": [
                    # Versions that were retired long ago stay in the list, before the present one.
                    {"version": "0", "state": "END", "status": {}},
                    *(
                        {"version": version.name, "state": "LOADING" if bad else "AVAILABLE", "status": error}
                        for version in versions
                    ),
                ]
            }
        for name in set(self.status) - self.names:
            for version in self.status[name]["model_version_status"]:
                version["state"] = "UNLOADING" if self.unload_delay else "END"
        return failed

    def _end(self, state: str) -> None:
        for model in self.status.values():
            for version in model["model_version_status"]:
                version["state"] = "END" if version["state"] == state else version["state"]
