%%% The nodes of ejabberd's cluster: which run, and what they tell each other. Part of mod_lhc_bridge.
%%%
%%% Each node speaks with the orchestrator over its own connections alone: every pool process has one to each node. So what
%%% belongs to a session (messages and their acknowledgement, pings, presence) is one node's matter. What all nodes must
%%% know is told here: which messages were handled, how much waits in each queue, and to the pool, that a node is down.
-module(lhc_bridge_cluster).
-behaviour(gen_server).

%% for the bridge
-export([start/2, stop/1, commands/0, running/0, away/0, everywhere/4, at_nodes/5, added_up/3, tell_handled/3,
         tell_fetched/2, await_others/1]).
%% the command
-export([report/1]).
%% for other nodes
-export([here/1]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-include("logger.hrl").
-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Milliseconds in which another node answers.
-define(ANSWERS_WITHIN, 5000).
%% Milliseconds in which ejabberd forgets the sessions of a node that is down, and between two looks at them.
-define(SESSIONS_GO_WITHIN, 3000).
-define(LOOK_AGAIN, 20).
%% Milliseconds between two looks at how much waits here.
-define(INTERVAL, 1000).

%%%===================================================================
%%% For the bridge
%%%===================================================================

-spec start(binary(), gen_mod:opts()) -> {ok, pid()} | {error, term()}.
start(Host, Opts) ->
    gen_mod:start_child(?MODULE, Host, Opts).

-spec stop(binary()) -> ok | {error, term()}.
stop(Host) ->
    gen_mod:stop_child(?MODULE, Host).

-spec commands() -> [lhc_bridge_commands:command()].
commands() ->
    Node = {node, {tuple, [{name, string}, {state, atom}, {waiting, integer}, {connections, integer}, {version, string}]}},
    [lhc_bridge_commands:declare(?MODULE, lhc_nodes, report,
                                 "The cluster's nodes: up or down, messages that wait there (-1: unknown), "
                                 "connections of the component, version of the bridge",
                                 [{host, binary}], {nodes, {list, Node}})].

-spec running() -> [node()].
running() ->
    ejabberd_cluster:get_nodes().

%% Nodes that belong to the cluster and do not run.
-spec away() -> [node()].
away() ->
    ejabberd_cluster:get_known_nodes() -- running().

%% What the function returns at each node that runs.
-spec everywhere(module(), atom(), [term()], timeout()) -> [{node(), {ok, term()} | {failed, term()}}].
everywhere(Module, Function, Args, Timeout) ->
    at_nodes(running(), Module, Function, Args, Timeout).

-spec at_nodes([node()], module(), atom(), [term()], timeout()) -> [{node(), {ok, term()} | {failed, term()}}].
at_nodes(Nodes, Module, Function, Args, Timeout) ->
    Answers = erpc:multicall(Nodes, Module, Function, Args, Timeout),
    [{Node, outcome(Answer)} || {Node, Answer} <- lists:zip(Nodes, Answers)].

outcome({ok, Result}) -> {ok, Result};
outcome({Class, Reason}) -> {failed, {Class, Reason}}.

%% The counts of all nodes that run: tuples, of which the last element is a number.
-spec added_up(module(), atom(), [term()]) -> [tuple()].
added_up(Module, Function, Args) ->
    Counts = lists:append([Here || {_, {ok, Here}} <- everywhere(Module, Function, Args, ?ANSWERS_WITHIN)]),
    Add = fun(Count, Sums) ->
                  Last = tuple_size(Count),
                  Number = element(Last, Count),
                  maps:update_with(setelement(Last, Count, sum), fun(Sum) -> Sum + Number end, Number, Sums)
          end,
    [setelement(tuple_size(Of), Of, Sum) || {Of, Sum} <- maps:to_list(lists:foldl(Add, #{}, Counts))].

%% The other nodes are told of a message that is handled; they hear of it in the order of what this process sends. It
%% counts for as long as those nodes run.
-spec tell_handled(binary(), binary(), [node()]) -> ok.
tell_handled(Host, Key, Nodes) ->
    tell_others(Host, {handled, Key, Nodes}).

%% The others are told that what waited for the account in offline storage was fetched, or removed.
-spec tell_fetched(binary(), binary()) -> ok.
tell_fetched(Host, User) ->
    tell_others(Host, {fetched, User}).

tell_others(Host, Message) ->
    %% not to wait for a node that does not take it, nor for a connection to be made
    lists:foreach(fun(Node) -> erlang:send({process(Host), Node}, Message, [nosuspend, noconnect]) end, nodes()).

%% Returns when what other nodes have told so far is known here, and what is to be told to the component is sent.
-spec await_others(binary()) -> ok.
await_others(Host) ->
    gen_server:call(process(Host), await).

process(Host) ->
    gen_mod:get_module_proc(Host, ?MODULE).

%%%===================================================================
%%% The command
%%%===================================================================

-spec report(binary()) -> [{string(), up | down, integer(), non_neg_integer(), string()}].
report(Host) ->
    lhc_bridge_commands:check_host(Host),
    Known = gen_server:call(process(Host), waiting),
    lists:sort([of_running(Node, Answer, Known) || {Node, Answer} <- everywhere(?MODULE, here, [Host], ?ANSWERS_WITHIN)]
               ++ [down(Node, Known) || Node <- away()]).

of_running(Node, {ok, {Waiting, Connections, Version}}, _Known) ->
    {atom_to_list(Node), up, Waiting, Connections, Version};
of_running(Node, {failed, _}, Known) ->
    down(Node, Known).

down(Node, Known) ->
    {atom_to_list(Node), down, maps:get(Node, Known, -1), 0, ""}.

%% Messages that wait at this node, connections of the component, and the version of the bridge.
-spec here(binary()) -> {non_neg_integer(), non_neg_integer(), string()}.
here(Host) ->
    {lhc_bridge_queue_table:size(), length(lhc_bridge_component:connections(Host)), lhc_bridge_admin:version()}.

%%%===================================================================
%%% The process (one for each virtual host)
%%%===================================================================

-record(state, {host :: binary(),
                %% what other nodes have told last, also of those that are down by now
                waiting = #{} :: #{node() => non_neg_integer()}}).

-spec init([binary() | gen_mod:opts()]) -> {ok, #state{}}.
init([Host | _]) ->
    ok = net_kernel:monitor_nodes(true),
    erlang:send_after(?INTERVAL, self(), tell_waiting),
    {ok, #state{host = Host}}.

-spec handle_call(term(), {pid(), term()}, #state{}) -> {reply, term(), #state{}}.
handle_call(waiting, _From, #state{waiting = Waiting} = State) ->
    {reply, Waiting, State};
handle_call(await, _From, State) ->
    {reply, ok, State}.

-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_Request, State) ->
    {noreply, State}.

-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({handled, Key, Nodes}, State) ->
    lhc_bridge_once:learn(Key, Nodes),
    {noreply, State};
handle_info({fetched, User}, #state{host = Host} = State) ->
    lhc_bridge_offline:fetched_elsewhere(User, Host),
    {noreply, State};
handle_info({waiting, Node, Count}, #state{waiting = Waiting} = State) ->
    {noreply, State#state{waiting = Waiting#{Node => Count}}};
handle_info(tell_waiting, #state{host = Host} = State) ->
    nodes() == [] orelse tell_others(Host, {waiting, node(), lhc_bridge_queue_table:size()}),
    erlang:send_after(?INTERVAL, self(), tell_waiting),
    {noreply, State};
handle_info({nodedown, Node}, #state{host = Host, waiting = Waiting} = State) ->
    case lists:member(Node, ejabberd_cluster:get_known_nodes()) of
        true ->
            Browsers = lhc_bridge_visitors:at_node(Host, Node),
            await_end_of_sessions(Host, Node, ?SESSIONS_GO_WITHIN),
            tell_component(Host, Node),
            ?ERROR_MSG("Node ~ts is down; messages that waited there: ~B (-1: unknown)",
                       [Node, maps:get(Node, Waiting, -1)]),
            node() == lists:min(running() -- [Node])
                andalso spawn(fun() -> lhc_bridge_visitors:tell_gone(Browsers) end);
        false ->
            ok
    end,
    {noreply, State};
handle_info(_Info, State) ->
    {noreply, State}.

%% Until ejabberd has forgotten them, a message that is sent again would go to a connection that is no more, and be lost.
await_end_of_sessions(Host, Node, Left) ->
    case [User || {User, _, Resource} <- ejabberd_sm:get_vh_session_list(Host),
                  Pid <- [ejabberd_sm:get_session_pid(User, Host, Resource)], is_pid(Pid), node(Pid) == Node] of
        [_ | _] when Left > 0 ->
            timer:sleep(?LOOK_AGAIN),
            await_end_of_sessions(Host, Node, Left - ?LOOK_AGAIN);
        _ ->
            ok
    end.

%% Its sessions have ended with it, without a word; and messages on their way to them are to be sent again.
tell_component(Host, Node) ->
    Down = #xmlel{name = <<"down">>, attrs = [{<<"xmlns">>, ?NS_BRIDGE}, {<<"node">>, atom_to_binary(Node)}]},
    Msg = #message{from = jid:make(Host), to = jid:make(lhc_bridge_options:component(Host)), sub_els = [Down]},
    lists:foreach(fun(Connection) -> lhc_bridge_component:send(Connection, Msg) end,
                  lhc_bridge_component:connections(Host)).
