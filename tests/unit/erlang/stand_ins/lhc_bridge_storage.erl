%%% In the place of the storage: bob is an operator of every tenant of which there is one.
-module(lhc_bridge_storage).

-export([members_of/3, may_exist/2]).

members_of(_Host, <<"operators.unknown">>, _Users) -> throw({error, storage_away});
members_of(_Host, <<"operators.", Tenant/binary>>, [User]) -> [User || User == <<"bob.", Tenant/binary>>];
members_of(_Host, <<"operators">>, [User]) -> [User || User == <<"bob">>];
members_of(_Host, _Group, _Users) -> [].

may_exist(_Host, _User) -> true.
