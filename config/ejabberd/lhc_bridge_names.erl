%%% Which tenant a name belongs to. Part of mod_lhc_bridge.
%%%
%%% Usernames, names of rooms and names of shared rosters end in `.INSTANCE`, where the instance is the tenant. A server
%%% without hosting has one tenant, and its names have no such end.
-module(lhc_bridge_names).

-export([tenant/2, tenant_or_empty/2, room_tenant/2, tenant_of/2, group/3, suffix/2, bears/2]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/jid.hrl").

-define(ONLY_TENANT, <<"standalone">>).

%% The tenant of an account. The component's address for a tenant has the same local part.
-spec tenant(binary(), binary()) -> {ok, binary()} | none.
tenant(<<"admin">>, _Host) ->
    none; % the administrators of servers are often called so
tenant(User, Host) ->
    case lhc_bridge_options:is_hosting(Host) of
        true -> instance_of_account(binary:split(User, <<".">>, [global]));
        false -> {ok, ?ONLY_TENANT}
    end.

%% The parts are [visitor, ID, INSTANCE], [visitor, ID, chat, INSTANCE] or [NAME, .., INSTANCE]. An instance holds no dot
%% and is never `chat`, so a name can be read in one way only.
instance_of_account([_WithoutDot]) ->
    none;
instance_of_account([<<"visitor">>, _IdWithoutInstance]) ->
    none;
instance_of_account(Parts) ->
    case lists:last(Parts) of
        <<"chat">> -> none;
        <<>> -> none;
        Instance -> {ok, Instance}
    end.

%% The same, for what is counted by tenant: names that are no tenant's are counted together.
-spec tenant_or_empty(binary(), binary()) -> binary().
tenant_or_empty(User, Host) ->
    case tenant(User, Host) of
        {ok, Tenant} -> Tenant;
        none -> <<>>
    end.

%% The tenant of a room: what follows the last dot.
-spec room_tenant(binary(), binary()) -> {ok, binary()} | none.
room_tenant(Room, Host) ->
    case lhc_bridge_options:is_hosting(Host) of
        true -> instance_of_room(binary:split(Room, <<".">>, [global]));
        false -> {ok, ?ONLY_TENANT}
    end.

instance_of_room([_WithoutDot]) -> none;
instance_of_room(Parts) -> {ok, lists:last(Parts)}.

%% The tenant of an address, which may be an account's or a room's.
-spec tenant_of(jid:jid(), binary()) -> {ok, binary()} | none.
tenant_of(#jid{luser = Local, lserver = Domain}, Host) ->
    case lhc_bridge_options:room_service(Host) of
        Domain -> room_tenant(Local, Host);
        _ -> tenant(Local, Host)
    end.

%% The name of the tenant's shared roster of that kind: operators or visitors.
-spec group(binary(), binary(), binary()) -> binary().
group(Kind, Tenant, Host) ->
    <<Kind/binary, (suffix(Tenant, Host))/binary>>.

%% How the names of the tenant end.
-spec suffix(binary(), binary()) -> binary().
suffix(Tenant, Host) ->
    case lhc_bridge_options:is_hosting(Host) of
        true -> <<$., Tenant/binary>>;
        false -> <<>>
    end.

%% Whether the name ends in the suffix.
-spec bears(binary(), binary()) -> boolean().
bears(Name, Suffix) ->
    Rest = byte_size(Name) - byte_size(Suffix),
    Rest >= 0 andalso binary:part(Name, Rest, byte_size(Suffix)) == Suffix.
