%%% What visitors are called: the nick is the name of the contact, and stands in the vCard. Part of mod_lhc_bridge.
%%%
%%% Clients go by the name in their roster, and many know no other (XEP-0172). So it follows the nick, also while operators
%%% are online. An operator's own name for a contact stays; one that was the nick, sent along with a group, follows as well.
-module(lhc_bridge_nicks).

%% for the bridge
-export([set/3, write/3, said/2]).
%% the command
-export([set_all/2]).

-include_lib("xmpp/include/xmpp.hrl").

%% Who says so has not said a name (tenants/core/text.py). It takes none away: LHC says it of one who has a name, too.
-define(NO_NAME, <<"Online visitor">>).
%% Characters.
-define(LONGEST, 200).

%% Returns those who were called otherwise.
-spec set_all(binary(), [{binary(), binary()}]) -> [binary()].
set_all(Host, Nicks) ->
    lhc_bridge_commands:check_host(Host),
    Users = [User || {User, _} <- Nicks],
    lhc_bridge_commands:check_users(Users),
    Formers = lhc_bridge_storage:nicks(Host, Users),
    [User || {User, Nick} <- Nicks, set(Host, User, maps:get(User, Formers, <<>>), Nick)].

%% Whether that is news. An account that is gone is called nothing.
-spec set(binary(), binary(), binary()) -> boolean().
set(Host, User, Nick) ->
    set(Host, User, lhc_bridge_rosters:name_of(jid:make(User, Host)), Nick).

set(_Host, _User, Nick, Nick) ->
    false;
set(Host, User, Former, Nick) ->
    is_name(Nick) andalso ejabberd_auth:user_exists(User, Host) andalso write(Host, User, Nick)
        andalso tell(Host, User, Former, Nick).

is_name(Nick) ->
    Nick /= <<>> andalso Nick /= ?NO_NAME.

%% In the vCard alone: nobody has the account as a contact yet. Whether there are vCards here.
-spec write(binary(), binary(), binary()) -> boolean().
write(Host, User, Nick) ->
    is_name(Nick) andalso gen_mod:is_loaded(Host, mod_vcard)
        andalso ok == mod_vcard:set_vcard(User, Host, #vcard_temp{fn = Nick, nickname = Nick}).

tell(Host, User, Former, Nick) ->
    case lhc_bridge_names:tenant(User, Host) of
        {ok, Tenant} ->
            Operators = lhc_bridge_storage:members(Host, lhc_bridge_names:group(<<"operators">>, Tenant, Host)),
            lists:foreach(fun(Operator) ->
                                  lhc_bridge_own_contacts:rename(Host, Operator, User, Former, Nick),
                                  lhc_bridge_rosters:push_contact(Host, Operator, User)
                          end, Operators -- [User]);
        none ->
            ok
    end,
    true.

%% A visitor's browser may say what it likes, as long as it is a name.
-spec said(jid:jid(), presence()) -> ok.
said(#jid{luser = User, lserver = Host}, Presence) ->
    case xmpp:get_subtag(Presence, #nick{}) of
        #nick{name = Nick} when is_binary(Nick) -> set(Host, User, string:slice(Nick, 0, ?LONGEST));
        _ -> none
    end,
    ok.
