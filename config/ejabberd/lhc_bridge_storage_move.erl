%%% Moves all that ejabberd keeps from Mnesia into SQL, or back: an admin command. Part of mod_lhc_bridge.
%%%
%%% Nobody is let in any more until ejabberd starts again, so nothing changes meanwhile, and the storage that is in use is only
%%% read. Each kind is read and written by ejabberd's own modules of the two storages, and compared in the end. A move that has
%%% failed leaves the old storage in use, and what it has written is removed when the next one begins.
-module(lhc_bridge_storage_move).

%% for mod_lhc_bridge
-export([commands/0]).
%% the command
-export([move/1]).
%% for the gate of the admin API
-export([is_under_way/0]).

-include("logger.hrl").
-include("mod_roster.hrl").

%% Units that are written in one transaction of SQL.
-define(AT_ONCE, 100).
%% Milliseconds for connections to end.
-define(ENDS_WITHIN, 30000).
%% They keep something that is not moved.
-define(NOT_MOVED, [mod_mam, mod_private, mod_privacy, mod_pubsub, mod_push]).

-spec commands() -> [lhc_bridge_commands:command()].
commands() ->
    [lhc_bridge_commands:declare(?MODULE, lhc_move_storage, move,
                                 "Move everything into the other storage (sql or mnesia); how many of each kind",
                                 [{storage, binary}],
                                 {moved, {list, {kind, {tuple, [{kind, string}, {count, integer}]}}}})].

kinds() ->
    [accounts, rosters, members, vcards, last_activity, contacts, rooms, offline_messages].

%% Since a move has begun, until ejabberd ends.
-spec is_under_way() -> boolean().
is_under_way() ->
    persistent_term:get(?MODULE, false).

%% Answers when it is on disk. ejabberd is to be started with the other storage then.
-spec move(binary()) -> [{string(), non_neg_integer()}].
move(Storage) ->
    Target = target(Storage),
    Hosts = ejabberd_option:hosts(),
    case global:set_lock({?MODULE, self()}, [node()], 0) of
        false -> refuse("a move is under way", []);
        true ->
            try locked(Hosts, Target)
            after global:del_lock({?MODULE, self()}, [node()])
            end
    end.

target(<<"sql">>) -> sql;
target(<<"mnesia">>) -> mnesia;
target(Other) -> refuse("there is no storage ~ts: sql or mnesia", [Other]).

locked(Hosts, Target) ->
    lists:foreach(fun(Host) -> check(Host, Target) end, Hosts),
    length(lhc_bridge_cluster:running()) == 1 orelse refuse("several nodes run: let one of them run alone", []),
    close_doors(Hosts),
    lists:foreach(fun(Host) -> make_room(Host, Target) end, Hosts),
    ok = lhc_bridge_storage_used:begin_move(Hosts, Target),
    lists:foreach(fun(Host) -> (side(Target)):empty(Host) end, Hosts),
    Moved = [{Kind, lists:sum([move(Host, Kind, Target) || Host <- Hosts])} || Kind <- kinds()],
    (side(Target)):keep(),
    ok = lhc_bridge_storage_used:finish_move(Hosts, Target),
    ?WARNING_MSG("Everything was moved into ~ts: start ejabberd with that", [Target]),
    [{atom_to_list(Kind), Count} || {Kind, Count} <- Moved].

side(mnesia) -> lhc_bridge_storage_move_mnesia;
side(sql) -> lhc_bridge_storage_move_sql.

-spec refuse(io:format(), [term()]) -> no_return().
refuse(Format, Values) ->
    throw({error, unicode:characters_to_binary(["not moved: ", io_lib:format(Format, Values)])}).

%%%===================================================================
%%% Before
%%%===================================================================

