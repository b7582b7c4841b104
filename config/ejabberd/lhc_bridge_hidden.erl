%%% The visitors whom an operator has removed from the contacts: they stay away until they write. Part of mod_lhc_bridge.
-module(lhc_bridge_hidden).

-export([create_table/0, hide/3, show/3, is_hidden/3, is_anybodys/2, of_operator/2, visitors/1, forget/2]).

-record(lhc_bridge_hidden, {key :: {Operator :: binary(), Visitor :: binary(), Host :: binary()} | '_',
                            operator :: {binary(), binary()} | '_',
                            visitor :: {binary(), binary()} | '_'}).

%% On disk: an operator removes a contact once, and not after each restart.
-spec create_table() -> ok.
create_table() ->
    {atomic, ok} = ejabberd_mnesia:create(?MODULE, lhc_bridge_hidden,
                                          [{disc_copies, [node()]},
                                           {attributes, record_info(fields, lhc_bridge_hidden)},
                                           {index, [operator, visitor]}]),
    ok.

%% May be called in a transaction of Mnesia, and is then a part of that.
-spec hide(binary(), binary(), binary()) -> ok.
hide(Host, Operator, Visitor) ->
    Mark = #lhc_bridge_hidden{key = {Operator, Visitor, Host}, operator = {Operator, Host}, visitor = {Visitor, Host}},
    {atomic, ok} = mnesia:transaction(fun() -> mnesia:write(Mark) end),
    ok.

%% Also of one that is not hidden; in a transaction as well.
-spec show(binary(), binary(), binary()) -> ok.
show(Host, Operator, Visitor) ->
    {atomic, ok} = mnesia:transaction(fun() -> mnesia:delete({lhc_bridge_hidden, {Operator, Visitor, Host}}) end),
    ok.

-spec is_hidden(binary(), binary(), binary()) -> boolean().
is_hidden(Host, Operator, Visitor) ->
    mnesia:dirty_read(lhc_bridge_hidden, {Operator, Visitor, Host}) /= [].

-spec of_operator(binary(), binary()) -> [binary()].
of_operator(Host, Operator) ->
    [Visitor || #lhc_bridge_hidden{key = {_, Visitor, _}} <- marks(Host, Operator, #lhc_bridge_hidden.operator)].

%% Whether anybody has hidden the visitor.
-spec is_anybodys(binary(), binary()) -> boolean().
is_anybodys(Host, Visitor) ->
    marks(Host, Visitor, #lhc_bridge_hidden.visitor) /= [].

%% All that anybody has hidden.
-spec visitors(binary()) -> [binary()].
visitors(Host) ->
    lhc_bridge_tables:names(lhc_bridge_hidden, #lhc_bridge_hidden.visitor, Host).

%% The account is gone: what an operator of that name has hidden, and who has hidden a visitor of that name.
-spec forget(binary(), binary()) -> ok.
forget(Host, User) ->
    lists:foreach(fun(#lhc_bridge_hidden{key = Key}) -> mnesia:dirty_delete(lhc_bridge_hidden, Key) end,
                  marks(Host, User, #lhc_bridge_hidden.operator) ++ marks(Host, User, #lhc_bridge_hidden.visitor)).

marks(Host, User, Position) ->
    mnesia:dirty_index_read(lhc_bridge_hidden, {User, Host}, Position).
