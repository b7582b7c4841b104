%%% Makes, lists and removes rooms of mod_muc, and invites to them: admin commands. Part of mod_lhc_bridge.
-module(lhc_bridge_room_admin).

%% for the bridge
-export([commands/0, rooms/2]).
%% the commands
-export([page/4, make_rooms/2, remove_rooms/2, invite/4]).

-include("logger.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Milliseconds for a room to end.
-define(ENDS_WITHIN, 5000).

-spec commands() -> [lhc_bridge_commands:command()].
commands() ->
    Names = {rooms, {list, {room, binary}}},
    Left = {left, {list, {room, string}}},
    [lhc_bridge_commands:declare(?MODULE, Name, Function, Desc, Args, Result)
     || {Name, Function, Desc, Args, Result} <-
            [{lhc_rooms, page, "Rooms whose name ends in the suffix (all when it is empty), a page",
              [{host, binary}, {suffix, binary}, {'after', binary}, {limit, integer}], {names, {list, {name, string}}}},
             {lhc_make_rooms, make_rooms, "Make those of the rooms that are missing; answers which are missing still",
              [{host, binary}, {rooms, {list, {room, {tuple, [{name, binary}, {title, binary}]}}}}],
              {missing, {list, {room, string}}}},
             {lhc_remove_rooms, remove_rooms, "Remove rooms; answers which are left", [{host, binary}, Names], Left},
             {lhc_invite_to_room, invite, "Invite users of the host who are not in the room; answers how many",
              [{host, binary}, {room, binary}, {users, {list, {user, binary}}}, {reason, binary}],
              {invited, integer}}]].

%%%===================================================================
%%% Listing
%%%===================================================================

-spec page(binary(), binary(), binary(), integer()) -> [binary()].
page(Host, Suffix, After, Limit) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_suffix_or_all(Suffix),
    lhc_bridge_commands:page(rooms(Host, Suffix), After, Limit).

%% Those that run, and those that are kept: a room that lasts is both.
-spec rooms(binary(), binary()) -> [binary()].
rooms(Host, Suffix) ->
    Service = lhc_bridge_options:room_service(Host),
    Online = [Room || {Room, _, _} <- mod_muc:get_online_rooms(Service), lhc_bridge_names:bears(Room, Suffix)],
    lists:usort(Online ++ lhc_bridge_storage:names(Host, rooms, Suffix)).

%%%===================================================================
%%% Making, removing, inviting
%%%===================================================================

%% On disk when this returns. One at a time, at whatever node: of two that make the same one at once, both would.
-spec make_rooms(binary(), [{binary(), binary()}]) -> [binary()].
make_rooms(Host, Rooms) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_users([Room || {Room, _} <- Rooms]),
    Missing = [Room || {Room, Title} <- Rooms,
                       ok /= global:trans({?MODULE, self()}, fun() -> make(Host, Room, Title) end,
                                           lhc_bridge_cluster:running())],
    ok = mnesia:sync_log(),
    Missing.

make(Host, Room, Title) ->
    case lhc_bridge_rooms:find(Host, Room) of
        {ok, _} -> ok;
        missing -> make_missing(Host, Room, Title);
        {error, Reason} -> cannot_be_made(Host, Room, Reason)
    end.

make_missing(Host, Room, Title) ->
    Service = lhc_bridge_options:room_service(Host),
    Opts = lists:keystore(title, 1, mod_muc_opt:default_room_options(Host), {title, Title}),
    case mod_muc:create_room(Service, Room, Opts) of
        ok ->
            {atomic, _} = mod_muc:store_room(Host, Service, Room, Opts),
            ok;
        Error ->
            cannot_be_made(Host, Room, Error)
    end.

cannot_be_made(Host, Room, Reason) ->
    ?ERROR_MSG("Room ~ts of ~ts cannot be made: ~p", [Room, Host, Reason]),
    error.

-spec remove_rooms(binary(), [binary()]) -> [binary()].
remove_rooms(Host, Rooms) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_users(Rooms),
    Service = lhc_bridge_options:room_service(Host),
    Ending = lists:flatmap(fun(Room) -> end_room(Host, Room) end, Rooms),
    Deadline = erlang:monotonic_time(millisecond) + ?ENDS_WITHIN,
    lhc_bridge_commands:await_end(Ending, Deadline),
    lists:foreach(fun(Room) -> mod_muc:forget_room(Host, Service, Room) end, Rooms),
    ok = mnesia:sync_log(),
    Left = rooms(Host, <<>>),
    [Room || Room <- Rooms, lists:member(Room, Left)].

%% Returns the monitors of what ends. What cannot be read is forgotten all the same.
end_room(Host, Room) ->
    case lhc_bridge_rooms:find(Host, Room) of
        {ok, Pid} ->
            Monitor = erlang:monitor(process, Pid),
            mod_muc_room:destroy(Pid),
            [Monitor];
        _ ->
            []
    end.

%% A direct invitation (XEP-0249), from the room as ejabberd's own command does it. Kept for who is offline.
-spec invite(binary(), binary(), [binary()], binary()) -> non_neg_integer().
invite(Host, Room, Users, Reason) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_users(Users),
    RoomJID = jid:make(Room, lhc_bridge_options:room_service(Host)),
    Absent = [User || User <- Users, not is_in(Host, Room, User)],
    lists:foreach(fun(User) -> ejabberd_router:route(invitation(RoomJID, jid:make(User, Host), Reason)) end, Absent),
    length(Absent).

%% Only the node that has the room knows who is in it.
is_in(Host, Room, User) ->
    case lhc_bridge_rooms:find(Host, Room) of
        {ok, Pid} ->
            erpc:call(node(Pid), lhc_bridge_rooms, connections, [Host, Room, jid:make(User, Host)], ?ENDS_WITHIN) > 0;
        _ ->
            false
    end.

invitation(RoomJID, To, Reason) ->
    #message{from = RoomJID, to = To, id = p1_rand:get_string(),
             sub_els = [#x_conference{jid = RoomJID, reason = Reason}, #hint{type = store}]}.
