%%% Which storage is in use: what the other one holds is out of date after a move (lhc_bridge_storage_move), and no ejabberd may go on
%%% with it, or begin with empty tables where there are accounts elsewhere. Part of mod_lhc_bridge.
-module(lhc_bridge_storage_used).

-export([create_table/0, may_start/1, used/1, left/1, begin_move/2, finish_move/2]).

-include("logger.hrl").

%% Milliseconds until a table is read from the disk.
-define(LOADS_WITHIN, 60000).

%% `left`: what is in that one is what a move has left there.
-record(lhc_bridge_storage_used, {host :: binary(),
                                  place :: mnesia | sql,
                                  left = none :: mnesia | sql | none}).

-spec create_table() -> ok.
create_table() ->
    {atomic, ok} = ejabberd_mnesia:create(?MODULE, lhc_bridge_storage_used,
                                          [{disc_copies, [node()]},
                                           {attributes, record_info(fields, lhc_bridge_storage_used)}]),
    ok = mnesia:wait_for_tables([lhc_bridge_storage_used], ?LOADS_WITHIN).

%% Whether ejabberd.yml names the storage that is in use; a line in the log says what to do when it does not.
-spec may_start(binary()) -> boolean().
may_start(Host) ->
    case {used(Host), lhc_bridge_storage:where(Host, accounts)} of
        {_, {elsewhere, _}} -> true;
        {Place, Place} -> true;
        {none, Place} -> begins(Host, Place);
        {Place, Other} -> refuse(Host, Place, Other)
    end.

%% Before there was this table, everything was in Mnesia, or in SQL and nothing of it in Mnesia.
begins(Host, Place) ->
    case Place == sql andalso has_accounts_in_mnesia(Host) of
        true ->
            refuse(Host, mnesia, sql);
        false ->
            write([#lhc_bridge_storage_used{host = Host, place = Place}]),
            true
    end.

has_accounts_in_mnesia(Host) ->
    lists:member(passwd, mnesia:system_info(tables)) andalso
        begin
            ok = mnesia:wait_for_tables([passwd], ?LOADS_WITHIN),
            lhc_bridge_storage_move_mnesia:identities(Host, accounts) /= []
        end.

refuse(Host, Used, Named) ->
    ?CRITICAL_MSG("The accounts of ~ts are in ~ts, and the configuration names ~ts, where they are not: name ~ts again, or"
                  " move them first (orchestrator move-storage ~ts, see docs/ejabberd.md)",
                  [Host, Used, Named, Used, Named]),
    false.

-spec used(binary()) -> mnesia | sql | none.
used(Host) ->
    case mnesia:dirty_read(lhc_bridge_storage_used, Host) of
        [#lhc_bridge_storage_used{place = Place}] -> Place;
        [] -> none
    end.

%% The storage that may be emptied, for nothing in it is in use.
-spec left(binary()) -> mnesia | sql | none.
left(Host) ->
    case mnesia:dirty_read(lhc_bridge_storage_used, Host) of
        [#lhc_bridge_storage_used{left = Left}] -> Left;
        [] -> none
    end.

%% From now on what is in the target is of this move.
-spec begin_move([binary()], mnesia | sql) -> ok.
begin_move(Hosts, Target) ->
    write([#lhc_bridge_storage_used{host = Host, place = lhc_bridge_storage:other(Target), left = Target} || Host <- Hosts]).

%% All hosts at once: they are in one storage.
-spec finish_move([binary()], mnesia | sql) -> ok.
finish_move(Hosts, Target) ->
    write([#lhc_bridge_storage_used{host = Host, place = Target, left = lhc_bridge_storage:other(Target)} || Host <- Hosts]).

write(Marks) ->
    {atomic, ok} = mnesia:transaction(fun() -> lists:foreach(fun mnesia:write/1, Marks) end),
    ok = mnesia:sync_log(),
    ok.
