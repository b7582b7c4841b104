%%% The queue's process and its table, with a test as the component at its other end.
-module(lhc_bridge_queue_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("xmpp/include/xmpp.hrl").

-define(HOST, <<"host">>).
-define(ANN, <<"visitor.1.acme">>).
-define(JIM, <<"visitor.2.acme">>).
%% Milliseconds in which nothing comes.
-define(QUIET, 30).

queue_test_() ->
    [with_queue(Test) || Test <-
     [fun a_stanza_waits_until_it_is_stored/0, fun a_conversation_keeps_its_order/0, fun conversations_do_not_wait/0,
      fun it_waits_for_a_connection/0, fun it_waits_through_a_restart/0, fun a_connection_that_ends_stored_nothing/0,
      fun what_is_stored_is_shown_to_a_browser_once/0,
      fun a_refusal_is_tried_again/0, fun a_final_refusal_goes_back/0, fun late_answers_count/0,
      fun an_error_without_a_reason_is_tried_again/0,
      fun strangers_answers_do_not_count/0, fun no_answer_is_tried_again/0, fun a_full_queue_takes_no_more/0,
      fun a_tenant_is_dropped/0, fun what_cannot_be_read_is_dropped/0]].

%% In the test's own process, which is the one that hears of things.
with_queue(Test) ->
    {name, Name} = erlang:fun_info(Test, name),
    {atom_to_list(Name), fun() -> setup(), try Test() after teardown() end end}.

setup() ->
    mnesia:create_schema([node()]), % in the folder that the virtual machine was started in; once
    ok = mnesia:start(),
    register(test, self()),
    lhc_bridge_refusals:create_table(),
    connect([self()]),
    start().

teardown() ->
    stop(),
    {atomic, ok} = mnesia:delete_table(lhc_bridge_queue),
    unregister(test),
    lhc_bridge_options:reset(),
    flush().

start() ->
    {ok, _} = gen_server:start({local, name()}, lhc_bridge_queue, [?HOST, []], []).

stop() ->
    whereis(name()) == undefined orelse gen_server:stop(name()).

name() ->
    gen_mod:get_module_proc(?HOST, lhc_bridge_queue).

connect(Pids) ->
    ejabberd_router_mnesia:set_connections(Pids).

flush() ->
    receive _ -> flush() after 0 -> ok end.

write(Visitor, Text) ->
    Msg = #message{type = chat, from = jid:make(<<"bob.acme">>, ?HOST, <<"desk">>), to = jid:make(Visitor, ?HOST),
                   body = [#text{data = Text}]},
    lhc_bridge_queue:deliver(?HOST, Msg).

%% What the component is handed next, and with what text.
handed(Text) ->
    {IQ, Text} = next(),
    IQ.

next() ->
    receive
        {route, #iq{sub_els = [#forwarded{sub_els = [Msg]}]} = IQ} -> {IQ, xmpp:get_text(Msg#message.body)}
    after 5000 ->
        error(nothing_is_handed_over)
    end.

nothing() ->
    receive {route, IQ} -> error({handed_over, IQ}) after ?QUIET -> ok end.

%% The component's answer.
answer(#iq{} = Answer) ->
    {stop, {drop, #{}}} = lhc_bridge_queue:answer({Answer, #{}}),
    ok.

stored(IQ) ->
    answer(xmpp:make_iq_result(IQ)).

refused(IQ, Error) ->
    answer(xmpp:make_error(IQ, Error)).

waiting() ->
    lhc_bridge_queue:waiting(?HOST, <<>>).

%% The id that the receiver knows the stanza by.
id(#iq{sub_els = [#forwarded{sub_els = [Msg]}]}) ->
    #stanza_id{id = Id} = xmpp:get_subtag(Msg, #stanza_id{by = jid:make(<<"lhc.host">>)}),
    Id.

a_stanza_waits_until_it_is_stored() ->
    ok = write(?ANN, <<"1">>),
    IQ = handed(<<"1">>),
    ?assertEqual(jid:make(<<"acme">>, <<"lhc.host">>), IQ#iq.to),
    ?assertEqual([?ANN], waiting()),
    stored(IQ),
    sys:get_state(name()),
    ?assertEqual([], waiting()).

a_conversation_keeps_its_order() ->
    Texts = [integer_to_binary(Number) || Number <- lists:seq(1, 20)],
    [ok = write(?ANN, Text) || Text <- Texts],
    [begin
         IQ = handed(Text),
         nothing(),
         stored(IQ)
     end || Text <- Texts],
    nothing().

conversations_do_not_wait() ->
    ok = write(?ANN, <<"1">>),
    ok = write(?ANN, <<"2">>),
    handed(<<"1">>),
    ok = write(?JIM, <<"3">>),
    handed(<<"3">>),
    nothing().

it_waits_for_a_connection() ->
    stop(),
    connect([]),
    start(),
    ok = write(?ANN, <<"1">>),
    ok = write(?ANN, <<"2">>),
    nothing(),
    connect([self()]),
    lhc_bridge_queue:route_registered(<<"lhc.host">>),
    stored(handed(<<"1">>)),
    stored(handed(<<"2">>)).

it_waits_through_a_restart() ->
    [ok = write(?ANN, Text) || Text <- [<<"1">>, <<"2">>]],
    Before = handed(<<"1">>),
    exit(whereis(name()), kill),
    timer:sleep(?QUIET),
    start(),
    After = handed(<<"1">>),
    ?assertEqual(id(Before), id(After)),
    stored(After),
    handed(<<"2">>).

a_connection_that_ends_stored_nothing() ->
    Test = self(),
    Dying = spawn(fun() -> receive {route, IQ} -> Test ! {taken, IQ} end end),
    connect([Dying]),
    stop(),
    start(),
    ok = write(?ANN, <<"1">>),
    Taken = receive {taken, IQ} -> IQ after 5000 -> error(nothing_is_handed_over) end,
    connect([Test]),
    lhc_bridge_queue:route_registered(<<"lhc.host">>),
    ?assertEqual(id(Taken), id(handed(<<"1">>))).

what_is_stored_is_shown_to_a_browser_once() ->
    ejabberd_sm:set_resources(?ANN, [<<"browser">>]),
    ok = write(?ANN, <<"1">>),
    IQ = receive {route, #iq{sub_els = [#forwarded{sub_els = [#message{}, #xmlel{name = <<"browser">>}]}]} = Asking} -> Asking end,
    Shown = #xmlel{name = <<"shown">>, attrs = [{<<"xmlns">>, <<"urn:lhc:bridge:0">>}], children = [{xmlcdata, <<"one">>}]},
    [answer(xmpp:make_iq_result(IQ, Shown)) || _ <- [first, repeated]],
    To = jid:make(?ANN, ?HOST),
    receive {routed, #message{type = chat, to = To, body = [#text{data = <<"one">>}], sub_els = []}} -> ok end,
    nothing_routed(),
    ejabberd_sm:set_resources(?ANN, []).

nothing_routed() ->
    [] = waiting(),
    receive {routed, Stanza} -> error({routed, Stanza}) after ?QUIET -> ok end.

a_refusal_is_tried_again() ->
    [ok = write(?ANN, Text) || Text <- [<<"1">>, <<"2">>]],
    First = handed(<<"1">>),
    refused(First, xmpp:err_internal_server_error()),
    nothing(),
    Again = handed(<<"1">>),
    ?assertEqual(id(First), id(Again)),
    refused(First, xmpp:err_bad_request()), % of an attempt that is over
    nothing(),
    stored(Again),
    stored(handed(<<"2">>)).

a_final_refusal_goes_back() ->
    [ok = write(?ANN, Text) || Text <- [<<"1">>, <<"2">>, <<"3">>]],
    refused(handed(<<"1">>), xmpp:err_bad_request()),
    receive {given_back, _, #stanza_error{reason = 'bad-request'}} -> ok end,
    refused(handed(<<"2">>), xmpp:err_not_allowed()), % too much of the tenant waits for its server
    receive {given_back, _, #stanza_error{type = wait, reason = 'resource-constraint'}} -> ok end,
    handed(<<"3">>).

late_answers_count() ->
    [ok = write(?ANN, Text) || Text <- [<<"1">>, <<"2">>]],
    First = handed(<<"1">>),
    refused(First, xmpp:err_internal_server_error()),
    stored(First), % by another process of the component
    stored(handed(<<"2">>)),
    stored(First),
    sys:get_state(name()),
    ?assertEqual([], waiting()).

strangers_answers_do_not_count() ->
    ok = write(?ANN, <<"1">>),
    Answer = xmpp:make_iq_result(handed(<<"1">>)),
    answer(Answer#iq{from = jid:make(<<"acme">>, <<"lhc.company">>)}),
    sys:get_state(name()),
    ?assertEqual([?ANN], waiting()),
    Ping = #iq{type = result, id = <<"ping">>, from = jid:make(<<"lhc.host">>), to = jid:make(?HOST)},
    ?assertEqual({Ping, #{}}, lhc_bridge_queue:answer({Ping, #{}})).

no_answer_is_tried_again() ->
    lhc_bridge_options:set(iq_timeout, 20),
    ok = write(?ANN, <<"1">>),
    First = handed(<<"1">>),
    ?assertEqual(id(First), id(handed(<<"1">>))).

an_error_without_a_reason_is_tried_again() ->
    ok = write(?ANN, <<"1">>),
    First = handed(<<"1">>),
    Answer = xmpp:make_iq_result(First),
    answer(Answer#iq{type = error}),
    ?assertEqual(id(First), id(handed(<<"1">>))).

%% The stand-in's bound is 400, and a tenant's a quarter.
a_full_queue_takes_no_more() ->
    [ok = write(?ANN, <<"x">>) || _ <- lists:seq(1, 100)],
    ?assertEqual(full, write(?JIM, <<"x">>)),
    ?assertEqual(ok, write(<<"visitor.1.other">>, <<"x">>)),
    {IQ, _} = next(),
    stored(IQ),
    ?assertEqual(ok, write(?JIM, <<"x">>)).

a_tenant_is_dropped() ->
    [ok = write(Visitor, <<"x">>) || Visitor <- [?ANN, ?ANN, ?JIM, <<"visitor.1.other">>]],
    ?assertEqual(3, lhc_bridge_queue:drop(?HOST, <<".acme">>)),
    ?assertEqual([<<"visitor.1.other">>], waiting()).

%% Else it would hold up its conversation for ever.
what_cannot_be_read_is_dropped() ->
    stop(),
    lhc_bridge_queue_table:write(?HOST, ?ANN, lhc_bridge_queue_table:new_id(1), <<"no XML">>),
    start(),
    ok = write(?ANN, <<"1">>),
    handed(<<"1">>),
    ?assertEqual([?ANN], waiting()).
