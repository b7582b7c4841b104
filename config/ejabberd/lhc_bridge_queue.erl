%%% The stanzas that wait for the orchestrator's component: kept on disk, and handed over one of a conversation at a time,
%%% until the component has acknowledged it. Part of mod_lhc_bridge.
%%%
%%% Waiting for the answer before the next stanza of the same conversation goes out is what keeps them in order: the
%%% component has several connections, in several processes, and any of them may take any stanza. A stanza may be sent more
%%% than once; the receiver drops repeats by its id.
%%%
%%% Stanzas are messages, and in rooms also presences: who comes and goes. A conversation is the username of a visitor, or
%%% the local part of a room. One that has stanzas is either sent (its first one is on its way) or parked (not taken: sent
%%% again after a pause, or at once when a connection comes). Everything else is in the table (lhc_bridge_queue_table).
-module(lhc_bridge_queue).
-behaviour(gen_server).

%% for the bridge
-export([start/2, stop/1, global_hooks/0, deliver/2, waiting/2, drop/2]).
%% hooks of all virtual hosts together
-export([route_registered/1, answer/1]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, format_status/1]).

-include("logger.hrl").
-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Milliseconds that an operator's connection waits until its message is on disk; it takes a few unless the disk is ill.
-define(HANDOVER_TIMEOUT, 15000).
%% Messages to this process between two writes to disk, at most.
-define(BATCH, 500).
%% Milliseconds before what the component did not take is sent again; doubled from one to the next.
-define(FIRST_DELAY, 1000).
-define(LONGEST_DELAY, 30000).
%% Seconds between two log lines about a full queue.
-define(COMPLAINT_INTERVAL, 60).

%%%===================================================================
%%% For the bridge
%%%===================================================================

-spec start(binary(), gen_mod:opts()) -> {ok, pid()} | {error, term()}.
start(Host, Opts) ->
    gen_mod:start_child(?MODULE, Host, Opts).

-spec stop(binary()) -> ok | {error, term()}.
stop(Host) ->
    gen_mod:stop_child(?MODULE, Host).

-spec global_hooks() -> [hook()].
global_hooks() ->
    [{route_registered, global, ?MODULE, route_registered, 50},
     {component_send_packet, global, ?MODULE, answer, 50}].

%% Keeps a stanza, and returns when it is on disk; `full` when there is no room for it. Exits when the queue's process is
%% down.
-spec deliver(binary(), message() | presence()) -> ok | full.
deliver(Host, Stanza) ->
    gen_server:call(deliverer(Host), {deliver, Stanza}, ?HANDOVER_TIMEOUT).

%% The conversations whose name ends in the suffix, once for each stanza that waits.
-spec waiting(binary(), binary()) -> [binary()].
waiting(Host, Suffix) ->
    [Conversation || {Conversation, _Id, _Size} <- lhc_bridge_queue_table:queued(Host),
                     lhc_bridge_names:bears(Conversation, Suffix)].

%% Drops the stanzas of those conversations; they are of a tenant that is no more. Returns how many they were.
-spec drop(binary(), binary()) -> non_neg_integer().
drop(Host, Suffix) ->
    gen_server:call(deliverer(Host), {drop, Suffix}, ?HANDOVER_TIMEOUT).

deliverer(Host) ->
    gen_mod:get_module_proc(Host, ?MODULE).

%%%===================================================================
%%% Hooks
%%%===================================================================

%% Runs in the component's connection that has come.
-spec route_registered(binary()) -> ok.
route_registered(Domain) ->
    lists:foreach(fun(Host) -> gen_server:cast(deliverer(Host), connected) end,
                  [Host || Host <- lhc_bridge_options:hosts(), lhc_bridge_component:is_component(Domain, Host)]).

%% Of each stanza that a component sends; runs in its connection. An answer to the queue is nobody else's matter. (In
%% place of what is dropped stands an atom; the second element is the connection's state.)
-spec answer({stanza() | drop, map()}) -> {stanza() | drop, map()} | {stop, {drop, map()}}.
answer({Stanza, Connection} = Acc) ->
    case lhc_bridge_envelope:read_answer(Stanza) of
        other ->
            Acc;
        strange ->
            {stop, {drop, Connection}};
        Answer ->
            #jid{lserver = Host} = xmpp:get_to(Stanza),
            #jid{lserver = From} = xmpp:get_from(Stanza),
            lhc_bridge_component:is_component(From, Host) andalso gen_server:cast(deliverer(Host), {answer, Answer}),
            {stop, {drop, Connection}}
    end.

%%%===================================================================
%%% The process (one for each virtual host)
%%%===================================================================

%% A stanza on its way to the component.
-record(sent, {id :: binary(), % of the stanza
               attempt :: binary(), % of this sending of it
               connection :: pid(),
               timer :: reference()}).

