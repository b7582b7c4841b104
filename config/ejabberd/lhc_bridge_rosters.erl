%%% Shared rosters: their members, many at once, and what the rosters of those who are online show of them. Part of
%%% mod_lhc_bridge.
-module(lhc_bridge_rosters).

%% for the bridge
-export([leave_all/2, shown_by/3, shown_by_until_done/3, shown/2, label/2, name_of/1, push_contact/3]).
%% the commands
-export([shared_rosters/3, shared_roster/2, add_members/3, remove_members/3]).

-include("mod_roster.hrl").
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
    up_to_max_members(Host, lhc_bridge_commands:page(lhc_bridge_storage:groups(Host), After, Limit), 0).

%% That one, or none.
-spec shared_roster(binary(), binary()) -> [roster()].
shared_roster(Host, Group) ->
    lhc_bridge_commands:check_host(Host),
    up_to_max_members(Host, [Group], 0).

up_to_max_members(Host, [Group | Groups], Members) when Members < ?MAX_MEMBERS ->
    case lhc_bridge_storage:opts(Host, Group) of
        error -> % deleted meanwhile
            up_to_max_members(Host, Groups, Members);
        {ok, Opts} ->
            Users = lists:sort(lhc_bridge_storage:members(Host, Group)),
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
    case lhc_bridge_storage:opts(Host, Group) of
        error ->
            {error, not_exists, 0, ["group: there is no shared roster ", Group]};
        _ ->
            Known = lhc_bridge_storage:members_of(Host, Group, Users),
            lhc_bridge_storage:add_members(Host, Group, Users),
            Watchers = online_watchers(Host, Group),
            push_members(Host, Watchers, Users -- Known, label(Host, Group)),
            push_again(Host, Watchers, Known, label(Host, Group)),
            lists:foreach(fun(User) -> push_displayed(Host, User, Group) end, Users),
            Users -- lhc_bridge_storage:members_of(Host, Group, Users)
    end.

%% Returns who still is a member. Of a group that does not exist too: that is no member's fault.
-spec remove_members(binary(), binary(), [binary()]) -> [binary()].
remove_members(Host, Group, Users) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_users(Users),
    lhc_bridge_storage:remove_members(Host, Group, Users),
    push_removals(Host, [{User, Group} || User <- Users]),
    lists:foreach(fun(User) -> push_displayed_removals(Host, User, Group) end, Users),
    lhc_bridge_storage:members_of(Host, Group, Users).

%%%===================================================================
%%% For the bridge
%%%===================================================================

%% Of every shared roster: an account that is gone is a member of none.
-spec leave_all(binary(), [binary()]) -> ok.
leave_all(Host, Users) ->
    push_removals(Host, lhc_bridge_storage:leave_all(Host, Users)).

%% The groups that make the member a contact of the user.
-spec shown_by(binary(), binary(), binary()) -> [binary()].
shown_by(Host, User, Member) ->
    shown_by(Host, User, Member, lhc_bridge_storage:groups_of(Host, lists:usort([User, Member]))).

%% The same in a transaction of mod_roster: nobody changes them until its end.
-spec shown_by_until_done(binary(), binary(), binary()) -> [binary()].
shown_by_until_done(Host, User, Member) ->
    shown_by(Host, User, Member, lhc_bridge_storage:groups_until_done(Host, lists:usort([User, Member]))).

shown_by(Host, User, Member, Memberships) ->
    Shown = groups_shown(Host, [Group || {Of, Group} <- Memberships, Of == User]),
    [Group || {Of, Group} <- Memberships, Of == Member, lists:member(Group, Shown)].

