%%% The bridge between ejabberd and the orchestrator's component: what ejabberd loads, with its options. What it does is in
%%% the files lhc_bridge_*, one subject in each (docs/ejabberd.md lists them).
-module(mod_lhc_bridge).
-behaviour(gen_mod).

%% gen_mod
-export([start/2, stop/1, reload/3, depends/2, mod_opt_type/1, mod_options/1, mod_doc/0]).

-include("lhc_bridge.hrl").

%% Each of these has hooks.
-define(WITH_HOOKS, [lhc_bridge_guard, lhc_bridge_diversion, lhc_bridge_presence, lhc_bridge_arrivals, lhc_bridge_identity,
                     lhc_bridge_rooms, lhc_bridge_visitors, lhc_bridge_contacts, lhc_bridge_shown, lhc_bridge_disco,
                     lhc_bridge_logins, lhc_bridge_rates, lhc_bridge_backlog, lhc_bridge_unconfirmed, lhc_bridge_offline,
                     lhc_bridge_shut]).
%% Each of these has hooks of what belongs to no virtual host, as components do not.
-define(WITH_GLOBAL_HOOKS, [lhc_bridge_queue, lhc_bridge_services, lhc_bridge_rooms]).
%% Each of these has a table that all virtual hosts share.
-define(WITH_TABLES, [lhc_bridge_services, lhc_bridge_once, lhc_bridge_backlog, lhc_bridge_offline, lhc_bridge_rates,
                      lhc_bridge_refusals, lhc_bridge_shut, lhc_bridge_logins, lhc_bridge_hidden, lhc_bridge_shown]).
%% Each of these has admin commands, which all virtual hosts share.
-define(WITH_COMMANDS, [lhc_bridge_admin, lhc_bridge_cluster, lhc_bridge_storage_move, lhc_bridge_moving,
                        lhc_bridge_room_admin, lhc_bridge_refusals, lhc_bridge_shut]).

%%%===================================================================
%%% Start and stop
%%%===================================================================

%% The hooks belong to the module, not to the gen_server: they must hold while a crashed deliverer is restarted.
-spec start(binary(), gen_mod:opts()) -> {ok, pid()} | {error, term()}.
start(Host, Opts) ->
    case lhc_bridge_build:fits() of
        true -> start_on_storage(Host, Opts);
        false -> {error, compiled_for_another_ejabberd}
    end.

start_on_storage(Host, Opts) ->
    lhc_bridge_storage_used:create_table(),
    case lhc_bridge_storage_used:may_start(Host) of
        true -> start_parts(Host, Opts);
        false -> {error, accounts_are_in_another_storage}
    end.

start_parts(Host, Opts) ->
    lhc_bridge_log:start(),
    lists:foreach(fun(Module) -> Module:create_table() end, ?WITH_TABLES),
    case lhc_bridge_queue:start(Host, Opts) of
        {ok, Pid} ->
            {ok, _} = lhc_bridge_backlog:start(Host, Opts),
            {ok, _} = lhc_bridge_cluster:start(Host, Opts),
            lhc_bridge_offline:start(Host),
            lists:foreach(fun add_hook/1, hooks(Host) ++ global_hooks()),
            lhc_bridge_services:start(Host),
            %% from 25.03 on, to register a command once more is an error in the log
            gen_mod:is_loaded_elsewhere(Host, ?MODULE)
                orelse ejabberd_commands:register_commands(?MODULE, commands()),
            {ok, Pid};
        Error ->
            Error
    end.

-spec stop(binary()) -> ok | {error, term()}.
stop(Host) ->
    lhc_bridge_services:stop(Host),
    case gen_mod:is_loaded_elsewhere(Host, ?MODULE) of
        true ->
            ok;
        false ->
            ejabberd_commands:unregister_commands(commands()),
            lists:foreach(fun delete_hook/1, global_hooks())
    end,
    lists:foreach(fun delete_hook/1, hooks(Host)),
    lhc_bridge_cluster:stop(Host),
    lhc_bridge_backlog:stop(Host),
    lhc_bridge_queue:stop(Host).

hooks(Host) ->
    lists:flatmap(fun(Module) -> Module:hooks(Host) end, ?WITH_HOOKS).

global_hooks() ->
    lists:flatmap(fun(Module) -> Module:global_hooks() end, ?WITH_GLOBAL_HOOKS).

commands() ->
    lists:flatmap(fun(Module) -> Module:commands() end, ?WITH_COMMANDS).

-spec add_hook(hook()) -> ok.
add_hook({Hook, Scope, Module, Function, Priority}) ->
    ejabberd_hooks:add(Hook, Scope, Module, Function, Priority).

-spec delete_hook(hook()) -> ok.
delete_hook({Hook, Scope, Module, Function, Priority}) ->
    ejabberd_hooks:delete(Hook, Scope, Module, Function, Priority).

%% Options are read where they are used, so a reload has nothing to do.
-spec reload(binary(), gen_mod:opts(), gen_mod:opts()) -> ok.
reload(_Host, _NewOpts, _OldOpts) ->
    ok.

-spec depends(binary(), gen_mod:opts()) -> [{module(), hard | soft}].
depends(_Host, _Opts) ->
    [{mod_shared_roster, hard}, {mod_roster, hard}, {mod_muc, hard}, {mod_offline, soft}].

%%%===================================================================
%%% Options
%%%===================================================================