-record(state, {host :: binary(),
                batch = [] :: [{gen_server:from(), message() | presence()}], % taken but not yet on disk, latest first
                turns = 0 :: non_neg_integer(), % messages to this process since the batch began
                sent = #{} :: #{Conversation :: binary() => #sent{}},
                parked = #{} :: #{Conversation :: binary() => []}, % a set
                held = lhc_bridge_queue_limits:new() :: lhc_bridge_queue_limits:held(), % in the table, of this host
                last = 0 :: non_neg_integer(), % time in the latest id, microseconds
                connections = #{} :: #{pid() => reference()}, % with their monitors
                delay = ?FIRST_DELAY :: pos_integer(),
                retry :: undefined | reference(), % the timer of the next retry
                complained :: undefined | integer()}). % when a full queue was last logged, seconds

-spec init([binary() | gen_mod:opts()]) -> {ok, #state{}}.
init([Host | _]) ->
    lhc_bridge_queue_table:create(),
    Found = lists:foldl(fun found/2, #state{host = Host}, lhc_bridge_queue_table:queued(Host)),
    {ok, retry(watch_connections(Found))}.

found({Conversation, Id, Size}, #state{parked = Parked, last = Last} = State) ->
    count(Conversation, 1, Size, State#state{parked = Parked#{Conversation => []},
                                             last = max(Last, lhc_bridge_queue_table:time_of(Id))}).

-spec handle_call(term(), gen_server:from(), #state{}) ->
          {reply, non_neg_integer(), #state{}} | {noreply, #state{}} | {noreply, #state{}, 0}.
handle_call({deliver, Stanza}, From, #state{batch = Batch} = State) ->
    continue(State#state{batch = [{From, Stanza} | Batch]});
handle_call({drop, Suffix}, _From, State) ->
    {Count, Left} = drop_conversations(Suffix, commit(State)),
    {reply, Count, Left};
handle_call(Request, _From, State) ->
    ?WARNING_MSG("Unexpected call: ~p", [Request]),
    continue(State).

-spec handle_cast(term(), #state{}) -> {noreply, #state{}} | {noreply, #state{}, 0}.
handle_cast(connected, State) ->
    continue(retry(watch_connections(State)));
handle_cast({answer, {Conversation, Id, _Attempt, {stored, Shown}}}, State) ->
    Shown == <<>> orelse show(Conversation, Id, Shown, State),
    continue(stored(Conversation, Id, State));
handle_cast({answer, {Conversation, Id, Attempt, {refused, Error}}}, State) ->
    continue(refused(Error, Conversation, Id, Attempt, State));
handle_cast(Msg, State) ->
    ?WARNING_MSG("Unexpected cast: ~p", [Msg]),
    continue(State).

-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {noreply, #state{}, 0}.
handle_info(timeout, State) ->
    continue(commit(State));
handle_info({no_answer, Conversation, Attempt}, #state{host = Host, sent = Sent} = State) ->
    case Sent of
        #{Conversation := #sent{id = Id, attempt = Attempt}} ->
            ?WARNING_MSG("The component of ~ts did not acknowledge message ~ts in time", [Host, Id]),
            continue(park(Conversation, State));
        _ ->
            continue(State)
    end;
handle_info({timeout, Timer, retry}, #state{retry = Timer, delay = Delay} = State) ->
    continue(retry(State#state{delay = min(2 * Delay, ?LONGEST_DELAY)}));
handle_info({timeout, _Cancelled, retry}, State) ->
    continue(State);
%% However a connection ends: one that is killed runs no hook.
handle_info({'DOWN', _, process, Pid, _}, #state{connections = Connections, sent = Sent} = State) ->
    Orphans = [Conversation || {Conversation, #sent{connection = Connection}} <- maps:to_list(Sent), Connection == Pid],
    Left = State#state{connections = maps:remove(Pid, Connections)},
    continue(lists:foldl(fun advance/2, Left, Orphans));
handle_info(Info, State) ->
    ?WARNING_MSG("Unexpected info: ~p", [Info]),
    continue(State).

-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, _State) ->
    ok.

%% What people write has no place in a crash report.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    maps:map(fun(state, #state{batch = Batch} = State) -> setelement(#state.batch, State, length(Batch));
                (message, _) -> hidden;
                (_, Value) -> Value
             end, Status).

%%%===================================================================
%%% Taking stanzas: many calls share one write to disk
%%%===================================================================

%% What else is in the mailbox comes first, so that all calls that wait share one write; but only so much of it.
continue(#state{batch = []} = State) -> {noreply, State};
continue(#state{turns = ?BATCH} = State) -> {noreply, commit(State)};
continue(#state{turns = Turns} = State) -> {noreply, State#state{turns = Turns + 1}, 0}.

%% Writes what was taken, lets the operators go on, and only then sends.
commit(#state{batch = Batch} = State) ->
    {Kept, Written} = lists:foldl(fun keep/2, {[], State#state{batch = [], turns = 0}}, lists:reverse(Batch)),
    lhc_bridge_queue_table:sync(),
    lists:foreach(fun({From, _Conversation}) -> gen_server:reply(From, ok) end, Kept),
    lists:foldr(fun({_From, Conversation}, Acc) -> begin_conversation(Conversation, Acc) end, Written, Kept).

keep({From, Stanza}, {Kept, #state{host = Host, last = Last} = State}) ->
    #jid{luser = Conversation} = xmpp:get_to(Stanza),
    Text = lhc_bridge_envelope:encode(Stanza),
    case is_full(tenant(Conversation, Host), byte_size(Text), State) of
        true ->
            gen_server:reply(From, full),
            {Kept, complain(tenant(Conversation, Host), State)};
        false ->
            Time = max(Last + 1, erlang:system_time(microsecond)), % the clock may be set back; the order must hold
            lhc_bridge_queue_table:write(Host, Conversation, lhc_bridge_queue_table:new_id(Time), Text),
            {[{From, Conversation} | Kept], count(Conversation, 1, byte_size(Text), State#state{last = Time})}
    end.

begin_conversation(Conversation, #state{sent = Sent, parked = Parked} = State) ->
    case is_map_key(Conversation, Sent) orelse is_map_key(Conversation, Parked) of
        true -> State;
        false -> advance(Conversation, State)
    end.

is_full(Tenant, Size, #state{host = Host, held = Held}) ->
    Amount = {lhc_bridge_options:get(Host, max_messages), lhc_bridge_options:get(Host, max_bytes)},
    Sharing = case lhc_bridge_options:is_hosting(Host) of
                  true -> many_tenants;
                  false -> one_tenant
              end,
    lhc_bridge_queue_limits:is_full(Tenant, Size, {Amount, Sharing}, Held).

complain(Tenant, #state{host = Host, held = Held, complained = Complained} = State) ->
    Now = erlang:monotonic_time(second),
    case Complained == undefined orelse Now - Complained >= ?COMPLAINT_INTERVAL of
        true ->
            {OfTenant, BytesOfTenant} = lhc_bridge_queue_limits:of_tenant(Tenant, Held),
            {OfAll, BytesOfAll} = lhc_bridge_queue_limits:all(Held),
            ?ERROR_MSG("The queue of ~ts is full for tenant ~ts: ~B messages of it (~B bytes) wait for the component, "
                       "~B of all (~B bytes); new messages are given back",
                       [Host, Tenant, OfTenant, BytesOfTenant, OfAll, BytesOfAll]),
            State#state{complained = Now};
        false ->
            State
    end.

count(Conversation, Messages, Bytes, #state{host = Host, held = Held} = State) ->
    State#state{held = lhc_bridge_queue_limits:add(tenant(Conversation, Host), Messages, Bytes, Held)}.

%% Of a visitor or a room: both names end in the instance.
tenant(Conversation, Host) ->
    case lhc_bridge_names:room_tenant(Conversation, Host) of
        {ok, Tenant} -> Tenant;
        none -> <<>>
    end.

%%%===================================================================
%%% Handing over: one stanza of a conversation at a time
%%%===================================================================

%% Sends the first stanza of the conversation, if there is one.
advance(Conversation, #state{host = Host} = State) ->
    Idle = forget(Conversation, State),
    case {lhc_bridge_queue_table:first(Host, Conversation), maps:keys(State#state.connections)} of
        {none, _} -> Idle;
        {_, []} -> park(Conversation, Idle);
        {{Id, Text}, Connections} ->
            send(Conversation, Id, Text, lists:nth(rand:uniform(length(Connections)), Connections), Idle)
    end.

send(Conversation, Id, Text, Connection, #state{host = Host, sent = Sent} = State) ->
    Attempt = integer_to_binary(erlang:unique_integer([positive])),
    try lhc_bridge_envelope:wrap(Host, Conversation, Id, Attempt, Text) of
        IQ ->
            lhc_bridge_component:send(Connection, IQ),
            Timer = erlang:send_after(lhc_bridge_options:get(Host, iq_timeout), self(), {no_answer, Conversation, Attempt}),
            State#state{sent = Sent#{Conversation => #sent{id = Id, attempt = Attempt, connection = Connection,
                                                           timer = Timer}}}
    catch
        _:Reason -> % else it would end this process again and again, and hold up everything
            ?ERROR_MSG("Message ~ts in the queue of ~ts cannot be read and is dropped: ~p", [Id, Host, Reason]),
            advance(Conversation, remove(Conversation, Id, State))
    end.

%% The conversation is neither sent nor parked from now on.
forget(Conversation, #state{sent = Sent, parked = Parked} = State) ->
    case Sent of
        #{Conversation := #sent{timer = Timer}} -> erlang:cancel_timer(Timer);
        _ -> ok
    end,
    State#state{sent = maps:remove(Conversation, Sent), parked = maps:remove(Conversation, Parked)}.

park(Conversation, State) ->
    #state{parked = Parked} = Idle = forget(Conversation, State),
    plan_retry(Idle#state{parked = Parked#{Conversation => []}}).

%% Without a connection there is nothing to wait for but the next one.
plan_retry(#state{retry = undefined, delay = Delay, connections = Connections} = State)
  when map_size(Connections) > 0 ->
    Jittered = Delay div 2 + rand:uniform(Delay div 2),
    State#state{retry = erlang:start_timer(Jittered, self(), retry)};
plan_retry(State) ->
    State.

%% Everything that is parked goes out now.
retry(#state{retry = Timer, parked = Parked} = State) ->
    Timer == undefined orelse erlang:cancel_timer(Timer),
    lists:foldl(fun advance/2, State#state{retry = undefined}, maps:keys(Parked)).

watch_connections(#state{host = Host, connections = Known} = State) ->
    New = [Pid || Pid <- lhc_bridge_component:connections(Host), not is_map_key(Pid, Known)],
    Watched = maps:from_list([{Pid, erlang:monitor(process, Pid)} || Pid <- New]),
    State#state{connections = maps:merge(Known, Watched)}.

remove(Conversation, Id, #state{host = Host} = State) ->
    case lhc_bridge_queue_table:remove(Host, Conversation, Id) of
        {removed, Size} -> count(Conversation, -1, -Size, State);
        missing -> State
    end.

drop_conversations(Suffix, #state{host = Host} = State) ->
    Rows = [Row || {Conversation, _, _} = Row <- lhc_bridge_queue_table:queued(Host),
                   lhc_bridge_names:bears(Conversation, Suffix)],
    Left = lists:foldl(fun({Conversation, Id, _Size}, Acc) -> remove(Conversation, Id, forget(Conversation, Acc)) end,
                       State, Rows),
    lhc_bridge_queue_table:sync(),
    {length(Rows), Left}.

%%%===================================================================
%%% What the component answers
%%%===================================================================

%% True also when it comes late or is about an earlier attempt.
stored(Conversation, Id, #state{delay = Delay} = State) ->
    Removed = remove(Conversation, Id, State),
    Advanced = case Removed of
                   #state{sent = #{Conversation := #sent{id = Other}}} when Other /= Id -> Removed;
                   _ -> advance(Conversation, Removed)
               end,
    case Delay of
        ?FIRST_DELAY -> Advanced;
        _ -> retry(Advanced#state{delay = ?FIRST_DELAY}) % it works again: no need to wait for the end of the pause
    end.

%% To the visitor's browser; once, as the message is removed then.
show(Conversation, Id, Shown, #state{host = Host}) ->
    case lhc_bridge_queue_table:first(Host, Conversation) of
        {Id, Text} -> lhc_bridge_browsers:show(lhc_bridge_envelope:decode(Text), Shown);
        _ -> false
    end.

%% Counts for the latest attempt alone.
refused(Error, Conversation, Id, Attempt, #state{host = Host, sent = Sent} = State) ->
    case Sent of
        #{Conversation := #sent{attempt = Attempt}} ->
            ?WARNING_MSG("The component of ~ts refused message ~ts: ~ts", [Host, Id, xmpp:format_stanza_error(Error)]),
            case is_final(Error) of
                true ->
                    {_, Text} = lhc_bridge_queue_table:first(Host, Conversation),
                    give_back(lhc_bridge_envelope:decode(Text), told(Error)),
                    advance(Conversation, remove(Conversation, Id, State));
                false ->
                    park(Conversation, State)
            end;
        _ ->
            State
    end.

%% What is wrong with the stanza itself stays wrong. Everything else may pass.
is_final(#stanza_error{reason = Reason}) ->
    lists:member(Reason, ['bad-request', 'not-acceptable', 'forbidden', 'item-not-found', 'not-allowed']).

give_back(#message{} = Msg, Error) ->
    ejabberd_router:route_error(Msg, Error);
give_back(_Presence, _Error) ->
    ok. % nobody can do anything about it

%% What the operator is told. That the tenant has too much waiting has nothing to do with the queue, so it is not sent
%% again from here; but the operator may try later.
told(#stanza_error{reason = 'not-allowed'} = Error) ->
    lhc_bridge_refusals:note(waiting_full),
    Error#stanza_error{type = wait, reason = 'resource-constraint'};
told(Error) ->
    Error.
