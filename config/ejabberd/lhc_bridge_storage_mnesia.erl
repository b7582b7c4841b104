%%% What ejabberd keeps in Mnesia: for lhc_bridge_storage, which says what each function is for. Part of mod_lhc_bridge.
-module(lhc_bridge_storage_mnesia).

-export([names/3, having/3]).
-export([opts/2, displaying/2, members/2, members_of/3, groups_of/2, groups_until_done/2, add_members/3, remove_members/3,
         leave_all/2]).
-export([nicks/2, contacts/1, waiting/1, waiting/2, bytes/1]).

-include_lib("xmpp/include/xmpp.hrl").
-include("mod_muc.hrl").
-include("mod_offline.hrl").
-include("mod_roster.hrl").
-include("mod_shared_roster.hrl").

%%%===================================================================
%%% What there is
%%%===================================================================

-spec names(binary(), lhc_bridge_storage:kind(), binary()) -> [binary()].
names(Host, Kind, Suffix) ->
    [Name || Name <- names(Host, Kind), lhc_bridge_names:bears(Name, Suffix)].

names(Host, accounts) ->
    [User || {User, _} <- ejabberd_auth:get_users(Host)];
names(Host, rosters) ->
    lhc_bridge_tables:names(sr_group, #sr_group.group_host, Host);
names(Host, rooms) ->
    lhc_bridge_tables:names(muc_room, #muc_room.name_host, lhc_bridge_options:room_service(Host));
names(Host, Kind) ->
    {Table, Position} = table(Kind),
    lhc_bridge_tables:names(Table, Position, Host).

%% The table, and the position of {User, Host} in it.
table(members) -> {sr_user, #sr_user.us};
table(vcards) -> {vcard, 2};
table(offline_messages) -> {offline_msg, #offline_msg.us};
table(last_activity) -> {last_activity, 2};
table(contacts) -> {roster, #roster.us}.

-spec having(binary(), lhc_bridge_storage:kind(), [binary()]) -> [binary()].
having(Host, accounts, Users) ->
    [User || User <- Users, ejabberd_auth:user_exists(User, Host)];
having(Host, rooms, Rooms) ->
    Service = lhc_bridge_options:room_service(Host),
    [Room || Room <- Rooms, has(muc_room, #muc_room.name_host, {Room, Service})];
having(Host, Kind, Users) ->
    {Table, Position} = table(Kind),
    [User || User <- Users, has(Table, Position, {User, Host})].

has(Table, 2, US) -> mnesia:dirty_read(Table, US) /= [];
has(Table, Position, US) -> mnesia:dirty_index_read(Table, US, Position) /= [].

%%%===================================================================
%%% Shared rosters
%%%===================================================================

-spec opts(binary(), binary()) -> {ok, [{atom(), term()}]} | error.
opts(Host, Group) ->
    case mnesia:dirty_read(sr_group, {Group, Host}) of
        [#sr_group{opts = Opts}] -> {ok, Opts};
        [] -> error
    end.

-spec displaying(binary(), binary()) -> [binary()].
displaying(Host, Group) ->
    Rows = mnesia:dirty_select(sr_group, [{#sr_group{group_host = {'$1', Host}, opts = '$2'}, [], [{{'$1', '$2'}}]}]),
    [Other || {Other, Opts} <- Rows, lists:member(Group, proplists:get_value(displayed_groups, Opts, []))].

-spec members(binary(), binary()) -> [binary()].
members(Host, Group) ->
    [User || #sr_user{us = {User, Server}} <- mnesia:dirty_index_read(sr_user, {Group, Host}, #sr_user.group_host),
             Server == Host].

-spec members_of(binary(), binary(), [binary()]) -> [binary()].
members_of(Host, Group, Users) ->
    [User || User <- Users, lists:member(membership(Host, User, Group), mnesia:dirty_read(sr_user, {User, Host}))].

-spec groups_of(binary(), [binary()]) -> [{binary(), binary()}].
groups_of(Host, Users) ->
    pairs(Host, [Row || User <- Users, Row <- mnesia:dirty_read(sr_user, {User, Host})]).

-spec groups_until_done(binary(), [binary()]) -> [{binary(), binary()}].
groups_until_done(Host, Users) ->
    pairs(Host, [Row || User <- Users, Row <- mnesia:read(sr_user, {User, Host}, read)]).

-spec add_members(binary(), binary(), [binary()]) -> ok.
add_members(Host, Group, Users) ->
    Memberships = [membership(Host, User, Group) || User <- Users],
    {atomic, ok} = mnesia:transaction(fun() -> lists:foreach(fun mnesia:write/1, Memberships) end),
    ok.

-spec remove_members(binary(), binary(), [binary()]) -> ok.
remove_members(Host, Group, Users) ->
    Memberships = [membership(Host, User, Group) || User <- Users],
    {atomic, ok} = mnesia:transaction(fun() -> lists:foreach(fun mnesia:delete_object/1, Memberships) end),
    ok.

-spec leave_all(binary(), [binary()]) -> [{binary(), binary()}].
leave_all(Host, Users) ->
    {atomic, Memberships} = mnesia:transaction(fun() -> lists:flatmap(fun(User) -> leave(Host, User) end, Users) end),
    pairs(Host, Memberships).

leave(Host, User) ->
    Memberships = mnesia:read(sr_user, {User, Host}, write),
    mnesia:delete({sr_user, {User, Host}}),
    Memberships.

membership(Host, User, Group) ->
    #sr_user{us = {User, Host}, group_host = {Group, Host}}.

%% Of groups of this host.
pairs(Host, Memberships) ->
    [{User, Group} || #sr_user{us = {User, _}, group_host = {Group, Owner}} <- Memberships, Owner == Host].

%%%===================================================================
%%% What belongs to accounts
%%%===================================================================

-spec nicks(binary(), [binary()]) -> #{binary() => binary()}.
nicks(Host, Users) ->
    maps:from_list([{User, Nick} || User <- Users, Nick <- [nick(mod_vcard:get_vcard(User, Host))], Nick /= <<>>]).

nick([VCard | _]) ->
    case fxml:get_path_s(VCard, [{elem, <<"NICKNAME">>}, cdata]) of
        <<>> -> fxml:get_path_s(VCard, [{elem, <<"FN">>}, cdata]);
        Nick -> Nick
    end;
nick(_) ->
    <<>>.

-spec contacts(binary()) -> [{{binary(), binary(), jid:ljid()}, binary()}].
contacts(Host) ->
    Row = #roster{usj = '$1', jid = {'$2', Host, '_'}, _ = '_'},
    mnesia:dirty_select(roster, [{Row, [], [{{'$1', '$2'}}]}]).

-spec waiting(binary()) -> [{binary(), non_neg_integer(), non_neg_integer()}].
waiting(Host) ->
    [{User, Messages, Bytes} || User <- lists:usort(names(Host, offline_messages)),
                                {Messages, Bytes} <- [waiting(Host, User)]].

-spec waiting(binary(), binary()) -> {non_neg_integer(), non_neg_integer()}.
waiting(Host, User) ->
    Sizes = [bytes(Packet) || #offline_msg{packet = Packet} <- mnesia:dirty_read(offline_msg, {User, Host})],
    {length(Sizes), lists:sum(Sizes)}.

-spec bytes(fxml:xmlel()) -> non_neg_integer().
bytes(Packet) ->
    erlang:external_size(Packet).
