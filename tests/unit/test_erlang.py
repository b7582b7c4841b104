"""The bridge's modules: compiled without a warning, with their types stated, and their own tests (EUnit).

Those are in tests/unit/erlang, with stand-ins for what of ejabberd and of its configuration they meet.
"""

import subprocess
from pathlib import Path

import pytest

from orchestrator.launcher.servers import compile_erlang, ejabberd_modules

PROJECT = Path(__file__).resolve().parents[2]
BRIDGE = sorted((PROJECT / "config" / "ejabberd").glob("*.erl"))
TESTS = sorted((Path(__file__).parent / "erlang").glob("*_tests.erl"))
STAND_INS = sorted((Path(__file__).parent / "erlang" / "stand_ins").glob("*.erl"))
RUN = """
    logger:set_primary_config(level, none),
    {ok, _} = application:ensure_all_started(xmpp),
    halt(case eunit:test(list_to_atom(hd(init:get_plain_arguments())), [verbose]) of ok -> 0; _ -> 1 end)."""


@pytest.fixture(scope="module")
def ebin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bridge with its tests. The stand-ins take the places of the modules that are called so."""
    ebin = tmp_path_factory.mktemp("erlang") / "ebin"
    # all functions, not only those that a module exports, can be tested
    compile_erlang(ebin, BRIDGE, "+export_all", "+nowarn_export_all")
    compile_erlang(ebin, [*STAND_INS, *TESTS])
    return ebin


@pytest.mark.parametrize("module", [path.stem for path in TESTS])
def test_module(module: str, ebin: Path) -> None:
    command = ["erl", "-noshell", "-pa", str(ebin), "-pz", str(ejabberd_modules()), "-eval", RUN, "-extra", module]
    # where it starts it may write a crash dump
    done = subprocess.run(command, cwd=ebin, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_bridge_is_compiled_without_a_warning_and_each_exported_function_has_a_spec(tmp_path: Path) -> None:
    compile_erlang(tmp_path / "ebin", BRIDGE, "-Werror", "+warn_missing_spec")
