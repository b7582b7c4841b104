%%% Who is an operator: a member of the tenant's shared roster of operators. Part of mod_lhc_bridge.
-module(lhc_bridge_operators).

-export([is_operator_of/3, is_operator_for/3, are_there/2]).

-include("lhc_bridge.hrl").

-spec is_operator_of(binary(), binary(), binary()) -> boolean().
is_operator_of(User, Tenant, Host) ->
    try
        lhc_bridge_storage:members_of(Host, lhc_bridge_names:group(<<"operators">>, Tenant, Host), [User]) /= []
    catch
        throw:{error, _} -> false % ejabberd would let the stanza pass, and calls everybody a member when SQL is away
    end.

%% Whether the account is an operator's of the visitor's tenant.
-spec is_operator_for(binary(), binary(), binary()) -> boolean().
is_operator_for(?IS_VISITOR, _Visitor, _Host) ->
    false;
is_operator_for(User, Visitor, Host) ->
    case {lhc_bridge_names:tenant(User, Host), lhc_bridge_names:tenant(Visitor, Host)} of
        {{ok, Tenant}, {ok, Tenant}} -> is_operator_of(User, Tenant, Host);
        _ -> false
    end.

%% Whether any operator of the tenant is available.
-spec are_there(binary(), binary()) -> boolean().
are_there(Tenant, Host) ->
    Operators = lhc_bridge_storage:members(Host, lhc_bridge_names:group(<<"operators">>, Tenant, Host)),
    lists:any(fun(User) -> ejabberd_sm:get_user_present_resources(User, Host) /= [] end, Operators).
