%%% How much may wait in the queue, in number and in bytes, for each tenant and for all: pure decisions, no I/O. Part of
%%% mod_lhc_bridge.
%%%
%%% The bounds are far beyond what operators write in an outage of hours. Who meets them is told so, which is better than to
%%% fill the disk and the memory of the chat server.
-module(lhc_bridge_queue_limits).

-export([new/0, add/4, all/1, of_tenant/2, is_full/4]).
-export_type([held/0, amount/0, most/0]).

%% The part of the queue that a tenant may fill, {Parts, Of}.
-define(SHARE, {1, 4}).
%% A tenant with less than this part is a quiet one.
-define(QUIET, {1, 100}).
%% The queue and the reserve beside it, which only quiet tenants may use: four that fill their shares would otherwise leave
%% nothing to the others.
-define(WITH_RESERVE, {5, 4}).

-type amount() :: {Messages :: non_neg_integer(), Bytes :: non_neg_integer()}.
%% What the queue may hold, and whether several tenants share it.
-type most() :: {amount(), many_tenants | one_tenant}.
%% What the queue holds: of all, and of each tenant that has any.
-type held() :: {amount(), #{Tenant :: binary() => amount()}}.

-spec new() -> held().
new() ->
    {{0, 0}, #{}}.

%% With so many messages and bytes more, or less when they are negative.
-spec add(binary(), integer(), integer(), held()) -> held().
add(Tenant, Messages, Bytes, {All, Tenants}) ->
    Others = maps:remove(Tenant, Tenants),
    {plus(All, Messages, Bytes),
     case plus(maps:get(Tenant, Tenants, {0, 0}), Messages, Bytes) of
         {0, _} -> Others;
         Amount -> Others#{Tenant => Amount}
     end}.

plus({Messages, Bytes}, MoreMessages, MoreBytes) ->
    {Messages + MoreMessages, Bytes + MoreBytes}.

-spec all(held()) -> amount().
all({All, _Tenants}) ->
    All.

-spec of_tenant(binary(), held()) -> amount().
of_tenant(Tenant, {_All, Tenants}) ->
    maps:get(Tenant, Tenants, {0, 0}).

%% Whether there is no room for one more message of the tenant, of that many bytes.
-spec is_full(binary(), non_neg_integer(), most(), held()) -> boolean().
is_full(Tenant, Size, {Most, Sharing}, Held) ->
    OfTenant = of_tenant(Tenant, Held),
    Room = case is_beyond(OfTenant, Size, part(Most, ?QUIET)) of
               true -> Most;
               false -> part(Most, ?WITH_RESERVE)
           end,
    is_beyond(OfTenant, Size, part(Most, share(Sharing))) orelse is_beyond(all(Held), Size, Room).

share(many_tenants) -> ?SHARE;
share(one_tenant) -> {1, 1}.

is_beyond({Messages, Bytes}, Size, {MostMessages, MostBytes}) ->
    Messages >= MostMessages orelse Bytes + Size > MostBytes.

part({Messages, Bytes}, {Parts, Of}) ->
    {max(1, Messages * Parts div Of), Bytes * Parts div Of}.
