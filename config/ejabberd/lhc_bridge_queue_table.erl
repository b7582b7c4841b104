%%% The queue on disk: stanzas that wait for the component, in the order of their ids. Part of mod_lhc_bridge.
-module(lhc_bridge_queue_table).

-export([create/0, new_id/1, time_of/1, write/4, sync/0, first/2, remove/3, queued/1, size/0]).

%% A conversation is the username of a visitor, or the local part of a room. The stanza is text, so that another version of
%% ejabberd can read it.
-record(lhc_bridge_queue, {key :: {Host :: binary(), Conversation :: binary(), Id :: binary()},
                           stanza :: binary()}).

%% Each node of a cluster has a queue of its own: of what its operators write, and its rooms.
-spec create() -> ok.
create() ->
    {atomic, ok} = ejabberd_mnesia:create(?MODULE, lhc_bridge_queue,
                                          [{disc_copies, [node()]}, {type, ordered_set}, {local_content, true},
                                           {attributes, record_info(fields, lhc_bridge_queue)}]),
    ok.

%% Unique for ever, and sorts by time (microseconds).
-spec new_id(non_neg_integer()) -> binary().
new_id(Time) ->
    <<Random:64>> = crypto:strong_rand_bytes(8),
    iolist_to_binary(io_lib:format("~16.16.0b~16.16.0b", [Time, Random])).

-spec time_of(binary()) -> non_neg_integer().
time_of(<<Time:16/binary, _/binary>>) ->
    binary_to_integer(Time, 16).

%% On disk only after sync/0; else a kill -9 loses the last second or two.
-spec write(binary(), binary(), binary(), binary()) -> ok.
write(Host, Conversation, Id, Stanza) ->
    mnesia:dirty_write(#lhc_bridge_queue{key = {Host, Conversation, Id}, stanza = Stanza}).

-spec sync() -> ok.
sync() ->
    ok = mnesia:sync_log().

-spec first(binary(), binary()) -> {Id :: binary(), Stanza :: binary()} | none.
first(Host, Conversation) ->
    case mnesia:dirty_next(lhc_bridge_queue, {Host, Conversation, <<>>}) of
        {Host, Conversation, Id} = Key ->
            [#lhc_bridge_queue{stanza = Stanza}] = mnesia:dirty_read(lhc_bridge_queue, Key),
            {Id, Stanza};
        _ ->
            none
    end.

%% Returns how many bytes the stanza had. Not forced to disk: what comes back after a crash is a repeat, which the receiver
%% drops.
-spec remove(binary(), binary(), binary()) -> {removed, non_neg_integer()} | missing.
remove(Host, Conversation, Id) ->
    Key = {Host, Conversation, Id},
    case mnesia:dirty_read(lhc_bridge_queue, Key) of
        [#lhc_bridge_queue{stanza = Stanza}] ->
            mnesia:dirty_delete(lhc_bridge_queue, Key),
            {removed, byte_size(Stanza)};
        [] ->
            missing
    end.

%% How much waits, of all virtual hosts.
-spec size() -> non_neg_integer().
size() ->
    mnesia:table_info(lhc_bridge_queue, size).

%% All that waits, with its size in bytes.
-spec queued(binary()) -> [{Conversation :: binary(), Id :: binary(), Size :: non_neg_integer()}].
queued(Host) ->
    %% a pattern: '_' and '$1' are no values of the record's fields
    Row = {lhc_bridge_queue, {Host, '$1', '$2'}, '$3'},
    mnesia:dirty_select(lhc_bridge_queue, [{Row, [], [{{'$1', '$2', {byte_size, '$3'}}}]}]).
