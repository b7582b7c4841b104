%%% What waits in offline storage for operators who are away, bounded in bytes: for an account, for a tenant, and in all.
%%% Part of mod_lhc_bridge.
%%%
%%% In Mnesia mod_offline keeps all of it in one table that is on disk only, which is one file of at most 2 GB; and whenever
%%% it stores a message it reads all that the account has. Its own bound counts messages, of which each may be long. What is
%%% beyond a bound goes back to who sent it, with an error: the component keeps it as a message that came back.
%%%
%%% Bytes are counted here as messages are stored, and anew for an account whenever mod_offline may have removed some. So a
%%% number that is wrong for a moment, since two things happened at once, is soon right again.
-module(lhc_bridge_offline).

%% for mod_lhc_bridge
-export([create_table/0, start/1, hooks/1]).
%% for lhc_bridge_cluster
-export([fetched_elsewhere/2]).
%% for lhc_bridge_moving
-export([recount/2]).
%% hooks
-export([check/1, stored/1, fetched/1, removed/2]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Around mod_offline (50).
-define(CHECK_PRIORITY, 40).
-define(STORED_PRIORITY, 60).

-define(TABLE, ?MODULE).
%% Bytes that a tenant may have while all together have as many as they may: so many tenants that fill their shares take
%% nothing from who keeps a few messages.
-define(QUIET, 256 * 1024).
%% The same, of all together.
-define(RESERVE, 256 * 1024 * 1024).

%%%===================================================================
%%% For mod_lhc_bridge
%%%===================================================================

%% Rows: {Key, Messages, Bytes}, where the key is {account, User, Host}, {tenant, Tenant, Host} or {host, Host}.
-spec create_table() -> ok.
create_table() ->
    lhc_bridge_tables:create(?TABLE).

%% Counts what is there. It may be a gigabyte, so nobody waits for it.
-spec start(binary()) -> pid().
start(Host) ->
    spawn(fun() -> count_all(Host) end).

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{offline_message_hook, Host, ?MODULE, check, ?CHECK_PRIORITY},
     {offline_message_hook, Host, ?MODULE, stored, ?STORED_PRIORITY},
     {c2s_self_presence, Host, ?MODULE, fetched, ?STORED_PRIORITY},
     {remove_user, Host, ?MODULE, removed, ?STORED_PRIORITY}].

count_all(Host) ->
    lists:foreach(fun({User, Messages, Bytes}) -> note(User, Host, Messages, Bytes) end, lhc_bridge_storage:waiting(Host)).

%%%===================================================================
%%% Hooks
%%%===================================================================

-spec check({term(), message()}) -> {term(), message()} | stop.
check({_Action, #message{to = #jid{luser = User, lserver = Host}} = Msg} = Acc) ->
    case is_full(User, Host, lhc_bridge_storage:bytes(Host, xmpp:encode(Msg))) of
        true ->
            lhc_bridge_refusals:note(offline_full),
            Text = <<"Too many messages wait for this operator">>,
            ejabberd_router:route_error(Msg, xmpp:err_resource_constraint(Text, xmpp:get_lang(Msg))),
            stop;
        false ->
            Acc
    end.

is_full(User, Host, Size) ->
    Option = fun(Name) -> lhc_bridge_options:get(Host, Name) end,
    OfTenant = bytes(tenant(User, Host)) + Size,
    MostOfAll = case OfTenant =< ?QUIET of
                    true -> Option(max_offline) + ?RESERVE;
                    false -> Option(max_offline)
                end,
    bytes({account, User, Host}) + Size > Option(max_account_offline)
        orelse OfTenant > Option(max_tenant_offline)
        orelse bytes({host, Host}) + Size > MostOfAll.

%% mod_offline says so when it has stored the message.
-spec stored({term(), message()}) -> {term(), message()}.
stored({offlined, #message{to = #jid{luser = User, lserver = Host}} = Msg} = Acc) ->
    add(User, Host, 1, lhc_bridge_storage:bytes(Host, xmpp:encode(Msg))),
    Acc;
stored(Acc) ->
    Acc.

-spec fetched({presence(), map()}) -> {presence(), map()}.
fetched({#presence{type = available}, #{jid := #jid{luser = User, lserver = Host}}} = Acc) ->
    recount_known(User, Host),
    lhc_bridge_cluster:tell_fetched(Host, User),
    Acc;
fetched(Acc) ->
    Acc.

-spec removed(binary(), binary()) -> term().
removed(Name, Server) ->
    {User, Host} = {jid:nodeprep(Name), jid:nameprep(Server)},
    recount(User, Host),
    lhc_bridge_cluster:tell_fetched(Host, User).

%% At another node; what is stored by this one is counted here. Nobody waits for it.
-spec fetched_elsewhere(binary(), binary()) -> pid().
fetched_elsewhere(User, Host) ->
    spawn(fun() -> recount_known(User, Host) end).

%%%===================================================================
%%% Counting
%%%===================================================================

recount_known(User, Host) ->
    ets:member(?TABLE, {account, User, Host}) andalso recount(User, Host).

-spec recount(binary(), binary()) -> term().
recount(User, Host) ->
    {Messages, Bytes} = lhc_bridge_storage:waiting(Host, User),
    note(User, Host, Messages, Bytes).

note(User, Host, Messages, Bytes) ->
    {FormerMessages, FormerBytes} = row({account, User, Host}),
    add(User, Host, Messages - FormerMessages, Bytes - FormerBytes),
    Messages == 0 andalso ets:delete(?TABLE, {account, User, Host}).

add(User, Host, Messages, Bytes) ->
    lists:foreach(fun(Key) -> ets:update_counter(?TABLE, Key, [{2, Messages}, {3, Bytes}], {Key, 0, 0}) end,
                  [{account, User, Host}, tenant(User, Host), {host, Host}]).

bytes(Key) ->
    element(2, row(Key)).

row(Key) ->
    case ets:lookup(?TABLE, Key) of
        [{_, Messages, Bytes}] -> {Messages, Bytes};
        [] -> {0, 0}
    end.

tenant(User, Host) ->
    {tenant, lhc_bridge_names:tenant_or_empty(User, Host), Host}.
