%%% Tables in memory, of this node, that all virtual hosts share; and the names in ejabberd's own tables. Part of
%%% mod_lhc_bridge.
-module(lhc_bridge_tables).

-export([create/1, create/2, names/3]).

-spec create(atom()) -> ok.
create(Table) ->
    create(Table, []).

%% Makes the table unless it is there. It outlives the process that makes it: a name or an id that is forgotten while the
%% connections go on would be a fault.
-spec create(atom(), list()) -> ok.
create(Table, Options) ->
    case ets:info(Table) of
        undefined ->
            Table = ets:new(Table, [named_table, public, {write_concurrency, true}, {heir, erlang:group_leader(), none}
                                    | Options]),
            ok;
        _ ->
            ok
    end.

%% The local parts of a Mnesia table that has {Local part, Domain} at that position: not sorted, and some more than once.
-spec names(atom(), pos_integer(), binary()) -> [binary()].
names(Table, Position, Domain) ->
    Row = setelement(Position, mnesia:table_info(Table, wild_pattern), {'$1', Domain}),
    mnesia:dirty_select(Table, [{Row, [], ['$1']}]).
