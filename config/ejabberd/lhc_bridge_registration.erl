%%% Registers accounts by a verifier (RFC 5802, 3): the password itself never comes here. Part of mod_lhc_bridge.
-module(lhc_bridge_registration).

%% for lhc_bridge_moving
-export([install/3]).
%% the commands
-export([register_scram/2, register_members/2]).

-include_lib("xmpp/include/scram.hrl").

%% ejabberd's own count. Fewer make a stolen verifier worth trying out.
-define(FEWEST_ITERATIONS, 4096).

-type account() :: {User :: binary(), Hash :: binary(), Iterations :: integer(), Salt :: binary(), StoredKey :: binary(),
                    ServerKey :: binary()}.
-type member() :: {User :: binary(), Group :: binary(), Nick :: binary(), Hash :: binary(), Iterations :: integer(), Salt :: binary(),
                   StoredKey :: binary(), ServerKey :: binary()}.

%% An account that exists gets the new verifier.
-spec register_scram(binary(), [account()]) -> [{binary(), string()}].
register_scram(Host, Accounts) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_users([User || {User, _, _, _, _, _} <- Accounts]),
    Verifiers = [{User, verifier(Host, Account)} || {User, _, _, _, _, _} = Account <- Accounts],
    together(Host, fun() -> [{User, install(Host, User, Scram)} || {User, Scram} <- Verifiers] end).

%% An account that exists is left as it is, whosever it may be. A nick is the name of the contact; empty if there is none.
-spec register_members(binary(), [member()]) -> [{binary(), string()}].
register_members(Host, Accounts) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_users([User || {User, _, _, _, _, _, _, _} <- Accounts]),
    Verifiers = [{User, Group, Nick, verifier(Host, {User, Hash, Iterations, Salt, StoredKey, ServerKey})}
                 || {User, Group, Nick, Hash, Iterations, Salt, StoredKey, ServerKey} <- Accounts],
    Results = together(Host, fun() -> [{User, register(Host, User, Nick, Scram)} || {User, _, Nick, Scram} <- Verifiers] end),
    Created = [{Group, User} || {{User, "created"}, {_, Group, _, _}} <- lists:zip(Results, Verifiers)],
    Strangers = lists:append([strangers(Host, Group, [User || {Of, User} <- Created, Of == Group])
                              || Group <- lists:usort([Group || {Group, _} <- Created])]),
    [{User, case lists:member(User, Strangers) of true -> "no_member"; false -> Result end} || {User, Result} <- Results].

%% All or none of them, when one is made by somebody else at this moment: then each by itself.
together(Host, Register) ->
    try
        checked(Host, lhc_bridge_storage:together(Host, Register))
    catch
        throw:{error, storage_away} -> checked(Host, Register())
    end.

%% ejabberd takes a storage that fails for an account that is there, or for one that is not; and a transaction that has
%% failed in the middle may end as if it had not. So it is looked at what is there.
checked(Host, Results) ->
    Claimed = [User || {User, Result} <- Results, lists:member(Result, ["created", "updated", "exists"])],
    There = lhc_bridge_storage:having(Host, accounts, Claimed),
    case [User || User <- Claimed, not lists:member(User, There)] of
        [] -> Results;
        Missing -> lhc_bridge_storage:away(accounts, {missing, length(Missing)})
    end.

register(Host, User, Nick, Scram) ->
    case ejabberd_auth:try_register(User, Host, Scram) of
        ok ->
            lhc_bridge_nicks:write(Host, User, Nick), % before it is a contact, which is pushed with the name
            "created";
        {error, Reason} -> atom_to_list(Reason)
    end.

%% Who is no member all the same.
strangers(Host, Group, Users) ->
    case lhc_bridge_rosters:add_members(Host, Group, Users) of
        {error, _, _, _} -> Users;
        Missing -> Missing
    end.

%% Makes the account, or sets its password.
-spec install(binary(), binary(), #scram{} | binary()) -> string().
install(Host, User, Scram) ->
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
    Name == atom_to_binary(Hash) orelse lhc_bridge_commands:refuse("hash: the server keeps ~ts", [Hash]),
    Iterations >= ?FEWEST_ITERATIONS orelse lhc_bridge_commands:refuse("iterations: at least ~B", [?FEWEST_ITERATIONS]),
    decoded_size("salt", Salt) > 0 orelse lhc_bridge_commands:refuse("salt: must not be empty", []),
    check_key("stored_key", StoredKey, Size),
    check_key("server_key", ServerKey, Size),
    #scram{hash = Hash, iterationcount = Iterations, salt = Salt, storedkey = StoredKey, serverkey = ServerKey}.

check_key(Field, Key, Size) ->
    decoded_size(Field, Key) == Size orelse lhc_bridge_commands:refuse("~ts: must be ~B bytes", [Field, Size]).

decoded_size(Field, Base64) ->
    try byte_size(base64:decode(Base64))
    catch _:_ -> lhc_bridge_commands:refuse("~ts: must be base64", [Field])
    end.
