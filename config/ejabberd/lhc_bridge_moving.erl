%%% Moves a tenant's accounts to another virtual host, with all that is kept of them. Part of mod_lhc_bridge.
%%%
%%% Nobody of the tenant can log in meanwhile, at either host (lhc_bridge_shut). An account is complete at the new host before
%%% it goes from the old one; then it is left alone: so a call may be repeated, and may end anywhere. What is there already is
%%% replaced, since it is of a call that has not come to its end.
-module(lhc_bridge_moving).

-export([commands/0]).
%% the command
-export([move_users/3]).

-include_lib("xmpp/include/xmpp.hrl").
-include_lib("xmpp/include/scram.hrl").
-include("mod_offline.hrl").
-include("mod_roster.hrl").

%% What a user may have at the old host and must have at the new one, before it is removed there.
-define(KINDS, [accounts, members, vcards, offline_messages, last_activity, contacts]).
%% Attributes that hold addresses.
-define(ADDRESSES, [<<"from">>, <<"to">>, <<"by">>, <<"jid">>]).

-spec commands() -> [lhc_bridge_commands:command()].
commands() ->
    [lhc_bridge_commands:declare(?MODULE, lhc_move_users, move_users,
                                 "Move accounts of a tenant that is shut to another host, operators first; answers what is left",
                                 [{host, binary}, {to, binary}, {users, {list, {user, binary}}}],
                                 {left, {list, {user, {tuple, [{user, string}, {reason, string}]}}}})].

%% Operators come first: their own contacts go with the accounts of visitors.
-spec move_users(binary(), binary(), [binary()]) -> [{binary(), string()}].
move_users(Host, To, Users) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_host(To),
    lhc_bridge_commands:check_users(Users),
    Host /= To orelse lhc_bridge_commands:refuse("to: is ~ts itself", [Host]),
    %% of two calls at once the later one would take what the earlier one has removed for all that there was
    global:trans({?MODULE, self()}, fun() -> move(Host, To, Users) end, lhc_bridge_cluster:running()).

move(Host, To, Users) ->
    lists:foreach(fun(User) -> check_shut(User, [Host, To]) end, Users),
    There = lhc_bridge_storage:having(Host, accounts, Users),
    lists:foreach(fun(User) -> copy(Host, To, User) end, There),
    join(To, lhc_bridge_storage:groups_of(Host, There)),
    check_copied(Host, To, There),
    lhc_bridge_removal:remove_users(Host, Users).

check_shut(User, Hosts) ->
    lists:all(fun(Host) -> lhc_bridge_shut:is_shut(User, Host) end, Hosts)
        orelse lhc_bridge_commands:refuse("users: the tenant of ~ts is open", [User]).

%% ejabberd's own functions take a storage that fails for one that is empty.
check_copied(Host, To, Users) ->
    [lhc_bridge_storage:away(Kind, {not_moved, length(Missing)})
     || Kind <- ?KINDS, Missing <- [lhc_bridge_storage:having(Host, Kind, Users) -- lhc_bridge_storage:having(To, Kind, Users)],
        Missing /= []],
    ok.

%%%===================================================================
%%% What is kept of an account
%%%===================================================================

copy(Host, To, User) ->
    copy_password(Host, To, User),
    copy_vcard(Host, To, User),
    copy_last_activity(Host, To, User),
    copy_contacts(Host, To, User),
    copy_offline_messages(Host, To, User),
    lists:foreach(fun(Visitor) -> lhc_bridge_hidden:hide(To, User, Visitor) end, lhc_bridge_hidden:of_operator(Host, User)).

%% A verifier does not depend on the host (RFC 5802, 3).
copy_password(Host, To, User) ->
    case lhc_bridge_registration:install(To, User, password(Host, User)) of
        Result when Result == "created"; Result == "updated" -> ok;
        Reason -> lhc_bridge_storage:away(accounts, Reason)
    end.