check(Host, Target) ->
    Source = lhc_bridge_storage:other(Target),
    Places = lists:usort([lhc_bridge_storage:where(Host, Kind) || Kind <- kinds()]) -- [none],
    Places == [Source] orelse refuse("~ts does not keep everything in ~ts", [Host, Source]),
    lhc_bridge_storage_used:used(Host) == Source orelse refuse("~ts was moved: start ejabberd with ~ts", [Host, Target]),
    case [Module || Module <- ?NOT_MOVED, gen_mod:is_loaded(Host, Module)] of
        [] -> ok;
        Others -> refuse("~ts has ~ts, whose data would stay behind: without them in ejabberd.yml it goes",
                         [Host, lists:join(", ", lists:map(fun atom_to_list/1, Others))])
    end.

%% Nobody comes in but by the admin API, and who is in is sent away. What clients have not confirmed is stored then.
close_doors(Hosts) ->
    persistent_term:put(?MODULE, true),
    [ejabberd_listener:delete_listener(EndPoint, Module)
     || {EndPoint, Module, Opts} <- ejabberd_option:listen(), not is_admin_api(Module, Opts)],
    Components = lists:usort(lists:flatmap(fun lhc_bridge_component:connections/1, Hosts)),
    Sessions = ejabberd_sm:get_all_pids(),
    Ending = [erlang:monitor(process, Pid) || Pid <- Components ++ Sessions],
    lists:foreach(fun(Pid) -> exit(Pid, shutdown) end, Components),
    lists:foreach(fun ejabberd_c2s:stop_async/1, Sessions),
    lhc_bridge_commands:await_end(Ending, erlang:monotonic_time(millisecond) + ?ENDS_WITHIN).

