%%% What arrives for an operator at the moment of a login: nothing is lost, and what waited comes first. Part of
%%% mod_lhc_bridge.
-module(lhc_bridge_arrivals).

%% for mod_lhc_bridge and lhc_bridge_once
-export([hooks/1, route_or_store/1]).
%% hook
-export([waited_first/1]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% After mod_offline (50) has fetched what waited, and lhc_bridge_offline (60) has counted it.
-define(WAITED_PRIORITY, 61).

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{c2s_self_presence, Host, ?MODULE, waited_first, ?WAITED_PRIORITY}].

%%%===================================================================
%%% Nothing is lost
%%%===================================================================

%% ejabberd looks who is there, and stores the message when nobody is. An operator who comes at this very moment would
%% miss it: mod_offline_mnesia writes it without a transaction, and may do so between the reading and the deleting of
%% what the operator fetches (then it is gone), or after that (then it lies there until the next login). So we hold the
%% lock that the fetching needs while we look and store: who comes after that fetches after that. (mod_offline_sql counts
%% what it deletes, so there nothing is gone.)
-spec route_or_store(message()) -> ok.
route_or_store(#message{to = #jid{luser = User, lserver = Server}} = Msg) ->
    case is_present(User, Server) orelse store(Msg, lhc_bridge_storage:where(Server, offline_messages)) of
        true -> ejabberd_sm:route(Msg);
        stored -> ok
    end.

store(#message{to = #jid{luser = User, lserver = Server}} = Msg, mnesia) ->
    store_undisturbed(Msg, {User, Server});
store(#message{to = #jid{luser = User, lserver = Server}} = Msg, _) -> % no lock, so we look again afterwards
    ejabberd_sm:route(Msg),
    fetch_when_present(User, Server),
    stored.

store_undisturbed(Msg, {User, Server} = US) ->
    Store = fun() ->
                    mnesia:lock({record, offline_msg, US}, write),
                    is_present(User, Server) orelse
                        begin
                            ejabberd_sm:route(Msg),
                            stored
                        end
            end,
    case mnesia:transaction(Store) of
        {atomic, Result} -> Result;
        {aborted, _} -> store(Msg, none)
    end.

is_present(User, Server) ->
    reachable(User, Server) =/= [].

%% The connections that get messages, and fetch what waits: those of a priority below zero do not (RFC 6121, 4.7.2.3).
reachable(User, Server) ->
    [Resource || {Priority, Resource} <- ejabberd_sm:get_user_present_resources(User, Server), Priority >= 0].

fetch_when_present(User, Server) ->
    case reachable(User, Server) of
        [Resource | _] ->
            C2S = #{jid => jid:make(User, Server, Resource), lserver => Server},
            mod_offline:c2s_self_presence({#presence{type = available}, C2S});
        [] ->
            ok
    end.

%%%===================================================================
%%% What waited comes first
%%%===================================================================

%% mod_offline routes what waited to this very process (the operator's connection), but behind what was routed here since
%% the presence was set. So both are handled here, in the order of their time.
-spec waited_first({presence(), ejabberd_c2s:state()}) -> {presence(), ejabberd_c2s:state()}.
waited_first({Presence, #{lserver := Host} = C2S}) ->
    {Waited, Live} = lists:partition(fun(Msg) -> xmpp:has_subtag(Msg, #delay{stamp = {0, 0, 0}}) end, take_messages()),
    Handle = fun(Msg, State) -> ejabberd_hooks:run_fold(c2s_handle_info, Host, State, [{route, Msg}]) end,
    {Presence, lists:foldl(Handle, C2S, Waited ++ Live)}.

take_messages() ->
    receive
        {route, #message{} = Msg} -> [Msg | take_messages()]
    after 0 ->
        []
    end.
