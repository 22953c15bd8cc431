"""The program: the server's own options, as far as they are there."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from pathlib import Path

from aiohttp import web
from grpc import aio

from api.proto.kfs_inference_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from api.proto.tensorflow_serving_pb2_grpc import add_PredictionServiceServicer_to_server
from ovms_stand_in.errors import ReloadError
from ovms_stand_in.models import Models
from ovms_stand_in.rest import application
from ovms_stand_in.tfs import Prediction
from ovms_stand_in.v2 import Inference

log = logging.getLogger("ovms_stand_in")

_GRACE_S = 5


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="ovms-stand-in",
        description="A stand-in for OpenVINO Model Server over the openvino wheel.",
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=int, required=True, help="gRPC")
    parser.add_argument("--rest_port", type=int, required=True)
    parser.add_argument("--config_path", type=Path, required=True)
    parser.add_argument("--grpc_bind_address", default="0.0.0.0")
    parser.add_argument("--rest_bind_address", default="0.0.0.0")
    parser.add_argument(
        "--file_system_poll_wait_seconds",
        type=int,
        choices=[0],
        default=0,
        help="the configuration is read when POST /v1/config/reload says so",
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(_serve(parser.parse_args()))


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    models = Models(options.config_path)
    while not stop.is_set():
        try:
            await models.reload()
            break
        except ReloadError as error:
            # The server ends without a configuration; the containers of a pod start in any order.
            if options.config_path.exists():
                log.warning("%s", error)
                break
            await asyncio.sleep(0.1)
    server = aio.server(options=[("grpc.max_receive_message_length", -1)])
    add_GRPCInferenceServiceServicer_to_server(Inference(models), server)
    add_PredictionServiceServicer_to_server(Prediction(models), server)
    server.add_insecure_port(f"{options.grpc_bind_address}:{options.port}")
    await server.start()
    rest = web.AppRunner(application(models), access_log=None)
    await rest.setup()
    await web.TCPSite(rest, options.rest_bind_address, options.rest_port).start()
    log.info("stand-in for OpenVINO Model Server: gRPC %d, REST %d", options.port, options.rest_port)
    await stop.wait()
    await rest.cleanup()
    await server.stop(_GRACE_S)


if __name__ == "__main__":
    main()
