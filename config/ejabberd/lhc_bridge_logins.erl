%%% Who may log in, how often somebody may try, and what an administrator hears of it. Part of mod_lhc_bridge.
%%%
%%% A failed login counts for the account and for the address that it came from. After some of them both have to wait, each
%%% time twice as long, up to a quarter of an hour; and while one of them waits, nobody is told whether a password was
%%% right. An address from which an operator has logged in before is judged on its own: whoever guesses from elsewhere
%%% locks nobody out of the place where he works.
%%%
%%% Not by mod_fail2ban: it forgets the failures of an address as soon as anybody logs in from there, so that who has an
%%% account may guess at all others; it knows no accounts; and its table has no bound.
%%%
%%% Nothing here tells whether an account exists: ejabberd_auth_decoy answers for those that do not.
-module(lhc_bridge_logins).

%% for mod_lhc_bridge
-export([create_table/0, hooks/1]).
%% hooks
-export([begins/3, auth_result/3, forget/2]).
%% command
-export([failed_logins/1]).
%% for other nodes
-export([failed_here/1]).
%% for ejabberd_auth_decoy
-export([take_mark/0, may_log_in/2]).

-include("logger.hrl").
-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% After lhc_bridge_identity (10). Before lhc_bridge_shut (60), which tells a suspended tenant's operator that the password
%% was right; and before ejabberd writes its own line into the log (100), with what somebody typed as name, which may have
%% been the password.
-define(AUTH_PRIORITY, 40).

%% Failures without a consequence. One wrong password makes up to four: clients try one mechanism after the other. Many
%% people may have one address.
-define(FREE_FOR_ACCOUNT, 10).
-define(FREE_FOR_ADDRESS, 30).
-define(FREE_FOR_CONNECTION, 5).
%% Seconds. Who is quiet for so long begins anew.
-define(FIRST_PAUSE, 10).
-define(LONGEST_PAUSE, 900).
-define(FORGOTTEN_AFTER, 6 * 3600).

%% Rows: {Key, Number, Failures, PausedUntil, LastAt}; {{counted, Host, Who, Outcome}, Count}.
%% A key: {account, Account}, {address, Network}, {pair, Account, Network}.
-define(FAILURES, lhc_bridge_failures).
%% Rows: {{Account, Network}, Number}: who has logged in from where.
-define(KNOWN, lhc_bridge_known_addresses).
%% Rows of each table: between this many and twice as many, of some 200 bytes.
-define(GENERATION, 50000).

-type state() :: ejabberd_c2s:state().
-type key() :: {account, binary()} | {address, tuple()} | {pair, binary(), tuple()}.

-spec create_table() -> ok.
create_table() ->
    lists:foreach(fun(Table) -> lhc_bridge_tables:create(Table, [ordered_set]) end, [?FAILURES, ?KNOWN]).

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{c2s_handle_recv, Host, ?MODULE, begins, 50},
     {c2s_auth_result, Host, ?MODULE, auth_result, ?AUTH_PRIORITY},
     {remove_user, Host, ?MODULE, forget, 50}].

%%%===================================================================
%%% One login
%%%===================================================================

