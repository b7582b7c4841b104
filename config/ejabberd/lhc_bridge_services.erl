%%% What the component asks of the bridge, as IQs of the namespace urn:lhc:bridge:0. Part of mod_lhc_bridge.
%%%
%%%   <pool name='N'/>   this connection bears the name N from now on; answers to lhc.HOST/N that this node gives come to
%%%                      it. The result says which node this is
%%%   <fence name='N'/>  every other connection that bears it is ended, at all nodes or at the one that is named (node='..');
%%%                      after the result nothing of it is handled
%%%   <nick user='U'>N</nick>  the account is called N from now on; not answered, as a ping shows that it was handled
%%%   <sync/>            what this connection sent before is on disk, where ejabberd stores it (offline messages), and the
%%%                      nodes that run have it
-module(lhc_bridge_services).

%% for mod_lhc_bridge
-export([create_table/0, start/1, stop/1, global_hooks/0]).
%% the IQ handler
-export([decode_iq_subel/1, serve/1]).
%% for other nodes
-export([end_bearers/3, sync_here/0]).
%% hook
-export([to_named/1]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Rows: {Connection, Host, Name, Number}; the latest has the highest number.
-define(NAMES, lhc_bridge_names).
%% Milliseconds that the end of a killed connection may take; and what another node may take for it, or for its disk.
-define(FENCE_TIMEOUT, 10000).
-define(NODE_TIMEOUT, 12000).

%%%===================================================================
%%% For mod_lhc_bridge
%%%===================================================================

-spec create_table() -> ok.
create_table() ->
    lhc_bridge_tables:create(?NAMES).

-spec start(binary()) -> ok.
start(Host) ->
    gen_iq_handler:add_iq_handler(ejabberd_local, Host, ?NS_BRIDGE, ?MODULE, serve).

-spec stop(binary()) -> ok.
stop(Host) ->
    gen_iq_handler:remove_iq_handler(ejabberd_local, Host, ?NS_BRIDGE).

-spec global_hooks() -> [hook()].
global_hooks() ->
    [{filter_packet, global, ?MODULE, to_named, 50}].

%%%===================================================================
%%% The requests
%%%===================================================================

%% gen_iq_handler would decode the child, and our namespace is unknown to it.
-spec decode_iq_subel(xmpp_element() | xmlel()) -> xmpp_element() | xmlel().
decode_iq_subel(El) ->
    El.

%% Runs in the connection that received the IQ, after everything that it received before. The answer goes back on that
%% connection; the router would take any of the component's.
-spec serve(iq()) -> iq() | ignore.
serve(#iq{from = #jid{lserver = From}, to = #jid{lserver = Host}, lang = Lang} = IQ) ->
    case lhc_bridge_component:is_component(From, Host) of
        true ->
            carry_out(IQ),
            ignore;
        false ->
            xmpp:make_error(IQ, xmpp:err_forbidden(<<"Only the component may ask for this">>, Lang))
    end.

%% What asks other nodes does so beside this connection: one that hangs is not to hold up what comes after it.
carry_out(#iq{to = #jid{lserver = Host}, sub_els = [El]} = IQ) ->
    Connection = self(),
    case xmpp:get_name(El) of
        <<"nick">> ->
            lhc_bridge_nicks:set(Host, fxml:get_tag_attr_s(<<"user">>, El), fxml:get_tag_cdata(El));
        Name when Name == <<"fence">>; Name == <<"sync">> ->
            spawn(fun() -> Connection ! {route, answer(IQ, Connection)} end);
        _ ->
            Connection ! {route, answer(IQ, Connection)}
    end.

answer(#iq{type = Type, to = #jid{lserver = Host}, lang = Lang, sub_els = [El]} = IQ, Connection) ->
    case {Type, xmpp:get_name(El), jid:resourceprep(fxml:get_tag_attr_s(<<"name">>, El))} of
        {set, <<"pool">>, <<_, _/binary>> = Name} ->
            ets:insert(?NAMES, {Connection, Host, Name, erlang:unique_integer([monotonic])}),
            xmpp:make_iq_result(IQ, #xmlel{name = <<"pool">>, attrs = [{<<"xmlns">>, ?NS_BRIDGE},
                                                                       {<<"node">>, atom_to_binary(node())}]});
        {set, <<"fence">>, <<_, _/binary>> = Name} ->
            Nodes = fenced(fxml:get_tag_attr_s(<<"node">>, El)),
            Done = done_at(Nodes, end_bearers, [Name, Host, Connection]),
            %% what was handled there is known here now
            lhc_bridge_cluster:await_others(Host),
            result(IQ, Done, <<"It does not end">>, Lang);
        {set, <<"sync">>, _} ->
            Done = done_at(lhc_bridge_cluster:running(), sync_here, []),
            %% of a node that has ended meanwhile the component hears before the result
            lhc_bridge_cluster:await_others(Host),
            result(IQ, Done, <<"A node does not answer">>, Lang);
        _ ->
            xmpp:make_error(IQ, xmpp:err_bad_request(<<"Unknown request, or no name">>, Lang))
    end.

result(IQ, true, _Text, _Lang) -> xmpp:make_iq_result(IQ);
result(IQ, false, Text, Lang) -> xmpp:make_error(IQ, xmpp:err_internal_server_error(Text, Lang)).

%% A node that does not run has no connections.
fenced(<<>>) -> lhc_bridge_cluster:running();
fenced(Named) -> [Node || Node <- lhc_bridge_cluster:running(), atom_to_binary(Node) == Named].

%% Whether each of the nodes has done it; one that has ended meanwhile has nothing left to do.
done_at(Nodes, Function, Args) ->
    Outcomes = lhc_bridge_cluster:at_nodes(Nodes, ?MODULE, Function, Args, ?NODE_TIMEOUT),
    [Node || {Node, Outcome} <- Outcomes, Outcome /= {ok, true}, lists:member(Node, lhc_bridge_cluster:running())] == [].

%% Ends the connections of this node that bear the name, but that one.
-spec end_bearers(binary(), binary(), pid()) -> boolean().
end_bearers(Name, Host, But) ->
    [Pid || Pid <- bearers(Name, Host), Pid /= But, not end_connection(Pid, Host)] == [].

%% Killed: it may hang in a write to a process that reads no more, and then hears nothing else.
end_connection(Pid, Host) ->
    Monitor = erlang:monitor(process, Pid),
    exit(Pid, kill),
    receive
        {'DOWN', Monitor, process, Pid, _} ->
            ets:delete(?NAMES, Pid),
            %% the router does so too, but later
            ejabberd_router:unregister_route(lhc_bridge_options:component(Host), Pid),
            true
    after ?FENCE_TIMEOUT ->
        erlang:demonitor(Monitor, [flush]),
        false
    end.

%% The log is not enough for tables that are on disk only (offline messages are): when Mnesia empties its log, it leaves
%% out what is written to their own files, and those are written with a delay of seconds.
-spec sync_here() -> true.
sync_here() ->
    ok = mnesia:sync_log(),
    OnDiskOnly = [Table || Table <- mnesia:system_info(local_tables),
                           mnesia:table_info(Table, storage_type) == disc_only_copies],
    lists:foreach(fun(Table) -> ok = dets:sync(Table) end, OnDiskOnly),
    true.

%%%===================================================================
%%% Answers that go to one connection
%%%===================================================================

%% Hook of everything that is routed. What a process asks, a ping for instance, it asks from an address of the component
%% whose resource is its name: the router would give the answer to any of the component's connections.
-spec to_named(stanza()) -> stanza() | {stop, drop}.
to_named(#iq{type = Type, to = #jid{lserver = Domain, lresource = <<_, _/binary>> = Name}} = IQ)
  when Type == result; Type == error ->
    Hosts = lists:usort([Host || {_, Host, _, _} <- ets:match_object(?NAMES, {'_', '_', Name, '_'}),
                                 lhc_bridge_component:is_component(Domain, Host)]),
    case lists:flatmap(fun(Host) -> bearers(Name, Host) end, Hosts) of
        [Connection | _] ->
            Connection ! {route, IQ},
            {stop, drop};
        [] ->
            IQ
    end;
to_named(Stanza) ->
    Stanza.

%% The connections of that name, the latest first.
bearers(Name, Host) ->
    Rows = ets:match_object(?NAMES, {'_', Host, Name, '_'}),
    {Alive, Dead} = lists:partition(fun({Pid, _, _, _}) -> is_process_alive(Pid) end, Rows),
    lists:foreach(fun({Pid, _, _, _}) -> ets:delete(?NAMES, Pid) end, Dead),
    [Pid || {Pid, _, _, _} <- lists:reverse(lists:keysort(4, Alive))].
