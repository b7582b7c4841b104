%%% What the bridge's admin commands have in common: how they are declared, what they check, pages of names. Part of
%%% mod_lhc_bridge.
-module(lhc_bridge_commands).

-export([declare/6, check_host/1, check_users/1, check_suffix/1, check_suffix_or_all/1, refuse/2, page/3, await_end/2]).

-export_type([command/0]).

-include("ejabberd_commands.hrl").

-type command() :: #ejabberd_commands{}.

%% Names in one call, and in one answer.
-define(MAX_NAMES, 1000).
-define(MAX_PAGE, 10000).

-spec declare(module(), atom(), atom(), string(), [tuple()], tuple()) -> command().
declare(Module, Name, Function, Desc, Args, Result) ->
    #ejabberd_commands{name = Name, tags = [lhc], desc = Desc, module = Module, function = Function,
                       args = Args, result = Result}.

%%%===================================================================
%%% Arguments
%%%===================================================================

-spec check_host(binary()) -> true.
check_host(Host) ->
    lists:member(Host, ejabberd_option:hosts()) orelse refuse("host: there is no virtual host ~ts", [Host]).

-spec check_users([binary()]) -> ok.
check_users(Users) ->
    length(Users) =< ?MAX_NAMES orelse refuse("users: at most ~B", [?MAX_NAMES]),
    lists:foreach(fun(User) -> is_local_part(User) orelse refuse("users: ~ts is not a local part", [User]) end, Users).

is_local_part(User) ->
    User /= <<>> andalso jid:nodeprep(User) == User.

%% With the dot: `.acme` is not the end of a name of `my-acme`.
-spec check_suffix(binary()) -> true.
check_suffix(<<$., Instance/binary>> = Suffix) ->
    is_local_part(Instance) orelse refuse("suffix: ~ts is not the end of a local part", [Suffix]);
check_suffix(Suffix) ->
    refuse("suffix: ~ts does not begin with a dot", [Suffix]).

%% An empty suffix stands for all names.
-spec check_suffix_or_all(binary()) -> true.
check_suffix_or_all(Suffix) ->
    Suffix == <<>> orelse check_suffix(Suffix).

check_limit(Limit) ->
    (Limit > 0 andalso Limit =< ?MAX_PAGE) orelse refuse("limit: from 1 to ~B", [?MAX_PAGE]).

%% Begins with the argument's name.
-spec refuse(io:format(), [term()]) -> no_return().
refuse(Format, Values) ->
    throw({invalid_parameter, unicode:characters_to_binary(io_lib:format(Format, Values))}).

%%%===================================================================
%%% Answers
%%%===================================================================

%% The names after that one, sorted, at most that many.
-spec page([binary()], binary(), integer()) -> [binary()].
page(Names, After, Limit) ->
    check_limit(Limit),
    lists:sublist(lists:usort([Name || Name <- Names, Name > After]), Limit).

%% Waits until the monitored processes have ended, or until the deadline (monotonic milliseconds).
-spec await_end([reference()], integer()) -> ok.
await_end(Monitors, Deadline) ->
    lists:foreach(fun(Monitor) -> await_one(Monitor, Deadline) end, Monitors).

await_one(Monitor, Deadline) ->
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    after max(0, Deadline - erlang:monotonic_time(millisecond)) ->
        erlang:demonitor(Monitor, [flush])
    end.
