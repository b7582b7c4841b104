%%% Visitors whose browser is logged in to ejabberd itself (over WebSocket, in the extension's XML-RPC mode). Part of
%%% mod_lhc_bridge.
%%%
%%% The rosters that LHC makes show visitors to operators one way only, so ejabberd itself does not tell an operator of a
%%% visitor who comes later. Here each operator online is told by directed presence, from the browser's own session, by
%%% the very process that has it. Nothing is kept, so nothing can be out of date: whatever becomes of the orchestrator, no
%%% browser that is gone stays in an operator's contact list.
-module(lhc_bridge_visitors).

%% for mod_lhc_bridge and its helpers
-export([hooks/1, ask_to_show/2, at_node/2, tell_gone/1]).
%% hooks
-export([set_presence/4, unset_presence/4, operator_came/1, show/2]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{set_presence_hook, Host, ?MODULE, set_presence, 60},
     {unset_presence_hook, Host, ?MODULE, unset_presence, 60},
     {c2s_self_presence, Host, ?MODULE, operator_came, 70},
     {c2s_handle_info, Host, ?MODULE, show, 40}].

-spec set_presence(binary(), binary(), binary(), presence()) -> ok.
set_presence(?IS_VISITOR = User, Host, Resource, Presence) ->
    lhc_bridge_nicks:said(jid:make(User, Host), Presence),
    tell(jid:make(User, Host, Resource), Presence);
set_presence(_Operator, _Host, _Resource, _Presence) ->
    ok.

%% Also when the connection was lost. One that was replaced by a new one of the same resource may end after that began.
-spec unset_presence(binary(), binary(), binary(), binary()) -> ok.
unset_presence(?IS_VISITOR = User, Host, Resource, Status) ->
    case lists:member(Resource, resources(User, Host)) of
        true -> ok;
        false -> tell(jid:make(User, Host, Resource),
                      #presence{type = unavailable, status = [#text{data = Status} || Status /= <<>>]})
    end;
unset_presence(_Operator, _Host, _Resource, _Status) ->
    ok.

%% The browsers whose connection is, or was, at that node. They are known until ejabberd forgets the sessions of a dead one.
-spec at_node(binary(), node()) -> [jid:jid()].
at_node(Host, Node) ->
    [jid:make(User, Host, Resource)
     || {?IS_VISITOR = User, _, Resource} <- ejabberd_sm:get_vh_session_list(Host),
        Pid <- [ejabberd_sm:get_session_pid(User, Host, Resource)], is_pid(Pid), node(Pid) == Node].

%% They have gone with their node, which cannot say so.
-spec tell_gone([jid:jid()]) -> ok.
tell_gone(Browsers) ->
    lists:foreach(fun(Browser) -> tell(Browser, #presence{type = unavailable}) end, Browsers).

tell(#jid{luser = User, lserver = Host} = Visitor, Presence) ->
    case lhc_bridge_names:tenant(User, Host) of
        {ok, Tenant} ->
            lists:foreach(fun(Operator) -> ejabberd_router:route(xmpp:set_from_to(Presence, Visitor, Operator)) end,
                          sessions(<<"operators">>, Tenant, Host));
        none ->
            ok
    end.

%% An operator's session is available from now on: who is there is asked to show itself. Not here, where it would hold up
%% the operator's connection, as a tenant may have many visitors. (From now on who comes tells this operator by itself.)
-spec operator_came({presence(), ejabberd_c2s:state()}) -> {presence(), ejabberd_c2s:state()}.
operator_came({_Presence, #{pres_last := _}} = Acc) ->
    Acc; % it was available before
operator_came({_Presence, #{jid := #jid{luser = ?IS_VISITOR}}} = Acc) ->
    Acc;
operator_came({_Presence, #{jid := #jid{luser = User, lserver = Host} = Operator}} = Acc) ->
    case lhc_bridge_names:tenant(User, Host) of
        {ok, Tenant} ->
            lhc_bridge_operators:is_operator_of(User, Tenant, Host) andalso
                spawn(fun() -> lists:foreach(fun(Visitor) -> ask_session_to_show(Operator, Visitor) end,
                                             sessions(<<"visitors">>, Tenant, Host)) end);
        none ->
            ok
    end,
    Acc.

%% The visitor's browsers show themselves to that connection of an operator.
-spec ask_to_show(jid:jid(), binary()) -> ok.
ask_to_show(#jid{lserver = Host} = Operator, Visitor) ->
    lists:foreach(fun(Resource) -> ask_session_to_show(Operator, jid:make(Visitor, Host, Resource)) end,
                  resources(Visitor, Host)).

ask_session_to_show(Operator, #jid{luser = User, lserver = Host, lresource = Resource}) ->
    case ejabberd_sm:get_session_pid(User, Host, Resource) of
        none -> ok;
        Session -> Session ! {lhc_show, Operator}
    end.

%% In the browser's connection.
-spec show(ejabberd_c2s:state(), term()) -> ejabberd_c2s:state() | {stop, ejabberd_c2s:state()}.
show(#{jid := Visitor} = C2S, {lhc_show, Operator}) ->
    case C2S of
        #{pres_last := Presence} -> ejabberd_router:route(xmpp:set_from_to(Presence, Visitor, Operator));
        _ -> ok % it left meanwhile
    end,
    {stop, C2S};
show(C2S, _Info) ->
    C2S.

%% The available sessions of the tenant's operators, or of its visitors.
sessions(Kind, Tenant, Host) ->
    [jid:make(User, Host, Resource)
     || User <- lhc_bridge_storage:members(Host, lhc_bridge_names:group(Kind, Tenant, Host)),
        Resource <- resources(User, Host)].

resources(User, Host) ->
    [Resource || {_Priority, Resource} <- ejabberd_sm:get_user_present_resources(User, Host)].
