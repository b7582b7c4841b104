%%% Hands over to the orchestrator's component what operators write to visitors, and which operators are there.
%%%
%%% A visitor has no session of its own: the component (XEP-0114) speaks for it. So a message to a visitor must leave
%%% ejabberd's normal routing, which would spool it for an offline account or bounce it. It goes to the component as an
%%% IQ, because an IQ is answered: until the component says "stored", the message is ours, and if it never says so the
%%% operator is told.
%%%
%%% Reading order: module plumbing, who may write to whom, the diversion, the deliverer (a gen_server), presence, names.
-module(mod_lhc_bridge).
-behaviour(gen_mod).
-behaviour(gen_server).

%% gen_mod
-export([start/2, stop/1, reload/3, depends/2, mod_opt_type/1, mod_options/1, mod_doc/0]).
%% hooks
-export([guard/1, divert/1, set_presence/4, unset_presence/4]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include("logger.hrl").
-include("ejabberd_router.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Before mod_privacy (50), mod_mam (88) and mod_carboncopy (89): what is forbidden leaves no trace anywhere.
-define(GUARD_PRIORITY, 10).
%% After the last of mod_mam (500, where it takes its marks off again): the operator's other devices have the carbon
%% and the archive has the message before it leaves.
-define(DIVERT_PRIORITY, 600).

%% Messages that wait for the component's answer, per virtual host. Operators are people: this many means that the
%% component hangs, and telling the operators so is better than growing.
-define(MAX_WAITING, 10000).
%% How long an operator's connection waits for the deliverer to take a message; that is microseconds unless it is ill.
-define(HANDOVER_TIMEOUT, 5000).

-define(IS_VISITOR, <<"visitor", _/binary>>).

%%%===================================================================
%%% Module plumbing
%%%===================================================================

%% The hooks belong to the module, not to the gen_server: they must hold while a crashed deliverer is restarted.
start(Host, Opts) ->
    case gen_mod:start_child(?MODULE, Host, Opts) of
        {ok, Pid} ->
            lists:foreach(fun({Hook, Function, Priority}) ->
                                  ejabberd_hooks:add(Hook, Host, ?MODULE, Function, Priority)
                          end, hooks()),
            {ok, Pid};
        Error ->
            Error
    end.

stop(Host) ->
    lists:foreach(fun({Hook, Function, Priority}) ->
                          ejabberd_hooks:delete(Hook, Host, ?MODULE, Function, Priority)
                  end, hooks()),
    gen_mod:stop_child(?MODULE, Host).

hooks() ->
    [{user_send_packet, guard, ?GUARD_PRIORITY},
     {user_send_packet, divert, ?DIVERT_PRIORITY},
     {set_presence_hook, set_presence, 50},
     {unset_presence_hook, unset_presence, 50}].

%% Options are read where they are used, so a reload has nothing to do.
reload(_Host, _NewOpts, _OldOpts) ->
    ok.

depends(_Host, _Opts) ->
    [{mod_shared_roster, hard}].

mod_opt_type(component) -> econf:non_empty(econf:binary());
mod_opt_type(hosting) -> econf:bool();
mod_opt_type(iq_timeout) -> econf:timeout(second).

mod_options(_Host) ->
    [{component, <<"lhc.@HOST@">>},
     {hosting, true},
     {iq_timeout, timer:seconds(10)}].

mod_doc() ->
    #{desc => <<"Hands operators' messages to Live Helper Chat visitors, and operators' presence, to the component "
                "of the LHC orchestrator.">>,
      opts =>
          [{component, #{value => <<"Host">>,
                         desc => <<"Name of the component. '@HOST@' is replaced with the virtual host. "
                                   "The default is 'lhc.@HOST@'.">>}},
           {hosting, #{value => <<"true | false">>,
                       desc => <<"Whether usernames end in '.INSTANCE' (many tenants) or there is one unnamed tenant. "
                                 "The default is 'true'.">>}},
           {iq_timeout, #{value => <<"timeout()">>,
                          desc => <<"How long the component may take to acknowledge a message. "
                                    "The default is '10' seconds.">>}}]}.

%%%===================================================================
%%% Who may write to whom
%%%===================================================================

