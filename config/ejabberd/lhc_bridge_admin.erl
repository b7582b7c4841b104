%%% The bridge's admin commands, for the orchestrator's workflows. Part of mod_lhc_bridge.
%%%
%%% ejabberd's own commands handle one account each, and list all of a virtual host to find those of one tenant. With
%%% these, a tenant of ten thousand accounts is removed, or a thousand tenants are compared, with few calls. What each does
%%% is in the module that is named here; the few that belong to no other subject are in this one.
%%%
%%% A command runs in the process of its HTTP connection and handles one name after the other, so what others do goes on
%%% between; nothing here locks a table. Each may be repeated: what is done already is a success.
-module(lhc_bridge_admin).

%% for mod_lhc_bridge
-export([commands/0]).
%% commands
-export([version/0, client_listeners/0, present/5, tell/3]).

-include_lib("xmpp/include/xmpp.hrl").

%% Of the whole bridge module: another one when it does anything else for the orchestrator (tenants/ejabberd/client.py).
-define(VERSION, "13").

-spec commands() -> [lhc_bridge_commands:command()].
commands() ->
    [lhc_bridge_commands:declare(Module, Name, Function, Desc, Args, Result)
     || {Module, Name, Function, Desc, Args, Result} <-
            of_server() ++ of_accounts() ++ of_rosters() ++ of_registration() ++ of_tenants()].

of_server() ->
    [{?MODULE, lhc_bridge_version, version, "Version of the orchestrator's bridge module", [], {version, string}},
     {lhc_bridge_build, lhc_bridge_made_for, made_for, "Version of ejabberd that the bridge module was compiled for", [],
      {version, string}},
     {?MODULE, lhc_client_listeners, client_listeners, "Where clients log in over TCP, and whether TLS comes first", [],
      {listeners, {list, {listener, {tuple, [{ip, string}, {port, integer}, {tls, atom}]}}}}},
     {lhc_bridge_storage, lhc_storages, storages, "Where each kind of what is kept is kept", [{host, binary}],
      {storages, {list, {storage, {tuple, [{kind, string}, {place, string}]}}}}},
     {?MODULE, lhc_present, present, "Let a client session send its presence with that nick and status, none to keep",
      [{host, binary}, {user, binary}, {resource, binary},
       {nick, {list, {text, binary}}}, {status, {list, {text, binary}}}], {result, string}},
     {?MODULE, lhc_tell, tell, "Send a user a message from the virtual host itself, which waits for one who is away",
      [{host, binary}, {user, binary}, {text, binary}], {result, rescode}},
     {lhc_bridge_logins, lhc_failed_logins, failed_logins, "Failed logins since the start of this node",
      [{host, binary}],
      {failed, {list, {kind, {tuple, [{who, string}, {outcome, string}, {count, integer}]}}}}}].

of_accounts() ->
    Page = [{host, binary}, {suffix, binary}, {'after', binary}, {limit, integer}],
    [{lhc_bridge_removal, lhc_remove_users, remove_users,
      "Remove accounts, members of shared rosters first; answers what is left",
      [{host, binary}, users()], {left, {list, {user, {tuple, [{user, string}, {reason, string}]}}}}},
     {lhc_bridge_removal, lhc_remove_idle_users, remove_idle_users,
      "The same, but who is logged in stays, and is among what is left",
      [{host, binary}, users()], {left, {list, {user, {tuple, [{user, string}, {reason, string}]}}}}},
     {lhc_bridge_removal, lhc_browsers, browsers,
      "Visitors who are logged in themselves, whose name ends in the suffix (all when it is empty), a page",
      Page, names()},
     {lhc_bridge_remnants, lhc_accounts, accounts,
      "Accounts whose name ends in the suffix (all when it is empty), a page", Page, names()},
     {lhc_bridge_remnants, lhc_known_accounts, known_accounts, "Those of the users who have an account",
      [{host, binary}, users()], names()},
     {lhc_bridge_remnants, lhc_usernames, usernames,
      "Names ending in the suffix that anything is kept of, accounts or not, a page", Page, names()},
     {lhc_bridge_own_contacts, lhc_stray_contacts, strays,
      "Names ending in the suffix (all when it is empty) that are in somebody's own contacts and have no account, a page",
      Page, names()},
     {lhc_bridge_own_contacts, lhc_forget_contacts, forget_strays,
      "Remove names without an account from everybody's own contacts; answers whose account is there",
      [{host, binary}, users()], {there, {list, {user, string}}}},
     {lhc_bridge_nicks, lhc_set_nicks, set_all,
      "Call accounts so, in vCards and in the contacts of who is online; answers who was called otherwise",
      [{host, binary}, {nicks, {list, {account, {tuple, [{user, binary}, {nick, binary}]}}}}],
      {changed, {list, {user, string}}}}].

