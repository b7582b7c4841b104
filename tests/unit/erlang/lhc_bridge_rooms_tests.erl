-module(lhc_bridge_rooms_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% As mod_muc_room gives it to the hook since 24.06: without an address.
moderation_is_the_rooms_own_matter_test() ->
    Withdrawn = #xmlel{name = <<"retract">>, attrs = [{<<"xmlns">>, <<"urn:xmpp:message-retract:1">>}]},
    Moderation = #message{type = groupchat, from = jid:make(<<"bob.acme">>, <<"localhost">>), sub_els = [Withdrawn],
                          meta = #{mam_ignore => true}},
    ?assertEqual(Moderation, lhc_bridge_rooms:said(Moderation, state, <<"Bob">>)).

private_words_are_nobody_elses_test() ->
    Private = #message{type = chat, from = jid:make(<<"bob.acme">>, <<"localhost">>), body = xmpp:mk_text(<<"psst">>)},
    ?assertEqual(Private, lhc_bridge_rooms:said(Private, state, <<"Bob">>)).
