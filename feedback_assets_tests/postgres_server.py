"""A real Postgres for the tests: Debian's, in a folder of its own, on a free port of this machine."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PASSWORD = "s3cret-of-reader"


def programs() -> Path | None:
    """Where `initdb` and `pg_ctl` are; None if Postgres is not installed."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else max(found, default=None)


class Server:
    """Started with `start`, stopped with `stop`; keeps its data in between."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self.programs = folder, programs
        self._connection: Any = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.data = str(folder / "data")
        self._run("initdb", "-D", self.data, "-A", "trust", "-U", "owner", "-E", "UTF8", "--locale", "C", "-N")
        # One user with a password; the owner needs none.
        entries = "host all reader 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
        (folder / "data" / "pg_hba.conf").write_text(entries)

    def uri(self, user: str = "owner", database: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def start(self) -> None:
        options = f"-p {self.port} -k '' -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", self.data, "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """As a power cut would."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A cursor in a transaction, which is committed at the end."""
        from adbc_driver_postgresql import dbapi

        with dbapi.connect(self.uri()) as connection, connection.cursor() as cursor:
            yield cursor
            connection.commit()

    def sql(self, *statements: str) -> None:
        """Execute each, and commit it, by a connection that is kept: to open one takes longer."""
        from adbc_driver_postgresql import dbapi

        self._connection = self._connection or dbapi.connect(self.uri(), autocommit=True)
        with self._connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def _run(self, program: str, *arguments: str) -> None:
        as_postgres = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*as_postgres, str(self.programs / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")


@contextmanager
def server() -> Iterator[Server]:
    """A running server, gone afterwards."""
    found = programs()
    assert found is not None
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        if os.geteuid() == 0:  # Postgres refuses to run as root
            postgres = pwd.getpwnam("postgres")
            os.chown(folder, postgres.pw_uid, postgres.pw_gid)
        running = Server(folder, found)
        running.start()
        yield running
        running.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
