%%% A password opens its own account and no other.
%%%
%%% A client may name two accounts when it logs in (RFC 4422, 3.4.1): the one whose password it has, and the one that it
%%% wants to be. Here nobody is anybody else, so the second must be left out or be the first. ejabberd before 26.07 does not
%%% compare them: with PLAIN and X-OAUTH2 the second becomes the user of the session, whoever's the password was.
%%%
%%% Three walls, each of which holds alone: the client's message is read before ejabberd reads it; what ejabberd made of it
%%% is compared with what was read there; and so is the user of the session that is opened. What cannot be read opens
%%% nothing, so a mechanism that is unknown here (EXTERNAL, ANONYMOUS, DIGEST-MD5, tokens) lets nobody in. A fourth wall is
%%% ejabberd_auth_decoy.
%%%
%%% And a password that is sent as it is (PLAIN) is taken from nobody whose connection to ejabberd is not encrypted. ejabberd
%%% offers PLAIN there all the same: what it offers depends on the host, not on the connection.
%%%
%%% By the hooks of the virtual host, so for every listener of clients, /ws included. Tried on 23.01, 24.12 and 26.07.
-module(lhc_bridge_identity).

%% for mod_lhc_bridge
-export([hooks/1]).
%% hooks
-export([read_login/3, check_result/3, check_session/1]).

-include("logger.hrl").
-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Before any other module counts or answers what it sees.
-define(PRIORITY, 10).
%% In the state of a connection: whose password was offered last, in a message that names nobody else.
-define(OWN, lhc_bridge_identity).
-define(OWN_ALONE, <<"A password opens its own account and no other">>).
%% Mechanisms in which the password or the token itself is sent.
-define(SENDS_SECRET(Mech), (Mech == <<"PLAIN">> orelse Mech == <<"X-OAUTH2">>)).

-type state() :: ejabberd_c2s:state().
-type failure() :: fun((atom()) -> tuple()).

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{c2s_handle_recv, Host, ?MODULE, read_login, ?PRIORITY},
     {c2s_auth_result, Host, ?MODULE, check_result, ?PRIORITY},
     {c2s_session_opened, Host, ?MODULE, check_session, ?PRIORITY}].

%%%===================================================================
%%% Three walls
%%%===================================================================

-spec read_login(state(), term(), term()) -> state() | {stop, state()}.
read_login(State, _El, Stanza) ->
    case login(Stanza) of
        {Mech, Text, Failure} -> note(Mech, Text, Failure, State);
        none -> State
    end.

-spec check_result(state(), true | {false, binary()}, binary()) -> state() | {stop, state()}.
check_result(State, true, User) ->
    check(User, State);
check_result(State, _Failed, _User) ->
    State.

