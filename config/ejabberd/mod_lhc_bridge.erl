%%% Hands over to the orchestrator's component what operators write to visitors, and which operators are there.
%%%
%%% A visitor has no session of its own: the component (XEP-0114) speaks for it. So a message to a visitor must leave
%%% ejabberd's normal routing, which would spool it for an offline account or bounce it. It is kept in a queue on disk
%%% (lhc_bridge_queue) until the component has stored it.
%%%
%%% Reading order: module plumbing, who may write to whom, the diversion, presence, what the component asks of us,
%%% messages sent twice, names.
-module(mod_lhc_bridge).
-behaviour(gen_mod).

%% gen_mod
-export([start/2, stop/1, reload/3, depends/2, mod_opt_type/1, mod_options/1, mod_doc/0]).
%% hooks and the IQ handler
-export([guard/1, divert/1, receive_packet/1, set_presence/4, unset_presence/4, present/2, to_named/1, service/1,
         decode_iq_subel/1, waited_first/1]).
%% for lhc_bridge_queue and lhc_bridge_rooms
-export([is_component/2, component/1, connections/1, tenant/2, tenant_of/2, option/2, hand_over/2, is_operator_of/3,
         take_once/1, is_first/1]).
%% for lhc_bridge_visitors and lhc_bridge_rates
-export([group/3, answer/3]).

