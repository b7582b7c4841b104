"""A page of the documentation as its reader takes it: line by line, in one shell, looking at what comes out."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STEP = re.compile(r"^```(sh|json|python|text)\n(.*?)^```$|^<!-- (.+?) -->$", re.MULTILINE | re.DOTALL)
_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Step:
    """A block of the page, or a remark (`kind` is `remark`) that says what a person does meanwhile."""

    kind: str
    text: str
    line: int


def steps(page: Path) -> Iterator[Step]:
    """What is on the page, in its order."""
    text = page.read_text()
    for found in _STEP.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Step(found[1] or "remark", found[2] or found[3], line)


class Shell:
    """Runs one block after another in a folder; what a block sets is there in the next one.

    Args:
        folder: where the reader is.
        environment: the reader's.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self.output = ""
        """Of the last block."""

    def run(self, text: str) -> None:
        """Run a block; each command in it must succeed."""
        kept = self._folder / ".environment"
        self.call("bash", "-euc", f"set -o pipefail -a\n{text}\nenv -0 >{kept}")
        pairs = (entry.partition("=") for entry in kept.read_text().split("\0") if entry)
        self._environment = {name: value for name, _, value in pairs}

    def call(self, *command: str) -> None:
        """Run one command, with what the blocks have set."""
        done = subprocess.run(
            command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        self.output = done.stdout

    def check(self, wanted: Step) -> None:
        """What the last block wrote is like what the page shows."""
        if wanted.kind == "json":
            assert list(_documents(self.output)) == [Like(one) for one in _documents(wanted.text)]
        else:
            assert _lines(self.output) == Like(_lines(wanted.text))


class Like:
    """Equal to what has the same form and values; `…` stands for anything, also within a text."""

    def __init__(self, wanted: Any) -> None:
        self._wanted = wanted

    def __eq__(self, other: object) -> bool:
        match self._wanted, other:
            case "…", _:
                return True
            case str(), str():
                return re.fullmatch(re.escape(self._wanted).replace("…", ".*"), other, re.DOTALL) is not None
            case dict(), dict():
                return self._wanted.keys() == other.keys() and all(
                    Like(value) == other[name] for name, value in self._wanted.items()
                )
            case list(), list():
                return len(self._wanted) == len(other) and all(map(Like.__eq__, map(Like, self._wanted), other))
        return type(self._wanted) is type(other) and self._wanted == other

    def __repr__(self) -> str:
        return repr(self._wanted)

    __hash__ = None  # type: ignore[assignment]  # wildcards have no hash


def _lines(text: str) -> str:
    """Without what nobody sees: spaces and lines at the ends."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _documents(text: str) -> Iterator[Any]:
    """The JSON documents that follow each other in the text."""
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        yield document
        rest = rest[end:].lstrip()
