-module(lhc_bridge_once_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("xmpp/include/xmpp.hrl").

marked(User, Id) ->
    Once = #xmlel{name = <<"once">>, attrs = [{<<"xmlns">>, <<"urn:lhc:bridge:0">>}, {<<"id">>, Id}]},
    #message{from = jid:make(User, <<"host">>), sub_els = [Once]}.

key(User, Id) ->
    {#message{sub_els = []}, Key} = lhc_bridge_once:take_mark(marked(User, Id)),
    Key.

%% Once for each sender: another's id is no repeat.
each_is_first_once_test() ->
    lhc_bridge_once:create_table(),
    ?assert(lhc_bridge_once:is_first(key(<<"visitor.1.acme">>, <<"a">>))),
    ?assertNot(lhc_bridge_once:is_first(key(<<"visitor.1.acme">>, <<"a">>))),
    ?assert(lhc_bridge_once:is_first(key(<<"visitor.2.acme">>, <<"a">>))),
    ?assert(lhc_bridge_once:is_first(key(<<"visitor.1.acme">>, <<"b">>))).

%% What a process had begun when it ended is for the next one.
what_was_left_half_way_is_taken_over_test() ->
    lhc_bridge_once:create_table(),
    Key = key(<<"visitor.1.acme">>, <<"half way">>),
    {Pid, Monitor} = spawn_monitor(fun() -> true = lhc_bridge_once:claim(Key) end),
    receive {'DOWN', Monitor, process, Pid, normal} -> ok end,
    ?assert(lhc_bridge_once:is_first(Key)),
    ?assertNot(lhc_bridge_once:is_first(Key)).

%% By another node; a message that waits in offline storage is in no node's hands.
what_another_node_has_handled_is_a_repeat_test() ->
    lhc_bridge_once:create_table(),
    lhc_bridge_once:learn(key(<<"visitor.1.acme">>, <<"there">>), [node()]),
    lhc_bridge_once:learn(key(<<"visitor.1.acme">>, <<"stored">>), []),
    ?assertNot(lhc_bridge_once:is_first(key(<<"visitor.1.acme">>, <<"there">>))),
    ?assertNot(lhc_bridge_once:is_first(key(<<"visitor.1.acme">>, <<"stored">>))).

what_a_dead_node_had_is_handled_again_test() ->
    lhc_bridge_once:create_table(),
    Key = key(<<"visitor.1.acme">>, <<"died">>),
    lhc_bridge_once:learn(Key, [node(), 'ejabberd@dead']),
    ?assert(lhc_bridge_once:is_first(Key)),
    ?assertNot(lhc_bridge_once:is_first(Key)).

without_a_mark_it_is_no_repeat_test() ->
    ?assertEqual({#message{from = jid:make(<<"bob.acme">>, <<"host">>)}, none},
                 lhc_bridge_once:take_mark(#message{from = jid:make(<<"bob.acme">>, <<"host">>)})).