-include("logger.hrl").
-include("ejabberd_router.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Before mod_privacy (50), mod_mam (88) and mod_carboncopy (89): what is forbidden leaves no trace anywhere.
-define(GUARD_PRIORITY, 10).
%% After the last of mod_mam (500, where it takes its marks off again): the operator's other devices have the carbon
%% and the archive has the message before it leaves.
-define(DIVERT_PRIORITY, 600).
%% Before any other module sees a message that comes in: a repeat is no message, and the marker is ours alone.
-define(RECEIVE_PRIORITY, 1).
%% After mod_offline (50).
-define(WAITED_PRIORITY, 60).

%% How long the end of a killed connection may take.
-define(FENCE_TIMEOUT, 10000).
%% Ids of messages that are remembered: between this many and twice as many.
-define(GENERATION, 100000).

-define(NS_BRIDGE, <<"urn:lhc:bridge:0">>).
-define(NAMES, lhc_bridge_names).
-define(SEEN, lhc_bridge_seen).

-define(IS_VISITOR, <<"visitor", _/binary>>).

%%%===================================================================
%%% Module plumbing
%%%===================================================================

%% The hooks belong to the module, not to the gen_server: they must hold while a crashed deliverer is restarted.
start(Host, Opts) ->
    lhc_bridge_log:start(),
    create_tables(),
    lhc_bridge_shut:create_table(),
    lhc_bridge_logins:start(),
    case lhc_bridge_queue:start(Host, Opts) of
        {ok, Pid} ->
            {ok, _} = lhc_bridge_backlog:start(Host, Opts),
            lhc_bridge_offline:start(Host),
            [ejabberd_hooks:add(Hook, Scope, Module, Function, Priority)
             || {Hook, Scope, Module, Function, Priority} <- hooks(Host) ++ global_hooks()],
            gen_iq_handler:add_iq_handler(ejabberd_local, Host, ?NS_BRIDGE, ?MODULE, service),
            lhc_bridge_admin:register_commands(),
            lhc_bridge_rooms:register_commands(),
            lhc_bridge_refusals:register_commands(),
            lhc_bridge_shut:register_commands(),
            {ok, Pid};
        Error ->
            Error
    end.

stop(Host) ->
    gen_iq_handler:remove_iq_handler(ejabberd_local, Host, ?NS_BRIDGE),
    Global = case gen_mod:is_loaded_elsewhere(Host, ?MODULE) of
                 true ->
                     [];
                 false ->
                     lhc_bridge_admin:unregister_commands(),
                     lhc_bridge_rooms:unregister_commands(),
                     lhc_bridge_refusals:unregister_commands(),
                     lhc_bridge_shut:unregister_commands(),
                     global_hooks()
             end,
    [ejabberd_hooks:delete(Hook, Scope, Module, Function, Priority)
     || {Hook, Scope, Module, Function, Priority} <- hooks(Host) ++ Global],
    lhc_bridge_backlog:stop(Host),
    lhc_bridge_queue:stop(Host).

hooks(Host) ->
    [{user_send_packet, Host, ?MODULE, guard, ?GUARD_PRIORITY},
     {user_send_packet, Host, ?MODULE, divert, ?DIVERT_PRIORITY},
     {sm_receive_packet, Host, ?MODULE, receive_packet, ?RECEIVE_PRIORITY},
     {set_presence_hook, Host, ?MODULE, set_presence, 50},
     {unset_presence_hook, Host, ?MODULE, unset_presence, 50},
     {c2s_handle_info, Host, ?MODULE, present, 50},
     {c2s_self_presence, Host, ?MODULE, waited_first, ?WAITED_PRIORITY}
     | lists:flatmap(fun(Module) -> Module:hooks(Host) end,
                     [lhc_bridge_identity, lhc_bridge_rooms, lhc_bridge_visitors, lhc_bridge_logins,
                      lhc_bridge_rates, lhc_bridge_backlog, lhc_bridge_offline, lhc_bridge_shut])].

%% Components belong to no virtual host.
global_hooks() ->
    [{route_registered, global, lhc_bridge_queue, route_registered, 50},
     {component_send_packet, global, lhc_bridge_queue, answer, 50},
     {filter_packet, global, ?MODULE, to_named, 50}
     | lhc_bridge_rooms:global_hooks()].

%% In memory, of this node, and shared by all virtual hosts. They outlive the process that happens to make them, and
%% the deliverer: a name or an id that is forgotten while the connections go on would be a fault.
create_tables() ->
    [ets:new(Table, [named_table, public, {write_concurrency, true}, {heir, erlang:group_leader(), none}])
     || Table <- [?NAMES, ?SEEN], ets:info(Table) == undefined],
    lhc_bridge_backlog:create_table(),
    lhc_bridge_offline:create_table(),
    lhc_bridge_rates:create_table(),
    lhc_bridge_refusals:create_table(),
    ok.

%% Options are read where they are used, so a reload has nothing to do.
reload(_Host, _NewOpts, _OldOpts) ->
    ok.

depends(_Host, _Opts) ->
    [{mod_shared_roster, hard}, {mod_muc, hard}, {mod_offline, soft}].

mod_opt_type(api_secret) -> econf:binary();
mod_opt_type(component) -> econf:non_empty(econf:binary());
mod_opt_type(hosting) -> econf:bool();
mod_opt_type(iq_timeout) -> econf:timeout(second);
mod_opt_type(max_messages) -> econf:pos_int();
mod_opt_type(max_bytes) -> econf:pos_int();
mod_opt_type(operator_rate) -> econf:pos_int();
mod_opt_type(operators_rate) -> econf:pos_int();
mod_opt_type(visitor_rate) -> econf:pos_int();
mod_opt_type(visitors_rate) -> econf:pos_int();
mod_opt_type(stanza_bytes) -> econf:pos_int();
mod_opt_type(max_operator_backlog) -> econf:pos_int();
mod_opt_type(max_visitor_backlog) -> econf:pos_int();
mod_opt_type(max_tenant_backlog) -> econf:pos_int();
mod_opt_type(max_account_offline) -> econf:pos_int();
mod_opt_type(max_tenant_offline) -> econf:pos_int();
mod_opt_type(max_offline) -> econf:pos_int().

mod_options(_Host) ->
    [{api_secret, <<>>},
     {component, <<"lhc.@HOST@">>},
     {hosting, true},
     {iq_timeout, timer:seconds(10)},
     {max_messages, 10000},
     {max_bytes, 64 * 1024 * 1024},
     {operator_rate, 20},
     {operators_rate, 100},
     {visitor_rate, 5},
     {visitors_rate, 100},
     {stanza_bytes, 8 * 1024},
     {max_operator_backlog, 48 * 1024 * 1024},
     {max_visitor_backlog, 1024 * 1024},
     {max_tenant_backlog, 64 * 1024 * 1024},
     {max_account_offline, 2 * 1024 * 1024},
     {max_tenant_offline, 32 * 1024 * 1024},
     {max_offline, 1024 * 1024 * 1024}].

mod_doc() ->
    #{desc => <<"Hands operators' messages to Live Helper Chat visitors, and operators' presence, to the component "
                "of the LHC orchestrator. Messages wait on disk until the component has stored them, in order for each "
                "visitor, through restarts of both sides; only when the queue is full is a new message given back to "
                "the operator, as an error of type 'wait'.">>,
      opts =>
          [{api_secret, #{value => <<"Secret">>,
                          desc => <<"What the orchestrator's calls of the admin API bear (lhc_bridge_api). "
                                    "By default there is none, and no call is answered.">>}},
           {component, #{value => <<"Host">>,
                         desc => <<"Name of the component. '@HOST@' is replaced with the virtual host. "
                                   "The default is 'lhc.@HOST@'.">>}},
           {hosting, #{value => <<"true | false">>,
                       desc => <<"Whether usernames end in '.INSTANCE' (many tenants) or there is one unnamed tenant. "
                                 "The default is 'true'.">>}},
           {iq_timeout, #{value => <<"timeout()">>,
                          desc => <<"How long the component may take to acknowledge a message before it is sent again. "
                                    "The default is '10' seconds.">>}},
           {max_messages, #{value => <<"Number">>,
                            desc => <<"Messages of this virtual host that may wait for the component. Beyond, new "
                                      "messages are given back to the operators. The default is '10000'.">>}},
           {max_bytes, #{value => <<"Bytes">>,
                         desc => <<"The same, for the size of all waiting messages. "
                                   "The default is '67108864' (64 MB).">>}},
           {operator_rate, #{value => <<"Number">>,
                             desc => <<"Messages and presences that an operator may send in a second, counted in each ten "
                                       "seconds. Beyond, they are refused. The default is '20'.">>}},
           {operators_rate, #{value => <<"Number">>,
                              desc => <<"The same, of all operators of a tenant together. The default is '100'.">>}},
           {visitor_rate, #{value => <<"Number">>,
                            desc => <<"The same, of a visitor's browser. The default is '5'.">>}},
           {visitors_rate, #{value => <<"Number">>,
                             desc => <<"The same, of all browsers of a tenant together. The default is '100'.">>}},
           {stanza_bytes, #{value => <<"Bytes">>,
                            desc => <<"What a stanza may have on average, for the bounds above. "
                                      "The default is '8192'.">>}},
           {max_operator_backlog, #{value => <<"Bytes">>,
                                    desc => <<"What may wait for a connection of an operator that does not read. Beyond, "
                                              "it is disconnected. The default is '50331648' (48 MB).">>}},
           {max_visitor_backlog, #{value => <<"Bytes">>,
                                   desc => <<"The same, for a visitor's browser. The default is '1048576' (1 MB).">>}},
           {max_tenant_backlog, #{value => <<"Bytes">>,
                                  desc => <<"The same, for all connections of a tenant together. "
                                            "The default is '67108864' (64 MB).">>}},
           {max_account_offline, #{value => <<"Bytes">>,
                                   desc => <<"What may wait in offline storage for an account. Beyond, messages go back "
                                             "to who sent them. The default is '2097152' (2 MB).">>}},
           {max_tenant_offline, #{value => <<"Bytes">>,
                                  desc => <<"The same, for all accounts of a tenant. "
                                            "The default is '33554432' (32 MB).">>}},
           {max_offline, #{value => <<"Bytes">>,
                           desc => <<"The same, for the virtual host. The default is '1073741824' (1 GB): mod_offline "
                                     "has room for 2 GB.">>}}]}.

