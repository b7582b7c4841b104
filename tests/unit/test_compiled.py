"""Erlang's modules are compiled once for what they are made of, however many systems start."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.launcher import compiled

COMPILER = """#!/bin/sh
# erlc [options] -o EBIN SOURCE
while [ "$1" != -o ]; do shift; done
echo once >>"$COUNT"
grep -q wrong "$3" && exit 1
cp "$3" "$2/module.beam"
"""

Compile = Callable[[str], str]


@pytest.fixture
def compile_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compile:
    """Compiles a module of that text; returns what is in the folder of the compiled ones."""
    monkeypatch.setattr(compiled, "_KEPT", tmp_path / "kept")
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    erlc, source, library = tmp_path / "erlc", tmp_path / "module.erl", tmp_path / "library"
    erlc.write_text(COMPILER)
    erlc.chmod(0o700)
    library.mkdir()

    def compile_it(text: str) -> str:
        source.write_text(text)
        ebin = tmp_path / f"ebin-{len(list(tmp_path.iterdir()))}"
        ebin.mkdir()
        compiled.compile_to(ebin, [str(erlc)], [source], tmp_path / "include", [library])
        return (ebin / "module.beam").read_text()

    return compile_it


def times(tmp_path: Path) -> int:
    """How often something was compiled."""
    return len((tmp_path / "count").read_text().splitlines())


def test_the_same_is_compiled_once(compile_it: Compile, tmp_path: Path) -> None:
    assert [compile_it(text) for text in ("one", "one", "two", "one")] == ["one", "one", "two", "one"]
    assert times(tmp_path) == 2


@pytest.mark.parametrize("changed", ["module.hrl", "library", "erlc"])
def test_another_header_library_or_compiler_makes_another_module(
    compile_it: Compile, tmp_path: Path, changed: str
) -> None:
    (tmp_path / "module.hrl").write_text("one")
    compile_it("one")
    if changed == "module.hrl":
        (tmp_path / changed).write_text("two")
    os.utime(tmp_path / changed, (0, 0))
    compile_it("one")
    assert times(tmp_path) == 2


def test_what_is_wrong_is_not_kept(compile_it: Compile, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            compile_it("wrong")
    assert times(tmp_path) == 2
    assert [one.name for one in (tmp_path / "kept").iterdir()] == ["lock"]


def test_those_that_were_used_last_are_kept(
    compile_it: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_AS_MANY", 2)
    for text in ("one", "two", "one", "three", "one"):
        compile_it(text)
    assert times(tmp_path) == 3
    compile_it("two")
    assert times(tmp_path) == 4


def test_where_nothing_can_be_kept_it_is_compiled_each_time(
    compile_it: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(compiled, "_KEPT", tmp_path / "file" / "kept")
    assert [compile_it("one"), compile_it("one")] == ["one", "one"]
    assert times(tmp_path) == 2
