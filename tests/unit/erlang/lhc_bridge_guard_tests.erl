-module(lhc_bridge_guard_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("xmpp/include/xmpp.hrl").

-define(HOST, <<"host">>).

%% What the guard does with what that user sends.
guard(User, Stanza) ->
    From = jid:make(User, ?HOST, <<"desk">>),
    lhc_bridge_guard:guard({xmpp:set_from(Stanza, From), #{jid => From, lserver => ?HOST}}).

passes(User, Stanza) ->
    ?assertMatch({_, #{}}, guard(User, Stanza)).

%% Dropped, and whether the sender hears of it.
dropped(User, Stanza, Told) ->
    ?assertMatch({stop, {drop, #{}}}, guard(User, Stanza)),
    ?assertEqual(Told, receive {given_back, _, #stanza_error{reason = Reason}} -> Reason after 0 -> nothing end).

to(Local) -> jid:make(Local, ?HOST).
message(To) -> #message{type = chat, to = To, body = [#text{data = <<"hello">>}]}.
ping(To) -> #iq{type = get, to = To, sub_els = [#xmlel{name = <<"ping">>, attrs = [{<<"xmlns">>, ?NS_PING}]}]}.

guard_test_() ->
    [as_test(Test) || Test <-
     [fun operators_write_to_their_visitors/0, fun only_operators_write_to_visitors/0, fun tenants_are_apart/0,
      fun nobody_speaks_to_the_component/0, fun other_hosts_are_others/0, fun visitors_are_judged_by_reach/0,
      fun the_mark_of_repeats_is_taken_off/0, fun rooms_are_for_operators/0, fun rooms_are_only_used/0,
      fun former_operators_may_leave_rooms/0]].

%% In the test's own process, which is the one that hears of errors.
as_test(Test) ->
    {name, Name} = erlang:fun_info(Test, name),
    {atom_to_list(Name), fun() -> register(test, self()), try Test() after unregister(test) end end}.

operators_write_to_their_visitors() ->
    passes(<<"bob.acme">>, message(to(<<"visitor.1.acme">>))),
    passes(<<"bob.acme">>, (message(to(<<"visitor.1.acme">>)))#message{type = error}),
    dropped(<<"bob.acme">>, #presence{type = subscribe, to = to(<<"visitor.1.acme">>)}, nothing). % he sees it anyway

only_operators_write_to_visitors() ->
    dropped(<<"carol.acme">>, message(to(<<"visitor.1.acme">>)), forbidden),
    dropped(<<"bob.other">>, message(to(<<"visitor.1.acme">>)), forbidden),
    dropped(<<"bob.unknown">>, message(to(<<"visitor.1.unknown">>)), forbidden), % the roster's check crashes
    dropped(<<"bob">>, message(to(<<"visitor.1.acme">>)), forbidden),
    dropped(<<"bob.other">>, ping(jid:make(<<"visitor.1.acme">>, ?HOST, <<"browser">>)), forbidden),
    dropped(<<"carol.acme">>, ping(to(<<"visitor.1.acme">>)), forbidden).

tenants_are_apart() ->
    passes(<<"bob.acme">>, message(to(<<"carol.acme">>))),
    passes(<<"bob">>, message(to(<<"bob">>))),
    dropped(<<"bob.acme">>, message(to(<<"bob.other">>)), forbidden),
    dropped(<<"bob.acme">>, ping(to(<<"bob.other">>)), forbidden),
    dropped(<<"bob.acme">>, #presence{type = subscribe, to = to(<<"bob.other">>)}, nothing),
    dropped(<<"bob">>, message(to(<<"carol">>)), forbidden), % names of no tenant are nobody's
    passes(<<"bob.acme">>, ping(jid:make(?HOST))).

nobody_speaks_to_the_component() ->
    Component = jid:make(<<"acme">>, <<"lhc.host">>),
    dropped(<<"bob.acme">>, message(Component), forbidden),
    dropped(<<"bob.acme">>, #presence{to = Component}, nothing),
    dropped(<<"bob.acme">>, ping(Component), forbidden),
    passes(<<"bob.acme">>, #iq{type = result, to = Component}).

%% Whether a stanza may go to other servers is ejabberd's matter; another virtual host is another company.
other_hosts_are_others() ->
    passes(<<"bob.acme">>, message(jid:make(<<"bob.acme">>, <<"elsewhere">>))),
    passes(<<"bob.acme">>, message(jid:make(<<"visitor.1.acme">>, <<"elsewhere">>))),
    dropped(<<"bob.acme">>, message(jid:make(<<"visitor.1.acme">>, <<"company">>)), forbidden),
    dropped(<<"bob.acme">>, message(jid:make(<<"bob.acme">>, <<"company">>)), forbidden),
    dropped(<<"bob.acme">>, ping(jid:make(<<"bob.acme">>, <<"company">>)), forbidden),
    dropped(<<"bob.acme">>, ping(jid:make(<<"company">>)), forbidden),
    dropped(<<"bob.acme">>, #presence{type = subscribe, to = jid:make(<<"bob.acme">>, <<"company">>)}, nothing).

%% The refusal goes straight to the browser: routed, it would be kept as a message that came back.
visitors_are_judged_by_reach() ->
    passes(<<"visitor.1.acme">>, message(to(<<"bob.acme">>))),
    ?assertMatch({stop, {drop, #{told := #message{type = error}}}},
                 guard(<<"visitor.1.acme">>, message(to(<<"carol.acme">>)))),
    ?assertMatch({stop, {drop, #{told := _}}}, guard(<<"visitor.1.acme">>, message(to(<<"bob.other">>)))).

the_mark_of_repeats_is_taken_off() ->
    Once = #xmlel{name = <<"once">>, attrs = [{<<"xmlns">>, <<"urn:lhc:bridge:0">>}, {<<"id">>, <<"1">>}]},
    Sent = (message(to(<<"visitor.1.acme">>)))#message{sub_els = [Once]},
    {#message{sub_els = Els}, _} = guard(<<"bob.acme">>, Sent),
    ?assertEqual([], Els).

room(Local) -> jid:make(Local, <<"conference.host">>).

rooms_are_for_operators() ->
    passes(<<"bob.acme">>, message(room(<<"team.acme">>))),
    passes(<<"bob.acme">>, #presence{to = jid:replace_resource(room(<<"team.acme">>), <<"Bob">>)}),
    dropped(<<"carol.acme">>, message(room(<<"team.acme">>)), forbidden),
    dropped(<<"bob.acme">>, message(room(<<"team.other">>)), forbidden),
    dropped(<<"bob.acme">>, message(room(<<"team">>)), forbidden),
    dropped(<<"bob.acme">>, #presence{to = jid:replace_resource(room(<<"team.other">>), <<"Bob">>)}, forbidden),
    dropped(<<"bob.acme">>, message(jid:make(<<"team.acme">>, <<"conference.company">>)), forbidden).

rooms_are_only_used() ->
    Declines = (message(room(<<"team.acme">>)))#message{sub_els = [#muc_user{}]},
    dropped(<<"bob.acme">>, Declines, forbidden),
    Subscribes = #iq{type = set, to = room(<<"team.acme">>),
                     sub_els = [#xmlel{name = <<"subscribe">>, attrs = [{<<"xmlns">>, ?NS_MUCSUB}]}]},
    dropped(<<"bob.acme">>, Subscribes, forbidden),
    passes(<<"bob.acme">>, ping(jid:make(<<"conference.host">>))),
    dropped(<<"bob.acme">>, message(jid:make(<<"conference.host">>)), forbidden).

former_operators_may_leave_rooms() ->
    Room = jid:replace_resource(room(<<"team.acme">>), <<"Carol">>),
    passes(<<"carol.acme">>, #presence{type = unavailable, to = Room}),
    dropped(<<"carol.acme">>, #presence{to = Room}, forbidden),
    dropped(<<"carol.other">>, #presence{type = unavailable, to = Room}, forbidden).