%% ejabberd_auth_decoy answers logins alone, and ejabberd asks for a password at other times as well: so this process is
%% marked with the mechanism from the client's first message on, until ejabberd asks. Who is logged in begins no login.
-spec begins(state(), term(), term()) -> state().
begins(#{stream_authenticated := false} = C2S, _El, Packet) ->
    is_login(Packet) andalso put(?MODULE, element(2, Packet)),
    C2S;
begins(C2S, _El, _Packet) ->
    C2S.

%% The second record is of versions since 24.02 alone. The mechanism is the first field of both.
is_login(Packet) ->
    lists:member(element(1, Packet), [sasl_auth, sasl2_authenticate]).

-spec take_mark() -> binary() | none.
take_mark() ->
    case erase(?MODULE) of
        undefined -> none;
        Mechanism -> Mechanism
    end.

%% A name that is no tenant's is nobody's, whatever account there may be.
-spec may_log_in(binary(), binary()) -> boolean().
may_log_in(User, Host) ->
    lhc_bridge_names:tenant(User, Host) /= none.

%% The client has not been told yet. Who sees the stream end here learns nothing of the password.
-spec auth_result(state(), true | {false, binary()}, binary()) -> state() | {stop, state()}.
auth_result(#{lserver := Host, ip := {Address, _Port}} = C2S, Result, Name) ->
    take_mark(),
    User = case jid:nodeprep(Name) of
               error -> <<>>;
               Prepared -> Prepared
           end,
    Keys = keys(User, Host, Address),
    case {pause(Keys), Result == true andalso is_real(C2S) andalso may_log_in(User, Host)} of
        {0, true} ->
            succeeded(User, Host, Address),
            C2S;
        {0, false} ->
            lists:foreach(fun failed/1, Keys),
            report(C2S, User, refused),
            after_failure(C2S, Result);
        {Seconds, _} ->
            report(C2S, User, paused),
            Text = io_lib:format("Too many failed logins. Try again in ~B seconds.", [Seconds]),
            {stop, close(C2S, iolist_to_binary(Text))}
    end.

is_real(#{auth_module := Module}) ->
    Module /= ejabberd_auth_decoy;
is_real(_) ->
    false.

%% ejabberd itself tells the client of what it has refused, but not of what is refused here alone.
after_failure(C2S, true) ->
    {stop, ejabberd_c2s:send(C2S, xmpp:serr_not_authorized())};
after_failure(C2S, {false, _Reason}) ->
    Failures = maps:get(?MODULE, C2S, 0) + 1,
    {stop, case Failures < ?FREE_FOR_CONNECTION of
               true -> C2S#{?MODULE => Failures};
               false -> close(C2S, <<"Too many failed logins on one connection">>)
           end}.

close(#{lang := Lang} = C2S, Text) ->
    ejabberd_c2s:send(C2S, xmpp:serr_policy_violation(Text, Lang)).

%%%===================================================================
%%% Failures and pauses
%%%===================================================================

%% What an attempt counts for. A name that no account can have is no guess at one.
-spec keys(binary(), binary(), inet:ip_address()) -> [key()].
keys(<<>>, _Host, Address) ->
    [{address, network(Address)} || not is_proxy(Address)];
keys(User, Host, Address) ->
    Account = account(User, Host),
    Network = network(Address),
    case ets:member(?KNOWN, {Account, Network}) of
        true -> [{pair, Account, Network}];
        false -> [{account, Account} | [{address, Network} || not is_proxy(Address)]]
    end.

%% Of the same size whatever was typed, and without what was typed.
account(User, Host) ->
    binary:part(crypto:hash(sha256, [User, $@, Host]), 0, 16).

%% One customer has a whole /64 of IPv6.
network({0, 0, 0, 0, 0, 16#ffff, High, Low}) -> {High bsr 8, High band 255, Low bsr 8, Low band 255};
network({A, B, C, D, _, _, _, _}) -> {A, B, C, D, 64};
network(Address) -> Address.

%% All browsers come from the web server's address, when that does not say whose they are.
is_proxy(Address) ->
    case ejabberd_option:trusted_proxies() of
        all -> false;
        Networks -> lists:any(fun({Network, Mask}) -> misc:match_ip_mask(Address, Network, Mask) end, Networks)
    end.

%% Seconds that the attempt would have to wait for; 0 when it need not.
pause(Keys) ->
    Now = now_in_seconds(),
    lists:max([0 | [Until - Now || Key <- Keys, {_, _, _, Until, _} <- ets:lookup(?FAILURES, Key)]]).

%% The failure counts before anybody is told of it, so that attempts at the same moment gain nothing.
failed(Key) ->
    Now = now_in_seconds(),
    case ets:lookup(?FAILURES, Key) of
        [{_, _, _, _, LastAt}] when LastAt + ?FORGOTTEN_AFTER > Now -> ok;
        [_] -> ets:delete(?FAILURES, Key);
        [] -> ok
    end,
    New = case ets:member(?FAILURES, Key) of
              true -> 0; % the default below is not used
              false -> number(?FAILURES)
          end,
    Failures = ets:update_counter(?FAILURES, Key, {3, 1}, {Key, New, 0, 0, Now}),
    ets:update_element(?FAILURES, Key, [{4, Now + pause_after(Failures - free(Key))}, {5, Now}]).

free({address, _}) -> ?FREE_FOR_ADDRESS;
free(_) -> ?FREE_FOR_ACCOUNT.

pause_after(Further) when Further =< 0 -> 0;
pause_after(Further) -> min(?FIRST_PAUSE bsl (min(Further, 20) - 1), ?LONGEST_PAUSE).

%% Failures of the address are not forgotten: who has an account of his own may still guess at others.
succeeded(User, Host, Address) ->
    Account = account(User, Host),
    Network = network(Address),
    lists:foreach(fun(Key) -> ets:delete(?FAILURES, Key) end,
                  [Key || Key <- keys(User, Host, Address), element(1, Key) /= address]),
    case User of
        ?IS_VISITOR -> ok; % they come from everywhere, and have passwords that nobody guesses
        _ -> ets:insert(?KNOWN, {{Account, Network}, number(?KNOWN)})
    end.

%% Whoever bears the name next begins anew. A hook of the account's end.
-spec forget(binary(), binary()) -> ok.
forget(User, Host) ->
    Account = account(User, Host),
    ets:match_delete(?KNOWN, {{Account, '_'}, '_'}),
    ets:delete(?FAILURES, {account, Account}),
    ets:match_delete(?FAILURES, {{pair, Account, '_'}, '_', '_', '_', '_'}),
    ok.

%% The next row's number; the oldest rows go when there are too many.
number(Table) ->
    Number = ets:update_counter(Table, number, 1, {number, 0}),
    Number rem ?GENERATION == 0 andalso ets:select_delete(Table, oldest(Table, Number - ?GENERATION)),
    Number.

oldest(?FAILURES, Number) -> [{{'_', '$1', '_', '_', '_'}, [{'=<', '$1', Number}], [true]}];
oldest(?KNOWN, Number) -> [{{{'_', '_'}, '$1'}, [{'=<', '$1', Number}], [true]}].

now_in_seconds() ->
    erlang:monotonic_time(second).

%%%===================================================================
%%% What an administrator hears
%%%===================================================================

%% One line for each, which fail2ban reads (config/fail2ban). A name goes into it when there is such an account: else it
%% may be a password that was typed into the wrong field. A mechanism when it is one: the client may say anything.
report(#{lserver := Host, ip := {Address, _Port}} = C2S, User, Outcome) ->
    IsAccount = User /= <<>> andalso ejabberd_auth:user_exists(User, Host),
    ets:update_counter(?FAILURES, {counted, Host, who(User), Outcome}, 1, {{counted, Host, who(User), Outcome}, 0}),
    ?WARNING_MSG("Failed login from ~ts to ~ts by ~ts: ~ts",
                 [misc:ip_to_list(Address),
                  case IsAccount of true -> [User, $@, Host]; false -> "no account" end,
                  mechanism(C2S), Outcome]).

who(?IS_VISITOR) -> visitor;
who(_) -> operator.

mechanism(#{sasl_mech := Mechanism}) ->
    case lists:member(Mechanism, [<<"EXTERNAL">> | xmpp_sasl:listmech()]) of
        true -> Mechanism;
        false -> "an unknown mechanism"
    end;
mechanism(_) ->
    "an unknown mechanism".

%% Since this node was started.
-spec failed_logins(binary()) -> [{string(), string(), non_neg_integer()}].
failed_logins(Host) ->
    lhc_bridge_commands:check_host(Host),
    lhc_bridge_cluster:added_up(?MODULE, failed_here, [Host]).

-spec failed_here(binary()) -> [{string(), string(), non_neg_integer()}].
failed_here(Host) ->
    [{atom_to_list(Who), atom_to_list(Outcome), Count}
     || {{counted, _, Who, Outcome}, Count} <- ets:match_object(?FAILURES, {{counted, Host, '_', '_'}, '_'})].