guard({#message{type = Type, from = From, to = #jid{luser = ?IS_VISITOR} = To} = Msg, C2S} = Acc)
  when Type /= error ->
    case may_write(From, To) of
        true ->
            Acc;
        false ->
            forbid(Msg, <<"Only operators of this live chat may write to its visitors">>),
            {stop, {drop, C2S}}
    end;
guard({Stanza, #{lserver := Host} = C2S} = Acc) ->
    case xmpp:get_to(Stanza) of
        #jid{lserver = Other} when Other /= Host ->
            case Other == component(Host) andalso not is_answer(Stanza) of
                true ->
                    forbid(Stanza, <<"Only the server may write to this address">>),
                    {stop, {drop, C2S}};
                false ->
                    Acc
            end;
        _ ->
            Acc
    end.

%% What the component hears of an operator is what this module says: nobody else may tell it of messages and presence.
%% A client only answers it, as to a ping.
is_answer(Stanza) ->
    lists:member(xmpp:get_type(Stanza), [result, error]).

forbid(#presence{}, _Text) ->
    ok; % clients do not expect an error to a presence
forbid(Stanza, Text) ->
    ejabberd_router:route_error(Stanza, xmpp:err_forbidden(Text, xmpp:get_lang(Stanza))).

may_write(#jid{luser = User, lserver = Host}, #jid{luser = User, lserver = Host}) ->
    true; % the sessions of one visitor among themselves
may_write(#jid{luser = ?IS_VISITOR}, _Visitor) ->
    false;
may_write(#jid{luser = Operator, lserver = Host}, #jid{luser = Visitor, lserver = Host}) ->
    case {tenant(Operator, Host), tenant(Visitor, Host)} of
        {{ok, Tenant}, {ok, Tenant}} -> is_operator(Operator, Tenant, Host);
        _ -> false
    end;
may_write(_Operator, #jid{lserver = Other}) ->
    not ejabberd_router:is_my_host(Other). % another virtual host is another company; other servers are not our matter

is_operator(User, Tenant, Host) ->
    Group = case is_hosting(Host) of
                true -> <<"operators.", Tenant/binary>>;
                false -> <<"operators">>
            end,
    try
        mod_shared_roster:is_user_in_group({User, Host}, Group, Host)
    catch
        _:_ -> false % it crashes for a group that does not exist; ejabberd would then let the message pass
    end.

%%%===================================================================
%%% The diversion
%%%===================================================================

%% The guard has let this message pass, so it is an operator's message to a visitor of the same tenant.
divert({#message{from = #jid{luser = Operator, lserver = Host},
                 to = #jid{luser = ?IS_VISITOR = Visitor, lserver = Host}} = Msg, C2S} = Acc)
  when Operator /= Visitor ->
    IsBridged = is_bridged(Msg),
    IsBridged andalso hand_over(Host, Msg),
    case ejabberd_sm:get_user_resources(Visitor, Host) of
        [_ | _] -> Acc; % a browser that is logged in itself gets its copy the normal way
        [] when IsBridged -> {stop, {drop, C2S}};
        [] when Msg#message.body == [] -> {stop, {drop, C2S}}; % "is typing", receipts: else bounced or spooled
        [] -> Acc
    end;
divert(Acc) ->
    Acc.

is_bridged(#message{type = Type, body = Body}) ->
    (Type == chat orelse Type == normal) andalso Body /= [].

%% A call, not a cast: when the deliverer is down, the operator must hear of it.
hand_over(Host, Msg) ->
    try
        gen_server:call(gen_mod:get_module_proc(Host, ?MODULE), {deliver, Msg}, ?HANDOVER_TIMEOUT)
    catch
        exit:Reason ->
            ?ERROR_MSG("The deliverer of ~ts did not take a message: ~p", [Host, Reason]),
            give_back(Msg)
    end.

%%%===================================================================
%%% The deliverer: one message of a conversation at a time, until the component has acknowledged it
%%%
%%% Waiting for the answer before the next message of the same conversation goes out is what keeps them in order:
%%% the component has several connections, in several processes, and ejabberd spreads IQs over them as it likes.
%%%===================================================================

-record(entry, {id :: binary(), % unique for ever, and sorts by time: the receiver drops repeats by it
                stamp :: erlang:timestamp(),
                message :: message()}).

%% A queue is never empty; its head is the entry that was sent to the component.
-record(state, {host :: binary(),
                queues = #{} :: #{Visitor :: binary() => queue:queue(#entry{})},
                waiting = 0 :: non_neg_integer()}).

init([Host | _]) ->
    process_flag(trap_exit, true), % so that terminate/2 runs when the module is stopped
    {ok, #state{host = Host}}.

handle_call({deliver, Msg}, _From, State) ->
    {reply, ok, accept(Msg, State)};
handle_call(Request, _From, State) ->
    ?WARNING_MSG("Unexpected call: ~p", [Request]),
    {reply, {error, unexpected}, State}.

handle_cast(Msg, State) ->
    ?WARNING_MSG("Unexpected cast: ~p", [Msg]),
    {noreply, State}.

handle_info({iq_reply, Reply, {Visitor, Id}}, #state{queues = Queues} = State) ->
    case Queues of
        #{Visitor := Queue} ->
            case queue:out(Queue) of
                {{value, #entry{id = Id} = Entry}, Rest} ->
                    {noreply, settle(Reply, Entry, Rest, State)};
                _ ->
                    {noreply, State}
            end;
        _ -> % the answer to a message from before a restart of this process
            {noreply, State}
    end;
handle_info(Info, State) ->
    ?WARNING_MSG("Unexpected info: ~p", [Info]),
    {noreply, State}.

terminate(_Reason, #state{queues = Queues}) ->
    lists:foreach(fun give_back_all/1, maps:values(Queues)).

%% Asking for a connection first spares the operator the wait: without one, no answer would come.
accept(Msg, #state{host = Host, waiting = Waiting} = State) when Waiting >= ?MAX_WAITING ->
    ?WARNING_MSG("~B messages of ~ts wait for the component: no more are taken", [Waiting, Host]),
    give_back(Msg),
    State;
accept(#message{to = #jid{luser = Visitor}} = Msg,
       #state{host = Host, queues = Queues, waiting = Waiting} = State) ->
    case {connections(Host), Queues} of
        {[], _} ->
            give_back(Msg),
            State;
        {_, #{Visitor := Queue}} ->
            State#state{queues = Queues#{Visitor := queue:in(new_entry(Msg), Queue)}, waiting = Waiting + 1};
        _ ->
            Entry = new_entry(Msg),
            send(Entry, Host),
            State#state{queues = Queues#{Visitor => queue:from_list([Entry])}, waiting = Waiting + 1}
    end.

new_entry(Msg) ->
    Now = erlang:system_time(microsecond),
    <<Random:64>> = crypto:strong_rand_bytes(8),
    Id = iolist_to_binary(io_lib:format("~16.16.0b~16.16.0b", [Now, Random])),
    #entry{id = Id, stamp = misc:usec_to_now(Now), message = Msg}.

send(#entry{id = Id, stamp = Stamp, message = #message{to = #jid{luser = Visitor}} = Msg}, Host) ->
    {ok, Tenant} = tenant(Visitor, Host),
    Forwarded = #forwarded{delay = #delay{stamp = Stamp}, sub_els = [add_stanza_id(Id, Msg, component(Host))]},
    IQ = #iq{type = set, from = jid:make(Host), to = jid:make(Tenant, component(Host)), sub_els = [Forwarded]},
    Timeout = gen_mod:get_module_opt(Host, ?MODULE, iq_timeout),
    ejabberd_router:route_iq(IQ, {Visitor, Id}, self(), Timeout).

settle(Reply, #entry{message = #message{to = #jid{luser = Visitor}} = Msg} = Entry, Rest,
       #state{host = Host, queues = Queues, waiting = Waiting} = State) ->
    case Reply of
        #iq{type = result} ->
            next(Visitor, Rest, State);
        #iq{type = error} ->
            ?WARNING_MSG("The component refused message ~ts: ~ts",
                         [Entry#entry.id, xmpp:format_stanza_error(xmpp:get_error(Reply))]),
            give_back(Msg),
            next(Visitor, Rest, State);
        timeout ->
            %% What waits behind it would wait as long: let the operator know now.
            ?WARNING_MSG("The component of ~ts did not acknowledge message ~ts in time", [Host, Entry#entry.id]),
            give_back(Msg),
            give_back_all(Rest),
            State#state{queues = maps:remove(Visitor, Queues), waiting = Waiting - 1 - queue:len(Rest)}
    end.

next(Visitor, Rest, #state{host = Host, queues = Queues, waiting = Waiting} = State) ->
    case queue:peek(Rest) of
        {value, Entry} ->
            send(Entry, Host),
            State#state{queues = Queues#{Visitor := Rest}, waiting = Waiting - 1};
        empty ->
            State#state{queues = maps:remove(Visitor, Queues), waiting = Waiting - 1}
    end.

give_back_all(Queue) ->
    lists:foreach(fun(#entry{message = Msg}) -> give_back(Msg) end, queue:to_list(Queue)).

%% Type wait: trying again is what the operator should do.
give_back(Msg) ->
    Text = <<"The message was not delivered: the live chat cannot be reached right now. Please send it again later.">>,
    Error = xmpp:err_service_unavailable(Text, xmpp:get_lang(Msg)),
    ejabberd_router:route_error(Msg, Error#stanza_error{type = wait}).

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

%%%===================================================================
%%% Presence of operators
%%%===================================================================

set_presence(User, Server, Resource, #presence{show = Show, status = Status, priority = Priority}) ->
    announce(jid:make(User, Server, Resource),
             #presence{type = available, show = Show, status = Status, priority = Priority}).

%% Runs as well when a connection is simply lost.
unset_presence(User, Server, Resource, Status) ->
    JID = jid:make(User, Server, Resource),
    %% A connection that was replaced by a new one of the same resource may end after the new one has begun.
    case is_present(JID) of
        true -> ok;
        false -> announce(JID, #presence{type = unavailable, status = [#text{data = Status} || Status /= <<>>]})
    end.

is_present(#jid{luser = User, lserver = Host, lresource = Resource}) ->
    lists:keymember(Resource, 2, ejabberd_sm:get_user_present_resources(User, Host)).

%% Whether the account is a known operator is for the receiver to say: it has the registry.
announce(#jid{luser = ?IS_VISITOR}, _Presence) ->
    ok;
announce(#jid{luser = User, lserver = Host} = JID, Presence) ->
    case {tenant(User, Host), connections(Host)} of
        {{ok, Tenant}, [_ | _] = Connections} ->
            To = jid:make(Tenant, component(Host)),
            tell(connection_of(Tenant, Connections), xmpp:set_from_to(Presence, JID, To));
        _ -> % nobody to tell: a component that comes back asks for the whole picture itself
            ok
    end.

%% Straight to the connection, not through the router: presences of one operator must not overtake each other on
%% several connections, and must not try server-to-server when the last connection ends this very moment.
tell(Connection, Presence) ->
    ejabberd_cluster:send(Connection, {route, Presence}).

%% The same connection for all presences of a tenant; when one comes or goes, only its own tenants move.
connection_of(Tenant, Connections) ->
    {_, Connection} = lists:max([{erlang:phash2({Tenant, Pid}), Pid} || Pid <- Connections]),
    Connection.

%% ejabberd_router would only say whether there is a route; its (default) Mnesia backend says which ones.
connections(Host) ->
    {ok, Routes} = ejabberd_router_mnesia:find_routes(component(Host)),
    [Pid || #route{pid = Pid} <- Routes, is_pid(Pid)].

%%%===================================================================
%%% Names
%%%===================================================================

%% The tenant of an account; it is also the local part of the component's address for that tenant.
%% Hosting: [visitor, ID, INSTANCE], [visitor, ID, chat, INSTANCE] or [NAME, .., INSTANCE]. An instance holds no dot and
%% is never `chat`, so it can only be read one way.
tenant(User, Host) ->
    case is_hosting(Host) of
        false ->
            {ok, <<"standalone">>};
        true ->
            Parts = binary:split(User, <<".">>, [global]),
            case {Parts, lists:last(Parts)} of
                {[_], _} -> none;
                {_, <<"chat">>} -> none;
                {_, <<>>} -> none;
                {[?IS_VISITOR, _Id], _} -> none;
                {_, Instance} -> {ok, Instance}
            end
    end.

is_hosting(Host) ->
    gen_mod:get_module_opt(Host, ?MODULE, hosting).

component(Host) ->
    Component = gen_mod:get_module_opt(Host, ?MODULE, component),
    jid:nameprep(misc:expand_keyword(<<"@HOST@">>, Component, Host)).
