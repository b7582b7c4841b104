%%% Group chats of operators: rooms of mod_muc, whose names end in `.INSTANCE` as the names of accounts do. Part of
%%% mod_lhc_bridge.
%%%
%%% What an operator's client writes in a room, and who comes and goes, is handed over to the component as messages to
%%% visitors are. What the component says in a room bears the name of somebody who has no account.
-module(lhc_bridge_rooms).

%% for the bridge
-export([hooks/1, global_hooks/0, connections/3, find/2]).
%% hooks
-export([said/3, joined/4, left/4, say/1]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Bytes of a message in a room, with what is around its text.
-define(LONGEST_MESSAGE, 32 * 1024).
%% Names that are tried for somebody whose name another bears in the room.
-define(OTHER_NAMES, 20).

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{muc_filter_message, Host, ?MODULE, said, 50},
     {join_room, Host, ?MODULE, joined, 50},
     {leave_room, Host, ?MODULE, left, 50}].

-spec global_hooks() -> [hook()].
global_hooks() ->
    [{component_send_packet, global, ?MODULE, say, 40}].

is_service(Domain, Host) ->
    Domain == lhc_bridge_options:room_service(Host).

%%%===================================================================
%%% What operators write in rooms, and who comes and goes (in the room's process)
%%%===================================================================

%% The message is accepted, but nobody has it yet: it is on disk before it is in the room. The component's own ones are
%% let through once; that the marker never leaves the room is because all copies of a message would bear it.
%% From 23.10 on the hook also runs for what two people in a room say to each other alone (XEP-0045, 7.5), for the topic
%% that is shown to who comes, and for a moderator's taking back of a message (XEP-0425). ejabberd marks those three as
%% nothing for an archive. LHC is told of none: only what is said to the room is said to LHC.
-spec said(stanza() | drop, term(), binary()) -> stanza() | drop.
said(#message{meta = #{mam_ignore := true}} = Msg, _Room, _Nick) ->
    Msg;
said(#message{type = groupchat, from = #jid{lserver = Host}} = Msg, Room, Nick) ->
    case lhc_bridge_once:take_mark(Msg) of
        {Plain, none} ->
            case is_nothing(Plain) orelse is_ours(Plain) orelse is_too_long(Plain)
                 orelse lhc_bridge_handover:hand_over(Host, Plain) of
                refused -> drop;
                _ -> Plain
            end;
        {Plain, Key} ->
            case is_ours(Plain) andalso not lhc_bridge_once:is_first(Key) of
                true -> drop;
                false -> said(Plain, Room, Nick)
            end
    end;
said(Other, _Room, _Nick) ->
    Other.

%% A room's topic is the room's own matter.
is_nothing(#message{body = [], subject = [_ | _]}) -> true;
is_nothing(Msg) -> lhc_bridge_signs:is_sign(Msg).

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
-spec joined(binary(), binary(), binary(), jid:jid()) -> term().
joined(Host, Room, Service, JID) ->
    is_service(Service, Host) andalso connections(Host, Room, JID) == 0
        andalso lhc_bridge_handover:hand_over(Host, #presence{from = JID, to = jid:make(Room, Service)}).

%% Also when the connection was lost, or the room ends. (The hook runs before the connection is forgotten.)
-spec left(binary(), binary(), binary(), jid:jid()) -> term().
left(Host, Room, Service, JID) ->
    is_service(Service, Host) andalso connections(Host, Room, JID) == 1
        andalso lhc_bridge_handover:hand_over(Host, #presence{type = unavailable, from = JID,
                                                              to = jid:make(Room, Service)}).

%% The room's process; `missing` when there is no such room. A database that is away says nothing of that.
-spec find(binary(), binary()) -> {ok, pid()} | missing | {error, term()}.
find(Host, Room) ->
    case mod_muc:unhibernate_room(Host, lhc_bridge_options:room_service(Host), Room) of
        {ok, Pid} -> {ok, Pid};
        error -> missing_or_unreadable(Host, Room); % before 25.08
        {error, notfound} -> missing;
        {error, Reason} -> {error, Reason}
    end.

missing_or_unreadable(Host, Room) ->
    try lhc_bridge_storage:having(Host, rooms, [Room]) of
        [] -> missing;
        _ -> {error, unreadable}
    catch
        throw:{error, Reason} -> {error, Reason}
    end.

%% How many connections of the account are in the room.
-spec connections(binary(), binary(), jid:jid()) -> non_neg_integer().
connections(Host, Room, #jid{luser = User, lserver = Server}) ->
    length([Room || {Name, _} <- mod_muc:get_online_rooms_by_user(Host, User, Server), Name == Room]).

%%%===================================================================
%%% What the component says in rooms
%%%===================================================================

%% Hook of each stanza that a component sends; runs in its connection. A message to a room, from somebody who is not in
%% it and need not have an account, bears the name to be shown (XEP-0172). mod_muc takes messages of subscribers
%% (MUC/Sub), so the sender is one for this moment. Not for longer: nobody else could bear the name.
-spec say({stanza() | drop, map()}) -> {stanza() | drop, map()} | {stop, {drop, map()}}.
say({#message{type = groupchat, from = #jid{lserver = Host}, to = #jid{lserver = Service, lresource = <<>>}} = Msg,
     Connection} = Acc) ->
    case lhc_bridge_options:is_loaded(Host) andalso is_service(Service, Host) of
        true ->
            say_in_room(Host, Msg),
            {stop, {drop, Connection}};
        false ->
            Acc
    end;
say(Acc) ->
    Acc.

say_in_room(Host, #message{from = From, to = #jid{luser = Room}} = Msg) ->
    case find(Host, Room) of
        {ok, Pid} ->
            case take_name(Pid, From, names(Msg)) of
                ok ->
                    Plain = xmpp:put_meta(xmpp:remove_subtag(Msg, #nick{}), lhc_said, true),
                    mod_muc_room:route(Pid, Plain),
                    mod_muc_room:unsubscribe(Pid, From);
                {error, Text} ->
                    ejabberd_router:route_error(Msg, xmpp:err_not_acceptable(Text, xmpp:get_lang(Msg)))
            end;
        missing ->
            Text = <<"Conference room does not exist">>,
            ejabberd_router:route_error(Msg, xmpp:err_item_not_found(Text, xmpp:get_lang(Msg)));
        {error, _} ->
            Text = <<"Conference rooms cannot be read right now">>,
            ejabberd_router:route_error(Msg, xmpp:err_internal_server_error(Text, xmpp:get_lang(Msg)))
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
