%%% Tenants that are suspended: none of their people can log in, and who was logged in is disconnected. Part of
%%% mod_lhc_bridge.
%%%
%%% The orchestrator says which they are, and it is kept on disk, as ejabberd may start while the orchestrator is away.
%%% Accounts stay as they are, and so does what waits for them.
-module(lhc_bridge_shut).

%% for mod_lhc_bridge
-export([create_table/0, hooks/1, commands/0]).
%% for lhc_bridge_moving
-export([is_shut/2]).
%% hooks
-export([auth_result/3, session_opened/1, leave/2]).
%% the commands
-export([shut/2, open/2, tenants/1]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

-record(lhc_bridge_shut, {key :: {Host :: binary(), Tenant :: binary() | '$1'},
                          since :: integer() | '_'}). % seconds; a table has at least two columns

%% After the walls of lhc_bridge_identity (10) and lhc_bridge_logins (40): whose password is wrong is told nothing.
-define(AUTH_PRIORITY, 60).
%% Milliseconds for the sessions to end.
-define(SESSIONS_END_WITHIN, 5000).
-define(TEXT, <<"This live chat is suspended">>).

-type state() :: ejabberd_c2s:state().

%%%===================================================================
%%% For mod_lhc_bridge
%%%===================================================================

%% Of all nodes of a cluster.
-spec create_table() -> ok.
create_table() ->
    {atomic, ok} = ejabberd_mnesia:create(?MODULE, lhc_bridge_shut,
                                          [{disc_copies, [node()]},
                                           {attributes, record_info(fields, lhc_bridge_shut)}]),
    ok.

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{c2s_auth_result, Host, ?MODULE, auth_result, ?AUTH_PRIORITY},
     {c2s_session_opened, Host, ?MODULE, session_opened, ?AUTH_PRIORITY},
     {c2s_handle_info, Host, ?MODULE, leave, 30}].

-spec commands() -> [lhc_bridge_commands:command()].
commands() ->
    Tenant = [{host, binary}, {tenant, binary}],
    [lhc_bridge_commands:declare(?MODULE, lhc_shut_tenant, shut,
                                 "Let nobody of the tenant log in, end all sessions; answers whose are left",
                                 Tenant, {left, {list, {user, string}}}),
     lhc_bridge_commands:declare(?MODULE, lhc_open_tenant, open, "Let the people of the tenant log in again",
                                 Tenant, {res, rescode}),
     lhc_bridge_commands:declare(?MODULE, lhc_shut_tenants, tenants, "The tenants of which nobody can log in",
                                 [{host, binary}], {tenants, {list, {tenant, string}}})].

%%%===================================================================
%%% Logins
%%%===================================================================

%% The password was right, and the client has not been told so yet.
-spec auth_result(state(), true | {false, binary()}, binary()) -> state() | {stop, state()}.
auth_result(#{lserver := Host, lang := Lang} = C2S, true, User) ->
    case is_shut(jid:nodeprep(User), Host) of
        false ->
            C2S;
        true ->
            Failure = #sasl_failure{reason = 'account-disabled', text = xmpp:mk_text(?TEXT, Lang)},
            close(xmpp_stream_in:send(C2S, Failure))
    end;
auth_result(C2S, _Failed, _User) ->
    C2S.

%% Who was logging in when the tenant was shut. The session is in ejabberd's list by now, and what shuts the tenant looks
%% at that list afterwards: one of the two sees it.
-spec session_opened(state()) -> state() | {stop, state()}.
session_opened(#{user := User, lserver := Host} = C2S) ->
    case is_shut(jid:nodeprep(User), Host) of
        false -> C2S;
        true -> close(C2S)
    end.

%% In the connection that is to end.
-spec leave(state(), term()) -> state() | {stop, state()}.
leave(#{mgmt_state := pending} = C2S, lhc_shut) ->
    ejabberd_c2s:stop_async(self()), % its client is away (XEP-0198), and could not come back to it
    {stop, C2S};
leave(C2S, lhc_shut) ->
    close(C2S);
leave(C2S, _Info) ->
    C2S.

close(#{lang := Lang} = C2S) ->
    {stop, xmpp_stream_in:send(C2S, xmpp:serr_policy_violation(?TEXT, Lang))}.

-spec is_shut(binary(), binary()) -> boolean().
is_shut(User, Host) ->
    case lhc_bridge_names:tenant(User, Host) of
        {ok, Tenant} -> mnesia:dirty_read(lhc_bridge_shut, {Host, Tenant}) /= [];
        none -> false
    end.

%%%===================================================================
%%% Commands; each may be repeated
%%%===================================================================

-spec shut(binary(), binary()) -> [binary()].
shut(Host, Tenant) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_users([Tenant]),
    mnesia:dirty_write(#lhc_bridge_shut{key = {Host, Tenant}, since = erlang:system_time(second)}),
    ok = mnesia:sync_log(),
    Monitors = [begin
                    Monitor = erlang:monitor(process, Session),
                    Session ! lhc_shut,
                    Monitor
                end || {_, Session} <- sessions(Host, Tenant)],
    lhc_bridge_commands:await_end(Monitors, erlang:monotonic_time(millisecond) + ?SESSIONS_END_WITHIN),
    [User || {User, _} <- sessions(Host, Tenant)].

-spec open(binary(), binary()) -> ok.
open(Host, Tenant) ->
    lhc_bridge_commands:check_host(Host),
    mnesia:dirty_delete(lhc_bridge_shut, {Host, Tenant}),
    ok = mnesia:sync_log().

-spec tenants(binary()) -> [binary()].
tenants(Host) ->
    lhc_bridge_commands:check_host(Host),
    lists:sort(mnesia:dirty_select(lhc_bridge_shut, [{#lhc_bridge_shut{key = {Host, '$1'}, _ = '_'}, [], ['$1']}])).

sessions(Host, Tenant) ->
    [{User, Session} || {User, Server, Resource} <- ejabberd_sm:get_vh_session_list(Host),
                        lhc_bridge_names:tenant(User, Host) == {ok, Tenant},
                        Session <- [ejabberd_sm:get_session_pid(User, Server, Resource)], is_pid(Session)].