%%%===================================================================
%%% Who may write to whom
%%%===================================================================

%% The mark of a message that may come twice is the component's alone.
guard({#message{sub_els = Els} = Msg, C2S}) ->
    guard_unmarked({Msg#message{sub_els = [El || El <- Els, not is_once(El)]}, C2S});
guard(Acc) ->
    guard_unmarked(Acc).

guard_unmarked({Stanza, #{jid := #jid{luser = ?IS_VISITOR = Visitor}, lserver := Host} = C2S}) ->
    IsOperator = fun(User) -> is_operator_for(User, Visitor, Host) end,
    case lhc_bridge_reach:judge(Stanza, component(Host), IsOperator) of
        {pass, Kept} ->
            {Kept, C2S};
        {refuse, Text} ->
            {stop, {drop, answer(Stanza, xmpp:err_forbidden(Text, xmpp:get_lang(Stanza)), C2S)}}
    end;
guard_unmarked({Stanza, #{lserver := Host} = C2S} = Acc) ->
    case lhc_bridge_rooms:judge(Stanza, Host) of
        no_room ->
            guard_others(xmpp:get_to(Stanza), Acc);
        pass ->
            Acc;
        answered ->
            {stop, {drop, C2S}};
        {refuse, Text} ->
            %% a client that enters a room waits for an answer to its presence
            refuse(Stanza, xmpp:err_forbidden(Text, xmpp:get_lang(Stanza))),
            {stop, {drop, C2S}}
    end.

%% An error too is from an operator of the visitor's live chat alone. (It is not answered: no error is.)
guard_others(#jid{luser = ?IS_VISITOR} = To, {#message{from = From} = Msg, C2S} = Acc) ->
    case may_write(From, To) of
        true ->
            Acc;
        false ->
            forbid(Msg, <<"Only operators of this live chat may write to its visitors">>),
            {stop, {drop, C2S}}
    end;
%% A visitor's browser answers no operator, so it is asked nothing.
guard_others(#jid{luser = ?IS_VISITOR, lresource = <<_, _/binary>>}, {#iq{} = IQ, C2S}) ->
    forbid(IQ, <<"A visitor's browser cannot be asked">>),
    {stop, {drop, C2S}};
guard_others(#jid{lserver = Other}, {Stanza, #{lserver := Host} = C2S} = Acc) when Other /= Host ->
    case Other == component(Host) andalso not is_answer(Stanza) of
        true ->
            forbid(Stanza, <<"Only the server may write to this address">>),
            {stop, {drop, C2S}};
        false ->
            Acc
    end;
guard_others(#jid{luser = Other, lserver = Host}, {Stanza, #{lserver := Host} = C2S} = Acc) when Other /= <<>> ->
    #jid{luser = User} = xmpp:get_from(Stanza),
    case User == Other orelse is_same_tenant(User, Other, Host) of
        true ->
            Acc;
        false ->
            forbid(Stanza, <<"This address belongs to another live chat">>),
            {stop, {drop, C2S}}
    end;
guard_others(_To, Acc) ->
    Acc.

%% A name that is no tenant's is nobody's: nothing goes to it or comes from it.
is_same_tenant(User, Other, Host) ->
    case {tenant(User, Host), tenant(Other, Host)} of
        {{ok, Tenant}, {ok, Another}} -> Tenant == Another;
        _ -> false
    end.

%% What the component hears of an operator is what this module says: nobody else may tell it of messages and presence.
%% A client only answers what it was asked, as a ping.
is_answer(#iq{type = Type}) ->
    Type == result orelse Type == error;
is_answer(_Stanza) ->
    false.

forbid(#presence{}, _Text) ->
    ok; % clients do not expect an error to a presence
forbid(Stanza, Text) ->
    refuse(Stanza, xmpp:err_forbidden(Text, xmpp:get_lang(Stanza))).

refuse(Stanza, Error) ->
    ejabberd_router:route_error(Stanza, Error).

%% Straight to the client: what is routed to a visitor as an error is kept as a message that came back.
-spec answer(stanza(), stanza_error(), ejabberd_c2s:state()) -> ejabberd_c2s:state().
answer(Stanza, Error, C2S) ->
    case lists:member(xmpp:get_type(Stanza), [error, result]) of
        true -> C2S;
        false -> ejabberd_c2s:send(C2S, xmpp:make_error(Stanza, Error))
    end.

may_write(#jid{luser = Operator, lserver = Host}, #jid{luser = Visitor, lserver = Host}) ->
    is_operator_for(Operator, Visitor, Host);
may_write(_Operator, #jid{lserver = Other}) ->
    not ejabberd_router:is_my_host(Other). % another virtual host is another company; other servers are not our matter

%% Whether the account is an operator's of the visitor's live chat.
is_operator_for(?IS_VISITOR, _Visitor, _Host) ->
    false;
is_operator_for(Operator, Visitor, Host) ->
    case {tenant(Operator, Host), tenant(Visitor, Host)} of
        {{ok, Tenant}, {ok, Tenant}} -> is_operator_of(Operator, Tenant, Host);
        _ -> false
    end.

is_operator_of(User, Tenant, Host) ->
    try
        mod_shared_roster:is_user_in_group({User, Host}, group(<<"operators">>, Tenant, Host), Host)
    catch
        _:_ -> false % it crashes for a group that does not exist; ejabberd would then let the stanza pass
    end.

%%%===================================================================
%%% The diversion
%%%===================================================================

%% The guard has let this message pass, so it is an operator's to a visitor of the same tenant; it may be an error.
divert({#message{from = #jid{luser = Operator, lserver = Host},
                 to = #jid{luser = ?IS_VISITOR = Visitor, lserver = Host}} = Msg, C2S} = Acc)
  when Operator /= Visitor ->
    IsBridged = is_bridged(Msg),
    IsBridged andalso hand_over(Host, Msg),
    is_signal(Msg) andalso signal(Host, Msg),
    case ejabberd_sm:get_user_resources(Visitor, Host) of
        [_ | _] -> Acc; % a browser that is logged in itself gets its copy the normal way
        [] when IsBridged -> {stop, {drop, C2S}};
        [] when Msg#message.body == [] -> {stop, {drop, C2S}}; % "is typing", receipts: else bounced or spooled
        [] -> Acc
    end;
divert(Acc) ->
    Acc.

is_bridged(#message{body = Body} = Msg) ->
    is_said(Msg) andalso Body /= [].

%% "Is typing" (XEP-0085), and receipts (XEP-0184).
is_signal(#message{body = Body, sub_els = Els} = Msg) ->
    is_said(Msg) andalso Body == [] andalso
        lists:any(fun(El) -> lists:member(xmpp:get_ns(El), [?NS_CHATSTATES, ?NS_RECEIPTS]) end, Els).

%% Not an error: a client that refuses what it was sent gives back the same elements.
is_said(#message{type = Type}) ->
    Type == chat orelse Type == normal.

%% Nothing keeps a signal: it is lost when no connection of the component is there. Any of them will do. The visitor's line
%% whose receipt is lost stays `sent`, and nobody asks for the receipt again.
signal(Host, #message{to = #jid{luser = Visitor}} = Msg) ->
    case {connections(Host), tenant(Visitor, Host)} of
        {[Connection | _], {ok, Tenant}} ->
            Wrapped = #message{from = jid:make(Host), to = jid:make(Tenant, component(Host)),
                               sub_els = [#forwarded{sub_els = [Msg]}]},
            ejabberd_cluster:send(Connection, {route, Wrapped});
        _ ->
            ok
    end.

%% Something that the component sent for a visitor comes back: no such account, no more room for offline messages, or a
%% client that refuses it. Visitors have no session that would get it, so the component does. And a message that is
%% marked as sent but once.
receive_packet(#message{type = error, body = [_ | _], from = From, to = #jid{luser = ?IS_VISITOR} = To} = Msg) ->
    #jid{luser = Visitor, lserver = Host, lresource = Resource} = To,
    Browsers = ejabberd_sm:get_user_resources(Visitor, Host),
    %% what a browser wrote is told to that browser, and is nothing that LHC has sent
    lists:member(Resource, Browsers) orelse (is_operator_name(From, To) andalso hand_over(Host, Msg)),
    case Browsers of
        [_ | _] -> Msg;
        [] -> {stop, drop}
    end;
receive_packet(#message{type = error, body = [_ | _], from = #jid{lserver = Service}, to = To} = Msg) ->
    #jid{luser = User, lserver = Host} = To,
    %% the same for what was said in a room: who said it need not have an account
    case lhc_bridge_rooms:is_service(Service, Host) andalso ejabberd_sm:get_user_resources(User, Host) of
        [] ->
            hand_over(Host, Msg),
            {stop, drop};
        _ ->
            once(Msg)
    end;
receive_packet(#message{} = Msg) ->
    once(Msg);
receive_packet(Stanza) ->
    Stanza.

%% That the account exists is not asked: that it does not is one of the errors. But no client may forge an error for the
%% visitors of another tenant.
is_operator_name(#jid{luser = ?IS_VISITOR}, _Visitor) ->
    false;
is_operator_name(#jid{luser = Operator, lserver = Host}, #jid{luser = Visitor, lserver = Host}) ->
    case tenant(Visitor, Host) of
        {ok, _} = Tenant -> tenant(Operator, Host) == Tenant;
        none -> false
    end;
is_operator_name(_Stranger, _Visitor) ->
    false.

%% Returns when the stanza is on disk: what the operator's client hears acknowledged after this, a ping or a stanza
%% count (XEP-0198), includes it. If it is refused, the operator is told.
hand_over(Host, Msg) ->
    try lhc_bridge_queue:deliver(Host, Msg) of
        ok ->
            ok;
        full ->
            lhc_bridge_refusals:note(queue_full),
            Text = <<"The message was not delivered: too many messages wait. Please send it again later.">>,
            give_back(Msg, xmpp:err_resource_constraint(Text, xmpp:get_lang(Msg)))
    catch
        exit:Reason ->
            ?ERROR_MSG("The deliverer of ~ts did not take a message: ~p", [Host, reason_of(Reason)]),
            Text = <<"The message was not delivered: the live chat cannot be reached right now. "
                     "Please send it again later.">>,
            give_back(Msg, xmpp:err_service_unavailable(Text, xmpp:get_lang(Msg)))
    end.

%% Without the call, which holds the message.
reason_of({Reason, {gen_server, call, _}}) -> Reason;
reason_of(Reason) -> Reason.

%% Type wait: trying again is what the operator should do. (An error that comes back is not answered with an error, and
%% who enters or leaves a room has nothing to try.)
give_back(#message{} = Msg, Error) ->
    refuse(Msg, Error#stanza_error{type = wait}),
    refused;
give_back(_Presence, _Error) ->
    refused.

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

%% What lhc_present asks of a session: as if its client had sent it. What is not given is as the client said it last.
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

is_present(#jid{luser = User, lserver = Host, lresource = Resource}) ->
    lists:keymember(Resource, 2, ejabberd_sm:get_user_present_resources(User, Host)).

%% Every process of the component keeps a picture of all operators. Whether the account is a known one is for the
%% receiver to say: it has the registry. When nobody is there to tell, a component that comes back asks by itself.
announce(#jid{luser = ?IS_VISITOR}, _Presence) ->
    ok;
announce(#jid{luser = User, lserver = Host} = JID, Presence) ->
    case tenant(User, Host) of
        {ok, Tenant} ->
            Addressed = xmpp:set_from_to(Presence, JID, jid:make(Tenant, component(Host))),
            %% Not through the router, which would take one connection, or none and try server-to-server.
            [ejabberd_cluster:send(Connection, {route, Addressed}) || Connection <- connections(Host)],
            ok;
        none ->
            ok
    end.

%% ejabberd_router would only say whether there is a route; its (default) Mnesia backend says which ones.
connections(Host) ->
    {ok, Routes} = ejabberd_router_mnesia:find_routes(component(Host)),
    [Pid || #route{pid = Pid} <- Routes, is_pid(Pid)].

%%%===================================================================
%%% What the component asks of us (IQs of the namespace urn:lhc:bridge:0)
%%%
%%%   <pool name='N'/>   this connection bears the name N from now on; answers to lhc.HOST/N come to it
%%%   <fence name='N'/>  every other connection that bears it is ended; after the result nothing of it is handled
%%%   <sync/>            what this connection sent before is on disk, where ejabberd stores it (offline messages)
%%%===================================================================

%% gen_iq_handler would decode the child, and our namespace is unknown to it.
decode_iq_subel(El) ->
    El.

%% Runs in the connection that received the IQ, after everything that it received before. The answer goes back on that
%% connection; the router would take any of the component's.
service(#iq{from = #jid{lserver = From}, to = #jid{lserver = Host}, lang = Lang} = IQ) ->
    case is_component(From, Host) of
        true ->
            self() ! {route, serve(IQ)},
            ignore;
        false ->
            xmpp:make_error(IQ, xmpp:err_forbidden(<<"Only the component may ask for this">>, Lang))
    end.

serve(#iq{type = Type, to = #jid{lserver = Host}, lang = Lang, sub_els = [El]} = IQ) ->
    case {Type, xmpp:get_name(El), jid:resourceprep(fxml:get_tag_attr_s(<<"name">>, El))} of
        {set, <<"pool">>, <<_, _/binary>> = Name} ->
            ets:insert(?NAMES, {self(), Host, Name, erlang:unique_integer([monotonic])}),
            xmpp:make_iq_result(IQ);
        {set, <<"fence">>, <<_, _/binary>> = Name} ->
            case [Pid || Pid <- bearers(Name, Host), Pid /= self(), not end_connection(Pid, Host)] of
                [] -> xmpp:make_iq_result(IQ);
                _ -> xmpp:make_error(IQ, xmpp:err_internal_server_error(<<"It does not end">>, Lang))
            end;
        {set, <<"sync">>, _} ->
            sync(),
            xmpp:make_iq_result(IQ);
        _ ->
            xmpp:make_error(IQ, xmpp:err_bad_request(<<"Unknown request, or no name">>, Lang))
    end.

%% The log is not enough for tables that are on disk only (offline messages are): when Mnesia empties its log, it leaves
%% out what is written to their own files, and those are written with a delay of seconds.
sync() ->
    ok = mnesia:sync_log(),
    [ok = dets:sync(Table) || Table <- mnesia:system_info(local_tables),
                              mnesia:table_info(Table, storage_type) == disc_only_copies],
    ok.

%% The connections of that name, the latest first.
bearers(Name, Host) ->
    Rows = ets:match_object(?NAMES, {'_', Host, Name, '_'}),
    {Alive, Dead} = lists:partition(fun({Pid, _, _, _}) -> is_process_alive(Pid) end, Rows),
    [ets:delete(?NAMES, Pid) || {Pid, _, _, _} <- Dead],
    [Pid || {Pid, _, _, _} <- lists:reverse(lists:keysort(4, Alive))].

%% Hook of everything that is routed. What a process asks, a ping for instance, it asks from an address of the component
%% whose resource is its name: the router would give the answer to any of the component's connections.
to_named(#iq{type = Type, to = #jid{lserver = Domain, lresource = <<_, _/binary>> = Name}} = IQ)
  when Type == result; Type == error ->
    Hosts = [Host || {_, Host, _, _} <- ets:match_object(?NAMES, {'_', '_', Name, '_'}), is_component(Domain, Host)],
    case lists:flatmap(fun(Host) -> bearers(Name, Host) end, lists:usort(Hosts)) of
        [Connection | _] ->
            Connection ! {route, IQ},
            {stop, drop};
        [] ->
            IQ
    end;
to_named(Stanza) ->
    Stanza.

%% Killed: it may hang in a write to a process that reads no more, and then hears nothing else.
end_connection(Pid, Host) ->
    Monitor = erlang:monitor(process, Pid),
    exit(Pid, kill),
    receive
        {'DOWN', Monitor, process, Pid, _} ->
            ets:delete(?NAMES, Pid),
            ejabberd_router:unregister_route(component(Host), Pid), % the router does so too, but later
            true
    after ?FENCE_TIMEOUT ->
        erlang:demonitor(Monitor, [flush]),
        false
    end.

%%%===================================================================
%%% Messages that the component may send twice
%%%
%%% Who takes over from a process that died sends again what may not have been sent. Such messages bear
%%% <once xmlns='urn:lhc:bridge:0' id='..'/>, and each is handled once as long as this ejabberd runs. The marker is
%%% taken off: what ejabberd itself routes again later (offline storage, XEP-0198) is no repeat.
%%%===================================================================

once(Msg) ->
    case take_once(Msg) of
        {Msg, none} ->
            Msg;
        {Plain, Key} ->
            case claim(Key) of
                true ->
                    %% Routed here and not after the hook, so that it is known when that is done: a connection that is
                    %% killed half way has not handled the message.
                    route_or_store(Plain),
                    done(Key);
                false ->
                    ok
            end,
            {stop, drop}
    end.

%% The message without the marker, and what it is known by; none when it bears no marker.
take_once(#message{from = #jid{luser = User, lserver = Server}, sub_els = Els} = Msg) ->
    case lists:partition(fun is_once/1, Els) of
        {[], _} ->
            {Msg, none};
        {[Once | _], Rest} ->
            Key = crypto:hash(sha256, [User, $@, Server, $/, fxml:get_tag_attr_s(<<"id">>, Once)]), % bounded, any id
            {Msg#message{sub_els = Rest}, Key}
    end.

%% For whoever handles it at once, in a process that does not end half way.
is_first(Key) ->
    claim(Key) andalso done(Key).

done(Key) ->
    ets:update_element(?SEEN, Key, {3, done}).

%% ejabberd looks who is there, and stores the message when nobody is. An operator who comes at this very moment would
%% miss it: mod_offline_mnesia writes it without a transaction, and may do so between the reading and the deleting of
%% what the operator fetches (then it is gone), or after that (then it lies there until the next login). So we hold the
%% lock that the fetching needs while we look and store: who comes after that fetches after that.
route_or_store(#message{to = #jid{luser = User, lserver = Server}} = Msg) ->
    case is_present(User, Server) orelse store_undisturbed(Msg, {User, Server}) of
        true -> ejabberd_sm:route(Msg);
        stored -> ok
    end.

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
        {atomic, Result} ->
            Result;
        {aborted, _} -> % offline messages are not in Mnesia here: no lock, so we look again afterwards
            ejabberd_sm:route(Msg),
            fetch_when_present(User, Server),
            stored
    end.

is_present(User, Server) ->
    ejabberd_sm:get_user_present_resources(User, Server) =/= [].

fetch_when_present(User, Server) ->
    case ejabberd_sm:get_user_present_resources(User, Server) of
        [{_, Resource} | _] ->
            C2S = #{jid => jid:make(User, Server, Resource), lserver => Server},
            mod_offline:c2s_self_presence({#presence{type = available}, C2S});
        [] ->
            ok
    end.

%% What waited for the operator comes before what arrives just now: mod_offline routes it to this very process (the
%% operator's connection), but behind what was routed here since the presence was set. So both are handled here.
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

is_once(El) ->
    xmpp:get_name(El) == <<"once">> andalso xmpp:get_ns(El) == ?NS_BRIDGE.

%% Whether the message is for this process to handle. A row: {Key, Number, the process that is at it | done}.
claim(Key) ->
    Number = ets:update_counter(?SEEN, number, 1, {number, 0}),
    Number rem ?GENERATION == 0 andalso forget_seen(Number - ?GENERATION),
    case ets:insert_new(?SEEN, {Key, Number, self()}) of
        true ->
            true;
        false ->
            case ets:lookup(?SEEN, Key) of
                [{_, _, Pid} = Claim] when is_pid(Pid) ->
                    not is_process_alive(Pid) andalso
                        begin
                            ets:delete_object(?SEEN, Claim),
                            claim(Key)
                        end;
                [_] ->
                    false;
                [] ->
                    claim(Key)
            end
    end.

forget_seen(Number) ->
    ets:select_delete(?SEEN, [{{'_', '$1', '_'}, [{'=<', '$1', Number}], [true]}]).

%%%===================================================================
%%% Names
%%%===================================================================

%% The tenant of an account; it is also the local part of the component's address for that tenant.
%% Hosting: [visitor, ID, INSTANCE], [visitor, ID, chat, INSTANCE] or [NAME, .., INSTANCE]. An instance holds no dot and
%% is never `chat`, so it can only be read one way. `admin` is nobody's, for servers' administrators are often called so.
tenant(<<"admin">>, _Host) ->
    none;
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

%% The shared roster group of that kind.
group(Kind, Tenant, Host) ->
    case is_hosting(Host) of
        true -> <<Kind/binary, $., Tenant/binary>>;
        false -> Kind
    end.

%% The tenant of an account or a room.
tenant_of(#jid{luser = Local, lserver = Domain}, Host) ->
    case lhc_bridge_rooms:is_service(Domain, Host) of
        true -> lhc_bridge_rooms:tenant(Local, Host);
        false -> tenant(Local, Host)
    end.

is_hosting(Host) ->
    option(Host, hosting).

is_component(Domain, Host) ->
    gen_mod:is_loaded(Host, ?MODULE) andalso component(Host) == Domain.

component(Host) ->
    Component = option(Host, component),
    jid:nameprep(misc:expand_keyword(<<"@HOST@">>, Component, Host)).

option(Host, Name) ->
    gen_mod:get_module_opt(Host, ?MODULE, Name).