%% All contacts that groups make the user's, each with those groups.
-spec shown(binary(), binary()) -> #{Member :: binary() => [Group :: binary()]}.
shown(Host, User) ->
    Groups = groups_shown(Host, [Group || {_, Group} <- lhc_bridge_storage:groups_of(Host, [User])]),
    Shown = [{Member, Group} || Group <- Groups, Member <- lhc_bridge_storage:members(Host, Group)],
    lists:foldl(fun({Member, Group}, Acc) -> Acc#{Member => [Group | maps:get(Member, Acc, [])]} end, #{}, Shown).

groups_shown(Host, Groups) ->
    lists:usort(lists:append([displayed(Host, Group) || Group <- Groups])).

%%%===================================================================
%%% What those who are online are told
%%%===================================================================

%% To whom the group is displayed hears of its new members.
push_members(_Host, [], _Users, _Label) ->
    ok;
push_members(Host, Watchers, Users, Label) ->
    Items = items(Host, Users, Label),
    lists:foreach(fun(Watcher) -> lists:foreach(fun(Item) -> push_and_resend(Watcher, Item) end, others(Watcher, Items)) end,
                  Watchers).

items(Host, Users, Label) ->
    Nicks = lhc_bridge_storage:nicks(Host, Users),
    [#roster_item{jid = jid:make(User, Host), name = maps:get(User, Nicks, <<>>), subscription = both, groups = [Label]}
     || User <- Users].

%% Nobody is a contact of himself.
others(#jid{luser = Operator}, Items) ->
    [Item || #roster_item{jid = #jid{luser = User}} = Item <- Items, User /= Operator].

push_and_resend(Watcher, #roster_item{jid = Contact} = Item) ->
    push(Watcher, Item),
    resend_presence(Watcher, Contact).

%% Contacts that may have been there before: an operator may have removed one, or given it a name.
push_again(_Host, [], _Users, _Label) ->
    ok;
push_again(_Host, _Watchers, [], _Label) ->
    ok;
push_again(Host, Watchers, Users, Label) ->
    Items = items(Host, Users, Label),
    lists:foreach(fun(#jid{luser = Operator} = Watcher) ->
                          Own = lhc_bridge_own_contacts:of_operator(Host, Operator),
                          lists:foreach(fun(Item) -> push_and_resend(Watcher, as_kept(Own, Item)) end,
                                        [Item || #roster_item{jid = #jid{luser = User}} = Item <- others(Watcher, Items),
                                                 not lhc_bridge_hidden:is_hidden(Host, Operator, User)])
                  end, Watchers).

%% The contact as the operator's own row has it, if there is one.
as_kept(Own, #roster_item{jid = #jid{luser = User}, name = Name, groups = Labels} = Shared) ->
    case Own of
        #{User := #roster{name = OwnName, groups = Groups}} ->
            Shared#roster_item{name = case OwnName of <<>> -> Name; _ -> OwnName end, groups = (Groups -- Labels) ++ Labels};
        _ ->
            Shared
    end.

%% To one operator, on all connections.
-spec push_contact(binary(), binary(), binary()) -> ok.
push_contact(Host, Operator, User) ->
    case online(Host, Operator) of
        [] ->
            ok;
        Sessions ->
            lists:foreach(fun(Group) -> push_again(Host, Sessions, [User], label(Host, Group)) end,
                          shown_by(Host, Operator, User))
    end.

%% The new member hears of the members that the group displays.
push_displayed(Host, User, Group) ->
    case online(Host, User) of
        [] ->
            ok;
        Sessions ->
            lists:foreach(fun(Displayed) ->
                                  push_again(Host, Sessions, lhc_bridge_storage:members(Host, Displayed),
                                             label(Host, Displayed))
                          end, displayed(Host, Group))
    end.

%% To whom the groups are displayed hears of who has left them.
push_removals(Host, Left) ->
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
            Items = [removed(Host, Member) || Displayed <- displayed(Host, Group), Member <- lhc_bridge_storage:members(Host, Displayed),
                                              Member /= User],
            lists:foreach(fun(Session) -> lists:foreach(fun(Item) -> push(Session, Item) end, Items) end, Sessions)
    end.

removed(Host, User) ->
    #roster_item{jid = jid:make(User, Host), subscription = remove}.

%% As the roster itself names a member (mod_shared_roster).
-spec name_of(jid:jid()) -> binary().
name_of(#jid{luser = User, lserver = Host}) ->
    maps:get(User, lhc_bridge_storage:nicks(Host, [User]), <<>>).

%% A new contact hears at once that the operator is there (mod_roster does so as well).
resend_presence(#jid{luser = User, lserver = Host, lresource = Resource}, Contact) ->
    case ejabberd_sm:get_session_pid(User, Host, Resource) of
        none -> ok;
        Pid -> ejabberd_c2s:resend_presence(Pid, Contact)
    end.

%% To whom a group is displayed, and who is online: whoever logs in later gets a roster that is as it should be.
online_watchers(Host, Group) ->
    Watchers = [Member || Displaying <- lhc_bridge_storage:displaying(Host, Group),
                          Member <- lhc_bridge_storage:members(Host, Displaying)],
    [Session || User <- lists:usort(Watchers), Session <- online(Host, User)].

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

%% What the group is called in rosters.
-spec label(binary(), binary()) -> binary().
label(Host, Group) ->
    option(Host, Group, label, Group).

displayed(Host, Group) ->
    option(Host, Group, displayed_groups, []).

option(Host, Group, Name, Default) ->
    case lhc_bridge_storage:opts(Host, Group) of
        error -> Default;
        {ok, Opts} -> proplists:get_value(Name, Opts, Default)
    end.