of_rosters() ->
    Rosters = {rosters, {list, {roster, {tuple, [{group, string}, {label, string}, {description, string},
                                                 {displayed, {list, {group, string}}},
                                                 {members, {list, {user, string}}}]}}}},
    [{lhc_bridge_rosters, lhc_shared_rosters, shared_rosters, "Shared rosters with their members, a page",
      [{host, binary}, {'after', binary}, {limit, integer}], Rosters},
     {lhc_bridge_rosters, lhc_shared_roster, shared_roster, "A shared roster with its members, if there is one",
      [{host, binary}, {group, binary}], Rosters},
     {lhc_bridge_rosters, lhc_add_to_rosters, add_members,
      "Add members to a shared roster that exists; answers who is none",
      [{host, binary}, {group, binary}, users()], {missing, {list, {user, string}}}},
     {lhc_bridge_rosters, lhc_remove_from_rosters, remove_members,
      "Remove members of a shared roster; answers who still is one",
      [{host, binary}, {group, binary}, users()], {members, {list, {user, string}}}}].

%% The argument is called password because mod_http_api keeps what is called so out of its log.
of_registration() ->
    Verifier = [{hash, binary}, {iterations, integer}, {salt, binary}, {stored_key, binary}, {server_key, binary}],
    Results = {results, {list, {account, {tuple, [{user, string}, {result, string}]}}}},
    [{lhc_bridge_registration, lhc_register_scram, register_scram,
      "Create accounts by their SCRAM verifiers, or set those of accounts",
      [{host, binary}, {password, {list, {account, {tuple, [{user, binary} | Verifier]}}}}], Results},
     {lhc_bridge_registration, lhc_register_members, register_members,
      "Create accounts that are members of a shared roster, none else",
      [{host, binary}, {password, {list, {account, {tuple, [{user, binary}, {group, binary}, {nick, binary} | Verifier]}}}}], Results}].

of_tenants() ->
    [{lhc_bridge_remnants, lhc_tenant_left, tenant_left, "What is kept of a tenant: counts and examples of each kind",
      [{host, binary}, {suffix, binary}, {groups, {list, {group, binary}}}],
      {left, {list, {kind, {tuple, [{kind, string}, {count, integer}, names(), {elsewhere, string}]}}}}},
     {lhc_bridge_remnants, lhc_forget_tenant, forget_tenant,
      "Drop the tenant's messages that wait for the component; how many",
      [{host, binary}, {suffix, binary}], {messages, integer}}].

users() ->
    {users, {list, {user, binary}}}.

names() ->
    {names, {list, {name, string}}}.

%%%===================================================================
%%% The server and its sessions
%%%===================================================================

-spec version() -> string().
version() ->
    ?VERSION.

-spec client_listeners() -> [{binary(), inet:port_number(), boolean()}].
client_listeners() ->
    [{misc:ip_to_list(IP), Port, maps:get(tls, Opts, false)}
     || {{Port, IP, tcp}, ejabberd_c2s, Opts} <- ejabberd_option:listen(), is_integer(Port)].

%% ejabberd's own send_stanza_c2s sends a presence to the client, so that nobody else sees it.
-spec present(binary(), binary(), binary(), [binary()], [binary()]) -> string().
present(Host, User, Resource, Nick, Status) ->
    lhc_bridge_commands:check_host(Host),
    case ejabberd_sm:get_session_pid(User, Host, Resource) of
        none ->
            "no_session";
        Session ->
            Session ! {lhc_present, Nick, Status},
            "sent"
    end.

%% Of nobody's but the host's own: no caller can let anybody have written it.
-spec tell(binary(), binary(), binary()) -> ok.
tell(Host, User, Text) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_users([User]),
    ejabberd_router:route(#message{type = chat, id = p1_rand:get_string(), from = jid:make(Host),
                                   to = jid:make(User, Host), body = xmpp:mk_text(Text)}).
