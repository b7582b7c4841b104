-module(lhc_bridge_queue_limits_tests).

-include_lib("eunit/include/eunit.hrl").

-define(MOST, {{400, 40000}, many_tenants}).

%% A queue with so many messages of each tenant, of ten bytes each.
queue(Tenants) ->
    lists:foldl(fun({Tenant, Messages}, Held) -> lhc_bridge_queue_limits:add(Tenant, Messages, 10 * Messages, Held) end,
                lhc_bridge_queue_limits:new(), Tenants).

is_full(Tenant, Held) -> is_full(Tenant, 10, Held).
is_full(Tenant, Size, Held) -> lhc_bridge_queue_limits:is_full(Tenant, Size, ?MOST, Held).

a_tenant_has_a_quarter_test() ->
    ?assertNot(is_full(<<"a">>, queue([{<<"a">>, 99}]))),
    ?assert(is_full(<<"a">>, queue([{<<"a">>, 100}]))),
    ?assertNot(is_full(<<"b">>, queue([{<<"a">>, 100}]))).

bytes_are_bounded_as_well_test() ->
    ?assertNot(is_full(<<"a">>, 10000, queue([]))),
    ?assert(is_full(<<"a">>, 10001, queue([]))),
    ?assertNot(is_full(<<"a">>, 9990, queue([{<<"a">>, 1}]))),
    ?assert(is_full(<<"a">>, 9991, queue([{<<"a">>, 1}]))).

%% Four that fill their shares leave nothing to the others but the reserve, which is for quiet tenants.
the_reserve_is_for_quiet_tenants_test() ->
    Full = [{<<"a">>, 100}, {<<"b">>, 100}, {<<"c">>, 100}, {<<"d">>, 100}],
    ?assertNot(is_full(<<"quiet">>, queue(Full))),
    ?assertNot(is_full(<<"quiet">>, queue([{<<"quiet">>, 3} | Full]))),
    ?assert(is_full(<<"quiet">>, queue([{<<"quiet">>, 4} | Full]))), % as many as a hundredth
    ?assert(is_full(<<"a">>, queue(Full))).

the_reserve_ends_test() ->
    Quiet = [{integer_to_binary(Number), 1} || Number <- lists:seq(1, 100)],
    Full = [{<<"a">>, 100}, {<<"b">>, 100}, {<<"c">>, 100}, {<<"d">>, 100} | Quiet],
    ?assert(is_full(<<"quiet">>, queue(Full))),
    ?assertNot(is_full(<<"quiet">>, queue(tl(Full)))).

one_tenant_has_it_all_test() ->
    Most = {{400, 40000}, one_tenant},
    ?assertNot(lhc_bridge_queue_limits:is_full(<<"a">>, 10, Most, queue([{<<"a">>, 399}]))),
    ?assert(lhc_bridge_queue_limits:is_full(<<"a">>, 10, Most, queue([{<<"a">>, 400}]))).

a_small_queue_has_room_for_one_of_each_test() ->
    Most = {{2, 1000}, many_tenants},
    ?assertNot(lhc_bridge_queue_limits:is_full(<<"a">>, 10, Most, queue([]))),
    ?assert(lhc_bridge_queue_limits:is_full(<<"a">>, 10, Most, queue([{<<"a">>, 1}]))).

what_goes_is_counted_down_test() ->
    Held = queue([{<<"a">>, 100}, {<<"b">>, 1}]),
    Left = lhc_bridge_queue_limits:add(<<"a">>, -1, -10, Held),
    ?assertNot(is_full(<<"a">>, Left)),
    ?assertEqual({100, 1000}, lhc_bridge_queue_limits:all(Left)),
    ?assertEqual({99, 990}, lhc_bridge_queue_limits:of_tenant(<<"a">>, Left)),
    Empty = lhc_bridge_queue_limits:add(<<"b">>, -1, -10, lhc_bridge_queue_limits:add(<<"a">>, -99, -990, Left)),
    ?assertEqual(lhc_bridge_queue_limits:new(), Empty). % nothing stays of tenants that have nothing