%% Since 25.03 it may be several.
password(Host, User) ->
    Hash = ejabberd_option:auth_scram_hash(Host),
    Passwords = lists:flatten([ejabberd_auth:get_password(User, Host)]),
    case [Scram || #scram{hash = Of} = Scram <- Passwords, Of == Hash] ++ [Plain || Plain <- Passwords, is_binary(Plain)] of
        [Password | _] -> Password;
        [] -> lhc_bridge_storage:away(accounts, no_password)
    end.

copy_vcard(Host, To, User) ->
    case gen_mod:is_loaded(Host, mod_vcard) andalso mod_vcard:get_vcard(User, Host) of
        [VCard | _] -> ok = mod_vcard:set_vcard(User, To, VCard);
        _ -> ok
    end.

copy_last_activity(Host, To, User) ->
    case gen_mod:is_loaded(Host, mod_last) andalso mod_last:get_last_info(User, Host) of
        {ok, At, Status} -> mod_last:store_last_info(User, To, At, Status);
        _ -> ok
    end.

%% Those of his own: names and groups that an operator has given.
copy_contacts(Host, To, User) ->
    lists:foreach(fun(#roster{jid = JID} = Row) ->
                          Moved = moved(Host, To, JID),
                          {atomic, _} = mod_roster:set_roster(Row#roster{usj = {User, To, Moved}, us = {User, To}, jid = Moved})
                  end, mod_roster:get_roster(User, Host)).

copy_offline_messages(Host, To, User) ->
    {Count, _} = lhc_bridge_storage:waiting(Host, User),
    Messages = case Count of
                   0 -> [];
                   _ -> (gen_mod:db_mod(Host, mod_offline)):read_all_messages(User, Host)
               end,
    length(Messages) == Count orelse lhc_bridge_storage:away(offline_messages, {unreadable, Count - length(Messages)}),
    Storage = gen_mod:db_mod(To, mod_offline),
    Storage:remove_user(User, To),
    lists:foreach(fun(Message) -> ok = Storage:store_message(moved(Host, To, Message)) end, Messages),
    lhc_bridge_offline:recount(User, To).

join(To, Memberships) ->
    Groups = lists:usort([Group || {_, Group} <- Memberships]),
    lists:foreach(fun(Group) -> lhc_bridge_storage:add_members(To, Group, [User || {User, Of} <- Memberships, Of == Group]) end,
                  Groups).

%%%===================================================================
%%% Addresses
%%%===================================================================

%% The same of the other host, and of its rooms.
moved(Host, To, {User, Host, Resource}) ->
    {User, To, Resource};
moved(Host, To, {User, Server, Resource}) ->
    case lhc_bridge_options:room_service(Host) of
        Server -> {User, lhc_bridge_options:room_service(To), Resource};
        _ -> {User, Server, Resource}
    end;
moved(Host, To, #jid{} = JID) ->
    jid:make(moved(Host, To, jid:split(JID)));
moved(Host, To, #xmlel{attrs = Attrs, children = Children} = Element) ->
    Element#xmlel{attrs = [attribute(Host, To, Attribute) || Attribute <- Attrs],
                  children = [moved(Host, To, Child) || Child <- Children]};
moved(Host, To, #offline_msg{us = {User, _}, from = From, to = Receiver, packet = Packet} = Message) ->
    Message#offline_msg{us = {User, To}, from = moved(Host, To, From), to = moved(Host, To, Receiver),
                        packet = xmpp:decode(moved(Host, To, xmpp:encode(Packet)), ?NS_CLIENT, [ignore_els])};
moved(_Host, _To, {xmlcdata, _} = Text) ->
    Text.

attribute(Host, To, {Name, Value}) ->
    case lists:member(Name, ?ADDRESSES) of
        true -> {Name, address(Host, To, Value)};
        false -> {Name, Value}
    end.

address(Host, To, Text) ->
    try
        jid:encode(moved(Host, To, jid:decode(Text)))
    catch
        error:{bad_jid, _} -> Text
    end.
