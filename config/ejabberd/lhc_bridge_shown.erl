%%% Which visitors the component shows to operators as online, as its presence to them says. Part of mod_lhc_bridge.
%%%
%%% In memory, of this node. When no operator of a tenant is there, nobody is shown anybody: the component sends nothing
%%% then, and shows all visitors anew to the next who comes.
-module(lhc_bridge_shown).

%% for mod_lhc_bridge and its helpers
-export([create_table/0, hooks/1, note/1, is_shown/2]).
%% hooks
-export([unset_presence/4, remove_user/2]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

-define(TABLE, ?MODULE).

%% Rows: {{Host, Tenant, Visitor}}.
-spec create_table() -> ok.
create_table() ->
    lhc_bridge_tables:create(?TABLE, [ordered_set]).

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{unset_presence_hook, Host, ?MODULE, unset_presence, 70},
     {remove_user, Host, ?MODULE, remove_user, 60}].

%% A visitor's presence for an operator.
-spec note(presence()) -> ok.
note(#presence{type = Type, from = #jid{luser = Visitor, lserver = Host, lresource = ?VIRTUAL}}) ->
    case lhc_bridge_names:tenant(Visitor, Host) of
        {ok, Tenant} when Type == available -> ets:insert(?TABLE, {{Host, Tenant, Visitor}});
        {ok, Tenant} when Type == unavailable -> ets:delete(?TABLE, {Host, Tenant, Visitor});
        _ -> none
    end,
    ok;
note(_OfABrowser) ->
    ok.

-spec is_shown(binary(), binary()) -> boolean().
is_shown(Host, Visitor) ->
    case lhc_bridge_names:tenant(Visitor, Host) of
        {ok, Tenant} -> ets:member(?TABLE, {Host, Tenant, Visitor});
        none -> false
    end.

-spec unset_presence(binary(), binary(), binary(), binary()) -> ok.
unset_presence(?IS_VISITOR, _Host, _Resource, _Status) ->
    ok;
unset_presence(User, Host, _Resource, _Status) ->
    case lhc_bridge_names:tenant(User, Host) of
        {ok, Tenant} ->
            lhc_bridge_operators:are_there(Tenant, Host)
                orelse ets:select_delete(?TABLE, [{{{Host, Tenant, '_'}}, [], [true]}]);
        none ->
            none
    end,
    ok.

-spec remove_user(binary(), binary()) -> ok.
remove_user(?IS_VISITOR = User, Host) ->
    case lhc_bridge_names:tenant(User, Host) of
        {ok, Tenant} -> ets:delete(?TABLE, {Host, Tenant, User});
        none -> none
    end,
    ok;
remove_user(_Operator, _Host) ->
    ok.
