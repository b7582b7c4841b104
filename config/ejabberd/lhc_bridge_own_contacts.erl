%%% The rows that operators have of their own (mod_roster) of contacts that a shared roster gives them: a row is made when
%%% an operator renames or groups a contact. mod_roster would show it for ever, so it has to go with the contact. Part of
%%% mod_lhc_bridge.
-module(lhc_bridge_own_contacts).

%% for the bridge
-export([of_operator/2, rename/5, forget/2]).
%% the commands
-export([strays/4, forget_strays/2]).

-include("mod_roster.hrl").

%%%===================================================================
%%% For the bridge
%%%===================================================================

%% By the contacts' local parts.
-spec of_operator(binary(), binary()) -> #{binary() => #roster{}}.
of_operator(Host, Operator) ->
    maps:from_list([{User, Row} || #roster{jid = {User, Server, _}} = Row <- mod_roster:get_roster(Operator, Host),
                                   Server == Host]).

%% The contact is called otherwise, and so is the row, unless the operator has given it another name.
-spec rename(binary(), binary(), binary(), binary(), binary()) -> ok.
rename(Host, Operator, Contact, Former, Name) ->
    case of_operator(Host, Operator) of
        #{Contact := #roster{name = Former} = Row} when Former /= <<>> ->
            {atomic, _} = mod_roster:set_roster(Row#roster{name = Name}),
            ok;
        _ ->
            ok
    end.

%% Accounts that go. Their contacts are the operators of their tenants: ejabberd keeps no list of who has whom.
-spec forget(binary(), [binary()]) -> ok.
forget(Host, Users) ->
    Gone = maps:from_keys(Users, gone),
    Tenants = lists:usort([Tenant || User <- Users, {ok, Tenant} <- [lhc_bridge_names:tenant(User, Host)]]),
    Groups = [lhc_bridge_names:group(<<"operators">>, Tenant, Host) || Tenant <- Tenants],
    Operators = [Operator || Group <- Groups, Operator <- lhc_bridge_storage:members(Host, Group)],
    Rows = [Row || Operator <- Operators, #roster{jid = {User, Server, _}} = Row <- mod_roster:get_roster(Operator, Host),
                   Server == Host, is_map_key(User, Gone)],
    lists:foreach(fun(#roster{usj = Key}) -> delete(Key) end, Rows).

delete({Operator, Host, JID}) ->
    {atomic, _} = mod_roster:del_roster(Operator, Host, JID).

%%%===================================================================
%%% The commands
%%%===================================================================

%% Contacts of anybody's own whose account is gone: a page of their names.
-spec strays(binary(), binary(), binary(), integer()) -> [binary()].
strays(Host, Suffix, After, Limit) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_suffix_or_all(Suffix),
    Contacts = lists:usort(lhc_bridge_hidden:visitors(Host) ++ [Contact || {_, Contact} <- lhc_bridge_storage:contacts(Host)]),
    Ours = [Contact || Contact <- Contacts, lhc_bridge_names:bears(Contact, Suffix)],
    lhc_bridge_commands:page(without_account(Host, Ours), After, Limit).

%% Removes those whose account is gone from everybody's contacts. Returns the others, whose account is there.
-spec forget_strays(binary(), [binary()]) -> [binary()].
forget_strays(Host, Users) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_commands:check_users(Users),
    Gone = without_account(Host, Users),
    Names = maps:from_keys(Gone, gone),
    lists:foreach(fun delete/1, [Key || {Key, Contact} <- lhc_bridge_storage:contacts(Host), is_map_key(Contact, Names)]),
    lists:foreach(fun(User) -> lhc_bridge_hidden:forget(Host, User) end, Gone),
    Users -- Gone.

without_account(Host, Users) ->
    There = maps:from_keys(lhc_bridge_storage:having(Host, accounts, Users), there),
    [User || User <- Users, not is_map_key(User, There)].
