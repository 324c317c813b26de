"""A look at a store without reading all of it, for who looks at a run again and again while it grows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fedpg_server.storage.database import check_format, connect, open_to_read, require_file, translated
from fedpg_server.storage.reading import StoredRun


@contextmanager
def glance(path: Path) -> Iterator[StoredRun]:
    """The run in a store, which is not held against its seal: that would take longer with every round.

    `Store.read` does so. Raises StorageError if the file is missing or not a store of this format; reading from it
    raises StorageError where it is damaged so that it cannot be read.
    """
    require_file(path)
    with closing(_open(path)) as connection:
        yield StoredRun(path, connection)


def _open(path: Path) -> sqlite3.Connection:
    with translated(path):
        connection = connect(path, "ro")
        try:
            check_format(path, connection)
            connection.execute("SELECT COUNT(*) FROM run").fetchone()
            return connection
        except sqlite3.OperationalError:  # the folder may not be written, which a log of writes needs
            connection.close()
        except BaseException:
            connection.close()
            raise
    return open_to_read(path).connection
