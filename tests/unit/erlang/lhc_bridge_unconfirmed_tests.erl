%%% What a client has not confirmed, as its connection remembers it.
-module(lhc_bridge_unconfirmed_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("xmpp/include/xmpp.hrl").

-define(HOST, <<"host">>).

connection() ->
    #{jid => jid:make(<<"bob.acme">>, ?HOST, <<"desk">>), lserver => ?HOST}.

message(Id) ->
    #message{type = chat, id = Id, from = jid:make(<<"visitor.1.acme">>, ?HOST, <<"lhc">>),
             to = jid:make(<<"bob.acme">>, ?HOST), body = [#text{data = <<"hello">>}], sub_els = [#receipt_request{}]}.

sent(Ids) ->
    lists:foldl(fun(Id, C2S) -> lhc_bridge_unconfirmed:sent(C2S, message(Id), ok) end, connection(), Ids).

asked(C2S) ->
    {stop, #{told := Ping} = Asked} = lhc_bridge_unconfirmed:ask(C2S, lhc_ask),
    {Ping, Asked}.

received(C2S, Stanza) ->
    lhc_bridge_unconfirmed:received(C2S, #xmlel{name = <<"any">>}, Stanza).

receipt(Id) ->
    #message{type = chat, sub_els = [#receipt_response{id = Id}]}.

ids(C2S) ->
    {unconfirmed, Messages, _Last, Bytes, _Asked, _GivesReceipts} = lhc_bridge_unconfirmed:unconfirmed(C2S),
    Ids = [Id || {sent, _, _, _, _, #message{id = Id}} <- queue:to_list(Messages)],
    ?assertEqual(Ids == [], Bytes == 0),
    Ids.

%% The component is told of what has no receipt of its own.
told() ->
    receive
        {route, #message{sub_els = [#forwarded{sub_els = [#message{sub_els = [#receipt_response{id = Id}]}]}]}} ->
            [Id | told()]
    after 0 ->
        []
    end.

with_component(Test) ->
    ejabberd_router_mnesia:set_connections([self()]),
    Test().

an_answer_confirms_what_was_sent_before_the_question_test() ->
    with_component(fun() ->
        {Ping, Asked} = asked(sent([<<"1-a">>, <<"2-a">>])),
        Later = lhc_bridge_unconfirmed:sent(Asked, message(<<"3-a">>), ok),
        ?assertEqual(get, Ping#iq.type),
        Answered = received(Later, Ping#iq{type = result}),
        ?assertEqual([<<"3-a">>], ids(Answered)),
        ?assertEqual([<<"1-a">>, <<"2-a">>], told()),
        {Next, AskedAgain} = asked(Answered),
        %% an error is an answer, too; one to an old question is none
        ?assertEqual([<<"3-a">>], ids(received(AskedAgain, Ping#iq{type = result}))),
        ?assertEqual([], ids(received(AskedAgain, Next#iq{type = error}))),
        ?assertEqual([<<"3-a">>], told())
    end).

a_receipt_confirms_its_message_and_those_before_it_test() ->
    with_component(fun() ->
        Sent = sent([<<"1-a">>, <<"2-a">>, <<"3-a">>]),
        ?assertEqual([<<"1-a">>, <<"2-a">>, <<"3-a">>], ids(received(Sent, receipt(<<"4-a">>)))),
        ?assertEqual([<<"3-a">>], ids(received(Sent, receipt(<<"2-a">>)))),
        ?assertEqual([<<"1-a">>], told()),
        ?assertEqual([], ids(received(Sent, receipt(<<"3-a">>)))),
        told()
    end).

only_messages_are_remembered_and_of_operators_alone_test() ->
    Copy = xmpp:put_meta(message(<<"1-a">>), carbon_copy, true),
    Typing = (message(<<"2-a">>))#message{body = []},
    Error = (message(<<"3-a">>))#message{type = error},
    Sent = lists:foldl(fun(Stanza, C2S) -> lhc_bridge_unconfirmed:sent(C2S, Stanza, ok) end, connection(),
                       [Copy, Typing, Error, #presence{}]),
    ?assertEqual([], ids(Sent)),
    Browser = #{jid => jid:make(<<"visitor.1.acme">>, ?HOST, <<"browser">>)},
    ?assertEqual(Browser, lhc_bridge_unconfirmed:sent(Browser, message(<<"4-a">>), ok)).

a_client_that_has_all_is_not_asked_test() ->
    {stop, Silent} = lhc_bridge_unconfirmed:ask(received(sent([<<"1-a">>]), receipt(<<"1-a">>)), lhc_ask),
    ?assertNot(is_map_key(told, Silent)),
    ?assertEqual({stop, connection()}, lhc_bridge_unconfirmed:ask(connection(), lhc_ask)).

%% Nobody waits for the receipts of what is no line.
what_is_no_line_is_confirmed_and_nobody_is_told_test() ->
    with_component(fun() ->
        {Ping, Asked} = asked(sent([<<"notice-1">>, <<"1">>, <<"-1">>, <<"5-a">>])),
        ?assertEqual([], ids(received(Asked, Ping#iq{type = result}))),
        ?assertEqual([<<"5-a">>], told())
    end).

%% A client that reads all of a flood is asked so often that it never has too much unconfirmed.
a_flood_is_asked_for_at_once_test() ->
    Large = fun(C2S, Id) ->
                    Body = [#text{data = binary:copy(<<"x">>, 100000)}],
                    lhc_bridge_unconfirmed:sent(C2S, (message(Id))#message{body = Body}, ok)
            end,
    Few = Large(connection(), <<"1-a">>),
    ?assertNot(is_map_key(told, Few)),
    #{told := Ping} = Many = lists:foldl(fun(_, C2S) -> Large(C2S, <<"1-a">>) end, Few, lists:seq(1, 30)),
    Answered = received(maps:remove(told, Many), Ping#iq{type = result}),
    %% the question was asked early: all that came after it is asked for at once
    ?assertEqual(25, length(ids(Answered))),
    ?assert(is_map_key(told, Answered)),
    ?assertEqual({stop, Answered}, lhc_bridge_unconfirmed:ask(Answered, lhc_ask)).

another_connection_has_it_when_it_was_there_and_as_important_test() ->
    One = {sent, 1, {1700, 100, 0}, 5, 10, message(<<"1-a">>)},
    Has = fun(Priority, Second) -> lhc_bridge_unconfirmed:has_another(One, [{Priority, {1700, Second}}]) end,
    ?assert(Has(5, 99)),
    ?assertNot(Has(4, 99)),
    ?assertNot(Has(5, 100)),
    ?assertNot(lhc_bridge_unconfirmed:has_another(One, [])).

%% Who leaves has read what there was, unless it would have said so.
who_leaves_in_good_order_has_lost_nothing_test() ->
    Sent = sent([<<"1-a">>]),
    ?assert(lhc_bridge_unconfirmed:is_lost(Sent#{stop_reason => {socket, closed}})),
    ?assertNot(lhc_bridge_unconfirmed:is_lost(Sent#{stop_reason => {stream, reset}})),
    ?assert(lhc_bridge_unconfirmed:is_lost((received(Sent, receipt(<<"other">>)))#{stop_reason => {stream, reset}})),
    ?assertNot(lhc_bridge_unconfirmed:is_lost(Sent#{stop_reason => {socket, closed}, mgmt_state => active})).
