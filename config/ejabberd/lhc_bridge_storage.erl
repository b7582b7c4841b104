%%% How ejabberd stores accounts, shared rosters, rooms and what belongs to accounts: in Mnesia or in SQL, each kind as
%%% ejabberd.yml says. Nothing else of the bridge knows. Part of mod_lhc_bridge.
%%%
%%% ejabberd's own functions take a storage that fails for one that is empty: a list is `[]`, and nobody exists. Whoever
%%% asks here hears of it (`storage_away`): what cannot be read is neither there nor gone.
-module(lhc_bridge_storage).

-export([where/2, elsewhere/2, other/1, together/2]).
%% the command
-export([storages/1]).
%% what there is
-export([names/3, having/3, may_exist/2]).
%% shared rosters
-export([groups/1, opts/2, displaying/2, members/2, members_of/3, groups_of/2, groups_until_done/2, add_members/3,
         remove_members/3, leave_all/2]).
%% what belongs to accounts
-export([nicks/2, contacts/1, waiting/1, waiting/2, bytes/2]).
%% for the two storages
-export([away/2]).

-export_type([kind/0, place/0]).

-include("logger.hrl").

-type kind() :: accounts | rosters | members | rooms | vcards | offline_messages | last_activity | contacts.
-type place() :: mnesia | sql | none | {elsewhere, binary()}.

%%%===================================================================
%%% Where
%%%===================================================================

%% Each kind, and where it is kept; and what is in memory of all nodes.
-spec storages(binary()) -> [{string(), string()}].
storages(Host) ->
    lhc_bridge_commands:check_host(Host),
    Kinds = [accounts, rosters, members, rooms, vcards, offline_messages, last_activity, contacts],
    [{atom_to_list(Kind), text(where(Host, Kind))} || Kind <- Kinds]
        ++ [{"routes", atom_to_list(ejabberd_option:router_db_type())},
            {"sessions", atom_to_list(ejabberd_option:sm_db_type(Host))},
            {"running_rooms", atom_to_list(gen_mod:get_module_opt(Host, mod_muc, ram_db_type))}].

text({elsewhere, Place}) -> binary_to_list(Place);
text(Place) -> atom_to_list(Place).

%% Where it is kept, if the bridge cannot read it there.
-spec elsewhere(binary(), kind()) -> {true, binary()} | false.
elsewhere(Host, Kind) ->
    case where(Host, Kind) of
        {elsewhere, Place} -> {true, Place};
        _ -> false
    end.

%% `none`: nothing of ejabberd's keeps any.
-spec where(binary(), kind()) -> place().
where(Host, accounts) ->
    case ejabberd_auth:auth_modules(Host) -- [ejabberd_auth_decoy] of
        [ejabberd_auth_mnesia] -> mnesia;
        [ejabberd_auth_sql] -> sql;
        Others -> {elsewhere, iolist_to_binary(lists:join(", ", lists:map(fun atom_to_binary/1, Others)))}
    end;
where(Host, Kind) ->
    Module = module(Kind),
    case gen_mod:is_loaded(Host, Module) andalso gen_mod:get_module_opt(Host, Module, db_type) of
        false -> none;
        mnesia -> mnesia;
        sql -> sql;
        Other -> {elsewhere, atom_to_binary(Other)}
    end.

%% The other of the two.
-spec other(mnesia | sql) -> mnesia | sql.
other(mnesia) -> sql;
other(sql) -> mnesia.

module(rosters) -> mod_shared_roster;
module(members) -> mod_shared_roster;
module(rooms) -> mod_muc;
module(vcards) -> mod_vcard;
module(offline_messages) -> mod_offline;
module(last_activity) -> mod_last;
module(contacts) -> mod_roster.

storage(Host, Kind) ->
    case where(Host, Kind) of
        mnesia -> lhc_bridge_storage_mnesia;
        sql -> lhc_bridge_storage_sql;
        none -> none;
        {elsewhere, _} -> throw({error, storage_unknown})
    end.

%% An error of a storage, told to whoever has called a command.
-spec away(atom(), term()) -> no_return().
away(Storage, Reason) ->
    ?ERROR_MSG("~ts does not answer: ~p", [Storage, Reason]),
    throw({error, storage_away}).

%% Changes of many accounts at once. In SQL it is one transaction: each by itself would wait for the disk. It runs in another
%% process there, and may run again.
-spec together(binary(), fun(() -> Result)) -> Result.
together(Host, Work) ->
    case where(Host, accounts) of
        sql -> lhc_bridge_storage_sql:transaction(Host, Work);
        _ -> Work()
    end.

%%%===================================================================
%%% What there is
%%%===================================================================

