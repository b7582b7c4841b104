%%% What operators do with the contacts that shared rosters give them: they rename, group and remove them. Part of
%%% mod_lhc_bridge.
%%%
%%% mod_shared_roster makes rows of it on both sides, which outlive the contact, and brings back who was removed. Here a
%%% name and groups are one row of the operator's own (lhc_bridge_own_contacts), shown as long as the contact is there; and
%%% a visitor who was removed stays away (lhc_bridge_hidden) until it writes, or is added again.
-module(lhc_bridge_contacts).

%% for mod_lhc_bridge
-export([hooks/1]).
%% hooks
-export([process_item/2, own_items/2, without_hidden/2, receive_packet/1, remove_user/2]).

-include("lhc_bridge.hrl").
-include("mod_roster.hrl").
-include_lib("xmpp/include/xmpp.hrl").

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{roster_process_item, Host, ?MODULE, process_item, 40}, % before mod_shared_roster (50)
     {roster_get, Host, ?MODULE, own_items, 60}, % after mod_roster (50), before mod_shared_roster (70)
     {roster_get, Host, ?MODULE, without_hidden, 80}, % after both
     {sm_receive_packet, Host, ?MODULE, receive_packet, 0}, % before lhc_bridge_diversion (1)
     {remove_user, Host, ?MODULE, remove_user, 60}].

%%%===================================================================
%%% An operator changes a contact
%%%===================================================================

