"""To a Ray cluster and away from it, without Ray's messages among ours."""

from __future__ import annotations

import logging
import os
import socket

import ray
import ray._private.worker
from ray.exceptions import AuthenticationError

from rbl_ray.cluster_slots import Node
from robustbench_lab.errors import RblError, UsageError
from robustbench_lab.hardware.device_slots import usable_threads

LOCAL = "local"
OBJECT_STORE_BYTES = 512 << 20
"""Of a cluster started here. Only results go through it, and what does not fit goes to disk."""
ANSWER_SECONDS = 10.0


def connect(address: str | None) -> bool:
    """Connect this process to a cluster; False where it was connected before.

    address: `10.0.0.1:6379`; LOCAL: a new one on this machine, which ends with this process; None: the one that
    RAY_ADDRESS names or that runs on this machine, else a new one. Raises UsageError where a named one does not answer.
    """
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # `log_to_driver` keeps what workers print from here, but not Ray's own messages about them: on stdout they would
    # mix with results. Ray has no public switch for these.
    ray._private.worker._worker_logs_enabled = False
    if address == LOCAL or not _join(address):
        _start()
    return True


def nodes() -> list[Node]:
    """The machines of the cluster, as they are now."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in resources]


def disconnect() -> None:
    """End the connection, and a cluster that `connect` has started."""
    ray.shutdown()
    ray._private.worker._worker_logs_enabled = True


def _join(address: str | None) -> bool:
    """A cluster that is there. False where none was named and none was found."""
    if address is not None:
        _check_that_it_listens(address)
    try:
        ray.init(address=address or "auto", log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, AuthenticationError) as error:
        if address is None and isinstance(error, ConnectionError):
            return False
        # Nobody there, or another version of Ray or Python, or another token.
        raise UsageError(_no_answer(address or "auto", error)) from error
    return True


def _start() -> None:
    try:
        ray.init(
            address=LOCAL,
            num_cpus=usable_threads(),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise RblError(f"Ray does not start on this machine: {_first_line(error)}") from error


def _check_that_it_listens(address: str) -> None:
    """Ray itself would wait for many minutes."""
    host, colon, port = address.rpartition(":")
    if "//" in address or not (host and colon and port.isdecimal()):
        raise UsageError(f"'{address}' is no address of a Ray cluster: write HOST:PORT, as `ray start --head` shows it")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(_no_answer(address, error)) from error


def _no_answer(address: str, error: Exception) -> str:
    return (
        f"no Ray cluster to use at '{address}' ({_first_line(error)}): `ray start --head --port=6379` starts one "
        "there; it must have the Ray, the Python, RAY_AUTH_MODE and the token (~/.ray/auth_token) of this machine"
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
