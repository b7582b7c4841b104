"""A whole database as one file: SQLite's own backup while others write, and PostgreSQL's `pg_dump`."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from tenants.core.errors import DomainError
from tenants.store.database import sqlite_file

_PROGRAMS = Path("/usr/lib/postgresql")
"""Debian's, of each version of PostgreSQL."""


class DumpError(DomainError):
    """A database was not dumped, or not loaded; the message says why, and what helps."""


def dump(url: str, target: Path) -> None:
    """Write all that the database holds to the file, which is there when it is whole; its owner alone can read it.

    Raises:
        DumpError: it was not written.
    """
    new = target.with_name(f"{target.name}.new")
    file = sqlite_file(url)
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new.touch(mode=0o600)
        if file is None:
            _run("pg_dump", make_url(url), "--format=custom", "--no-owner", f"--file={new}")
        else:
            _copy_sqlite(file, new)
        new.replace(target)
    except (OSError, sqlite3.Error) as error:
        raise DumpError(f"the database cannot be written to {target}: {error}") from None
    finally:
        new.unlink(missing_ok=True)


def load(url: str, source: Path) -> None:
    """Fill the database with what `dump` has written. What PostgreSQL has in tables of these names goes.

    Raises:
        DumpError: it was not loaded; PostgreSQL is as it was.
    """
    file = sqlite_file(url)
    if file is None:
        options = ("--clean", "--if-exists", "--no-owner", "--exit-on-error", "--single-transaction")
        _run("pg_restore", make_url(url), *options, str(source))
        return
    new = file.with_name(f"{file.name}.new")
    try:
        shutil.copyfile(source, new)
        new.chmod(0o600)
        new.replace(file)
    except OSError as error:
        raise DumpError(f"the database cannot be written to {file}: {error}") from None


def _copy_sqlite(file: Path, target: Path) -> None:
    address = f"{file.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
        # one file, without a log beside it
        copy.execute("PRAGMA journal_mode=DELETE")


def _run(program: str, url: URL, *options: str) -> None:
    """Run one of PostgreSQL's programs on the database; the password is on no command line."""
    found = next(_found(program), None)
    if found is None:
        raise DumpError(f"{program} is not installed here (Debian: apt install postgresql-client)")
    address = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    environment = os.environ | ({"PGPASSWORD": str(url.password)} if url.password else {})
    done = subprocess.run(
        [found, f"--dbname={address}", "--no-password", *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DumpError(f"{program} failed: {done.stderr.strip() or done.returncode}")


def _found(program: str) -> Iterator[str]:
    """The newest one first: it also reads older servers, and never newer ones."""
    folders = [folder for folder in _PROGRAMS.glob("[0-9]*/bin") if (folder / program).exists()]
    yield from (str(folder / program) for folder in sorted(folders, key=lambda one: -int(one.parent.name)))
    if (other := shutil.which(program)) is not None:
        yield other
