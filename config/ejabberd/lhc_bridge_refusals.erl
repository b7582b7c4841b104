%%% How a client is told that its stanza is refused; and how much was refused for its size or number, by kind, since this
%%% ejabberd began, which is to be seen in the metrics. Part of mod_lhc_bridge.
-module(lhc_bridge_refusals).

%% for mod_lhc_bridge and its helpers
-export([create_table/0, commands/0, answer/3, note/1]).
%% the command
-export([counts/0]).
%% for other nodes
-export([counts_here/0]).

-include_lib("xmpp/include/xmpp.hrl").

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

-spec create_table() -> ok.
create_table() ->
    lhc_bridge_tables:create(?TABLE).

-spec commands() -> [lhc_bridge_commands:command()].
commands() ->
    [lhc_bridge_commands:declare(?MODULE, lhc_refusals, counts, "How much was refused for its size or number, by kind",
                                 [], {refusals, {list, {kind, {tuple, [{kind, string}, {count, integer}]}}}})].

%% Straight to the client: what is routed to a visitor as an error is kept as a message that came back. An answer is not
%% answered.
-spec answer(stanza(), stanza_error(), ejabberd_c2s:state()) -> ejabberd_c2s:state().
answer(Stanza, Error, C2S) ->
    case lists:member(xmpp:get_type(Stanza), [error, result]) of
        true -> C2S;
        false -> ejabberd_c2s:send(C2S, xmpp:make_error(Stanza, Error))
    end.

-spec note(kind()) -> integer().
note(Kind) ->
    ets:update_counter(?TABLE, Kind, 1, {Kind, 0}).

-spec counts() -> [{string(), non_neg_integer()}].
counts() ->
    lhc_bridge_cluster:added_up(?MODULE, counts_here, []).

-spec counts_here() -> [{string(), non_neg_integer()}].
counts_here() ->
    maps:to_list(maps:from_list([{atom_to_list(Kind), 0} || Kind <- ?KINDS]
                                ++ [{atom_to_list(Kind), Count} || {Kind, Count} <- ets:tab2list(?TABLE)])).
