%%% What is kept of accounts and of tenants: pages of names, and what is left when a tenant ends. Part of mod_lhc_bridge.
-module(lhc_bridge_remnants).

%% for lhc_bridge_removal
-export([of_accounts/2]).
%% the commands
-export([accounts/4, known_accounts/2, usernames/4, tenant_left/3, forget_tenant/2]).

%% What may be kept of an account beside the account, by ejabberd's modules; hidden contacts are the bridge's own.
-define(REMNANTS, [members, vcards, offline_messages, last_activity, contacts]).
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
    lhc_bridge_commands:page(lhc_bridge_storage:names(Host, accounts, Suffix), After, Limit).

%% Those of the users who have an account.
-spec known_accounts(binary(), [binary()]) -> [binary()].
known_accounts(Host, Users) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_users(Users),
    lhc_bridge_storage:having(Host, accounts, Users).

%% Names that anything is kept of, whether or not there is such an account.
-spec usernames(binary(), binary(), binary(), integer()) -> [binary()].
usernames(Host, Suffix, After, Limit) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_suffix(Suffix),
    Names = lists:append([lhc_bridge_storage:names(Host, Kind, Suffix) || Kind <- [accounts | ?REMNANTS]]),
    lhc_bridge_commands:page(Names ++ hidden(Host, Suffix), After, Limit).

%%%===================================================================
%%% The end of a tenant
%%%===================================================================

%% Without a suffix (a standalone system) accounts bear nobody's name: then only the rosters, the rooms and the queue are
%% looked at.
-spec tenant_left(binary(), binary(), [binary()]) -> [{string(), non_neg_integer(), [binary()], binary()}].
tenant_left(Host, Suffix, Groups) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_suffix_or_all(Suffix),
    case [{atom_to_list(Kind), 0, [], Place} || Kind <- [accounts, rosters, rooms | ?REMNANTS],
                                                {true, Place} <- [lhc_bridge_storage:elsewhere(Host, Kind)]] of
        [] -> [{atom_to_list(Kind), length(Names), lists:sublist(lists:usort(Names), ?EXAMPLES), <<>>}
               || {Kind, Names} <- kept(Host, Suffix, Groups)];
        Unknown -> Unknown % what is kept elsewhere may be there or not
    end.

kept(Host, Suffix, Groups) ->
    Of = fun(Kind) when Suffix /= <<>> -> lhc_bridge_storage:names(Host, Kind, Suffix);
            (_) -> []
         end,
    Rosters = Of(rosters) ++ [Group || Group <- Groups, lhc_bridge_storage:opts(Host, Group) /= error],
    Members = [User || Group <- lists:usort(Rosters ++ Groups), User <- lhc_bridge_storage:members(Host, Group)],
    Sessions = [User || {User, _, _} <- ejabberd_sm:get_vh_session_list(Host), Suffix /= <<>>,
                        lhc_bridge_names:bears(User, Suffix)],
    [{accounts, Of(accounts)},
     {rosters, lists:usort(Rosters)},
     {members, lists:usort(Of(members) ++ Members)},
     {sessions, Sessions},
     {rooms, lhc_bridge_room_admin:rooms(Host, Suffix)},
     {waiting_messages, lists:append(of_all_nodes(waiting, [Host, Suffix]))},
     {nodes_away, [atom_to_binary(Node) || Node <- lhc_bridge_cluster:away()]},
     {hidden_contacts, case Suffix of <<>> -> []; _ -> hidden(Host, Suffix) end}
     | [{Kind, Of(Kind)} || Kind <- ?REMNANTS -- [members]]].

hidden(Host, Suffix) ->
    [Visitor || Visitor <- lhc_bridge_hidden:visitors(Host), lhc_bridge_names:bears(Visitor, Suffix)].

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
%%% Accounts that go
%%%===================================================================

%% Of each kind, of whom something is kept.
-spec of_accounts(binary(), [binary()]) -> [{string(), [binary()]}].
of_accounts(Host, Users) ->
    Hidden = [User || User <- Users, lhc_bridge_hidden:is_anybodys(Host, User)],
    [{"hidden_contacts", Hidden}
     | [{atom_to_list(Kind), lhc_bridge_storage:having(Host, Kind, Users)} || Kind <- ?REMNANTS]].
