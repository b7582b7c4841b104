"""The bridge's modules: compiled without a warning, with their types stated, and their own tests (EUnit).

Those are in tests/unit/erlang, with stand-ins for what of ejabberd and of its configuration they meet.
"""

import os
import re
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


UNDEFINED = """
    [Ebin, Ejabberd] = init:get_plain_arguments(),
    {ok, _} = xref:start(bridge),
    ok = xref:set_default(bridge, [{warnings, false}]),
    ok = xref:set_library_path(bridge, [Ejabberd | code:get_path()]),
    {ok, _} = xref:add_directory(bridge, Ebin),
    {ok, Undefined} = xref:analyze(bridge, undefined_function_calls),
    [io:format("~w:~w/~w calls ~w:~w/~w~n", [M, F, A, M2, F2, A2]) || {{M, F, A}, {M2, F2, A2}} <- Undefined],
    halt(0)."""
"""Prints each call of a function that is not there: Erlang's compiler does not look."""


def test_each_function_that_the_bridge_calls_is_there(tmp_path: Path) -> None:
    ebin = tmp_path / "ebin"
    compile_erlang(ebin, BRIDGE, "+debug_info")
    ejabberd = ejabberd_modules()
    command = ["erl", "-noshell", "-eval", UNDEFINED, "-extra", str(ebin), str(ejabberd)]
    environment = {**os.environ, "ERL_LIBS": str(ejabberd.parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == ""


_DOCUMENTED = re.compile(
    "gen_mod|ejabberd_hooks|gen_iq_handler|ejabberd_commands|econf|xmpp|jid|fxml|fxml_stream"
    "|erlang|application|lists|maps|ets|dets|mnesia|binary|unicode|string|base64|crypto|re|rand|queue|proplists|timer|io|io_lib"
    "|inet|filename|gen_server|logger|global|persistent_term|erpc|net_kernel|lhc_bridge_[a-z_]*"
)
"""Modules that Erlang and its libraries document, or ejabberd for modules of others; and our own."""


def test_each_inside_of_ejabberd_that_the_bridge_calls_is_in_the_table_of_them() -> None:
    page = (PROJECT / "docs" / "ejabberd.md").read_text()
    table = page.partition("### What it uses of ejabberd's insides")[2].partition("\n## ")[0]
    calls = {call for path in BRIDGE for call in re.findall(r"\b([a-z]\w*:[a-z]\w*)\(", path.read_text())}
    insides = {call for call in calls if not _DOCUMENTED.fullmatch(call.partition(":")[0])}
    assert {call for call in insides if f"`{call}`" not in table} == set()
