%%% Tells the component which operators are there. Part of mod_lhc_bridge.
%%%
%%% Every process of the component keeps a picture of all operators, so each of its connections is told. Whether the
%%% account is a known one is for the receiver to say: it has the registry. When nobody is there to be told, a component
%%% that comes back asks by itself.
-module(lhc_bridge_presence).

%% for mod_lhc_bridge
-export([hooks/1]).
%% hooks
-export([set_presence/4, unset_presence/4, present/2]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% After mod_last (50), which notes when an operator went.
-define(PRIORITY, 51).

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{set_presence_hook, Host, ?MODULE, set_presence, ?PRIORITY},
     {unset_presence_hook, Host, ?MODULE, unset_presence, ?PRIORITY},
     {c2s_handle_info, Host, ?MODULE, present, 50}].

-spec set_presence(binary(), binary(), binary(), presence()) -> ok.
set_presence(User, Server, Resource, #presence{show = Show, status = Status, priority = Priority}) ->
    announce(jid:make(User, Server, Resource),
             #presence{type = available, show = Show, status = Status, priority = Priority}).

%% Runs as well when a connection is simply lost.
-spec unset_presence(binary(), binary(), binary(), binary()) -> ok.
unset_presence(User, Server, Resource, Status) ->
    JID = jid:make(User, Server, Resource),
    %% A connection that was replaced by a new one of the same resource may end after the new one has begun.
    case is_present(JID) of
        true -> ok;
        false -> announce(JID, #presence{type = unavailable, status = [#text{data = Status} || Status /= <<>>]})
    end.

is_present(#jid{luser = User, lserver = Host, lresource = Resource}) ->
    lists:keymember(Resource, 2, ejabberd_sm:get_user_present_resources(User, Host)).

announce(#jid{luser = ?IS_VISITOR}, _Presence) ->
    ok;
announce(#jid{luser = User, lserver = Host} = JID, Presence) ->
    case lhc_bridge_names:tenant(User, Host) of
        {ok, Tenant} ->
            Addressed = xmpp:set_from_to(Presence, JID, jid:make(Tenant, lhc_bridge_options:component(Host))),
            lists:foreach(fun(Connection) -> lhc_bridge_component:send(Connection, Addressed) end,
                          lhc_bridge_component:connections(Host));
        none ->
            ok
    end.

%% What the command lhc_present asks of a session: as if its client had sent it. What is not given is as the client said it
%% last.
-spec present(ejabberd_c2s:state(), term()) -> ejabberd_c2s:state() | {stop, ejabberd_c2s:state()}.
present(#{jid := JID} = C2S, {lhc_present, Nick, Status}) ->
    Last = maps:get(pres_last, C2S, #presence{}),
    Named = lists:foldl(fun(Name, Presence) -> xmpp:set_subtag(Presence, #nick{name = Name}) end, Last, Nick),
    Texts = case Status of
                [] -> Last#presence.status;
                [Text | _] -> [#text{data = Text}]
            end,
    Sent = xmpp:set_from_to(Named#presence{status = Texts}, JID, jid:remove_resource(JID)),
    {stop, ejabberd_c2s:handle_authenticated_packet(Sent, C2S)};
present(C2S, _Info) ->
    C2S.
