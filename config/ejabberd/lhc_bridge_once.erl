%%% Messages that the component may send twice, and that are handled once. Part of mod_lhc_bridge.
%%%
%%% Who takes over from a process that died sends again what may not have been sent. Such messages bear
%%% <once xmlns='urn:lhc:bridge:0' id='..'/>, and each is handled once as long as this ejabberd runs. The mark is taken
%%% off: what ejabberd itself routes again later (offline storage, XEP-0198) is no repeat. It is the component's alone.
%%%
%%% A repeat may come by another node, so the others are told of each that is handled. It counts for as long as the nodes
%%% run that had the receiver's connections: who dies takes with it what was on its way to a client, and the repeat is
%%% handled then, by offline storage for instance.
-module(lhc_bridge_once).

%% for mod_lhc_bridge and its helpers
-export([create_table/0, without_mark/1, receive_message/1, take_mark/1, is_first/1, learn/2]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Rows: {Key, Number, the process that is at it | the nodes that have the message}; {number, Number}.
-define(SEEN, lhc_bridge_seen).
%% Ids of messages that are remembered: between this many and twice as many.
-define(GENERATION, 100000).

-type key() :: binary().

-spec create_table() -> ok.
create_table() ->
    lhc_bridge_tables:create(?SEEN).

%%%===================================================================
%%% The mark
%%%===================================================================

%% For what clients send.
-spec without_mark(stanza()) -> stanza().
without_mark(#message{sub_els = Els} = Msg) ->
    Msg#message{sub_els = [El || El <- Els, not is_mark(El)]};
without_mark(Stanza) ->
    Stanza.

%% The message without the mark, and what it is known by; none when it bears no mark.
-spec take_mark(message()) -> {message(), key() | none}.
take_mark(#message{from = #jid{luser = User, lserver = Server}, sub_els = Els} = Msg) ->
    case lists:partition(fun is_mark/1, Els) of
        {[], _} ->
            {Msg, none};
        {[Once | _], Rest} ->
            %% a digest, so that any id takes as much room
            Key = crypto:hash(sha256, [User, $@, Server, $/, fxml:get_tag_attr_s(<<"id">>, Once)]),
            {Msg#message{sub_els = Rest}, Key}
    end.

is_mark(El) ->
    xmpp:get_name(El) == <<"once">> andalso xmpp:get_ns(El) == ?NS_BRIDGE.

%%%===================================================================
%%% Once
%%%===================================================================

%% A message without the mark goes on. One that is marked is routed here and not after the hook, so that it is known when
%% that is done: a connection that is killed half way has not handled the message.
-spec receive_message(message()) -> message() | {stop, drop}.
receive_message(Msg) ->
    case take_mark(Msg) of
        {Msg, none} ->
            Msg;
        {Plain, Key} ->
            claim(Key) andalso handle(Plain, Key),
            {stop, drop}
    end.

%% The nodes of the receiver's connections before and after: one of both may be gone, or have come.
handle(#message{to = #jid{lserver = Host} = To} = Msg, Key) ->
    Before = nodes_of(To),
    lhc_bridge_arrivals:route_or_store(Msg),
    Nodes = lists:usort(Before ++ nodes_of(To)),
    done(Key, Nodes),
    lhc_bridge_cluster:tell_handled(Host, Key, Nodes).

%% Of a cluster: a node that is alone knows nothing of messages after its end.
nodes_of(#jid{luser = User, lserver = Host}) ->
    case nodes() of
        [] -> [];
        _ -> [node(Pid) || {_, Pid} <- ejabberd_sm:get_session_sids(User, Host)]
    end.

%% For who handles the message at once, in a process that does not end half way.
-spec is_first(key()) -> boolean().
is_first(Key) ->
    claim(Key) andalso done(Key, [node()]).

%% Whether the message is for this process to handle.
claim(Key) ->
    Number = ets:update_counter(?SEEN, number, 1, {number, 0}),
    Number rem ?GENERATION == 0 andalso forget(Number - ?GENERATION),
    ets:insert_new(?SEEN, {Key, Number, self()}) orelse claim_again(Key).

%% Somebody has the message already, unless that process has ended before it was done, or a node that had it.
claim_again(Key) ->
    case ets:lookup(?SEEN, Key) of
        [{_, _, Holder} = Claim] ->
            not holds(Holder) andalso
                begin
                    ets:delete_object(?SEEN, Claim),
                    claim(Key)
                end;
        [] ->
            claim(Key)
    end.

holds(Pid) when is_pid(Pid) -> is_process_alive(Pid);
holds(Nodes) -> Nodes -- [node() | nodes()] == [].

done(Key, Nodes) ->
    ets:update_element(?SEEN, Key, {3, Nodes}).

%% Another node has handled the message.
-spec learn(key(), [node()]) -> boolean().
learn(Key, Nodes) ->
    case ets:member(?SEEN, Key) of
        true -> done(Key, Nodes);
        false -> claim(Key) andalso done(Key, Nodes)
    end.

forget(Number) ->
    ets:select_delete(?SEEN, [{{'_', '$1', '_'}, [{'=<', '$1', Number}], [true]}]).
