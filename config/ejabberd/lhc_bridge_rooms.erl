%%% Group chats of operators: rooms of mod_muc, whose names end in `.INSTANCE` as the names of accounts do. Part of
%%% mod_lhc_bridge.
%%%
%%% The orchestrator makes and removes rooms; clients only use them, and only their own tenant's. What an operator's
%%% client writes in a room, and who comes and goes, is handed to the component as messages to visitors are. What the
%%% component says in a room bears the name of somebody who has no account.
-module(lhc_bridge_rooms).

%% for mod_lhc_bridge, lhc_bridge_queue and lhc_bridge_admin
-export([hooks/1, global_hooks/0, register_commands/0, unregister_commands/0]).
-export([is_service/2, tenant/2, judge/2, rooms/2]).
%% hooks
-export([said/3, joined/4, left/4, say/1]).
%% the commands
-export([page/4, make_rooms/2, remove_rooms/2, invite/4]).

-include("logger.hrl").
-include("ejabberd_commands.hrl").
-include("mod_muc.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Milliseconds for a room to end.
-define(ENDS_WITHIN, 5000).
%% Names that are tried for somebody whose name another bears in the room.
-define(OTHER_NAMES, 20).

%% Bytes of a message in a room, with what is around its text.
-define(LONGEST_MESSAGE, 32 * 1024).

-define(OPERATORS_ONLY, <<"Only operators of this live chat may use its rooms">>).

%%%===================================================================
%%% For mod_lhc_bridge
%%%===================================================================

hooks(Host) ->
    [{muc_filter_message, Host, ?MODULE, said, 50},
     {join_room, Host, ?MODULE, joined, 50},
     {leave_room, Host, ?MODULE, left, 50}].

global_hooks() ->
    [{component_send_packet, global, ?MODULE, say, 40}].

register_commands() ->
    ejabberd_commands:register_commands(?MODULE, commands()).

unregister_commands() ->
    ejabberd_commands:unregister_commands(commands()).

commands() ->
    Names = {rooms, {list, {room, binary}}},
    Left = {left, {list, {room, string}}},
    [lhc_bridge_admin:command(?MODULE, Name, Function, Desc, Args, Result)
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
%%% Names
%%%===================================================================

is_service(Domain, Host) ->
    Domain == service(Host).

service(Host) ->
    hd(gen_mod:get_module_opt_hosts(Host, mod_muc)).

%% The tenant of a room. An instance holds no dot, so it is what follows the last one.
tenant(Room, Host) ->
    case mod_lhc_bridge:option(Host, hosting) of
        false ->
            {ok, <<"standalone">>};
        true ->
            case binary:split(Room, <<".">>, [global]) of
                [_] -> none;
                Parts -> {ok, lists:last(Parts)}
            end
    end.

%%%===================================================================
%%% Who may send what to rooms
%%%===================================================================

%% What becomes of a client's stanza. A refusal says nothing about whether there is such a room. The service of another
%% virtual host is another company's.
judge(Stanza, Host) ->
    #jid{lserver = Domain} = To = xmpp:get_to(Stanza),
    IsOwner = fun(Other) -> gen_mod:is_loaded(Other, mod_lhc_bridge) andalso is_service(Domain, Other) end,
    case lists:filter(IsOwner, ejabberd_option:hosts()) of
        [] -> no_room;
        [Host] -> judge(To, Stanza, Host);
        _ -> {refuse, ?OPERATORS_ONLY}
    end.

judge(#jid{luser = <<>>, lresource = <<>>}, #iq{type = get, sub_els = [El]} = IQ, Host) ->
    case xmpp:get_ns(El) of
        ?NS_DISCO_ITEMS ->
            list_rooms(IQ, Host),
            answered;
        ?NS_DISCO_INFO ->
            pass;
        ?NS_PING ->
            pass;
        _ ->
            {refuse, <<"Clients may only ask for rooms here">>}
    end;
judge(#jid{luser = <<>>}, _Stanza, _Host) ->
    {refuse, <<"Clients may only ask for rooms here">>};
judge(#jid{luser = Room}, Stanza, Host) ->
    #jid{luser = User} = xmpp:get_from(Stanza),
    case tenant(Room, Host) of
        {ok, Tenant} ->
            case mod_lhc_bridge:is_operator_of(User, Tenant, Host) of
                true -> judge_operator(Stanza);
                false -> judge_former(Stanza, User, Tenant, Host)
            end;
        none ->
            {refuse, ?OPERATORS_ONLY}
    end.

%% mod_muc sends what declines an invitation to whomever the message names, in the room's name. And a subscriber (MUC/Sub)
%% would hear all without being seen, under a name that nobody has looked at.
judge_operator(#message{to = #jid{lresource = <<>>}, sub_els = Els}) ->
    case lists:any(fun(El) -> xmpp:get_ns(El) == ?NS_MUC_USER end, Els) of
        true -> {refuse, <<"The orchestrator alone invites people to rooms">>};
        false -> pass
    end;
judge_operator(#iq{to = #jid{lresource = <<>>}, sub_els = [El]}) ->
    case xmpp:get_ns(El) of
        ?NS_MUCSUB -> {refuse, <<"Clients enter rooms, and do not subscribe to them">>};
        _ -> pass
    end;
judge_operator(_Stanza) ->
    pass.

%% Who is no operator any more may still leave.
judge_former(#presence{type = unavailable}, User, Tenant, Host) ->
    case mod_lhc_bridge:tenant(User, Host) of
        {ok, Tenant} -> pass;
        _ -> {refuse, ?OPERATORS_ONLY}
    end;
judge_former(_Stanza, _User, _Tenant, _Host) ->
    {refuse, ?OPERATORS_ONLY}.

%% Service discovery shows operators the rooms of their tenant. mod_muc would ask every room of everybody, and tell how
%% many there are.
list_rooms(#iq{from = #jid{luser = User}} = IQ, Host) ->
    Items = [#disco_item{jid = jid:make(Room, service(Host)), name = wire_name(Room, Host)}
             || Room <- own_rooms(User, Host)],
    ejabberd_router:route(xmpp:make_iq_result(IQ, #disco_items{items = Items})).

own_rooms(User, Host) ->
    case mod_lhc_bridge:tenant(User, Host) of
        {ok, Tenant} ->
            case mod_lhc_bridge:is_operator_of(User, Tenant, Host) of
                true -> rooms(Host, suffix(Tenant, Host));
                false -> []
            end;
        none ->
            []
    end.

%% As Live Helper Chat knows it.
wire_name(Room, Host) ->
    {ok, Tenant} = tenant(Room, Host),
    binary:part(Room, 0, byte_size(Room) - byte_size(suffix(Tenant, Host))).

suffix(Tenant, Host) ->
    case mod_lhc_bridge:option(Host, hosting) of
        true -> <<$., Tenant/binary>>;
        false -> <<>>
    end.

%%%===================================================================
%%% What operators write in rooms, and who comes and goes (in the room's process)
%%%===================================================================

%% The message is accepted, but nobody has it yet: it is on disk before it is in the room. The component's own ones are
%% let through once; that the marker never leaves the room is because all copies of a message would bear it.
said(#message{from = #jid{lserver = Host}} = Msg, Room, Nick) ->
    case mod_lhc_bridge:take_once(Msg) of
        {Plain, none} when Plain#message.body /= [] ->
            case is_ours(Plain) orelse is_too_long(Plain) orelse mod_lhc_bridge:hand_over(Host, Plain) of
                refused -> drop;
                _ -> Plain
            end;
        {Plain, none} ->
            Plain;
        {Plain, Key} ->
            case is_ours(Plain) andalso not mod_lhc_bridge:is_first(Key) of
                true -> drop;
                false -> said(Plain, Room, Nick)
            end
    end;
said(Other, _Room, _Nick) ->
    Other.

%% A room keeps its latest messages in memory, of whatever length.
is_too_long(Msg) ->
    erlang:external_size(Msg) > ?LONGEST_MESSAGE
        andalso begin
                    lhc_bridge_refusals:note(room_message),
                    Text = <<"A message in a room may have 32 KB">>,
                    ejabberd_router:route_error(Msg, xmpp:err_not_acceptable(Text, xmpp:get_lang(Msg))),
                    refused
                end.

%% No client can set this: it is no part of the stanza's text.
is_ours(Msg) ->
    xmpp:get_meta(Msg, lhc_said, false).

%% Of several connections of an operator in the room the first one comes, and the last one goes.
joined(Host, Room, Service, JID) ->
    is_service(Service, Host) andalso connections(Host, Room, JID) == 0
        andalso tell(Host, #presence{from = JID, to = jid:make(Room, Service)}).

%% Also when the connection was lost, or the room ends. (The hook runs before the connection is forgotten.)
left(Host, Room, Service, JID) ->
    is_service(Service, Host) andalso connections(Host, Room, JID) == 1
        andalso tell(Host, #presence{type = unavailable, from = JID, to = jid:make(Room, Service)}).

connections(Host, Room, #jid{luser = User, lserver = Server}) ->
    length([Room || {Name, _} <- mod_muc:get_online_rooms_by_user(Host, User, Server), Name == Room]).

tell(Host, Presence) ->
    mod_lhc_bridge:hand_over(Host, Presence).

%%%===================================================================
%%% What the component says in rooms
%%%===================================================================

%% Hook of each stanza that a component sends; runs in its connection. A message to a room, from somebody who is not in
%% it and need not have an account, bears the name to be shown (XEP-0172). mod_muc takes messages of subscribers
%% (MUC/Sub), so the sender is one for this moment. Not for longer: nobody else could bear the name.
say({#message{type = groupchat, from = #jid{lserver = Host}, to = #jid{lserver = Service, lresource = <<>>}} = Msg, _}
    = Acc) ->
    case gen_mod:is_loaded(Host, mod_lhc_bridge) andalso is_service(Service, Host) of
        true ->
            say_in_room(Host, Msg),
            {stop, setelement(1, Acc, drop)};
        false ->
            Acc
    end;
say(Acc) ->
    Acc.

say_in_room(Host, #message{from = From, to = #jid{luser = Room, lserver = Service}} = Msg) ->
    case mod_muc:unhibernate_room(Host, Service, Room) of
        {ok, Pid} ->
            case take_name(Pid, From, names(Msg)) of
                ok ->
                    Plain = xmpp:put_meta(xmpp:remove_subtag(Msg, #nick{}), lhc_said, true),
                    mod_muc_room:route(Pid, Plain),
                    mod_muc_room:unsubscribe(Pid, From);
                {error, Text} ->
                    ejabberd_router:route_error(Msg, xmpp:err_not_acceptable(Text, xmpp:get_lang(Msg)))
            end;
        error ->
            Text = <<"Conference room does not exist">>,
            ejabberd_router:route_error(Msg, xmpp:err_item_not_found(Text, xmpp:get_lang(Msg)))
    end.

%% The names to try, one after the other. Those that cannot be a resource are left out (RFC 6122, B: a name in Hebrew or
%% Arabic must not end in a bracket, for one): mod_muc does not look, and the room would end. A username always can.
names(#message{from = #jid{luser = User}} = Msg) ->
    Wanted = case xmpp:get_subtag(Msg, #nick{}) of
                 #nick{name = Nick} -> [Nick, User];
                 _ -> [User]
             end,
    Names = [Prepared || Name <- Wanted, Prepared <- [jid:resourceprep(Name)], Prepared /= error, Prepared /= <<>>],
    [Free || Name <- Names, Number <- lists:seq(1, ?OTHER_NAMES), Free <- [numbered(Name, Number)],
             jid:resourceprep(Free) /= error].

numbered(Name, 1) -> Name;
numbered(Name, Number) -> <<Name/binary, " (", (integer_to_binary(Number))/binary, ")">>.

%% The room says in words alone what is wrong.
take_name(Pid, From, [Name | Others]) ->
    case mod_muc_room:subscribe(Pid, From, Name, []) of
        {ok, _} -> ok;
        {error, <<"That nickname", _/binary>>} when Others /= [] -> take_name(Pid, From, Others);
        {error, Text} -> {error, Text}
    end.

%%%===================================================================
%%% Making, removing, inviting
%%%===================================================================

page(Host, Suffix, After, Limit) ->
    lhc_bridge_admin:check_host(Host),
    Suffix == <<>> orelse lhc_bridge_admin:check_suffix(Suffix),
    lhc_bridge_admin:page(rooms(Host, Suffix), After, Limit).

%% Those that run, and those that are kept: a room that lasts is both.
rooms(Host, Suffix) ->
    Service = service(Host),
    Online = [Room || {Room, _, _} <- mod_muc:get_online_rooms(Service)],
    Kept = mnesia:dirty_select(muc_room, [{#muc_room{name_host = {'$1', Service}, _ = '_'}, [], ['$1']}]),
    lists:usort([Room || Room <- Online ++ Kept, lhc_bridge_admin:bears(Room, Suffix)]).

%% On disk when this returns. One at a time: of two that make the same one at once, both would.
make_rooms(Host, Rooms) ->
    lhc_bridge_admin:check_host(Host),
    lhc_bridge_admin:check_users([Room || {Room, _} <- Rooms]),
    Missing = [Room || {Room, Title} <- Rooms,
                       ok /= global:trans({?MODULE, self()}, fun() -> make(Host, Room, Title) end, [node()])],
    ok = mnesia:sync_log(),
    Missing.

make(Host, Room, Title) ->
    Service = service(Host),
    case mod_muc:unhibernate_room(Host, Service, Room) of
        {ok, _} ->
            ok;
        error ->
            Opts = lists:keystore(title, 1, mod_muc_opt:default_room_options(Host), {title, Title}),
            case mod_muc:create_room(Service, Room, Opts) of
                ok ->
                    {atomic, _} = mod_muc:store_room(Host, Service, Room, Opts),
                    ok;
                Error ->
                    ?ERROR_MSG("Room ~ts@~ts cannot be made: ~p", [Room, Service, Error]),
                    error
            end
    end.

remove_rooms(Host, Rooms) ->
    lhc_bridge_admin:check_host(Host),
    lhc_bridge_admin:check_users(Rooms),
    Service = service(Host),
    Ending = lists:flatmap(fun(Room) -> end_room(Host, Service, Room) end, Rooms),
    Deadline = erlang:monotonic_time(millisecond) + ?ENDS_WITHIN,
    lhc_bridge_admin:await_end(Ending, Deadline),
    [mod_muc:forget_room(Host, Service, Room) || Room <- Rooms],
    ok = mnesia:sync_log(),
    Left = rooms(Host, <<>>),
    [Room || Room <- Rooms, lists:member(Room, Left)].

%% Returns the monitors of what ends.
end_room(Host, Service, Room) ->
    case mod_muc:unhibernate_room(Host, Service, Room) of
        {ok, Pid} ->
            Monitor = erlang:monitor(process, Pid),
            mod_muc_room:destroy(Pid),
            [Monitor];
        error ->
            []
    end.

%% A direct invitation (XEP-0249), from the room as ejabberd's own command does it. Kept for who is offline.
invite(Host, Room, Users, Reason) ->
    lhc_bridge_admin:check_host(Host),
    lhc_bridge_admin:check_users(Users),
    RoomJID = jid:make(Room, service(Host)),
    Absent = [User || User <- Users, connections(Host, Room, jid:make(User, Host)) == 0],
    [ejabberd_router:route(#message{from = RoomJID, to = jid:make(User, Host), id = p1_rand:get_string(),
                                    sub_els = [#x_conference{jid = RoomJID, reason = Reason}, #hint{type = store}]})
     || User <- Absent],
    length(Absent).
