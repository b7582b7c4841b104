%%% Is asked before the module that has the accounts, and answers two kinds of logins in its stead. Part of mod_lhc_bridge; in
%%% ejabberd.yml: `auth_method: [decoy, internal]`.
%%%
%%% Logins to accounts that do not exist, so that nobody can tell them from those that do. With SCRAM (RFC 5802) the server
%%% says an account's salt and only then is told of a password. ejabberd has none to say for an account that does not exist,
%%% and fails at once: whoever asks for all names learns which ones exist. So there is a salt for each name, always the same
%%% one as that of a real account is, and a verifier that no password fits. With PLAIN the password is compared with that as
%%% well, which takes as long as with a real one.
%%%
%%% Logins by PLAIN that name another account beside the one whose password is given. ejabberd before 26.07 opens the other
%%% one when the password is right. lhc_bridge_identity refuses them before ejabberd reads them; this wall holds without it.
%%% ejabberd tells both names to an authentication module that keeps its accounts elsewhere (`external`) and to no other, so
%%% this one says that it does, for that question alone: whoever else asks would believe that there is no SCRAM.
-module(ejabberd_auth_decoy).

%% authentication module of ejabberd (tried on 23.01)
-export([start/1, stop/1, plain_password_required/1, store_type/1, use_cache/1]).
-export([get_password/2, check_password/4, remove_user/2]).

-include_lib("xmpp/include/scram.hrl").

-define(SALT_LENGTH, 16). % ejabberd's own, and that of tenants/core/scram.py
-define(ITERATIONS, 4096). % likewise

-spec start(binary()) -> ok.
start(Host) ->
    lhc_bridge_sql_tables:make(Host). % script/up has made them already

-spec stop(binary()) -> ok.
stop(_Host) -> ok.

-spec plain_password_required(binary()) -> boolean().
plain_password_required(_Host) -> false.

%% Comes right after get_password when a password is to be checked.
-spec store_type(binary()) -> scram | external.
store_type(_Host) ->
    case erase(?MODULE) of
        names -> external;
        undefined -> scram
    end.

-spec use_cache(binary()) -> boolean().
use_cache(_Host) -> false.

-spec remove_user(binary(), binary()) -> ok.
remove_user(_User, _Host) -> ok.

-spec get_password(binary(), binary()) -> {nocache, {ok, #scram{}} | error}.
get_password(User, Host) ->
    %% the mark is gone when the other methods are asked
    Mechanism = lhc_bridge_logins:take_mark(),
    case Mechanism == none orelse is_account(User, Host) of
        true ->
            Mechanism == <<"PLAIN">> andalso put(?MODULE, names),
            {nocache, error};
        false ->
            {nocache, {ok, decoy(User, Host)}}
    end.

%% The password is looked at by the next module, when only one account is named.
-spec check_password(binary(), binary(), binary(), binary()) -> {nocache, false | {stop, false}}.
check_password(User, Wanted, _Host, _Password) when Wanted == User; Wanted == <<>> -> {nocache, false};
check_password(_User, _Wanted, _Host, _Password) -> {nocache, {stop, false}}.

is_account(User, Host) ->
    lhc_bridge_logins:may_log_in(User, Host) andalso ejabberd_auth:user_exists(User, Host).

decoy(User, Host) ->
    Hash = ejabberd_option:auth_scram_hash(Host),
    Secret = lhc_bridge_options:get(Host, api_secret),
    Size = byte_size(crypto:hash(Hash, <<>>)),
    [Salt, StoredKey, ServerKey] =
        [base64:encode(binary:part(crypto:mac(hmac, sha512, Secret, [What, 0, User, 0, Host]), 0, Length))
         || {What, Length} <- [{"salt", ?SALT_LENGTH}, {"stored key", Size}, {"server key", Size}]],
    #scram{hash = Hash, iterationcount = ?ITERATIONS, salt = Salt, storedkey = StoredKey, serverkey = ServerKey}.