%% Names of a kind that end in the suffix (all when it is empty): not sorted, and some more than once.
-spec names(binary(), kind(), binary()) -> [binary()].
names(Host, Kind, Suffix) ->
    case storage(Host, Kind) of
        none -> [];
        Storage -> Storage:names(Host, Kind, Suffix)
    end.

%% Those of whom something of the kind is kept.
-spec having(binary(), kind(), [binary()]) -> [binary()].
having(_Host, _Kind, []) ->
    [];
having(Host, Kind, Users) ->
    case storage(Host, Kind) of
        none -> [];
        Storage -> Storage:having(Host, Kind, Users)
    end.

%% Whether the account is there, or accounts cannot be read: for who must not take the one for the other, and cannot ask
%% later.
-spec may_exist(binary(), binary()) -> boolean().
may_exist(Host, User) ->
    try
        having(Host, accounts, [User]) /= []
    catch
        throw:{error, _} -> true
    end.

%%%===================================================================
%%% Shared rosters
%%%===================================================================

-spec groups(binary()) -> [binary()].
groups(Host) ->
    names(Host, rosters, <<>>).

-spec opts(binary(), binary()) -> {ok, [{atom(), term()}]} | error.
opts(Host, Group) ->
    (storage(Host, rosters)):opts(Host, Group).

%% The groups to whose members that one is displayed.
-spec displaying(binary(), binary()) -> [binary()].
displaying(Host, Group) ->
    (storage(Host, rosters)):displaying(Host, Group).

%% Also of a group that does not exist: ejabberd lets somebody be a member of that.
-spec members(binary(), binary()) -> [binary()].
members(Host, Group) ->
    (storage(Host, members)):members(Host, Group).

-spec members_of(binary(), binary(), [binary()]) -> [binary()].
members_of(_Host, _Group, []) ->
    [];
members_of(Host, Group, Users) ->
    (storage(Host, members)):members_of(Host, Group, Users).

-spec groups_of(binary(), [binary()]) -> [{User :: binary(), Group :: binary()}].
groups_of(_Host, []) ->
    [];
groups_of(Host, Users) ->
    (storage(Host, members)):groups_of(Host, Users).

%% In a transaction of mod_roster: nobody changes them until its end.
-spec groups_until_done(binary(), [binary()]) -> [{User :: binary(), Group :: binary()}].
groups_until_done(Host, Users) ->
    (storage(Host, members)):groups_until_done(Host, Users).

-spec add_members(binary(), binary(), [binary()]) -> ok.
add_members(_Host, _Group, []) ->
    ok;
add_members(Host, Group, Users) ->
    (storage(Host, members)):add_members(Host, Group, Users).

-spec remove_members(binary(), binary(), [binary()]) -> ok.
remove_members(_Host, _Group, []) ->
    ok;
remove_members(Host, Group, Users) ->
    (storage(Host, members)):remove_members(Host, Group, Users).

%% Of every group. Returns the memberships that were.
-spec leave_all(binary(), [binary()]) -> [{User :: binary(), Group :: binary()}].
leave_all(_Host, []) ->
    [];
leave_all(Host, Users) ->
    (storage(Host, members)):leave_all(Host, Users).

%%%===================================================================
%%% What belongs to accounts
%%%===================================================================

%% What accounts are called by their vCards, as mod_shared_roster reads them; without those who are called nothing.
-spec nicks(binary(), [binary()]) -> #{binary() => binary()}.
nicks(_Host, []) ->
    #{};
nicks(Host, Users) ->
    case storage(Host, vcards) of
        none -> #{};
        Storage -> Storage:nicks(Host, Users)
    end.

%% The key of each row of a contact of this host (mod_roster), and the contact's local part: the whole table is read.
-spec contacts(binary()) -> [{{binary(), binary(), jid:ljid()}, binary()}].
contacts(Host) ->
    case storage(Host, contacts) of
        none -> [];
        Storage -> Storage:contacts(Host)
    end.

%% Whose messages wait in offline storage, how many they are, and their bytes.
-spec waiting(binary()) -> [{User :: binary(), non_neg_integer(), non_neg_integer()}].
waiting(Host) ->
    case storage(Host, offline_messages) of
        none -> [];
        Storage -> Storage:waiting(Host)
    end.

-spec waiting(binary(), binary()) -> {non_neg_integer(), non_neg_integer()}.
waiting(Host, User) ->
    case storage(Host, offline_messages) of
        none -> {0, 0};
        Storage -> Storage:waiting(Host, User)
    end.

%% The bytes that it takes there.
-spec bytes(binary(), fxml:xmlel()) -> non_neg_integer().
bytes(Host, Packet) ->
    case storage(Host, offline_messages) of
        none -> 0;
        Storage -> Storage:bytes(Packet)
    end.