%% In mod_roster's transaction: a contact that leaves the shared roster at this moment is seen as one that is there or as
%% one that is gone, and in the first case its removal sees the row (lhc_bridge_own_contacts:forget).
-spec process_item(#roster{}, binary()) -> #roster{} | {stop, #roster{}}.
process_item(#roster{us = {User, Host}, jid = {User, Host, _}} = Item, Host) ->
    Item;
process_item(#roster{us = {Owner, Host}, jid = {Contact, Host, _}} = Item, Host) ->
    case {lhc_bridge_rosters:shown_by_until_done(Host, Owner, Contact), Contact} of
        {[], ?IS_VISITOR} -> {stop, (bare(Item))#roster{subscription = remove}}; % nobody's contact for ever
        {[], _} -> Item;
        {Groups, _} -> {stop, changed(bare(Item), [lhc_bridge_rosters:label(Host, Group) || Group <- Groups])}
    end;
process_item(Item, _Host) ->
    Item.

%% A row is about an account; what a client adds by the address of one connection would be another contact.
bare(#roster{us = {Owner, Host}, jid = {Contact, Host, _}} = Item) ->
    JID = {Contact, Host, <<>>},
    Item#roster{usj = {Owner, Host, JID}, jid = JID}.

changed(#roster{us = {Owner, Host}, jid = {?IS_VISITOR = Visitor, Host, _}, subscription = remove} = Item, _Labels) ->
    lhc_bridge_hidden:hide(Host, Owner, Visitor),
    Item;
changed(#roster{subscription = remove} = Item, Labels) ->
    kept(Item, Labels); % a colleague stays
changed(#roster{us = {Owner, Host}, jid = {Contact, Host, _}} = Item, Labels) ->
    lhc_bridge_hidden:show(Host, Owner, Contact),
    kept(Item, Labels).

%% As the roster will have it at the next login.
kept(#roster{jid = {Contact, Host, _}, name = Name, groups = Groups} = Item, Labels) ->
    Item#roster{name = named(Name, jid:make(Contact, Host)), groups = (Groups -- Labels) ++ Labels,
                subscription = both, ask = none}.

named(<<>>, Contact) -> lhc_bridge_rosters:name_of(Contact);
named(Name, _Contact) -> Name.

%%%===================================================================
%%% An operator's roster
%%%===================================================================

%% Rows of the operator's own: none of a contact that is gone. mod_shared_roster adds the labels of its groups, also if
%% they are there already.
%%
%% Of the contacts that are no rows of the operator's it would ask for the name of each by itself, which in SQL is a query
%% for each: so they are named here.
-spec own_items([roster_item()], {binary(), binary()}) -> [roster_item()].
own_items(Items, {User, Host}) ->
    {Own, Others} = lists:partition(fun(#roster_item{jid = #jid{lserver = Server}}) -> Server == Host end, Items),
    Shown = lhc_bridge_rosters:shown(Host, User),
    Rows = lists:filtermap(fun(Item) -> own_item(Item, Host, Shown) end, Own),
    Rest = maps:without([User | [Contact || #roster_item{jid = #jid{luser = Contact}} <- Own]], Shown),
    Others ++ Rows ++ case lhc_bridge_storage:where(Host, vcards) of
                          sql -> named_at_once(Host, maps:keys(Rest));
                          _ -> []
                      end.

named_at_once(Host, Contacts) ->
    Nicks = lhc_bridge_storage:nicks(Host, Contacts),
    [#roster_item{jid = jid:make(Contact, Host), name = maps:get(Contact, Nicks, <<>>), subscription = both}
     || Contact <- Contacts].

own_item(#roster_item{jid = #jid{luser = Contact} = JID, name = Name, groups = Groups} = Item, Host, Shown) ->
    case Shown of
        #{Contact := Of} ->
            Labels = [lhc_bridge_rosters:label(Host, Group) || Group <- Of],
            {true, Item#roster_item{name = named(Name, JID), groups = Groups -- Labels}};
        _ ->
            not is_gone(Contact, Host)
    end.

%% A visitor who is in no shared roster is on its way out.
is_gone(?IS_VISITOR, _Host) -> true;
is_gone(Contact, Host) -> not lhc_bridge_storage:may_exist(Host, Contact).

-spec without_hidden([roster_item()], {binary(), binary()}) -> [roster_item()].
without_hidden(Items, {User, Host}) ->
    case lhc_bridge_hidden:of_operator(Host, User) of
        [] ->
            Items;
        Visitors ->
            Hidden = maps:from_keys(Visitors, hidden),
            [Item || #roster_item{jid = #jid{luser = Contact, lserver = Server}} = Item <- Items,
                     Server /= Host orelse not is_map_key(Contact, Hidden)]
    end.

%%%===================================================================
%%% A visitor who was removed
%%%===================================================================

%% What it writes brings it back. Its presence would: some clients list whoever sends one.
-spec receive_packet(stanza()) -> stanza() | {stop, drop}.
receive_packet(#presence{type = Type, from = #jid{luser = ?IS_VISITOR = Visitor, lserver = Host},
                         to = #jid{luser = Operator, lserver = Host}} = Presence)
  when Type == available; Type == unavailable ->
    lhc_bridge_shown:note(Presence),
    case lhc_bridge_hidden:is_hidden(Host, Operator, Visitor) of
        true -> {stop, drop};
        false -> Presence
    end;
receive_packet(#message{type = Type, body = [_ | _], from = #jid{luser = ?IS_VISITOR = Visitor, lserver = Host},
                        to = #jid{luser = Operator, lserver = Host}} = Msg)
  when Type == chat; Type == normal ->
    lhc_bridge_hidden:is_hidden(Host, Operator, Visitor) andalso show_again(Host, Operator, Visitor),
    Msg;
receive_packet(Stanza) ->
    Stanza.

show_again(Host, Operator, Visitor) ->
    lhc_bridge_hidden:show(Host, Operator, Visitor),
    lhc_bridge_rosters:push_contact(Host, Operator, Visitor),
    lists:foreach(fun({_Priority, Resource}) ->
                          Session = jid:make(Operator, Host, Resource),
                          lhc_bridge_visitors:ask_to_show(Session, Visitor),
                          ask_component_to_show(Session, Visitor)
                  end, ejabberd_sm:get_user_present_resources(Operator, Host)).

%% Whoever serves the tenant does so; the others do not.
ask_component_to_show(#jid{lserver = Host} = Session, Visitor) ->
    {ok, Tenant} = lhc_bridge_names:tenant(Visitor, Host),
    Wanted = #xmlel{name = <<"show">>, attrs = [{<<"xmlns">>, ?NS_BRIDGE}, {<<"visitor">>, Visitor},
                                                {<<"operator">>, jid:encode(Session)}]},
    Msg = #message{from = jid:make(Host), to = jid:make(Tenant, lhc_bridge_options:component(Host)), sub_els = [Wanted]},
    lists:foreach(fun(Connection) -> lhc_bridge_component:send(Connection, Msg) end,
                  lhc_bridge_component:connections(Host)).

-spec remove_user(binary(), binary()) -> ok.
remove_user(User, Host) ->
    lhc_bridge_hidden:forget(Host, User).
