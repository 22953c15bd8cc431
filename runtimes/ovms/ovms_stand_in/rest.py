"""The REST API of the configuration: its status, and reading it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from ovms_stand_in.errors import ReloadError

if TYPE_CHECKING:
    from ovms_stand_in.models import Models


def application(models: Models) -> web.Application:
    """The web application over the models."""

    async def status(_: web.Request) -> web.Response:
        return web.json_response(models.status())

    async def reload(_: web.Request) -> web.Response:
        try:
            changed = await models.reload()
        except ReloadError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(models.status(), status=201 if changed else 200)

    async def healthy(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/v1/config", status)
    app.router.add_post("/v1/config/reload", reload)
    app.router.add_get("/v2/health/live", healthy)
    app.router.add_get("/v2/health/ready", healthy)
    return app
