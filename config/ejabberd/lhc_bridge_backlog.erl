%%% What waits for clients that read slowly or not at all, bounded in bytes: for a connection, and for a tenant. Part of
%%% mod_lhc_bridge.
%%%
%%% By default a connection's process stands still as soon as 8 KB wait in its socket, and everything else piles up in its
%%% mailbox, where nobody can say how many bytes it is. Here the socket itself takes what waits, so the process never
%%% stands still, and after each stanza it asks the socket how much it is. Who has too much waiting is disconnected. A
%%% client with stream management (XEP-0198) may also read and never acknowledge: that is kept on the process' heap,
%%% which the process looks at as well. What waits for a tenant is added up once a second.
%%%
%%% Messages are not lost by that. What a client with stream management has not acknowledged is routed anew by
%%% mod_stream_mgmt. For a visitor's browser the messages in the socket are remembered here, and routed anew: to the
%%% visitor's other connections, or into offline storage. For an operator's client more is remembered
%%% (lhc_bridge_unconfirmed).
-module(lhc_bridge_backlog).
-behaviour(gen_server).

%% for mod_lhc_bridge
-export([create_table/0, start/2, stop/1, hooks/1]).
%% for lhc_bridge_unconfirmed
-export([disconnect/2]).
%% hooks
-export([opened/1, sent/3, too_much/2, closed/2, unacknowledged/2, terminated/2]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-include("logger.hrl").
-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

-define(CONNECTIONS, lhc_bridge_connections).
%% Milliseconds between two looks at all connections.
-define(INTERVAL, 1000).
%% After mod_stream_mgmt (50), which keeps what was sent.
-define(SENT_PRIORITY, 60).
%% Before mod_stream_mgmt (50).
-define(UNACKNOWLEDGED_PRIORITY, 40).
%% After ejabberd_c2s (100) has closed the session: a message that is routed then goes elsewhere.
-define(TERMINATED_PRIORITY, 110).
%% Stanzas that are not acknowledged, between two looks at the heap.
-define(HEAP_CHECK, 32).

-type c2s() :: ejabberd_c2s:state().
%% A connection that somebody is logged in on.
-record(connection, {pid :: pid() | '_',
                     host :: binary(),
                     tenant :: binary() | '_',
                     socket :: port() | '_'}).

%%%===================================================================
%%% For mod_lhc_bridge
%%%===================================================================

-spec create_table() -> ok.
create_table() ->
    lhc_bridge_tables:create(?CONNECTIONS, [{keypos, #connection.pid}]).

-spec start(binary(), gen_mod:opts()) -> {ok, pid()} | {error, term()}.
start(Host, Opts) ->
    gen_mod:start_child(?MODULE, Host, Opts).

-spec stop(binary()) -> ok | {error, term()}.
stop(Host) ->
    gen_mod:stop_child(?MODULE, Host).

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{c2s_session_opened, Host, ?MODULE, opened, 50},
     {c2s_session_resumed, Host, ?MODULE, opened, 50},
     {c2s_handle_send, Host, ?MODULE, sent, ?SENT_PRIORITY},
     {c2s_handle_info, Host, ?MODULE, too_much, 30},
     {c2s_closed, Host, ?MODULE, closed, 10},
     {c2s_terminated, Host, ?MODULE, unacknowledged, ?UNACKNOWLEDGED_PRIORITY},
     {c2s_terminated, Host, ?MODULE, terminated, ?TERMINATED_PRIORITY}].

%%%===================================================================
%%% Hooks (in the connection's process)
%%%===================================================================

%% Twice the limit, so that who exceeds it is found before the process stands still.
-spec opened(c2s()) -> c2s().
opened(#{jid := #jid{luser = User, lserver = Host}} = State) ->
    case socket(State) of
        none ->
            State;
        Socket ->
            Limit = limit(User, Host),
            inet:setopts(Socket, [{high_watermark, 2 * Limit}, {low_watermark, Limit}]),
            Tenant = lhc_bridge_names:tenant_or_empty(User, Host),
            ets:insert(?CONNECTIONS, #connection{pid = self(), host = Host, tenant = Tenant, socket = Socket}),
            State#{lhc_socket => Socket, lhc_unread => queue:new()}
    end.

limit(?IS_VISITOR, Host) -> lhc_bridge_options:get(Host, max_visitor_backlog);
limit(_Operator, Host) -> lhc_bridge_options:get(Host, max_operator_backlog).

%% A browser's socket belongs to a process that is linked to the one that its connection knows.
socket(#{socket := Socket} = State) ->
    Owners = case xmpp_stream_in:get_transport(State) of
                 websocket -> linked(element(2, lists:keyfind(http_ws, 1, nested(Socket))));
                 _ -> [self()]
             end,
    case [Port || Owner <- Owners, is_pid(Owner), Port <- linked(Owner), is_port(Port)] of
        [Port | _] -> Port;
        [] -> none
    end.

nested(Tuple) ->
    [Element || Element <- tuple_to_list(Tuple), is_tuple(Element)].

linked(Pid) ->
    case process_info(Pid, links) of
        {links, Links} -> Links;
        undefined -> []
    end.

-spec sent(c2s(), xmpp_element() | xmlel(), ok | {error, term()}) -> c2s() | {stop, c2s()}.
sent(#{lhc_socket := Socket, jid := #jid{luser = User, lserver = Host}} = State, Stanza, Result) ->
    Remembered = remember(Stanza, Result, State),
    Bytes = waiting_in(Socket) + hoarded(State),
    case Bytes > limit(User, Host) andalso not is_map_key(lhc_ended, State) of
        true -> disconnect(Remembered, Bytes);
        false -> Remembered
    end;
sent(State, _Stanza, _Result) ->
    State.

waiting_in(Socket) ->
    case erlang:port_info(Socket, queue_size) of
        {queue_size, Bytes} -> Bytes;
        undefined -> 0
    end.

%% What a client with stream management does not acknowledge, or is to get when it comes back; looked at now and then.
hoarded(#{mgmt_state := MgmtState, mgmt_queue := Queue}) when MgmtState == active; MgmtState == pending ->
    case p1_queue:len(Queue) rem ?HEAP_CHECK of
        ?HEAP_CHECK - 1 -> heap();
        _ -> 0
    end;
hoarded(_State) ->
    0.

%% Bytes of the process itself. The bodies of messages are not on its heap; the virtual one counts them, in words.
heap() ->
    [{memory, Memory}, {garbage_collection_info, Info}] = process_info(self(), [memory, garbage_collection_info]),
    Words = proplists:get_value(bin_vheap_size, Info) + proplists:get_value(bin_old_vheap_size, Info),
    Memory + Words * erlang:system_info(wordsize).

%% Of all that a browser was sent, the messages that the operating system has not taken yet. With stream management
%% somebody else remembers them.
remember(#message{type = Type, body = [_ | _], meta = Meta} = Msg, Result,
         #{jid := #jid{luser = ?IS_VISITOR}, lhc_socket := Socket, lhc_unread := Unread, mgmt_state := inactive} = State)
  when (Type == chat orelse Type == normal) andalso not is_map_key(carbon_copy, Meta) ->
    {Taken, All} = Written = written(Socket),
    Left = without_read(Written, Unread),
    State#{lhc_unread => case Result of
                             ok when Taken == All -> queue:new();
                             ok -> queue:in({All, Msg}, Left);
                             {error, _} -> queue:in({infinity, Msg}, Left)
                         end};
remember(_Stanza, _Result, State) ->
    State.

without_read({Taken, _} = Written, Unread) ->
    case queue:peek(Unread) of
        {value, {Until, _}} when Until =< Taken -> without_read(Written, queue:drop(Unread));
        _ -> Unread
    end.

%% How many bytes the operating system has taken since the beginning, and how many were sent. Nothing is known of a
%% socket that is closed.
written(Socket) ->
    case inet:getstat(Socket, [send_oct, send_pend]) of
        {ok, Numbers} ->
            All = proplists:get_value(send_oct, Numbers),
            {All - proplists:get_value(send_pend, Numbers), All};
        {error, _} ->
            {0, 0}
    end.

-spec too_much(c2s(), term()) -> c2s() | {stop, c2s()}.
too_much(State, {lhc_backlog, Bytes}) when not is_map_key(lhc_ended, State) ->
    {stop, disconnect(State, Bytes)};
too_much(State, {lhc_backlog, _Bytes}) ->
    {stop, State};
too_much(State, _Info) ->
    State.

-spec disconnect(c2s(), pos_integer()) -> c2s().
disconnect(#{jid := JID, lang := Lang} = State, Bytes) ->
    ?WARNING_MSG("~ts is disconnected: it does not read what it is sent, ~B bytes wait for it", [jid:encode(JID), Bytes]),
    lhc_bridge_refusals:note(slow_reader),
    Text = <<"Too much waits for this connection: it reads too slowly">>,
    ejabberd_c2s:send(State#{lhc_ended => true}, xmpp:serr_policy_violation(Text, Lang)).

%% Else the process would stand still for minutes, until the client has read what waits, and its mailbox would fill.
-spec closed(c2s(), term()) -> c2s().
closed(#{lhc_socket := Socket, lhc_unread := Unread} = State, _Reason) ->
    {Taken, All} = Written = written(Socket),
    Taken < All andalso inet:setopts(Socket, [{linger, {true, 0}}]),
    State#{lhc_unread => without_read(Written, Unread)};
closed(State, _Reason) ->
    State.

%% Before mod_stream_mgmt routes anew what was not acknowledged.
-spec unacknowledged(c2s(), term()) -> c2s().
unacknowledged(#{mgmt_queue := Queue} = State, _Reason) ->
    State#{mgmt_queue => p1_queue:from_list(to_be_routed(p1_queue:to_list(Queue), State))};
unacknowledged(State, _Reason) ->
    State.

-spec terminated(c2s(), term()) -> c2s().
terminated(#{lhc_unread := Unread} = State, _Reason) ->
    lists:foreach(fun({_, Msg}) -> ejabberd_router:route(Msg) end, to_be_routed(queue:to_list(Unread), State)),
    ets:delete(?CONNECTIONS, self()),
    State;
terminated(State, _Reason) ->
    State.

%% A message is the last element of its tuple. While the operator has other connections, who got a copy does not route it,
%% and nobody does so twice: if each of ten connections that end one after another gave all that it had to all others,
%% there would be hundreds of each message in the end. The last connection gives all that it has, each once.
to_be_routed(Kept, State) ->
    Routed = case is_alone(State) of
                 true -> unique(Kept);
                 false -> [One || One <- Kept, is_first(message(One))]
             end,
    [setelement(tuple_size(One), One, mark(message(One))) || One <- Routed].

message(One) ->
    element(tuple_size(One), One).

mark(#message{} = Msg) -> xmpp:put_meta(Msg, lhc_routed_anew, true);
mark(Other) -> Other.

is_first(#message{meta = Meta}) -> not (is_map_key(sm_copy, Meta) orelse is_map_key(lhc_routed_anew, Meta));
is_first(_Other) -> true.

unique(Kept) ->
    Add = fun(One, {Left, Seen}) ->
                  Key = key(message(One)),
                  case is_map_key(Key, Seen) of
                      true -> {Left, Seen};
                      false -> {[One | Left], Seen#{Key => []}}
                  end
          end,
    {Left, _Seen} = lists:foldl(Add, {[], #{}}, Kept),
    lists:reverse(Left).

key(#message{id = Id, from = From, body = Body}) -> {Id, jid:tolower(From), Body};
key(Other) -> Other.

is_alone(#{jid := #jid{luser = User, lserver = Host, lresource = Resource}}) ->
    ejabberd_sm:get_user_resources(User, Host) -- [Resource] == [].

%%%===================================================================
%%% The watch (one for each virtual host)
%%%===================================================================

-spec init([binary() | gen_mod:opts()]) -> {ok, binary()}.
init([Host | _]) ->
    erlang:send_after(?INTERVAL, self(), look),
    {ok, Host}.

-spec handle_call(term(), {pid(), term()}, binary()) -> {reply, ok, binary()}.
handle_call(_Request, _From, Host) ->
    {reply, ok, Host}.

-spec handle_cast(term(), binary()) -> {noreply, binary()}.
handle_cast(_Request, Host) ->
    {noreply, Host}.

-spec handle_info(term(), binary()) -> {noreply, binary()}.
handle_info(look, Host) ->
    Waiting = [{Bytes, Connection} || Connection <- connections(Host), Bytes <- [waiting(Connection)], Bytes > 0],
    lists:foreach(fun end_connection/1, beyond_of_tenants(Waiting, Host)),
    lhc_bridge_rates:forget(),
    erlang:send_after(?INTERVAL, self(), look),
    {noreply, Host};
handle_info(_Info, Host) ->
    {noreply, Host}.

connections(Host) ->
    ets:match_object(?CONNECTIONS, #connection{pid = '_', host = Host, tenant = '_', socket = '_'}).

waiting(#connection{pid = Pid, socket = Socket}) ->
    is_process_alive(Pid) orelse ets:delete(?CONNECTIONS, Pid),
    waiting_in(Socket).

%% Of each tenant that has more waiting than it may, the connections with the most.
beyond_of_tenants(Waiting, Host) ->
    Limit = lhc_bridge_options:get(Host, max_tenant_backlog),
    Add = fun({Bytes, #connection{tenant = Tenant}} = One, {Totals, Beyond}) ->
                  case maps:get(Tenant, Totals, 0) + Bytes of
                      Total when Total > Limit -> {Totals, [One | Beyond]};
                      Total -> {Totals#{Tenant => Total}, Beyond}
                  end
          end,
    {_Totals, Beyond} = lists:foldl(Add, {#{}, []}, lists:keysort(1, Waiting)),
    Beyond.

end_connection({Bytes, #connection{pid = Pid}}) ->
    Pid ! {lhc_backlog, Bytes}.
