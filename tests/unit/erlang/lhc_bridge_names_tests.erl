-module(lhc_bridge_names_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("xmpp/include/jid.hrl").

-define(HOST, <<"host">>).

hosting_test_() ->
    {foreach, fun() -> ok end, fun(_) -> lhc_bridge_options:reset() end,
     [fun accounts/0, fun rooms/0, fun addresses/0, fun standalone/0]}.

accounts() ->
    Tenants = [{<<"bob.acme">>, {ok, <<"acme">>}},
               {<<"bob.of.acme">>, {ok, <<"acme">>}},
               {<<"visitor.1.acme">>, {ok, <<"acme">>}},
               {<<"visitor.1.chat.acme">>, {ok, <<"acme">>}},
               {<<"bob">>, none},
               {<<"admin">>, none},
               {<<"bob.">>, none},
               {<<"bob.chat">>, none},
               {<<"visitor.1.chat">>, none},
               {<<"visitor.acme">>, none},
               {<<"visitorcentre.acme">>, {ok, <<"acme">>}},
               {<<"admin.acme">>, {ok, <<"acme">>}},
               {<<>>, none}],
    [?assertEqual({User, Tenant}, {User, lhc_bridge_names:tenant(User, ?HOST)}) || {User, Tenant} <- Tenants].

rooms() ->
    ?assertEqual({ok, <<"acme">>}, lhc_bridge_names:room_tenant(<<"team.acme">>, ?HOST)),
    ?assertEqual(none, lhc_bridge_names:room_tenant(<<"team">>, ?HOST)).

%% `visitor.acme` may be a room, but is no account.
addresses() ->
    Local = <<"visitor.acme">>,
    ?assertEqual({ok, <<"acme">>}, lhc_bridge_names:tenant_of(jid:make(Local, <<"conference.host">>), ?HOST)),
    ?assertEqual(none, lhc_bridge_names:tenant_of(jid:make(Local, ?HOST), ?HOST)).

standalone() ->
    lhc_bridge_options:set(hosting, false),
    ?assertEqual({ok, <<"standalone">>}, lhc_bridge_names:tenant(<<"bob">>, ?HOST)),
    ?assertEqual(none, lhc_bridge_names:tenant(<<"admin">>, ?HOST)),
    ?assertEqual(<<"operators">>, lhc_bridge_names:group(<<"operators">>, <<"standalone">>, ?HOST)).

groups_test() ->
    ?assertEqual(<<"operators.acme">>, lhc_bridge_names:group(<<"operators">>, <<"acme">>, ?HOST)).

%% `.acme` is not the end of `bob.my-acme`.
suffixes_test() ->
    ?assert(lhc_bridge_names:bears(<<"bob.acme">>, <<".acme">>)),
    ?assertNot(lhc_bridge_names:bears(<<"bob.my-acme">>, <<".acme">>)),
    ?assertNot(lhc_bridge_names:bears(<<"me">>, <<".acme">>)).
