%%% Who may log in. Part of mod_lhc_bridge.
-module(lhc_bridge_logins).

%% for mod_lhc_bridge
-export([hooks/1]).
%% hook
-export([auth_result/3]).

-include_lib("xmpp/include/xmpp.hrl").

%% Before everything else that hears of logins (100).
-define(AUTH_PRIORITY, 40).

-spec hooks(binary()) -> [{atom(), binary(), module(), atom(), integer()}].
hooks(Host) ->
    [{c2s_auth_result, Host, ?MODULE, auth_result, ?AUTH_PRIORITY}].

%% A name that is no tenant's is nobody's, whatever account there may be. The client has not been told of its success yet.
-spec auth_result(ejabberd_c2s:state(), true | {false, binary()}, binary()) ->
          ejabberd_c2s:state() | {stop, ejabberd_c2s:state()}.
auth_result(#{lserver := Host} = C2S, true, User) ->
    case mod_lhc_bridge:tenant(jid:nodeprep(User), Host) of
        {ok, _} -> C2S;
        none -> {stop, ejabberd_c2s:send(C2S, xmpp:serr_not_authorized())}
    end;
auth_result(C2S, {false, _Reason}, _User) ->
    C2S.
