%%% Admin commands that take many names at once, for the orchestrator's workflows. Part of mod_lhc_bridge.
%%%
%%% ejabberd's own commands handle one account each, and list all of a virtual host to find those of one tenant. With
%%% these, a tenant of ten thousand accounts is removed, or a thousand tenants are compared, with few calls.
%%%
%%% What belongs to no account (members of shared rosters, vCards, offline messages of accounts that are gone) can only
%%% be listed where it is stored, which is Mnesia: the db_type that ejabberd.yml says.
%%%
%%% A command runs in the process of its HTTP connection and handles one name after the other, so what others do goes on
%%% between; nothing here locks a table. Each may be repeated: what is done already is a success.
-module(lhc_bridge_admin).

%% for mod_lhc_bridge, lhc_bridge_queue and lhc_bridge_rooms
-export([register_commands/0, unregister_commands/0, command/6, bears/2, page/3, await_end/2, check_host/1,
         check_users/1, check_suffix/1]).
%% the commands
-export([version/0, client_listeners/0, remove_users/2, accounts/4, usernames/4, shared_rosters/3, add_to_rosters/3,
         remove_from_rosters/3, register_scram/2, register_members/2, present/5, tell/3, tenant_left/3,
         forget_tenant/2]).

-include("ejabberd_commands.hrl").
-include("mod_roster.hrl").
-include("mod_shared_roster.hrl").
-include_lib("xmpp/include/scram.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Of the whole bridge module: another one when it does anything else for the orchestrator (tenants/ejabberd/client.py).
-define(VERSION, "4").
%% Names in one call, and in one answer.
-define(MAX_NAMES, 1000).
-define(MAX_PAGE, 10000).
%% Members in one answer of lhc_shared_rosters; one group is always told in full.
-define(MAX_MEMBERS, 50000).
%% Names of each kind in an answer of lhc_tenant_left: as many as a person reads.
-define(EXAMPLES, 20).
%% Milliseconds for the sessions of removed accounts to end.
-define(SESSIONS_END_WITHIN, 5000).
%% ejabberd's own count. Fewer make a stolen verifier worth trying out.
-define(FEWEST_ITERATIONS, 4096).

%% What is kept of an account beside the account: what it is called here, the Mnesia table, the position of {User, Host}.
-define(REMNANTS, [{members, sr_user, #sr_user.us},
                   {vcards, vcard, 2},
                   {offline_messages, offline_msg, 2},
                   {last_activity, last_activity, 2},
                   {contacts, roster, #roster.us}]).

%%%===================================================================
%%% For mod_lhc_bridge
%%%===================================================================

register_commands() ->
    ejabberd_commands:register_commands(?MODULE, commands()).

unregister_commands() ->
    ejabberd_commands:unregister_commands(commands()).

commands() ->
    Users = {users, {list, {user, binary}}},
    Names = {names, {list, {name, string}}},
    Page = [{'after', binary}, {limit, integer}],
    [command(lhc_bridge_version, version, "Version of the orchestrator's bridge module", [], {version, string}),
     command(lhc_client_listeners, client_listeners, "Where clients log in over TCP, and whether TLS comes first", [],
             {listeners, {list, {listener, {tuple, [{ip, string}, {port, integer}, {tls, atom}]}}}}),
     command(lhc_remove_users, remove_users, "Remove accounts, members of shared rosters first; answers what is left",
             [{host, binary}, Users],
             {left, {list, {user, {tuple, [{user, string}, {reason, string}]}}}}),
     command(lhc_accounts, accounts, "Accounts whose name ends in the suffix (all when it is empty), a page",
             [{host, binary}, {suffix, binary} | Page], Names),
     command(lhc_usernames, usernames, "Names ending in the suffix that anything is kept of, accounts or not, a page",
             [{host, binary}, {suffix, binary} | Page], Names),
     command(lhc_shared_rosters, shared_rosters, "Shared rosters with their members, a page",
             [{host, binary} | Page],
             {rosters, {list, {roster, {tuple, [{group, string}, {label, string}, {description, string},
                                                {displayed, {list, {group, string}}},
                                                {members, {list, {user, string}}}]}}}}),
     command(lhc_add_to_rosters, add_to_rosters, "Add members to a shared roster that exists; answers who is none",
             [{host, binary}, {group, binary}, Users], {missing, {list, {user, string}}}),
     command(lhc_remove_from_rosters, remove_from_rosters, "Remove members of a shared roster; answers who still is one",
             [{host, binary}, {group, binary}, Users], {members, {list, {user, string}}}),
     %% The argument is called password because mod_http_api keeps what is called so out of its log.
     command(lhc_register_scram, register_scram, "Create accounts by their SCRAM verifiers, or set those of accounts",
             [{host, binary},
              {password, {list, {account, {tuple, [{user, binary}, {hash, binary}, {iterations, integer},
                                                   {salt, binary}, {stored_key, binary}, {server_key, binary}]}}}}],
             {results, {list, {account, {tuple, [{user, string}, {result, string}]}}}}),
     command(lhc_register_members, register_members, "Create accounts that are members of a shared roster, none else",
             [{host, binary},
              {password, {list, {account, {tuple, [{user, binary}, {group, binary}, {hash, binary},
                                                   {iterations, integer}, {salt, binary}, {stored_key, binary},
                                                   {server_key, binary}]}}}}],
             {results, {list, {account, {tuple, [{user, string}, {result, string}]}}}}),
     command(lhc_present, present, "Let a client session send its presence with that nick and status, none to keep",
             [{host, binary}, {user, binary}, {resource, binary},
              {nick, {list, {text, binary}}}, {status, {list, {text, binary}}}], {result, string}),
     command(lhc_tell, tell, "Send a user a message from the virtual host itself, which waits for one who is away",
             [{host, binary}, {user, binary}, {text, binary}], {result, rescode}),
     command(lhc_bridge_logins, lhc_failed_logins, failed_logins, "Failed logins since the start of this node",
             [{host, binary}],
             {failed, {list, {kind, {tuple, [{who, string}, {outcome, string}, {count, integer}]}}}}),
     command(lhc_tenant_left, tenant_left, "What is kept of a tenant: counts and examples of each kind",
             [{host, binary}, {suffix, binary}, {groups, {list, {group, binary}}}],
             {left, {list, {kind, {tuple, [{kind, string}, {count, integer}, Names]}}}}),
     command(lhc_forget_tenant, forget_tenant, "Drop the tenant's messages that wait for the component; how many",
             [{host, binary}, {suffix, binary}], {messages, integer})].

command(Name, Function, Desc, Args, Result) ->
    command(?MODULE, Name, Function, Desc, Args, Result).

command(Module, Name, Function, Desc, Args, Result) ->
    #ejabberd_commands{name = Name, tags = [lhc], desc = Desc, module = Module, function = Function,
                       args = Args, result = Result}.

version() ->
    ?VERSION.

-spec client_listeners() -> [{binary(), inet:port_number(), boolean()}].
client_listeners() ->
    [{misc:ip_to_list(IP), Port, maps:get(tls, Opts, false)}
     || {{Port, IP, tcp}, ejabberd_c2s, Opts} <- ejabberd_option:listen(), is_integer(Port)].

%%%===================================================================
%%% Removal
%%%===================================================================

%% Whoever waits for presence or a message comes first.
remove_users(Host, Users) ->
    check_host(Host),
    check_users(Users),
    Priority = process_flag(priority, low),
    try
        remove_checked_users(Host, Users)
    after
        process_flag(priority, Priority)
    end.

remove_checked_users(Host, Users) ->
    push_removals(Host, leave_rosters(Host, Users)),
    Ending = [{User, Monitors} || User <- Users, (Monitors = remove_account(Host, User)) /= []],
    Deadline = erlang:monotonic_time(millisecond) + ?SESSIONS_END_WITHIN,
    [begin
         await_end(Monitors, Deadline),
         remove_remnants(Host, User) % a session that ends stores its last activity
     end || {User, Monitors} <- Ending],
    [{User, string:join(Kinds, ", ")} || User <- Users, (Kinds = left_of(Host, User)) /= []].

%% Of every shared roster: an account that is gone is a member of none. Returns the memberships that were.
leave_rosters(Host, Users) ->
    Leave = fun() ->
                    lists:flatmap(fun(User) ->
                                          Memberships = mnesia:read(sr_user, {User, Host}, write),
                                          mnesia:delete({sr_user, {User, Host}}),
                                          Memberships
                                  end, Users)
            end,
    {atomic, Memberships} = mnesia:transaction(Leave),
    Memberships.

push_removals(Host, Memberships) ->
    Groups = lists:usort([Group || #sr_user{group_host = {Group, Owner}} <- Memberships, Owner == Host]),
    Watchers = maps:from_list([{Group, online_watchers(Host, Group)} || Group <- Groups]),
    [push(Watcher, #roster_item{jid = jid:make(User, Host), subscription = remove})
     || #sr_user{us = {User, _}, group_host = {Group, Owner}} <- Memberships, Owner == Host,
        #jid{luser = Other} = Watcher <- maps:get(Group, Watchers), Other /= User],
    ok.

%% Returns the monitors of its sessions, which end now.
remove_account(Host, User) ->
    Monitors = [erlang:monitor(process, Pid) || {_, Pid} <- ejabberd_sm:get_session_sids(User, Host)],
    case ejabberd_auth:user_exists(User, Host) of
        true -> ejabberd_auth:remove_user(User, Host);
        false -> remove_remnants(Host, User) % ejabberd_auth would count down the accounts once more
    end,
    Monitors.

%% Whatever else keeps something of an account removes it with this hook.
remove_remnants(Host, User) ->
    ejabberd_hooks:run(remove_user, Host, [User, Host]).

await_end(Monitors, Deadline) ->
    [receive
         {'DOWN', Monitor, process, _, _} -> ok
     after max(0, Deadline - erlang:monotonic_time(millisecond)) ->
         erlang:demonitor(Monitor, [flush])
     end || Monitor <- Monitors].

left_of(Host, User) ->
    ["account" || ejabberd_auth:user_exists(User, Host)]
        ++ ["session" || ejabberd_sm:get_user_resources(User, Host) /= []]
        ++ [atom_to_list(Kind) || {Kind, Table, Position} <- remnants(), has(Table, Position, {User, Host})].

has(Table, 2, US) -> mnesia:dirty_read(Table, US) /= [];
has(Table, Position, US) -> mnesia:dirty_index_read(Table, US, Position) /= [].

%% Of the modules that are there.
remnants() ->
    Tables = mnesia:system_info(tables),
    [Remnant || {_, Table, _} = Remnant <- ?REMNANTS, lists:member(Table, Tables)].

%%%===================================================================
%%% Pages of names
%%%===================================================================

accounts(Host, Suffix, After, Limit) ->
    check_host(Host),
    Suffix == <<>> orelse check_suffix(Suffix),
    page(accounts(Host, Suffix), After, Limit).

accounts(Host, Suffix) ->
    [User || {User, _} <- ejabberd_auth:get_users(Host), bears(User, Suffix)].

usernames(Host, Suffix, After, Limit) ->
    check_host(Host),
    check_suffix(Suffix),
    Remnants = [User || {_, Table, Position} <- remnants(), User <- keys(Table, Position, Host), bears(User, Suffix)],
    page(accounts(Host, Suffix) ++ Remnants, After, Limit).

%% All local parts in the table, not sorted, and some more than once.
keys(Table, Position, Host) ->
    Row = setelement(Position, mnesia:table_info(Table, wild_pattern), {'$1', Host}),
    mnesia:dirty_select(Table, [{Row, [], ['$1']}]).

page(Names, After, Limit) ->
    check_limit(Limit),
    lists:sublist(lists:usort([Name || Name <- Names, Name > After]), Limit).

bears(Name, Suffix) ->
    Rest = byte_size(Name) - byte_size(Suffix),
    Rest >= 0 andalso binary:part(Name, Rest, byte_size(Suffix)) == Suffix.

%%%===================================================================
%%% Shared rosters
%%%===================================================================

shared_rosters(Host, After, Limit) ->
    check_host(Host),
    Groups = page([Group || {Group, _} <- groups_with_opts(Host)], After, Limit),
    up_to_max_members(Host, Groups, 0).

up_to_max_members(Host, [Group | Groups], Members) when Members < ?MAX_MEMBERS ->
    case mod_shared_roster:get_group_opts(Host, Group) of
        error -> % deleted meanwhile
            up_to_max_members(Host, Groups, Members);
        Opts ->
            Users = lists:sort(members(Host, Group)),
            Roster = {Group, proplists:get_value(label, Opts, <<>>), proplists:get_value(description, Opts, <<>>),
                      proplists:get_value(displayed_groups, Opts, []), Users},
            [Roster | up_to_max_members(Host, Groups, Members + length(Users))]
    end;
up_to_max_members(_Host, _Groups, _Members) ->
    [].

add_to_rosters(Host, Group, Users) ->
    check_host(Host),
    check_users(Users),
    case mod_shared_roster:get_group_opts(Host, Group) of
        error ->
            {error, not_exists, 0, ["group: there is no shared roster ", Group]};
        _ ->
            Memberships = [membership(Host, User, Group) || User <- Users],
            {atomic, ok} = mnesia:transaction(fun() -> lists:foreach(fun mnesia:write/1, Memberships) end),
            push_members(Host, online_watchers(Host, Group), Users, label(Host, Group)),
            [push_members(Host, Sessions, members(Host, Displayed), label(Host, Displayed))
             || User <- Users, (Sessions = online(Host, User)) /= [], Displayed <- displayed(Host, Group)],
            Users -- members_of(Host, Group, Users)
    end.

%% Of a group that does not exist too: that is no member's fault.
remove_from_rosters(Host, Group, Users) ->
    check_host(Host),
    check_users(Users),
    Memberships = [membership(Host, User, Group) || User <- Users],
    {atomic, ok} = mnesia:transaction(fun() -> lists:foreach(fun mnesia:delete_object/1, Memberships) end),
    push_removals(Host, Memberships),
    [push(Session, #roster_item{jid = jid:make(Member, Host), subscription = remove})
     || User <- Users, Session <- online(Host, User), Displayed <- displayed(Host, Group),
        Member <- members(Host, Displayed), Member /= User],
    members_of(Host, Group, Users).

members_of(Host, Group, Users) ->
    [User || User <- Users, lists:member(membership(Host, User, Group), mnesia:dirty_read(sr_user, {User, Host}))].

membership(Host, User, Group) ->
    #sr_user{us = {User, Host}, group_host = {Group, Host}}.

push_members(_Host, [], _Users, _Label) ->
    ok;
push_members(Host, Watchers, Users, Label) ->
    [begin
         Contact = jid:make(User, Host),
         Item = #roster_item{jid = Contact, name = name_of(Contact), subscription = both, groups = [Label]},
         [begin
              push(Watcher, Item),
              resend_presence(Watcher, Contact)
          end || #jid{luser = Other} = Watcher <- Watchers, Other /= User]
     end || User <- Users],
    ok.

%% As the roster itself names a member (mod_shared_roster).
name_of(#jid{luser = User, lserver = Host}) ->
    case gen_mod:is_loaded(Host, mod_vcard) andalso mod_vcard:get_vcard(User, Host) of
        [VCard | _] ->
            case fxml:get_path_s(VCard, [{elem, <<"NICKNAME">>}, cdata]) of
                <<>> -> fxml:get_path_s(VCard, [{elem, <<"FN">>}, cdata]);
                Nickname -> Nickname
            end;
        _ ->
            <<>>
    end.

%% A new contact hears at once that the operator is there (mod_roster does so as well).
resend_presence(#jid{luser = User, lserver = Host, lresource = Resource}, Contact) ->
    case ejabberd_sm:get_session_pid(User, Host, Resource) of
        none -> ok;
        Pid -> ejabberd_c2s:resend_presence(Pid, Contact)
    end.

%% To whom a group is displayed, and who is online: whoever logs in later gets a roster that is as it should be.
online_watchers(Host, Group) ->
    Watchers = [Member || {Displaying, Opts} <- groups_with_opts(Host),
                          lists:member(Group, proplists:get_value(displayed_groups, Opts, [])),
                          Member <- mod_shared_roster:get_group_users(Host, Displaying)],
    [Session || {User, Server} <- lists:usort(Watchers), Server == Host, Session <- online(Host, User)].

online(Host, User) ->
    [jid:make(User, Host, Resource) || Resource <- ejabberd_sm:get_user_resources(User, Host)].

%% mod_roster:push_item/3 is of no use here: for each item it computes the version of the whole roster, of each operator,
%% online or not. Without a version in the push a client keeps the one it has, and fetches the roster at its next login.
push(#jid{} = Watcher, Item) ->
    ejabberd_router:route(#iq{type = set, id = <<"push", (p1_rand:get_string())/binary>>,
                              from = jid:remove_resource(Watcher), to = Watcher,
                              sub_els = [#roster_query{items = [Item]}]}).

groups_with_opts(Host) ->
    mnesia:dirty_select(sr_group, [{#sr_group{group_host = {'$1', Host}, opts = '$2'}, [], [{{'$1', '$2'}}]}]).

label(Host, Group) ->
    option(Host, Group, label, Group).

displayed(Host, Group) ->
    option(Host, Group, displayed_groups, []).

option(Host, Group, Name, Default) ->
    case mod_shared_roster:get_group_opts(Host, Group) of
        error -> Default;
        Opts -> proplists:get_value(Name, Opts, Default)
    end.

%% Also of a group that does not exist: ejabberd lets somebody be a member of that.
members(Host, Group) ->
    [User || {User, Server} <- mod_shared_roster:get_group_explicit_users(Host, Group), Server == Host].

%%%===================================================================
%%% Registration by a verifier (RFC 5802, 3): the password itself never comes here
%%%===================================================================

register_scram(Host, Accounts) ->
    check_host(Host),
    check_users([User || {User, _, _, _, _, _} <- Accounts]),
    Verifiers = [{User, verifier(Host, Account)} || {User, _, _, _, _, _} = Account <- Accounts],
    [{User, register_or_set(Host, User, Scram)} || {User, Scram} <- Verifiers].

%% An account that exists is left as it is, whosever it may be.
register_members(Host, Accounts) ->
    check_host(Host),
    check_users([User || {User, _, _, _, _, _, _} <- Accounts]),
    Verifiers = [{User, Group, verifier(Host, {User, Hash, Iterations, Salt, StoredKey, ServerKey})}
                 || {User, Group, Hash, Iterations, Salt, StoredKey, ServerKey} <- Accounts],
    Results = [{User, Group, register(Host, User, Scram)} || {User, Group, Scram} <- Verifiers],
    Groups = lists:usort([Group || {_, Group, "created"} <- Results]),
    Strangers = lists:append([strangers(Host, Group, [User || {User, Of, "created"} <- Results, Of == Group])
                              || Group <- Groups]),
    [{User, case lists:member(User, Strangers) of true -> "no_member"; false -> Result end}
     || {User, _, Result} <- Results].

register(Host, User, Scram) ->
    case ejabberd_auth:try_register(User, Host, Scram) of
        ok -> "created";
        {error, Reason} -> atom_to_list(Reason)
    end.

%% Who is no member all the same.
strangers(Host, Group, Users) ->
    case add_to_rosters(Host, Group, Users) of
        {error, _, _, _} -> Users;
        Missing -> Missing
    end.

register_or_set(Host, User, Scram) ->
    case ejabberd_auth:try_register(User, Host, Scram) of
        ok -> "created";
        {error, exists} -> set(Host, User, Scram);
        {error, Reason} -> atom_to_list(Reason)
    end.

set(Host, User, Scram) ->
    case ejabberd_auth:set_password(User, Host, Scram) of
        ok -> "updated";
        {error, Reason} -> atom_to_list(Reason)
    end.

%% ejabberd offers the mechanisms of its own hash alone, so an account with another could not log in.
verifier(Host, {_, Name, Iterations, Salt, StoredKey, ServerKey}) ->
    Hash = ejabberd_option:auth_scram_hash(Host),
    Size = byte_size(crypto:hash(Hash, <<>>)),
    Name == atom_to_binary(Hash) orelse refuse("hash: the server keeps ~ts", [Hash]),
    Iterations >= ?FEWEST_ITERATIONS orelse refuse("iterations: at least ~B", [?FEWEST_ITERATIONS]),
    decoded_size("salt", Salt) > 0 orelse refuse("salt: must not be empty", []),
    [decoded_size(Field, Key) == Size orelse refuse("~ts: must be ~B bytes", [Field, Size])
     || {Field, Key} <- [{"stored_key", StoredKey}, {"server_key", ServerKey}]],
    #scram{hash = Hash, iterationcount = Iterations, salt = Salt, storedkey = StoredKey, serverkey = ServerKey}.

decoded_size(Field, Base64) ->
    try byte_size(base64:decode(Base64))
    catch _:_ -> refuse("~ts: must be base64", [Field])
    end.

%%%===================================================================
%%% The end of a tenant
%%%===================================================================

%% Without a suffix (a standalone system) accounts bear nobody's name: then only the rosters, the rooms and the queue are
%% looked at.
tenant_left(Host, Suffix, Groups) ->
    check_host(Host),
    Suffix == <<>> orelse check_suffix(Suffix),
    IsOf = fun(User) -> Suffix /= <<>> andalso bears(User, Suffix) end,
    Rosters = [Group || {Group, _} <- groups_with_opts(Host), IsOf(Group) orelse lists:member(Group, Groups)],
    Members = lists:flatmap(fun(Group) -> members(Host, Group) end, lists:usort(Rosters ++ Groups)),
    Remnants = [{Kind, lists:filter(IsOf, keys(Table, Position, Host))} || {Kind, Table, Position} <- remnants()],
    Sessions = [User || {User, _, _} <- ejabberd_sm:get_vh_session_list(Host), IsOf(User)],
    Kept = [{accounts, lists:filter(IsOf, accounts(Host, <<>>))}, {rosters, Rosters}, {sessions, Sessions},
            {rooms, lhc_bridge_rooms:rooms(Host, Suffix)},
            {waiting_messages, lhc_bridge_queue:waiting(Host, Suffix)}
            | [{Kind, case Kind of members -> lists:usort(Names ++ Members); _ -> Names end}
               || {Kind, Names} <- Remnants]],
    [{atom_to_list(Kind), length(Names), lists:sublist(lists:usort(Names), ?EXAMPLES)} || {Kind, Names} <- Kept].

forget_tenant(Host, Suffix) ->
    check_host(Host),
    Suffix == <<>> orelse check_suffix(Suffix),
    lhc_bridge_queue:drop(Host, Suffix).

%%%===================================================================
%%% Sessions
%%%===================================================================

%% ejabberd's own send_stanza_c2s sends a presence to the client, so that nobody else sees it.
present(Host, User, Resource, Nick, Status) ->
    check_host(Host),
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
    check_host(Host),
    check_users([User]),
    ejabberd_router:route(#message{type = chat, id = p1_rand:get_string(), from = jid:make(Host),
                                   to = jid:make(User, Host), body = xmpp:mk_text(Text)}).

%%%===================================================================
%%% Arguments; a refusal begins with the argument's name
%%%===================================================================

check_host(Host) ->
    lists:member(Host, ejabberd_option:hosts()) orelse refuse("host: there is no virtual host ~ts", [Host]).

check_users(Users) ->
    length(Users) =< ?MAX_NAMES orelse refuse("users: at most ~B", [?MAX_NAMES]),
    [is_local_part(User) orelse refuse("users: ~ts is not a local part", [User]) || User <- Users].

is_local_part(User) ->
    User /= <<>> andalso jid:nodeprep(User) == User.

%% With the dot: `.acme` is not the end of a name of `my-acme`.
check_suffix(<<$., Instance/binary>> = Suffix) ->
    is_local_part(Instance) orelse refuse("suffix: ~ts is not the end of a local part", [Suffix]);
check_suffix(Suffix) ->
    refuse("suffix: ~ts does not begin with a dot", [Suffix]).

check_limit(Limit) ->
    (Limit > 0 andalso Limit =< ?MAX_PAGE) orelse refuse("limit: from 1 to ~B", [?MAX_PAGE]).

refuse(Format, Values) ->
    throw({invalid_parameter, unicode:characters_to_binary(io_lib:format(Format, Values))}).
