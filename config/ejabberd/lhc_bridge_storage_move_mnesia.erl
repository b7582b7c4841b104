%%% What a move does with Mnesia, as the one or the other side: for lhc_bridge_storage_move. Part of mod_lhc_bridge.
-module(lhc_bridge_storage_move_mnesia).

-export([open/1, identities/2, messages/2, empty/1, keep/0]).

-include_lib("xmpp/include/xmpp.hrl").
-include("mod_muc.hrl").
-include("mod_offline.hrl").
-include("mod_roster.hrl").
-include("mod_shared_roster.hrl").
-include("mod_vcard.hrl").

%% Milliseconds until a table is read from the disk.
-define(LOADS_WITHIN, 60000).

%% Makes ejabberd's tables, if they are not there.
-spec open(binary()) -> ok.
open(Host) ->
    ok = ejabberd_auth_mnesia:start(Host),
    lists:foreach(fun(Module) -> (gen_mod:db_mod(mnesia, Module)):init(Host, #{}) end,
                  [mod_shared_roster, mod_vcard, mod_offline, mod_last, mod_roster]),
    %% mod_muc_mnesia runs in any case, for the rooms that are open, and its tables are made with it
    ejabberd_mnesia:create(mod_muc_mnesia, muc_room,
                           [{disc_copies, [node()]}, {attributes, record_info(fields, muc_room)}]),
    ok = mnesia:wait_for_tables([Table || {Table, _} <- tables()], ?LOADS_WITHIN).

%% The tables, and where each has {Name, Host}, or what begins like that.
tables() ->
    [{passwd, 2}, {sr_group, #sr_group.group_host}, {sr_user, #sr_user.group_host}, {vcard, #vcard.us},
     {vcard_search, #vcard_search.us}, {offline_msg, #offline_msg.us}, {last_activity, 2}, {roster, #roster.us},
     {roster_version, #roster_version.us}, {muc_room, #muc_room.name_host}].

-spec identities(binary(), lhc_bridge_storage:kind()) -> [term()].
identities(Host, accounts) ->
    lists:usort([User || {User, _} <- ejabberd_auth_mnesia:get_users(Host, [])]);
identities(Host, members) ->
    Row = #sr_user{us = '$1', group_host = {'$2', Host}},
    lists:usort([{Group, User, Server} || {{User, Server}, Group} <- mnesia:dirty_select(sr_user, [{Row, [], [{{'$1', '$2'}}]}])]);
identities(Host, contacts) ->
    Row = #roster{usj = {'$1', Host, '$2'}, _ = '_'},
    lists:usort([{User, jid:encode(JID)} || {User, JID} <- mnesia:dirty_select(roster, [{Row, [], [{{'$1', '$2'}}]}])]);
identities(Host, offline_messages) ->
    lists:usort([{User, Count} || {User, Count, _} <- lhc_bridge_storage_mnesia:waiting(Host)]);
identities(Host, Kind) ->
    lists:usort(lhc_bridge_storage_mnesia:names(Host, Kind, <<>>)).

%% In the order in which they came.
-spec messages(binary(), binary()) -> [#offline_msg{}].
messages(Host, User) ->
    [Message#offline_msg{packet = xmpp:decode(Packet, ?NS_CLIENT, [ignore_els])}
     || #offline_msg{packet = Packet} = Message
            <- lists:keysort(#offline_msg.timestamp, mnesia:dirty_read(offline_msg, {User, Host}))].

-spec empty(binary()) -> ok.
empty(Host) ->
    Service = lhc_bridge_options:room_service(Host),
    lists:foreach(fun({muc_room, Position}) -> empty(muc_room, Position, Service);
                     ({Table, Position}) -> empty(Table, Position, Host)
                  end,
                  tables()).

empty(Table, Position, Host) ->
    Pattern = mnesia:table_info(Table, wild_pattern),
    Of = setelement(Position, Pattern, '$1'),
    Guard = [{'==', {element, 2, '$1'}, Host}],
    lists:foreach(fun(Key) -> mnesia:dirty_delete(Table, Key) end,
                  lists:usort([element(2, Row) || Row <- mnesia:dirty_select(Table, [{Of, Guard, ['$_']}])])).

%% On disk from here on.
-spec keep() -> ok.
keep() ->
    ok = mnesia:sync_log().
