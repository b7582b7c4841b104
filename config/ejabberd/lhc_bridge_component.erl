%%% The orchestrator's component (XEP-0114), and its connections to this node. Part of mod_lhc_bridge.
-module(lhc_bridge_component).

-export([is_component/2, connections/1, send/2]).

-include("ejabberd_router.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Whether the domain is that of the virtual host's component.
-spec is_component(binary(), binary()) -> boolean().
is_component(Domain, Host) ->
    lhc_bridge_options:is_loaded(Host) andalso lhc_bridge_options:component(Host) == Domain.

%% Those of this node alone: what a node sends over another's connections would be answered there. ejabberd_router would
%% only say whether there is a route; its (default) Mnesia backend says which ones, of all nodes.
-spec connections(binary()) -> [pid()].
connections(Host) ->
    {ok, Routes} = ejabberd_router_mnesia:find_routes(lhc_bridge_options:component(Host)),
    [Pid || #route{pid = Pid} <- Routes, is_pid(Pid), node(Pid) == node()].

%% Straight to one connection. The router would choose a connection itself, would not say which one, and would try
%% server-to-server when the last one ends at this very moment.
-spec send(pid(), stanza()) -> boolean().
send(Connection, Stanza) ->
    ejabberd_cluster:send(Connection, {route, Stanza}).
