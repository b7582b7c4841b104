%%% Which ejabberd the bridge was compiled for. Part of mod_lhc_bridge.
%%%
%%% ejabberd's records are compiled in, and are others in other versions: a bridge would read and write rubbish there. So it
%%% starts in no other ejabberd than its own.
-module(lhc_bridge_build).

-export([made_for/0, fits/0]).

-include("logger.hrl").

-ifndef(EJABBERD_VERSION).
-error("Which ejabberd is it for? erlc -DEJABBERD_VERSION='\"24.12\"'").
-endif.

-spec made_for() -> string().
made_for() ->
    ?EJABBERD_VERSION.

%% Whether this ejabberd is the one; a line in the log says it when it is not.
-spec fits() -> boolean().
fits() ->
    {ok, Running} = application:get_key(ejabberd, vsn),
    case release(Running) == release(made_for()) of
        true ->
            true;
        false ->
            ?CRITICAL_MSG("The bridge module was compiled for ejabberd ~ts, and this is ~ts: compile it anew",
                          [made_for(), Running]),
            false
    end.

%% Year and number of the release. 23.01 may be written 23.1.0, and patches of packages follow.
release(Version) ->
    [list_to_integer(Part) || Part <- lists:sublist(string:lexemes(Version, ".-+~"), 2)].