is_admin_api(ejabberd_http, #{request_handlers := Handlers}) -> lists:keymember(lhc_bridge_api, 2, Handlers);
is_admin_api(_, _) -> false.

%% What is there and was not left by a move is somebody's.
make_room(Host, Target) ->
    told(Host, Target, fun() -> (side(Target)):open(Host) end),
    lhc_bridge_storage_used:left(Host) == Target orelse is_empty(Host, Target)
        orelse refuse("~ts is not empty: it holds something of ~ts", [Target, Host]).

is_empty(Host, Side) ->
    told(Host, Side, fun() -> lists:all(fun(Kind) -> (side(Side)):identities(Host, Kind) == [] end, kinds()) end).

%%%===================================================================
%%% Moving
%%%===================================================================

%% How many there are, in both when this returns.
move(Host, Kind, Target) ->
    Source = lhc_bridge_storage:other(Target),
    There = told(Host, Kind, fun() -> (side(Source)):identities(Host, Kind) end),
    in_parts(units(Kind, There), fun(Units) -> told(Host, Kind, fun() -> write(Host, Kind, Units, Target) end) end),
    Here = told(Host, Kind, fun() -> (side(Target)):identities(Host, Kind) end),
    Still = told(Host, Kind, fun() -> (side(Source)):identities(Host, Kind) end),
    Here == There andalso Still == There
        orelse refuse("~ts of ~ts: ~B of ~B were moved", [Kind, Host, length(Here), length(There)]),
    count(Kind, There).

%% What is read and written together: a room, all contacts of somebody, all messages that wait for somebody.
units(contacts, Identities) -> lists:usort([User || {User, _} <- Identities]);
units(offline_messages, Identities) -> [User || {User, _} <- Identities];
units(_, Identities) -> Identities.

count(offline_messages, Identities) -> lists:sum([Count || {_, Count} <- Identities]);
count(_, Identities) -> length(Identities).

in_parts([], _) ->
    ok;
in_parts(Units, Move) ->
    {Part, Rest} = lists:split(min(?AT_ONCE, length(Units)), Units),
    Move(Part),
    in_parts(Rest, Move).

%% Read before the transaction begins: what fails in one ends a connection of ejabberd's.
write(Host, Kind, Units, Target) ->
    Source = lhc_bridge_storage:other(Target),
    Writing = [reader(Kind, Source, Target, Host, Unit) || Unit <- Units],
    together(Target, Host, fun() -> lists:foreach(fun(Write) -> Write() end, Writing) end).

together(mnesia, _Host, Work) ->
    Work();
together(sql, Host, Work) ->
    {atomic, ok} = ejabberd_sql:sql_transaction(Host, fun() -> try Work() catch _:_ -> ejabberd_sql:abort(not_written) end end),
    ok.

%% Reads a unit; what it returns writes it.
reader(accounts, Source, Target, Host, User) ->
    {_, {ok, Password}} = (of_module(ejabberd_auth, Source)):get_password(User, Host),
    Module = of_module(ejabberd_auth, Target),
    fun() when is_list(Password) -> {cache, {ok, _}} = Module:set_password_multiple(User, Host, Password); % since 25.03
       () -> {cache, {ok, _}} = Module:set_password(User, Host, Password)
    end;
reader(rosters, Source, Target, Host, Group) ->
    {ok, Opts} = (of_module(mod_shared_roster, Source)):get_group_opts(Host, Group),
    fun() -> {atomic, _} = (of_module(mod_shared_roster, Target)):create_group(Host, Group, Opts) end;
reader(members, _Source, Target, Host, {Group, User, Server}) ->
    fun() -> {_, _} = (of_module(mod_shared_roster, Target)):add_user_to_group(Host, {User, Server}, Group) end;
reader(vcards, Source, Target, Host, User) ->
    {ok, [VCard]} = (of_module(mod_vcard, Source)):get_vcard(User, Host),
    Search = mod_vcard:make_vcard_search(User, User, Host, VCard),
    fun() -> {atomic, _} = (of_module(mod_vcard, Target)):set_vcard(User, Host, VCard, Search) end;
reader(last_activity, Source, Target, Host, User) ->
    {ok, {At, Status}} = (of_module(mod_last, Source)):get_last(User, Host),
    fun() -> ok = (of_module(mod_last, Target)):store_last_info(User, Host, At, Status) end;
reader(contacts, Source, Target, Host, User) ->
    {ok, Items} = (of_module(mod_roster, Source)):get_roster(User, Host),
    Module = of_module(mod_roster, Target),
    Write = fun(#roster{usj = {_, _, JID}} = Item) -> Module:update_roster(User, Host, JID, Item) end,
    fun() -> {atomic, ok} = Module:transaction(Host, fun() -> lists:foreach(Write, Items) end) end;
reader(rooms, Source, Target, Host, Room) ->
    Service = lhc_bridge_options:room_service(Host),
    [_ | _] = Opts = (of_module(mod_muc, Source)):restore_room(Host, Service, Room),
    fun() -> {atomic, _} = (of_module(mod_muc, Target)):store_room(Host, Service, Room, Opts, undefined) end;
reader(offline_messages, Source, Target, Host, User) ->
    Messages = (side(Source)):messages(Host, User),
    Module = of_module(mod_offline, Target),
    fun() -> lists:foreach(fun(Message) -> ok = Module:store_message(Message) end, Messages) end.

of_module(Module, Place) ->
    gen_mod:db_mod(Place, Module).

%% What goes wrong, without what people have written.
told(Host, What, Work) ->
    try Work()
    catch
        throw:{error, Reason} when is_binary(Reason) -> throw({error, Reason});
        throw:{error, storage_away} -> throw({error, storage_away});
        Class:Reason:Stack ->
            ?ERROR_MSG("Moving ~ts of ~ts failed: ~ts ~ts at ~p", [What, Host, Class, name(Reason), [where(Call) || Call <- Stack]]),
            refuse("~ts of ~ts failed, as ejabberd's log says", [What, Host])
    end.

name(Reason) when is_atom(Reason) -> Reason;
name(Reason) when is_tuple(Reason), is_atom(element(1, Reason)) -> element(1, Reason);
name(_) -> other.

where({Module, Function, Arguments, _}) when is_list(Arguments) -> {Module, Function, length(Arguments)};
where({Module, Function, Arity, _}) -> {Module, Function, Arity}.
