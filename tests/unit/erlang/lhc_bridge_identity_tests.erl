-module(lhc_bridge_identity_tests).

-include_lib("eunit/include/eunit.hrl").

%% The account whose password is offered, or why the login is refused.
account(Mech, Text) ->
    lhc_bridge_identity:own_account(lhc_bridge_identity:read(Mech, Text), <<"host">>).

plain_test() ->
    Plain = fun(Text) -> account(<<"PLAIN">>, Text) end,
    ?assertEqual({ok, <<"bob.acme">>}, Plain(<<0, "bob.acme", 0, "pw">>)),
    ?assertEqual({ok, <<"bob.acme">>}, Plain(<<"bob.acme", 0, "bob.acme", 0, "pw">>)),
    ?assertEqual({ok, <<"bob.acme">>}, Plain(<<"bob.acme@host", 0, "bob.acme", 0, "pw">>)),
    ?assertEqual({ok, <<"bob.acme">>}, Plain(<<"BOB.acme@HOST", 0, "bob.acme", 0, "pw">>)),
    ?assertEqual({error, 'invalid-authzid'}, Plain(<<"eve.acme", 0, "bob.acme", 0, "pw">>)),
    ?assertEqual({error, 'invalid-authzid'}, Plain(<<"bob.acme@other", 0, "bob.acme", 0, "pw">>)),
    ?assertEqual({error, 'malformed-request'}, Plain(<<"bob.acme", 0, "pw">>)),
    ?assertEqual({error, 'malformed-request'}, Plain(<<0, 0, "pw">>)),
    ?assertEqual({error, 'malformed-request'}, Plain(undefined)).

scram_test() ->
    Scram = fun(Text) -> account(<<"SCRAM-SHA-1">>, Text) end,
    ?assertEqual({ok, <<"bob.acme">>}, Scram(<<"n,,n=bob.acme,r=nonce">>)),
    ?assertEqual({ok, <<"bob.acme">>}, Scram(<<"n,a=bob.acme,n=bob.acme,r=nonce">>)),
    ?assertEqual({error, 'invalid-authzid'}, Scram(<<"n,a=eve.acme,n=bob.acme,r=nonce">>)),
    ?assertEqual({error, 'invalid-authzid'}, Scram(<<"n,a==3D,n=bob.acme,r=nonce">>)),
    ?assertEqual({error, 'malformed-request'}, Scram(<<"n,a=,n=bob.acme,r=nonce">>)),
    ?assertEqual({error, 'malformed-request'}, Scram(<<"n,,m=ext,n=bob.acme,r=nonce">>)),
    ?assertEqual({error, 'malformed-request'}, Scram(<<"n,,n=bob.acme">>)).

others_let_nobody_in_test() ->
    [?assertEqual(unknown_mechanism, account(Mech, <<"bob.acme">>)) || Mech <- [<<"EXTERNAL">>, <<"ANONYMOUS">>, <<>>]].