-spec mod_opt_type(atom()) -> econf:validator().
mod_opt_type(api_secret) -> econf:binary();
mod_opt_type(component) -> econf:non_empty(econf:binary());
mod_opt_type(hosting) -> econf:bool();
mod_opt_type(iq_timeout) -> econf:timeout(second);
mod_opt_type(max_messages) -> econf:pos_int();
mod_opt_type(max_bytes) -> econf:pos_int();
mod_opt_type(operator_rate) -> econf:pos_int();
mod_opt_type(operators_rate) -> econf:pos_int();
mod_opt_type(visitor_rate) -> econf:pos_int();
mod_opt_type(visitors_rate) -> econf:pos_int();
mod_opt_type(stanza_bytes) -> econf:pos_int();
mod_opt_type(max_operator_backlog) -> econf:pos_int();
mod_opt_type(max_visitor_backlog) -> econf:pos_int();
mod_opt_type(max_tenant_backlog) -> econf:pos_int();
mod_opt_type(max_account_offline) -> econf:pos_int();
mod_opt_type(max_tenant_offline) -> econf:pos_int();
mod_opt_type(max_offline) -> econf:pos_int();
mod_opt_type(sql_tables) -> econf:binary().

-spec mod_options(binary()) -> [{atom(), term()}].
mod_options(_Host) ->
    [{api_secret, <<>>},
     {component, <<"lhc.@HOST@">>},
     {hosting, true},
     {iq_timeout, timer:seconds(10)},
     {max_messages, 10000},
     {max_bytes, 64 * 1024 * 1024},
     {operator_rate, 20},
     {operators_rate, 100},
     {visitor_rate, 5},
     {visitors_rate, 100},
     {stanza_bytes, 8 * 1024},
     {max_operator_backlog, 48 * 1024 * 1024},
     {max_visitor_backlog, 1024 * 1024},
     {max_tenant_backlog, 64 * 1024 * 1024},
     {max_account_offline, 2 * 1024 * 1024},
     {max_tenant_offline, 32 * 1024 * 1024},
     {max_offline, 1024 * 1024 * 1024},
     {sql_tables, <<>>}].

-spec mod_doc() -> #{desc := binary(), opts := [{atom(), #{value := binary(), desc := binary()}}]}.
mod_doc() ->
    #{desc => <<"Hands operators' messages to Live Helper Chat visitors, and operators' presence, to the component "
                "of the LHC orchestrator. Messages wait on disk until the component has stored them, in order for each "
                "visitor, through restarts of both sides; only when the queue is full is a new message given back to "
                "the operator, as an error of type 'wait'.">>,
      opts =>
          [{api_secret, #{value => <<"Secret">>,
                          desc => <<"What the orchestrator's calls of the admin API bear (lhc_bridge_api). "
                                    "By default there is none, and no call is answered.">>}},
           {component, #{value => <<"Host">>,
                         desc => <<"Name of the component. '@HOST@' is replaced with the virtual host. "
                                   "The default is 'lhc.@HOST@'.">>}},
           {hosting, #{value => <<"true | false">>,
                       desc => <<"Whether usernames end in '.INSTANCE' (many tenants) or there is one unnamed tenant. "
                                 "The default is 'true'.">>}},
           {iq_timeout, #{value => <<"timeout()">>,
                          desc => <<"How long the component may take to acknowledge a message before it is sent again. "
                                    "The default is '10' seconds.">>}},
           {max_messages, #{value => <<"Number">>,
                            desc => <<"Messages of this virtual host that may wait for the component. Beyond, new "
                                      "messages are given back to the operators. The default is '10000'.">>}},
           {max_bytes, #{value => <<"Bytes">>,
                         desc => <<"The same, for the size of all waiting messages. "
                                   "The default is '67108864' (64 MB).">>}},
           {operator_rate, #{value => <<"Number">>,
                             desc => <<"Messages and presences that an operator may send in a second, counted in each ten "
                                       "seconds. Beyond, they are refused. The default is '20'.">>}},
           {operators_rate, #{value => <<"Number">>,
                              desc => <<"The same, of all operators of a tenant together. The default is '100'.">>}},
           {visitor_rate, #{value => <<"Number">>,
                            desc => <<"The same, of a visitor's browser. The default is '5'.">>}},
           {visitors_rate, #{value => <<"Number">>,
                             desc => <<"The same, of all browsers of a tenant together. The default is '100'.">>}},
           {stanza_bytes, #{value => <<"Bytes">>,
                            desc => <<"What a stanza may have on average, for the bounds above. "
                                      "The default is '8192'.">>}},
           {max_operator_backlog, #{value => <<"Bytes">>,
                                    desc => <<"What may wait for a connection of an operator that does not read. Beyond, "
                                              "it is disconnected. The default is '50331648' (48 MB).">>}},
           {max_visitor_backlog, #{value => <<"Bytes">>,
                                   desc => <<"The same, for a visitor's browser. The default is '1048576' (1 MB).">>}},
           {max_tenant_backlog, #{value => <<"Bytes">>,
                                  desc => <<"The same, for all connections of a tenant together. "
                                            "The default is '67108864' (64 MB).">>}},
           {max_account_offline, #{value => <<"Bytes">>,
                                   desc => <<"What may wait in offline storage for an account. Beyond, messages go back "
                                             "to who sent them. The default is '2097152' (2 MB).">>}},
           {max_tenant_offline, #{value => <<"Bytes">>,
                                  desc => <<"The same, for all accounts of a tenant. "
                                            "The default is '33554432' (32 MB).">>}},
           {max_offline, #{value => <<"Bytes">>,
                           desc => <<"The same, for the virtual host. The default is '1073741824' (1 GB): mod_offline "
                                     "has room for 2 GB in Mnesia.">>}},
           {sql_tables, #{value => <<"Path">>,
                          desc => <<"A file that makes ejabberd's tables in PostgreSQL, if they are not there: for "
                                    "ejabberd before 23.10. By default there is none.">>}}]}.
