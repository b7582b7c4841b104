%%% What is kept of accounts and of tenants: pages of names, and what is left when a tenant ends. Part of mod_lhc_bridge.
%%%
%%% What belongs to no account (members of shared rosters, vCards, offline messages of accounts that are gone) can only
%%% be listed where it is stored, which is Mnesia: the db_type that ejabberd.yml says.
-module(lhc_bridge_remnants).

%% for lhc_bridge_removal
-export([of_account/2]).
%% the commands
-export([accounts/4, usernames/4, tenant_left/3, forget_tenant/2]).

-include("mod_roster.hrl").
-include("mod_shared_roster.hrl").

%% What is kept of an account beside the account: what it is called here, the Mnesia table, the position of {User, Host}.
-define(REMNANTS, [{members, sr_user, #sr_user.us},
                   {vcards, vcard, 2},
                   {offline_messages, offline_msg, 2},
                   {last_activity, last_activity, 2},
                   {contacts, roster, #roster.us},
                   {hidden_contacts, lhc_bridge_hidden, 3}]).
%% Milliseconds.
-define(QUEUE_ANSWERS_WITHIN, 8000).
%% Names of each kind in an answer of lhc_tenant_left: as many as a person reads.
-define(EXAMPLES, 20).

%%%===================================================================
%%% Pages of names
%%%===================================================================

-spec accounts(binary(), binary(), binary(), integer()) -> [binary()].
accounts(Host, Suffix, After, Limit) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_suffix_or_all(Suffix),
    lhc_bridge_commands:page(accounts(Host, Suffix), After, Limit).

accounts(Host, Suffix) ->
    [User || {User, _} <- ejabberd_auth:get_users(Host), lhc_bridge_names:bears(User, Suffix)].

%% Names that anything is kept of, whether or not there is such an account.
-spec usernames(binary(), binary(), binary(), integer()) -> [binary()].
usernames(Host, Suffix, After, Limit) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_suffix(Suffix),
    Remnants = [User || {_, Table, Position} <- remnants(), User <- lhc_bridge_tables:names(Table, Position, Host),
                        lhc_bridge_names:bears(User, Suffix)],
    lhc_bridge_commands:page(accounts(Host, Suffix) ++ Remnants, After, Limit).

%%%===================================================================
%%% The end of a tenant
%%%===================================================================

%% Without a suffix (a standalone system) accounts bear nobody's name: then only the rosters, the rooms and the queue are
%% looked at.
-spec tenant_left(binary(), binary(), [binary()]) -> [{string(), non_neg_integer(), [binary()]}].
tenant_left(Host, Suffix, Groups) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_suffix_or_all(Suffix),
    [{atom_to_list(Kind), length(Names), lists:sublist(lists:usort(Names), ?EXAMPLES)}
     || {Kind, Names} <- kept(Host, Suffix, Groups)].

kept(Host, Suffix, Groups) ->
    IsOf = fun(Name) -> Suffix /= <<>> andalso lhc_bridge_names:bears(Name, Suffix) end,
    Rosters = [Group || Group <- lhc_bridge_rosters:groups(Host), IsOf(Group) orelse lists:member(Group, Groups)],
    Members = lists:flatmap(fun(Group) -> lhc_bridge_rosters:members(Host, Group) end, lists:usort(Rosters ++ Groups)),
    Sessions = [User || {User, _, _} <- ejabberd_sm:get_vh_session_list(Host), IsOf(User)],
    [{accounts, lists:filter(IsOf, accounts(Host, <<>>))},
     {rosters, Rosters},
     {sessions, Sessions},
     {rooms, lhc_bridge_room_admin:rooms(Host, Suffix)},
     {waiting_messages, lists:append(of_all_nodes(waiting, [Host, Suffix]))},
     {nodes_away, [atom_to_binary(Node) || Node <- lhc_bridge_cluster:away()]}
     | [{Kind, case Kind of members -> lists:usort(Names ++ Members); _ -> Names end}
        || {Kind, Table, Position} <- remnants(),
           Names <- [lists:filter(IsOf, lhc_bridge_tables:names(Table, Position, Host))]]].

%% How many messages of the tenant waited for the component; they are dropped.
-spec forget_tenant(binary(), binary()) -> non_neg_integer().
forget_tenant(Host, Suffix) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_suffix_or_all(Suffix),
    lists:sum(of_all_nodes(drop, [Host, Suffix])).

%% What the queues of all nodes say. Nobody can see what waits at a node that is away; it is named as left.
of_all_nodes(Function, Args) ->
    [case Outcome of
         {ok, Answer} -> Answer;
         {failed, _} -> throw({error, "The queue of node " ++ atom_to_list(Node) ++ " does not answer"})
     end || {Node, Outcome} <- lhc_bridge_cluster:everywhere(lhc_bridge_queue, Function, Args, ?QUEUE_ANSWERS_WITHIN)].

%%%===================================================================
%%% The tables
%%%===================================================================

%% The kinds of which something is kept.
-spec of_account(binary(), binary()) -> [string()].
of_account(Host, User) ->
    [atom_to_list(Kind) || {Kind, Table, Position} <- remnants(), has(Table, Position, {User, Host})].

has(Table, 2, US) -> mnesia:dirty_read(Table, US) /= [];
has(Table, Position, US) -> mnesia:dirty_index_read(Table, US, Position) /= [].

%% Of the modules that are there.
remnants() ->
    Tables = mnesia:system_info(tables),
    [Remnant || {_, Table, _} = Remnant <- ?REMNANTS, lists:member(Table, Tables)].
