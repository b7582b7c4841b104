%%% Counts what was refused for its size or number, by kind, since this ejabberd began: who runs the system is to see it
%%% in its metrics. Part of mod_lhc_bridge.
-module(lhc_bridge_refusals).

%% for mod_lhc_bridge and its helpers
-export([create_table/0, note/1, register_commands/0, unregister_commands/0]).
%% the command
-export([counts/0]).

-include("ejabberd_commands.hrl").

-define(TABLE, ?MODULE).
-define(KINDS, [slow_reader, too_fast, queue_full, waiting_full, offline_full, room_message, long_frame]).

%% slow_reader: connections that were ended, since too much waited for them.
%% too_fast: stanzas of clients beyond their rate, or their tenant's.
%% queue_full: messages of operators for which the bridge's queue had no room.
%% waiting_full: messages of operators whose tenant has too many waiting for its server.
%% offline_full: messages to operators who are away, for which offline storage had no room.
%% room_message: messages in rooms that were too long.
%% long_frame: browsers' connections that were ended, since too much came in that makes no stanza.
-type kind() :: slow_reader | too_fast | queue_full | waiting_full | offline_full | room_message
              | long_frame.

-spec create_table() -> term().
create_table() ->
    ets:info(?TABLE) == undefined
        andalso ets:new(?TABLE, [named_table, public, {write_concurrency, true}, {heir, erlang:group_leader(), none}]).

-spec note(kind()) -> integer().
note(Kind) ->
    ets:update_counter(?TABLE, Kind, 1, {Kind, 0}).

-spec register_commands() -> ok.
register_commands() ->
    ejabberd_commands:register_commands(?MODULE, commands()).

-spec unregister_commands() -> ok.
unregister_commands() ->
    ejabberd_commands:unregister_commands(commands()).

commands() ->
    [lhc_bridge_admin:command(?MODULE, lhc_refusals, counts, "How much was refused for its size or number, by kind", [],
                              {refusals, {list, {kind, {tuple, [{kind, string}, {count, integer}]}}}})].

-spec counts() -> [{string(), non_neg_integer()}].
counts() ->
    maps:to_list(maps:from_list([{atom_to_list(Kind), 0} || Kind <- ?KINDS]
                                ++ [{atom_to_list(Kind), Count} || {Kind, Count} <- ets:tab2list(?TABLE)])).
