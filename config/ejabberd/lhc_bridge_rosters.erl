%%% Shared rosters: their members, many at once, and what the rosters of those who are online show of them. Part of
%%% mod_lhc_bridge.
-module(lhc_bridge_rosters).

%% for the bridge
-export([leave_all/2, groups/1, members/2, shown_by/3, label/2, name_of/1, push_contact/3]).
%% the commands
-export([shared_rosters/3, add_members/3, remove_members/3]).

-include("mod_roster.hrl").
-include("mod_shared_roster.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Members in one answer of lhc_shared_rosters; one group is always told in full.
-define(MAX_MEMBERS, 50000).

%%%===================================================================
%%% The commands
%%%===================================================================

-type roster() :: {Group :: binary(), Label :: binary(), Description :: binary(), Displayed :: [binary()],
                   Members :: [binary()]}.

-spec shared_rosters(binary(), binary(), integer()) -> [roster()].
shared_rosters(Host, After, Limit) ->
    lhc_bridge_commands:check_host(Host),
    up_to_max_members(Host, lhc_bridge_commands:page(groups(Host), After, Limit), 0).

up_to_max_members(Host, [Group | Groups], Members) when Members < ?MAX_MEMBERS ->
    case mod_shared_roster:get_group_opts(Host, Group) of
        error -> % deleted meanwhile
            up_to_max_members(Host, Groups, Members);
        Opts ->
            Users = lists:sort(members(Host, Group)),
            Roster = {Group, proplists:get_value(label, Opts, <<>>), proplists:get_value(description, Opts, <<>>),
                      proplists:get_value(displayed_groups, Opts, []), Users},
            [Roster | up_to_max_members(Host, Groups, Members + length(Users))]
    end;
up_to_max_members(_Host, _Groups, _Members) ->
    [].

%% Returns who is no member all the same.
-spec add_members(binary(), binary(), [binary()]) -> [binary()] | {error, not_exists, 0, iolist()}.
add_members(Host, Group, Users) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_users(Users),
    case mod_shared_roster:get_group_opts(Host, Group) of
        error ->
            {error, not_exists, 0, ["group: there is no shared roster ", Group]};
        _ ->
            Known = members_of(Host, Group, Users),
            Memberships = [membership(Host, User, Group) || User <- Users],
            {atomic, ok} = mnesia:transaction(fun() -> lists:foreach(fun mnesia:write/1, Memberships) end),
            Watchers = online_watchers(Host, Group),
            push_members(Host, Watchers, Users -- Known, label(Host, Group)),
            lists:foreach(fun(User) -> push_again(Host, Watchers, User, label(Host, Group)) end, Known),
            lists:foreach(fun(User) -> push_displayed(Host, User, Group) end, Users),
            Users -- members_of(Host, Group, Users)
    end.

%% Returns who still is a member. Of a group that does not exist too: that is no member's fault.
-spec remove_members(binary(), binary(), [binary()]) -> [binary()].
remove_members(Host, Group, Users) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_users(Users),
    Memberships = [membership(Host, User, Group) || User <- Users],
    {atomic, ok} = mnesia:transaction(fun() -> lists:foreach(fun mnesia:delete_object/1, Memberships) end),
    push_removals(Host, Memberships),
    lists:foreach(fun(User) -> push_displayed_removals(Host, User, Group) end, Users),
    members_of(Host, Group, Users).

%%%===================================================================
%%% For the bridge
%%%===================================================================

%% Of every shared roster: an account that is gone is a member of none.
-spec leave_all(binary(), [binary()]) -> ok.
leave_all(Host, Users) ->
    {atomic, Memberships} = mnesia:transaction(fun() -> lists:flatmap(fun(User) -> leave(Host, User) end, Users) end),
    push_removals(Host, Memberships).

%% Returns the memberships that were.
leave(Host, User) ->
    Memberships = mnesia:read(sr_user, {User, Host}, write),
    mnesia:delete({sr_user, {User, Host}}),
    Memberships.

-spec groups(binary()) -> [binary()].
groups(Host) ->
    [Group || {Group, _} <- groups_with_opts(Host)].

%% Also of a group that does not exist: ejabberd lets somebody be a member of that.
-spec members(binary(), binary()) -> [binary()].
members(Host, Group) ->
    [User || {User, Server} <- mod_shared_roster:get_group_explicit_users(Host, Group), Server == Host].

members_of(Host, Group, Users) ->
    [User || User <- Users, lists:member(membership(Host, User, Group), mnesia:dirty_read(sr_user, {User, Host}))].

membership(Host, User, Group) ->
    #sr_user{us = {User, Host}, group_host = {Group, Host}}.

%% The groups that make the member a contact of the user. In a transaction of Mnesia nobody changes them until its end.
-spec shown_by(binary(), binary(), binary()) -> [binary()].
shown_by(Host, User, Member) ->
    Displayed = lists:append([displayed(Host, Group) || Group <- groups_of(Host, User)]),
    [Group || Group <- groups_of(Host, Member), lists:member(Group, Displayed)].

groups_of(Host, User) ->
    Memberships = case mnesia:is_transaction() of
                      true -> mnesia:read(sr_user, {User, Host}, read);
                      false -> mnesia:dirty_read(sr_user, {User, Host})
                  end,
    [Group || #sr_user{group_host = {Group, Owner}} <- Memberships, Owner == Host].

%%%===================================================================
%%% What those who are online are told
%%%===================================================================

%% To whom the group is displayed hears of its new members.
push_members(_Host, [], _Users, _Label) ->
    ok;
push_members(Host, Watchers, Users, Label) ->
    lists:foreach(fun(User) -> push_member(jid:make(User, Host), Watchers, Label) end, Users).

push_member(#jid{luser = User} = Contact, Watchers, Label) ->
    Item = #roster_item{jid = Contact, name = name_of(Contact), subscription = both, groups = [Label]},
    lists:foreach(fun(Watcher) -> push_and_resend(Watcher, Item) end,
                  [Watcher || #jid{luser = Other} = Watcher <- Watchers, Other /= User]).

push_and_resend(Watcher, #roster_item{jid = Contact} = Item) ->
    push(Watcher, Item),
    resend_presence(Watcher, Contact).

%% A contact that may have been there before: an operator may have removed it, or given it a name.
push_again(Host, Watchers, User, Label) ->
    Contact = jid:make(User, Host),
    Shared = #roster_item{jid = Contact, name = name_of(Contact), subscription = both, groups = [Label]},
    lists:foreach(fun(#jid{luser = Operator} = Watcher) -> push_and_resend(Watcher, as_kept(Host, Operator, Shared)) end,
                  [Watcher || #jid{luser = Other} = Watcher <- Watchers, Other /= User,
                              not lhc_bridge_hidden:is_hidden(Host, Other, User)]).

%% The contact as the operator's own row has it, if there is one.
as_kept(Host, Operator, #roster_item{jid = #jid{luser = User}, name = Name, groups = Labels} = Shared) ->
    case lhc_bridge_own_contacts:find(Host, Operator, User) of
        none ->
            Shared;
        #roster{name = Own, groups = Groups} ->
            Shared#roster_item{name = case Own of <<>> -> Name; _ -> Own end, groups = (Groups -- Labels) ++ Labels}
    end.

%% To one operator, on all connections.
-spec push_contact(binary(), binary(), binary()) -> ok.
push_contact(Host, Operator, User) ->
    lists:foreach(fun(Group) -> push_again(Host, online(Host, Operator), User, label(Host, Group)) end,
                  shown_by(Host, Operator, User)).

%% The new member hears of the members that the group displays.
push_displayed(Host, User, Group) ->
    case online(Host, User) of
        [] ->
            ok;
        Sessions ->
            lists:foreach(fun(Displayed) ->
                                  Label = label(Host, Displayed),
                                  lists:foreach(fun(Member) -> push_again(Host, Sessions, Member, Label) end,
                                                members(Host, Displayed))
                          end, displayed(Host, Group))
    end.

%% To whom the groups are displayed hears of who has left them.
push_removals(Host, Memberships) ->
    Left = [{User, Group} || #sr_user{us = {User, _}, group_host = {Group, Owner}} <- Memberships, Owner == Host],
    Watchers = maps:from_list([{Group, online_watchers(Host, Group)} || Group <- lists:usort([Of || {_, Of} <- Left])]),
    lists:foreach(fun({User, Group}) -> push_removal(Host, User, maps:get(Group, Watchers)) end, Left).

push_removal(Host, User, Watchers) ->
    lists:foreach(fun(Watcher) -> push(Watcher, removed(Host, User)) end,
                  [Watcher || #jid{luser = Other} = Watcher <- Watchers, Other /= User]).

%% Who has left hears that the members whom the group displayed are gone.
push_displayed_removals(Host, User, Group) ->
    case online(Host, User) of
        [] ->
            ok;
        Sessions ->
            Items = [removed(Host, Member) || Displayed <- displayed(Host, Group), Member <- members(Host, Displayed),
                                              Member /= User],
            lists:foreach(fun(Session) -> lists:foreach(fun(Item) -> push(Session, Item) end, Items) end, Sessions)
    end.

removed(Host, User) ->
    #roster_item{jid = jid:make(User, Host), subscription = remove}.

%% As the roster itself names a member (mod_shared_roster).
-spec name_of(jid:jid()) -> binary().
name_of(#jid{luser = User, lserver = Host}) ->
    case gen_mod:is_loaded(Host, mod_vcard) andalso mod_vcard:get_vcard(User, Host) of
        [VCard | _] ->
            case fxml:get_path_s(VCard, [{elem, <<"NICKNAME">>}, cdata]) of
                <<>> -> fxml:get_path_s(VCard, [{elem, <<"FN">>}, cdata]);
                Nickname -> Nickname
            end;
        _ ->
            <<>>
    end.

%% A new contact hears at once that the operator is there (mod_roster does so as well).
resend_presence(#jid{luser = User, lserver = Host, lresource = Resource}, Contact) ->
    case ejabberd_sm:get_session_pid(User, Host, Resource) of
        none -> ok;
        Pid -> ejabberd_c2s:resend_presence(Pid, Contact)
    end.

%% To whom a group is displayed, and who is online: whoever logs in later gets a roster that is as it should be.
online_watchers(Host, Group) ->
    Watchers = [Member || {Displaying, Opts} <- groups_with_opts(Host),
                          lists:member(Group, proplists:get_value(displayed_groups, Opts, [])),
                          Member <- mod_shared_roster:get_group_users(Host, Displaying)],
    [Session || {User, Server} <- lists:usort(Watchers), Server == Host, Session <- online(Host, User)].

online(Host, User) ->
    [jid:make(User, Host, Resource) || Resource <- ejabberd_sm:get_user_resources(User, Host)].

%% mod_roster:push_item/3 is of no use here: for each item it computes the version of the whole roster, of each operator,
%% online or not. Without a version in the push a client keeps the one it has, and fetches the roster at its next login.
push(#jid{} = Watcher, Item) ->
    ejabberd_router:route(#iq{type = set, id = <<"push", (p1_rand:get_string())/binary>>,
                              from = jid:remove_resource(Watcher), to = Watcher,
                              sub_els = [#roster_query{items = [Item]}]}).

%%%===================================================================
%%% Groups
%%%===================================================================

groups_with_opts(Host) ->
    mnesia:dirty_select(sr_group, [{#sr_group{group_host = {'$1', Host}, opts = '$2'}, [], [{{'$1', '$2'}}]}]).

%% What the group is called in rosters.
-spec label(binary(), binary()) -> binary().
label(Host, Group) ->
    option(Host, Group, label, Group).

displayed(Host, Group) ->
    option(Host, Group, displayed_groups, []).

option(Host, Group, Name, Default) ->
    case mod_shared_roster:get_group_opts(Host, Group) of
        error -> Default;
        Opts -> proplists:get_value(Name, Opts, Default)
    end.
