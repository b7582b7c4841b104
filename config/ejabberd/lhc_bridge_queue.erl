%%% The messages that wait for the orchestrator's component: kept on disk, and handed over one of a conversation at a
%%% time, until the component has acknowledged it. Part of mod_lhc_bridge.
%%%
%%% Waiting for the answer before the next message of the same conversation goes out is what keeps them in order:
%%% the component has several connections, in several processes, and any of them may take any message. A message may be
%%% sent more than once; the receiver drops repeats by its id.
%%%
%%% Beside messages there are the comings and goings in rooms, which are presences. A conversation (the username of a
%%% visitor, or the local part of a room: "visitor" below is either) with messages is either sent (its first one is on its
%%% way) or parked (not taken: sent again after a pause, or at once when a connection comes). Everything else is in the
%%% table.
-module(lhc_bridge_queue).
-behaviour(gen_server).

%% API
-export([start/2, stop/1, deliver/2, waiting/2, drop/2]).
%% hooks of all virtual hosts together
-export([route_registered/1, answer/1]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, format_status/1]).

-include("logger.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% How long an operator's connection waits until its message is on disk; that is milliseconds unless the disk is ill.
-define(HANDOVER_TIMEOUT, 15000).
%% Messages to the deliverer between two writes to disk, at most.
-define(BATCH, 500).
%% Pauses before what the component did not take is sent again, in milliseconds; doubled from one to the next.
-define(FIRST_DELAY, 1000).
-define(LONGEST_DELAY, 30000).
%% What a tenant may have of the queue, {Parts, Of}; below which it has little; and the queue with what is kept for those.
-define(SHARE, {1, 4}).
-define(QUIET, {1, 100}).
-define(WITH_RESERVE, {5, 4}).
%% Seconds between two log lines about a full queue.
-define(COMPLAINT_INTERVAL, 60).

-define(IQ_PREFIX, "lhc-bridge/").

%%%===================================================================
%%% For mod_lhc_bridge
%%%===================================================================

start(Host, Opts) ->
    gen_mod:start_child(?MODULE, Host, Opts).

stop(Host) ->
    gen_mod:stop_child(?MODULE, Host).

%% Keeps a message to a visitor, and returns when it is on disk; `full` when there is no room for it.
%% Exits when the deliverer is down.
deliver(Host, Msg) ->
    gen_server:call(deliverer(Host), {deliver, Msg}, ?HANDOVER_TIMEOUT).

%% The visitors of the messages that wait, once for each message; of those whose username ends in the suffix.
waiting(Host, Suffix) ->
    [Visitor || {Visitor, _Id, _Size} <- queued(Host), lhc_bridge_admin:bears(Visitor, Suffix)].

%% Drops those messages; they are of a tenant that is no more. Returns how many they were.
drop(Host, Suffix) ->
    gen_server:call(deliverer(Host), {drop, Suffix}, ?HANDOVER_TIMEOUT).

deliverer(Host) ->
    gen_mod:get_module_proc(Host, ?MODULE).

%% Hook of each stanza that a component sends; runs in its connection.
answer({#iq{type = Type, id = <<?IQ_PREFIX, About/binary>>} = IQ, _Connection} = Acc)
  when Type == result; Type == error ->
    #iq{from = #jid{lserver = From}, to = #jid{lserver = Host}} = IQ,
    case mod_lhc_bridge:is_component(From, Host) andalso binary:split(About, <<"/">>, [global]) of
        [Visitor, Id, Attempt] ->
            Answer = case Type of
                         result -> stored;
                         error -> {refused, error_of(IQ)}
                     end,
            gen_server:cast(deliverer(Host), {answer, Visitor, Id, Attempt, Answer});
        _ ->
            ok
    end,
    {stop, setelement(1, Acc, drop)};
answer(Acc) ->
    Acc.

error_of(IQ) ->
    case xmpp:get_error(IQ) of
        #stanza_error{} = Error -> Error;
        undefined -> xmpp:err_undefined_condition()
    end.

%% Hook; runs in the connection that has come.
route_registered(Domain) ->
    [gen_server:cast(deliverer(Host), connected)
     || Host <- ejabberd_option:hosts(), mod_lhc_bridge:is_component(Domain, Host)],
    ok.

%%%===================================================================
%%% The deliverer (one for each virtual host)
%%%===================================================================

%% A message on its way to the component.
-record(sent, {id :: binary(), % of the message
               attempt :: binary(), % of this sending of it
               connection :: pid(),
               timer :: reference()}).

-type held() :: {Messages :: non_neg_integer(), Bytes :: non_neg_integer()}.
-record(state, {host :: binary(),
                batch = [] :: [{gen_server:from(), message()}], % taken but not yet on disk, latest first
                turns = 0 :: non_neg_integer(), % messages to this process since the batch began
                sent = #{} :: #{Visitor :: binary() => #sent{}},
                parked = #{} :: #{Visitor :: binary() => []}, % a set
                all = {0, 0} :: held(), % in the table, of this host
                tenants = #{} :: #{Tenant :: binary() => held()}, % those that have any
                last = 0 :: non_neg_integer(), % time in the latest id, microseconds
                connections = #{} :: #{pid() => reference()}, % with their monitors
                delay = ?FIRST_DELAY :: pos_integer(),
                retry :: undefined | reference(), % the timer of the next retry
                complained :: undefined | integer()}). % when a full queue was last logged, seconds

init([Host | _]) ->
    create_queue(),
    State = lists:foldl(fun({Visitor, Id, Size}, #state{parked = Parked, last = Last} = State) ->
                                count(Visitor, 1, Size, State#state{parked = Parked#{Visitor => []},
                                                           last = max(Last, time_of(Id))})
                        end, #state{host = Host}, queued(Host)),
    {ok, retry(watch_connections(State))}.

handle_call({deliver, Msg}, From, #state{batch = Batch} = State) ->
    continue(State#state{batch = [{From, Msg} | Batch]});
handle_call({drop, Suffix}, _From, #state{host = Host} = State) ->
    Written = commit(State),
    Messages = [{Visitor, Id} || {Visitor, Id, _} <- queued(Host), lhc_bridge_admin:bears(Visitor, Suffix)],
    Left = lists:foldl(fun({Visitor, Id}, Acc) -> remove(Visitor, Id, forget(Visitor, Acc)) end, Written, Messages),
    ok = mnesia:sync_log(),
    {reply, length(Messages), Left};
handle_call(Request, _From, State) ->
    ?WARNING_MSG("Unexpected call: ~p", [Request]),
    continue(State).

handle_cast(connected, State) ->
    continue(retry(watch_connections(State)));
handle_cast({answer, Visitor, Id, Attempt, Answer}, State) ->
    continue(settle(Answer, Visitor, Id, Attempt, State));
handle_cast(Msg, State) ->
    ?WARNING_MSG("Unexpected cast: ~p", [Msg]),
    continue(State).

handle_info(timeout, State) ->
    continue(commit(State));
handle_info({no_answer, Visitor, Attempt}, #state{host = Host, sent = Sent} = State) ->
    case Sent of
        #{Visitor := #sent{id = Id, attempt = Attempt}} ->
            ?WARNING_MSG("The component of ~ts did not acknowledge message ~ts in time", [Host, Id]),
            continue(park(Visitor, State));
        _ ->
            continue(State)
    end;
handle_info({timeout, Timer, retry}, #state{retry = Timer, delay = Delay} = State) ->
    continue(retry(State#state{delay = min(2 * Delay, ?LONGEST_DELAY)}));
handle_info({timeout, _Cancelled, retry}, State) ->
    continue(State);
%% However a connection ends: one that is killed runs no hook.
handle_info({'DOWN', _, process, Pid, _}, #state{connections = Connections, sent = Sent} = State) ->
    Orphans = [Visitor || {Visitor, #sent{connection = Connection}} <- maps:to_list(Sent), Connection == Pid],
    Left = State#state{connections = maps:remove(Pid, Connections)},
    continue(lists:foldl(fun advance/2, Left, Orphans));
handle_info(Info, State) ->
    ?WARNING_MSG("Unexpected info: ~p", [Info]),
    continue(State).

terminate(_Reason, _State) ->
    ok.

%% What people write has no place in a crash report.
format_status(Status) ->
    maps:map(fun(state, #state{batch = Batch} = State) -> State#state{batch = length(Batch)};
                (message, _) -> hidden;
                (_, Value) -> Value
             end, Status).

%% What else is in the mailbox comes first, so that all calls that wait share one write to disk; but only so much of it.
continue(#state{batch = []} = State) -> {noreply, State};
continue(#state{turns = ?BATCH} = State) -> {noreply, commit(State)};
continue(#state{turns = Turns} = State) -> {noreply, State#state{turns = Turns + 1}, 0}.

%% Writes what was taken, lets the operators go on, and only then sends.
commit(#state{batch = Batch} = State) ->
    {Kept, Written} = lists:foldl(fun keep/2, {[], State#state{batch = [], turns = 0}}, lists:reverse(Batch)),
    ok = mnesia:sync_log(),
    [gen_server:reply(From, ok) || {From, _Visitor} <- Kept],
    lists:foldr(fun({_From, Visitor}, #state{sent = Sent, parked = Parked} = Acc) ->
                        case is_map_key(Visitor, Sent) orelse is_map_key(Visitor, Parked) of
                            true -> Acc;
                            false -> advance(Visitor, Acc)
                        end
                end, Written, Kept).

%% What the queue may hold is bounded in number and size, for each tenant and for all. The bounds are far beyond what
%% operators write in an outage of hours; who meets them is told so, which is better than to fill the disk and memory of
%% the chat server.
keep({From, Msg}, {Kept, #state{host = Host, last = Last} = State}) ->
    #jid{luser = Visitor} = xmpp:get_to(Msg),
    Stanza = fxml:element_to_binary(xmpp:encode(Msg, ?NS_CLIENT)),
    case is_full(tenant(Visitor, Host), byte_size(Stanza), State) of
        true ->
            gen_server:reply(From, full),
            {Kept, complain(tenant(Visitor, Host), State)};
        false ->
            Time = max(Last + 1, erlang:system_time(microsecond)), % the clock may be set back; the order must hold
            write(Host, Visitor, new_id(Time), Stanza),
            {[{From, Visitor} | Kept], count(Visitor, 1, byte_size(Stanza), State#state{last = Time})}
    end.

%% A tenant may have a quarter. Four that fill theirs leave nothing to the others, so there is room beside for those that
%% have little waiting.
is_full(Tenant, Size, #state{host = Host, all = All, tenants = Tenants}) ->
    Held = maps:get(Tenant, Tenants, {0, 0}),
    Most = {mod_lhc_bridge:option(Host, max_messages), mod_lhc_bridge:option(Host, max_bytes)},
    Room = case is_beyond(Held, Size, share(Most, ?QUIET)) of
               true -> Most;
               false -> share(Most, ?WITH_RESERVE)
           end,
    is_beyond(Held, Size, share(Most, share_of_tenant(Host))) orelse is_beyond(All, Size, Room).

share_of_tenant(Host) ->
    case mod_lhc_bridge:option(Host, hosting) of
        true -> ?SHARE;
        false -> {1, 1} % there is but one
    end.

is_beyond({Messages, Bytes}, Size, {MostMessages, MostBytes}) ->
    Messages >= MostMessages orelse Bytes + Size > MostBytes.

share({Messages, Bytes}, {Parts, Of}) ->
    {max(1, Messages * Parts div Of), Bytes * Parts div Of}.

complain(Tenant, #state{host = Host, all = {Messages, Bytes}, tenants = Tenants, complained = Complained} = State) ->
    Now = erlang:monotonic_time(second),
    case Complained == undefined orelse Now - Complained >= ?COMPLAINT_INTERVAL of
        true ->
            {OfTenant, BytesOfTenant} = maps:get(Tenant, Tenants, {0, 0}),
            ?ERROR_MSG("The queue of ~ts is full for tenant ~ts: ~B messages of it (~B bytes) wait for the component, "
                       "~B of all (~B bytes); new messages are given back",
                       [Host, Tenant, OfTenant, BytesOfTenant, Messages, Bytes]),
            State#state{complained = Now};
        false ->
            State
    end.

count(Visitor, Messages, Bytes, #state{host = Host, all = All, tenants = Tenants} = State) ->
    Tenant = tenant(Visitor, Host),
    Others = maps:remove(Tenant, Tenants),
    State#state{all = add(All, Messages, Bytes),
                tenants = case add(maps:get(Tenant, Tenants, {0, 0}), Messages, Bytes) of
                              {0, _} -> Others;
                              Held -> Others#{Tenant => Held}
                          end}.

add({Messages, Bytes}, MoreMessages, MoreBytes) ->
    {Messages + MoreMessages, Bytes + MoreBytes}.

%% Of a visitor or a room: both names end in the instance.
tenant(Visitor, Host) ->
    case lhc_bridge_rooms:tenant(Visitor, Host) of
        {ok, Tenant} -> Tenant;
        none -> <<>>
    end.

%% Sends the first message of the conversation, if there is one.
advance(Visitor, #state{host = Host} = State) ->
    Idle = forget(Visitor, State),
    case {first(Host, Visitor), maps:keys(State#state.connections)} of
        {none, _} -> Idle;
        {_, []} -> park(Visitor, Idle);
        {{Id, Stanza}, Connections} ->
            send(Visitor, Id, Stanza, lists:nth(rand:uniform(length(Connections)), Connections), Idle)
    end.

%% Straight to the connection: the router would not say which one it took, and would try server-to-server when the last
%% one ends this very moment.
send(Visitor, Id, Stanza, Connection, #state{host = Host, sent = Sent} = State) ->
    Attempt = integer_to_binary(erlang:unique_integer([positive])),
    try make_iq(Host, Visitor, Id, Attempt, Stanza) of
        IQ ->
            ejabberd_cluster:send(Connection, {route, IQ}),
            Timer = erlang:send_after(mod_lhc_bridge:option(Host, iq_timeout), self(), {no_answer, Visitor, Attempt}),
            State#state{sent = Sent#{Visitor => #sent{id = Id, attempt = Attempt, connection = Connection,
                                                      timer = Timer}}}
    catch
        _:Reason -> % else it would end this process again and again, and hold up everything
            ?ERROR_MSG("Message ~ts in the queue of ~ts cannot be read and is dropped: ~p", [Id, Host, Reason]),
            advance(Visitor, remove(Visitor, Id, State))
    end.

forget(Visitor, #state{sent = Sent, parked = Parked} = State) ->
    case Sent of
        #{Visitor := #sent{timer = Timer}} -> erlang:cancel_timer(Timer);
        _ -> ok
    end,
    State#state{sent = maps:remove(Visitor, Sent), parked = maps:remove(Visitor, Parked)}.

park(Visitor, State) ->
    #state{parked = Parked} = Idle = forget(Visitor, State),
    plan_retry(Idle#state{parked = Parked#{Visitor => []}}).

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
    New = [Pid || Pid <- mod_lhc_bridge:connections(Host), not is_map_key(Pid, Known)],
    State#state{connections = maps:merge(Known, maps:from_list(
                                                    [{Pid, erlang:monitor(process, Pid)} || Pid <- New]))}.

%% "Stored" is true also when it comes late or from an earlier attempt; a refusal counts for the latest attempt alone.
settle(stored, Visitor, Id, _Attempt, #state{delay = Delay} = State) ->
    Removed = remove(Visitor, Id, State),
    Advanced = case Removed of
                   #state{sent = #{Visitor := #sent{id = Other}}} when Other /= Id -> Removed;
                   _ -> advance(Visitor, Removed)
               end,
    case Delay of
        ?FIRST_DELAY -> Advanced;
        _ -> retry(Advanced#state{delay = ?FIRST_DELAY}) % it works again: no need to wait for the end of the pause
    end;
settle({refused, Error}, Visitor, Id, Attempt, #state{host = Host, sent = Sent} = State) ->
    case Sent of
        #{Visitor := #sent{attempt = Attempt}} ->
            ?WARNING_MSG("The component of ~ts refused message ~ts: ~ts", [Host, Id, xmpp:format_stanza_error(Error)]),
            case is_final(Error) of
                true ->
                    {_, Stanza} = first(Host, Visitor),
                    give_back(decode(Stanza), told(Error)),
                    advance(Visitor, remove(Visitor, Id, State));
                false ->
                    park(Visitor, State)
            end;
        _ ->
            State
    end.

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

%% What is wrong with the message itself stays wrong. Everything else may pass.
is_final(#stanza_error{reason = Reason}) ->
    lists:member(Reason, ['bad-request', 'not-acceptable', 'forbidden', 'item-not-found', 'not-allowed']).

%% The IQ's id says what it is about, so an answer is understood whenever it comes. A username holds no slash.
make_iq(Host, Visitor, Id, Attempt, Stanza) ->
    Decoded = decode(Stanza),
    {ok, Tenant} = mod_lhc_bridge:tenant_of(xmpp:get_to(Decoded), Host),
    Msg = add_stanza_id(Id, Decoded, mod_lhc_bridge:component(Host)),
    #iq{type = set, id = <<?IQ_PREFIX, Visitor/binary, $/, Id/binary, $/, Attempt/binary>>,
        from = jid:make(Host), to = jid:make(Tenant, mod_lhc_bridge:component(Host)),
        sub_els = [#forwarded{delay = #delay{stamp = misc:usec_to_now(time_of(Id))}, sub_els = [Msg]}]}.

%%%===================================================================
%%% The queue on disk
%%%===================================================================

%% The stanza is text, so that another version of ejabberd reads it.
-record(lhc_bridge_queue, {key :: {Host :: binary(), Visitor :: binary(), Id :: binary()},
                           stanza :: binary()}).

%% Each node of a cluster has its own deliverer with its own queue.
create_queue() ->
    {atomic, ok} = ejabberd_mnesia:create(?MODULE, lhc_bridge_queue,
                                          [{disc_copies, [node()]}, {type, ordered_set}, {local_content, true},
                                           {attributes, record_info(fields, lhc_bridge_queue)}]).

%% On disk only after mnesia:sync_log/0; else a kill -9 loses the last second or two.
write(Host, Visitor, Id, Stanza) ->
    mnesia:dirty_write(#lhc_bridge_queue{key = {Host, Visitor, Id}, stanza = Stanza}).

%% Not forced to disk: what comes back after a crash is a repeat, which the receiver drops.
remove(Visitor, Id, #state{host = Host} = State) ->
    Key = {Host, Visitor, Id},
    case mnesia:dirty_read(lhc_bridge_queue, Key) of
        [#lhc_bridge_queue{stanza = Stanza}] ->
            mnesia:dirty_delete(lhc_bridge_queue, Key),
            count(Visitor, -1, -byte_size(Stanza), State);
        [] ->
            State
    end.

first(Host, Visitor) ->
    case mnesia:dirty_next(lhc_bridge_queue, {Host, Visitor, <<>>}) of
        {Host, Visitor, Id} = Key ->
            [#lhc_bridge_queue{stanza = Stanza}] = mnesia:dirty_read(lhc_bridge_queue, Key),
            {Id, Stanza};
        _ ->
            none
    end.

queued(Host) ->
    Row = #lhc_bridge_queue{key = {Host, '$1', '$2'}, stanza = '$3'},
    mnesia:dirty_select(lhc_bridge_queue, [{Row, [], [{{'$1', '$2', {byte_size, '$3'}}}]}]).

decode(Stanza) ->
    #xmlel{} = El = fxml_stream:parse_element(Stanza),
    xmpp:decode(El, ?NS_CLIENT, [ignore_els]).

%% Unique for ever, and sorts by time.
new_id(Time) ->
    <<Random:64>> = crypto:strong_rand_bytes(8),
    iolist_to_binary(io_lib:format("~16.16.0b~16.16.0b", [Time, Random])).

time_of(<<Time:16/binary, _/binary>>) ->
    binary_to_integer(Time, 16).

add_stanza_id(Id, Msg, Component) ->
    Honest = [El || El <- xmpp:get_els(Msg), not is_stanza_id_of(Component, El)],
    xmpp:set_els(Msg, [#stanza_id{by = jid:make(Component), id = Id} | Honest]).

is_stanza_id_of(Component, El) ->
    xmpp:get_name(El) == <<"stanza-id">> andalso
        try xmpp:decode(El) of
            #stanza_id{by = #jid{lserver = By}} -> By == Component;
            _ -> false
        catch
            _:_ -> true % one that cannot be read is of no use to anybody
        end.
