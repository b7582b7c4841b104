%%% How much clients may send: stanzas and bytes of an account, and of all of a tenant together, in each ten seconds. Part
%%% of mod_lhc_bridge.
%%%
%%% The listeners' shapers only slow down one connection, and its operator has ten. Here is counted before anything is
%%% stored or handed on, and who is beyond is told so. Visitors are counted apart from the operators of their tenant: else
%%% a few browsers could keep them from answering.
-module(lhc_bridge_rates).

%% for mod_lhc_bridge and lhc_bridge_backlog
-export([create_table/0, hooks/1, forget/0]).
%% hooks
-export([admit/1]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Before the guard (10): refusals cost something, too.
-define(PRIORITY, 5).
-define(SECONDS, 10).
-define(TABLE, ?MODULE).
%% A client asks far more than it says: for the vCard of each contact, for instance.
-define(QUERIES, 10).

%% Rows: {{Of, Name, Host, Window}, Stanzas, Queries, Bytes}.
-define(STANZAS, 2).
-define(ASKED, 3).
-define(BYTES, 4).

-spec create_table() -> ok.
create_table() ->
    lhc_bridge_tables:create(?TABLE).

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{user_send_packet, Host, ?MODULE, admit, ?PRIORITY}].

%% Windows that are over.
-spec forget() -> non_neg_integer().
forget() ->
    ets:select_delete(?TABLE, [{{{'_', '_', '_', '$1'}, '_', '_', '_'}, [{'<', '$1', window()}], [true]}]).

-spec admit({stanza(), ejabberd_c2s:state()}) -> {stanza(), ejabberd_c2s:state()} | {stop, {drop, ejabberd_c2s:state()}}.
admit({#iq{type = Type}, _C2S} = Acc) when Type == result; Type == error ->
    Acc; % it was asked for
admit({Stanza, #{jid := #jid{luser = User, lserver = Host}} = C2S} = Acc) ->
    Size = erlang:external_size(Stanza),
    %% both are counted in any case
    case [Of || {Of, Name, Most} <- counted(User, Host), not count({Of, Name, Host, window()}, Stanza, Size, Most)] of
        [] ->
            Acc;
        _ ->
            lhc_bridge_refusals:note(too_fast),
            Text = <<"Too much was sent in the last seconds. Please send it again later.">>,
            Error = xmpp:err_resource_constraint(Text, xmpp:get_lang(Stanza)),
            {stop, {drop, lhc_bridge_refusals:answer(Stanza, Error, C2S)}}
    end.

counted(User, Host) ->
    {OfAccount, OfTenant} = case User of
                                ?IS_VISITOR -> {visitor_rate, visitors_rate};
                                _ -> {operator_rate, operators_rate}
                            end,
    Tenant = case lhc_bridge_names:tenant(User, Host) of
                 {ok, Instance} -> [{OfTenant, Instance, most(Host, OfTenant)}];
                 none -> []
             end,
    [{account, User, most(Host, OfAccount)} | Tenant].

%% {Stanzas, Bytes} in a window.
most(Host, Option) ->
    Stanzas = lhc_bridge_options:get(Host, Option) * ?SECONDS,
    {Stanzas, Stanzas * lhc_bridge_options:get(Host, stanza_bytes)}.

%% Whether it is within what may be sent.
count(Key, Stanza, Size, {Most, MostBytes}) ->
    Column = case Stanza of
                 #iq{} -> ?ASKED;
                 _ -> ?STANZAS
             end,
    [Number, Bytes] = ets:update_counter(?TABLE, Key, [{Column, 1}, {?BYTES, Size}], {Key, 0, 0, 0}),
    Number =< of_kind(Stanza, Most) andalso Bytes =< MostBytes.

of_kind(#iq{}, Most) -> Most * ?QUERIES;
of_kind(#presence{type = unavailable}, Most) -> Most * 2; % who leaves is not to stay online
of_kind(_Stanza, Most) -> Most.

window() ->
    erlang:monotonic_time(second) div ?SECONDS.
