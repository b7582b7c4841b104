-module(lhc_bridge_rates_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% The stand-in's rates: 2 in a second of an operator, 3 of all operators of a tenant, 1 and 2 of visitors.
-define(SECONDS, 10).

rates_test_() ->
    {foreach,
     fun() -> lhc_bridge_rates:create_table(), lhc_bridge_refusals:create_table(), ets:delete_all_objects(lhc_bridge_rates) end,
     fun(_) -> lhc_bridge_options:reset() end,
     [fun an_operator_is_bounded/0, fun a_tenant_is_bounded/0, fun visitors_are_counted_apart/0,
      fun bytes_are_bounded/0, fun queries_may_be_ten_times_as_many/0, fun who_leaves_may/0, fun answers_are_free/0]}.

admit(User, Stanza) ->
    JID = jid:make(User, <<"host">>, <<"desk">>),
    case lhc_bridge_rates:admit({xmpp:set_from_to(Stanza, JID, JID), #{jid => JID}}) of
        {stop, {drop, #{told := _}}} -> refused;
        {_, _} -> admitted
    end.

%% How many of so many are admitted. A window may end in between: then it is done again.
admitted(Number, User, Stanza) ->
    Window = lhc_bridge_rates:window(),
    Admitted = length([admitted || _ <- lists:seq(1, Number), admit(User, Stanza) == admitted]),
    case lhc_bridge_rates:window() of
        Window -> Admitted;
        _ -> ets:delete_all_objects(lhc_bridge_rates), admitted(Number, User, Stanza)
    end.

an_operator_is_bounded() ->
    ?assertEqual(2 * ?SECONDS, admitted(50, <<"bob.acme">>, #message{})).

a_tenant_is_bounded() ->
    lhc_bridge_options:set(operators_rate, 1),
    ?assertEqual(?SECONDS, admitted(50, <<"bob.acme">>, #message{})),
    ?assertEqual(?SECONDS, admitted(50, <<"bob.other">>, #message{})).

visitors_are_counted_apart() ->
    ?assertEqual(?SECONDS, admitted(?SECONDS, <<"visitor.1.acme">>, #message{})),
    ?assertEqual(?SECONDS, admitted(?SECONDS, <<"visitor.2.acme">>, #message{})),
    ?assertEqual(0, admitted(?SECONDS, <<"visitor.3.acme">>, #message{})),
    ?assertEqual(2 * ?SECONDS, admitted(50, <<"bob.acme">>, #message{})).

bytes_are_bounded() ->
    lhc_bridge_options:set(stanza_bytes, 1000),
    Long = #message{body = [#text{data = binary:copy(<<"x">>, 8000)}]},
    ?assertEqual(2, admitted(50, <<"bob.acme">>, Long)).

queries_may_be_ten_times_as_many() ->
    lhc_bridge_options:set(operators_rate, 100),
    ?assertEqual(20 * ?SECONDS, admitted(250, <<"bob.acme">>, #iq{type = get})).

who_leaves_may() ->
    ?assertEqual(2 * ?SECONDS, admitted(2 * ?SECONDS + 1, <<"bob.acme">>, #presence{})),
    ?assertEqual(admitted, admit(<<"bob.acme">>, #presence{type = unavailable})).

answers_are_free() ->
    ?assertEqual(500, admitted(500, <<"bob.acme">>, #iq{type = result})).
