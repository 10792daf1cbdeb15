"""What every test needs: one thread a worker, Ctrl-C, and a folder of its own to run in."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

# No test is timed: an example that takes long says something of the machine, and nothing of the code.
settings.register_profile("untimed", parent=settings(), deadline=None)
settings.load_profile("untimed")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# No test may ask a hub for anything: it would hang where there is no network, and differ where there is.
os.environ["HF_HUB_OFFLINE"] = "1"
# Whoever reaches a Ray cluster can run anything on it. Read when Ray is imported, whichever library does so first.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
# Shells start what they run in the background with Ctrl-C ignored, and `nohup` with SIGHUP; Python leaves it so.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Several test processes with spinning OpenMP threads starve each other."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Real data and published models that are too large for the repository; named by RBL_SHARED, or beside it."""
    folder = Path(os.environ.get("RBL_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "models").is_dir():
        pytest.skip(f"the shared models and data are not at {folder}: set RBL_SHARED to their folder")
    return folder


# ---------------------------------------------------------------- rbl

ForkedRbl = Callable[[Sequence[str], Path, Mapping[str, str]], "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def forked_rbl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedRbl]:
    """Runs `rbl` with these arguments in a folder and an environment; starts seconds sooner than a new Python."""
    folder = tmp_path_factory.mktemp("forked-rbl")
    out, err = folder / "out", folder / "err"
    command = [sys.executable, "-P", Path(__file__).with_name("forked_rbl.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def run(
            arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
        ) -> subprocess.CompletedProcess[str]:
            request = {"arguments": [*arguments], "folder": str(folder), "environment": {**environment}}
            print(json.dumps({**request, "out": str(out), "err": str(err)}), file=server.stdin, flush=True)
            code = int(server.stdout.readline())
            return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())

        yield run
        server.stdin.close()


# ---------------------------------------------------------------- databases


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What `--db` is given for a new database of the test's own: once a file, once a database of a real server."""
    return str(tmp_path / "rbl.db") if request.param == "sqlite" else request.getfixturevalue("postgres_database")


@pytest.fixture
def postgres_database(postgres_server: str) -> Iterator[str]:
    """The URL of a new database, which is gone afterwards."""
    import psycopg
    from sqlalchemy import make_url

    name = f"rbl_test_{secrets.token_hex(6)}"
    url = make_url(postgres_server)
    with psycopg.connect(_for_psycopg(postgres_server), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield url.set(database=name).render_as_string(hide_password=False)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a server on which the user may create databases: RBL_TEST_POSTGRES_URL, or one started here."""
    if given := os.environ.get("RBL_TEST_POSTGRES_URL"):
        yield given
        return
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    if not folders:
        pytest.skip("no PostgreSQL server: install Debian's package `postgresql`, or set RBL_TEST_POSTGRES_URL")
    # Not below pytest's folder, which only its owner may enter: the server refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="rbl-postgres-"))
    try:
        with _running_postgres(folders[-1], folder) as url:
            yield url
    finally:
        shutil.rmtree(folder)


@contextmanager
def _running_postgres(programs: Path, folder: Path) -> Iterator[str]:
    """A server of its own in an empty folder. It trusts everybody on this machine, and does not wait for the disk."""
    user = _unprivileged_user()
    if user is not None:
        shutil.chown(folder, user)
    data, log = folder / "data", folder / "log"

    def call(*command: str | Path) -> int:
        # Output to a file: the server inherits it, and would keep a pipe open.
        with (folder / "output").open("ab") as output:
            done = subprocess.run(
                command, user=user, extra_groups=None if user is None else [], cwd=folder, stdout=output, stderr=output
            )
        return done.returncode

    settings = ["--no-sync", "--auth=trust", "--username=rbl", "--encoding=UTF8", "--locale=C"]
    if call(programs / "initdb", "-D", data, *settings) != 0:
        pytest.fail(f"initdb failed: {(folder / 'output').read_text()}")
    for _ in range(5):  # another program may take the port between asking for it and using it
        port = _free_port()
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        if call(programs / "pg_ctl", "start", "-w", "-D", data, "-l", log, "-o", options) == 0:
            break
    else:
        pytest.fail(f"PostgreSQL does not start: {log.read_text()}")
    try:
        yield f"postgresql+psycopg://rbl@127.0.0.1:{port}/postgres"
    finally:
        call(programs / "pg_ctl", "stop", "-w", "-m", "immediate", "-D", data)


def _unprivileged_user() -> str | None:
    """Whom the server runs as where the tests run as root, which it refuses."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _for_psycopg(url: str) -> str:
    """SQLAlchemy's URL without the driver."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)