-spec check_session(state()) -> state() | {stop, state()}.
check_session(#{user := User} = State) ->
    check(User, State).

-spec note(binary(), binary() | undefined, failure(), state()) -> state() | {stop, state()}.
note(Mech, Text, Failure, #{lserver := Host} = State) ->
    Named = try own_account(read(Mech, Text), Host)
            catch _:_ -> {error, 'malformed-request'} % else the hook is skipped, and an older note would stand
            end,
    case Named of
        {ok, User} -> note_own(User, Mech, Failure, State);
        unknown_mechanism -> maps:remove(?OWN, State); % ejabberd refuses it if it does not know it either
        {error, Reason} -> refuse(Reason, ?OWN_ALONE, Failure, State)
    end.

-spec note_own(binary(), binary(), failure(), state()) -> state() | {stop, state()}.
note_own(_User, Mech, Failure, #{stream_encrypted := false} = State) when ?SENDS_SECRET(Mech) ->
    refuse('encryption-required', <<"A password is sent over TLS alone">>, Failure, State); % RFC 6120, 6.5.4
note_own(User, _Mech, _Failure, State) ->
    State#{?OWN => User}.

-spec check(binary(), state()) -> state() | {stop, state()}.
check(User, State) ->
    %% what cannot be prepared is `error`, which equals no name
    case jid:nodeprep(User) == maps:get(?OWN, State, none) of
        true -> State;
        false -> close('invalid-authzid', ?OWN_ALONE, State)
    end.

-spec refuse(atom(), binary(), failure(), state()) -> {stop, state()}.
refuse(Reason, Text, Failure, State) ->
    close(Reason, Text, xmpp_stream_in:send(State, Failure(Reason))).

%% Nothing was guessed, as no password was looked at: so it does not count as a failed login. But it is an attack, or a
%% client that cannot work here. A stream that was closed is handled no further (xmpp_stream_in).
-spec close(atom(), binary(), state()) -> {stop, state()}.
close(Reason, Text, #{lang := Lang, ip := IP} = State) ->
    ?WARNING_MSG("Refused a login from ~ts: ~ts", [ejabberd_config:may_hide_data(misc:ip_to_list(IP)), Reason]),
    {stop, xmpp_stream_in:send(maps:remove(?OWN, State), xmpp:serr_not_authorized(Text, Lang))}.

%%%===================================================================
%%% What a client says
%%%===================================================================

%% A message that begins a login: mechanism, what the client says in it, and how it is refused.
-spec login(term()) -> {binary(), binary() | undefined, failure()} | none.
login(#sasl_auth{mechanism = Mech, text = Text}) ->
    {Mech, Text, fun(Reason) -> #sasl_failure{reason = Reason} end};
%% SASL2 (XEP-0388), since 24.02: by position, as 23.01 does not know the record. Another order would be read as nonsense,
%% and refused.
login(Stanza) when element(1, Stanza) == sasl2_authenticate ->
    {element(2, Stanza), element(3, Stanza), fun sasl2_failure/1};
login(_Other) ->
    none.

sasl2_failure(Reason) ->
    Condition = #xmlel{name = atom_to_binary(Reason), attrs = [{<<"xmlns">>, ?NS_SASL}]},
    #xmlel{name = <<"failure">>, attrs = [{<<"xmlns">>, <<"urn:xmpp:sasl:2">>}], children = [Condition]}.

%% The account whose password is offered, when it is the only one that is named.
-spec own_account({binary(), binary()} | error | unknown_mechanism, binary()) ->
          {ok, binary()} | {error, atom()} | unknown_mechanism.
own_account({Authenticated, Wanted}, Host) ->
    case {account(Authenticated, Host), Wanted} of
        {error, _} ->
            {error, 'malformed-request'};
        {User, <<>>} ->
            {ok, User};
        {User, _} ->
            case account(Wanted, Host) of
                User -> {ok, User};
                _ -> {error, 'invalid-authzid'}
            end
    end;
own_account(error, _Host) ->
    {error, 'malformed-request'};
own_account(unknown_mechanism, _Host) ->
    unknown_mechanism.

%% The local part, prepared, of a name or a bare JID of our host.
-spec account(binary(), binary()) -> binary() | error.
account(Name, Host) ->
    {Local, Domain} = case binary:split(Name, <<"@">>) of
                          [Alone] -> {Alone, Host};
                          [Before, After] -> {Before, jid:nameprep(After)}
                      end,
    case jid:nodeprep(Local) of
        User when User /= <<>>, Domain == Host -> User;
        _ -> error
    end.

%% The account whose password is offered, and the one that the client wants to be (empty: the same).
-spec read(binary(), binary() | undefined) -> {binary(), binary()} | error | unknown_mechanism.
read(Mech, Text) when ?SENDS_SECRET(Mech) -> % RFC 4616, 2
    case split(Text, <<0>>) of
        [Wanted, Authenticated, _Secret] -> {Authenticated, Wanted};
        _ -> error
    end;
read(<<"SCRAM-", _/binary>>, Text) -> % RFC 5802, 7: client-first-message
    case split(Text, <<",">>) of
        [_Binding, Wanted, <<"n=", Authenticated/binary>>, <<"r=", _/binary>> | _] ->
            scram_names(Authenticated, Wanted);
        _ ->
            error
    end;
read(_Mech, _Text) ->
    unknown_mechanism.

split(Text, Separator) when is_binary(Text) ->
    binary:split(Text, Separator, [global]);
split(undefined, _Separator) ->
    [].

scram_names(Authenticated, <<>>) ->
    {unescaped(Authenticated), <<>>};
scram_names(Authenticated, <<"a=", Wanted/binary>>) when Wanted /= <<>> ->
    {unescaped(Authenticated), unescaped(Wanted)};
scram_names(_Authenticated, _Wanted) ->
    error.

%% The two signs that may not stand in a name of SCRAM. No name here holds either, so one that does is nobody's.
unescaped(Name) ->
    binary:replace(binary:replace(Name, <<"=2C">>, <<",">>, [global]), <<"=3D">>, <<"=">>, [global]).
