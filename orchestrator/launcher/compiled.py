"""Erlang's compiled modules, kept below this project by what they were made of: nothing is compiled twice.

A start of ejabberd takes two seconds less for it, and the tests start many.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_KEPT = Path(__file__).resolve().parents[2] / ".cache" / "erlang"
_AS_MANY = 30
"""Of those that were used last."""
_SECONDS = 120


def compile_to(
    ebin: Path, command: Sequence[str], sources: Sequence[Path], include: Path, libraries: Iterable[Path]
) -> None:
    """Compile the modules, or take what the same command once made of the same.

    Args:
        ebin: the folder of the compiled modules.
        command: `erlc` with its options.
        sources: the modules; their headers lie beside them.
        include: a folder of links to libraries, wherever it is.
        libraries: what they are compiled against.
    """
    whole = [*command, "-I", str(include)]
    if not _is_ours():
        _compile(ebin, whole, sources)
        return
    with _alone():
        made = _KEPT / _key(command, sources, libraries)
        if not made.exists():
            new = Path(tempfile.mkdtemp(dir=_KEPT, prefix="new-"))
            try:
                _compile(new, whole, sources)
                new.rename(made)
            finally:
                shutil.rmtree(new, ignore_errors=True)
        made.touch()
        for module in made.iterdir():
            shutil.copyfile(module, ebin / module.name)
        _forget_old()


def _compile(ebin: Path, command: Sequence[str], sources: Iterable[Path]) -> None:
    subprocess.run([*command, "-o", str(ebin), *map(str, sources)], check=True, timeout=_SECONDS)


def _is_ours() -> bool:
    """Whether we may keep anything: the project's folder may be somebody else's."""
    try:
        _KEPT.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return False
    return os.access(_KEPT, os.W_OK)


@contextmanager
def _alone() -> Iterator[None]:
    """Who comes while another one compiles waits, and takes what that one has made."""
    with (_KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _key(command: Sequence[str], sources: Sequence[Path], libraries: Iterable[Path]) -> str:
    """Names all that the modules are made of; compiler and libraries by where they are, and since when."""
    digest = hashlib.sha256()
    headers = sorted({header for source in sources for header in source.parent.glob("*.hrl")})
    for path in (*sources, *headers):
        text = path.read_bytes()
        digest.update(f"{path}\n{len(text)}\n".encode() + text)
    compiler = Path(shutil.which(command[0]) or command[0]).resolve()
    for path in (compiler, *libraries):
        digest.update(f"{path.resolve()}\n{path.stat().st_mtime_ns}\n".encode())
    digest.update("\n".join(command).encode())
    return digest.hexdigest()[:32]


def _forget_old() -> None:
    made = sorted((one for one in _KEPT.iterdir() if one.is_dir()), key=lambda one: one.stat().st_mtime)
    for one in made[:-_AS_MANY]:
        shutil.rmtree(one, ignore_errors=True)
