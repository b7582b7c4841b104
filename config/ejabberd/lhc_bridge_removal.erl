%%% Removes accounts with all that is kept of them. Part of mod_lhc_bridge.
-module(lhc_bridge_removal).

%% the commands
-export([remove_users/2, remove_idle_users/2, browsers/4]).

-include("lhc_bridge.hrl").

%% Milliseconds for the sessions of removed accounts to end.
-define(SESSIONS_END_WITHIN, 5000).

%% Returns the accounts of which something is left, and what. At low priority: whoever waits for presence or a message comes
%% first.
-spec remove_users(binary(), [binary()]) -> [{binary(), string()}].
remove_users(Host, Users) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_users(Users),
    at_low_priority(fun() -> remove_checked_users(Host, Users) end).

%% The same, but who is logged in stays, and is told as `in use`: that the account expires is no reason to end a session.
-spec remove_idle_users(binary(), [binary()]) -> [{binary(), string()}].
remove_idle_users(Host, Users) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_users(Users),
    {InUse, Idle} = lists:partition(fun(User) -> ejabberd_sm:get_user_resources(User, Host) /= [] end, Users),
    [{User, "in use"} || User <- InUse] ++ at_low_priority(fun() -> remove_checked_users(Host, Idle) end).

%% Visitors who are logged in themselves, a page.
-spec browsers(binary(), binary(), binary(), integer()) -> [binary()].
browsers(Host, Suffix, After, Limit) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_suffix_or_all(Suffix),
    lhc_bridge_commands:page([User || {?IS_VISITOR = User, _, _} <- ejabberd_sm:get_vh_session_list(Host),
                                      lhc_bridge_names:bears(User, Suffix)], After, Limit).

at_low_priority(Work) ->
    Priority = process_flag(priority, low),
    try
        Work()
    after
        process_flag(priority, Priority)
    end.

remove_checked_users(Host, Users) ->
    lhc_bridge_rosters:leave_all(Host, Users),
    lhc_bridge_own_contacts:forget(Host, Users),
    %% before they end: in SQL another process removes the accounts
    Sessions = [{User, [erlang:monitor(process, Pid) || {_, Pid} <- ejabberd_sm:get_session_sids(User, Host)]}
                || User <- Users],
    There = lhc_bridge_storage:having(Host, accounts, Users),
    lhc_bridge_storage:together(Host, fun() -> lists:foreach(fun(User) -> remove_account(Host, User, There) end, Users) end),
    Deadline = erlang:monotonic_time(millisecond) + ?SESSIONS_END_WITHIN,
    lists:foreach(fun({User, Monitors}) ->
                          lhc_bridge_commands:await_end(Monitors, Deadline),
                          remove_remnants(Host, User) % a session that ends stores its last activity
                  end, [Ending || {_, [_ | _]} = Ending <- Sessions]),
    Left = left(Host, Users),
    [{User, string:join(Kinds, ", ")}
     || User <- Users, Kinds <- [[Kind || {Kind, Of} <- Left, lists:member(User, Of)]], Kinds /= []].

remove_account(Host, User, There) ->
    case lists:member(User, There) of
        true -> ejabberd_auth:remove_user(User, Host);
        false -> remove_remnants(Host, User) % ejabberd_auth would count down the accounts once more
    end.

%% Whatever else keeps something of an account removes it with this hook.
remove_remnants(Host, User) ->
    ejabberd_hooks:run(remove_user, Host, [User, Host]).

%% What is left, of whom.
left(Host, Users) ->
    [{"account", lhc_bridge_storage:having(Host, accounts, Users)},
     {"session", [User || User <- Users, ejabberd_sm:get_user_resources(User, Host) /= []]}
     | lhc_bridge_remnants:of_accounts(Host, Users)].
