%%% What an operator's client was sent and has not confirmed: routed anew when its connection ends. Part of mod_lhc_bridge.
%%%
%%% For a client that hangs the operating system takes what is written, and loses it when the connection ends. Only the
%%% client can say that it has a message: by a receipt (XEP-0184), or by the answer to a question that was asked behind the
%%% message, for a stream is handled in order. So the messages are remembered here until then, and the client is asked when
%%% it says nothing by itself. What it has without a receipt is told to the component, in its place.
%%%
%%% With stream management (XEP-0198) the client confirms in another way, and mod_stream_mgmt routes anew. A browser begins
%%% a new connection with each page, and its page shows what was said: see lhc_bridge_backlog.
-module(lhc_bridge_unconfirmed).

%% for mod_lhc_bridge
-export([hooks/1]).
%% hooks
-export([sent/3, received/3, ask/2, terminated/2]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% After lhc_bridge_backlog (60).
-define(SENT_PRIORITY, 61).
%% After ejabberd_c2s (100) has closed the session: a message that is routed then goes elsewhere.
-define(TERMINATED_PRIORITY, 111).
%% Milliseconds that a client has for its receipts.
-define(ASK_AFTER, 3000).
%% Bytes after which a client is asked at once: who reads fast never has much unconfirmed.
-define(ASK_BYTES, 512 * 1024).
%% Bytes that a client may leave unconfirmed; what waited in offline storage is half of it.
-define(MOST_BYTES, 4 * 1024 * 1024).
-define(QUESTION, "lhc-sent/").

-type c2s() :: ejabberd_c2s:state().
-record(sent, {number :: pos_integer(),
               at :: erlang:timestamp(),
               priority :: integer(),
               bytes :: non_neg_integer(),
               message :: message()}).
%% `asked`: the number of the last message that the present question is behind; `soon`: a question is to come.
-record(unconfirmed, {messages = queue:new() :: queue:queue(#sent{}),
                      last = 0 :: non_neg_integer(),
                      bytes = 0 :: non_neg_integer(),
                      asked = none :: none | soon | pos_integer(),
                      gives_receipts = false :: boolean()}).

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{c2s_handle_send, Host, ?MODULE, sent, ?SENT_PRIORITY},
     {c2s_handle_recv, Host, ?MODULE, received, 60},
     {c2s_handle_info, Host, ?MODULE, ask, 35},
     {c2s_terminated, Host, ?MODULE, terminated, ?TERMINATED_PRIORITY}].

%%%===================================================================
%%% Remembering (all of this in the connection's process)
%%%===================================================================

-spec sent(c2s(), xmpp_element() | xmlel(), ok | {error, term()}) -> c2s() | {stop, c2s()}.
sent(#{jid := #jid{luser = ?IS_VISITOR}} = C2S, _Stanza, _Result) ->
    C2S;
sent(#{jid := _} = C2S, #message{type = Type, body = [_ | _], meta = Meta} = Msg, _Result)
  when (Type == chat orelse Type == normal) andalso not is_map_key(carbon_copy, Meta) ->
    Remembered = remember(Msg, unconfirmed(C2S), priority(C2S)),
    Asking = ask_in_time(C2S#{lhc_unconfirmed => Remembered}),
    case Remembered#unconfirmed.bytes of
        Bytes when Bytes > ?MOST_BYTES, not is_map_key(lhc_ended, C2S) -> lhc_bridge_backlog:disconnect(Asking, Bytes);
        _ -> Asking
    end;
sent(C2S, _Stanza, _Result) ->
    C2S.

unconfirmed(C2S) ->
    maps:get(lhc_unconfirmed, C2S, #unconfirmed{}).

priority(#{pres_last := #presence{priority = Priority}}) when is_integer(Priority) -> Priority;
priority(_C2S) -> 0.

remember(Msg, #unconfirmed{messages = Messages, last = Last, bytes = Bytes} = Unconfirmed, Priority) ->
    One = #sent{number = Last + 1, at = erlang:timestamp(), priority = Priority, bytes = erlang:external_size(Msg),
                message = Msg},
    Unconfirmed#unconfirmed{messages = queue:in(One, Messages), last = Last + 1, bytes = Bytes + One#sent.bytes}.

%% One question at a time, however many messages there are.
ask_in_time(#{lhc_unconfirmed := #unconfirmed{asked = Asked, bytes = Bytes}} = C2S)
  when Bytes > ?ASK_BYTES, not is_integer(Asked) ->
    ask_now(C2S);
ask_in_time(#{lhc_unconfirmed := #unconfirmed{asked = none} = Unconfirmed} = C2S) ->
    erlang:send_after(?ASK_AFTER, self(), lhc_ask),
    C2S#{lhc_unconfirmed := Unconfirmed#unconfirmed{asked = soon}};
ask_in_time(C2S) ->
    C2S.

%% The question that was to come may have been asked early, and been answered.
-spec ask(c2s(), term()) -> c2s() | {stop, c2s()}.
ask(#{lhc_unconfirmed := #unconfirmed{asked = soon, messages = Messages} = Unconfirmed} = C2S, lhc_ask) ->
    case queue:is_empty(Messages) of
        true -> {stop, C2S#{lhc_unconfirmed := Unconfirmed#unconfirmed{asked = none}}};
        false -> {stop, ask_now(C2S)}
    end;
ask(C2S, lhc_ask) ->
    {stop, C2S};
ask(C2S, _Info) ->
    C2S.

ask_now(#{jid := #jid{lserver = Host} = JID, lhc_unconfirmed := #unconfirmed{last = Last} = Unconfirmed} = C2S) ->
    Ping = #iq{type = get, id = <<?QUESTION, (integer_to_binary(Last))/binary>>, from = jid:make(Host), to = JID,
               sub_els = [#ping{}]},
    ejabberd_c2s:send(C2S#{lhc_unconfirmed := Unconfirmed#unconfirmed{asked = Last}}, Ping).

%%%===================================================================
%%% Confirming
%%%===================================================================

%% Before anything else looks at the stanza: whatever becomes of it, the client has sent it.
-spec received(c2s(), xmlel(), stanza() | {error, term()}) -> c2s().
received(#{lhc_unconfirmed := #unconfirmed{asked = Asked}} = C2S, _El, #iq{type = Type, id = <<?QUESTION, Last/binary>>})
  when is_integer(Asked), Type == result orelse Type == error ->
    case integer_to_binary(Asked) of
        Last -> answered(Asked, C2S);
        _ -> C2S
    end;
received(#{lhc_unconfirmed := Unconfirmed} = C2S, _El, #message{} = Msg) ->
    case xmpp:get_subtag(Msg, #receipt_response{}) of
        #receipt_response{id = Id} -> receipt(Id, C2S#{lhc_unconfirmed := Unconfirmed#unconfirmed{gives_receipts = true}});
        _ -> C2S
    end;
received(C2S, _El, _Stanza) ->
    C2S.

answered(Asked, #{lhc_unconfirmed := Unconfirmed} = C2S) ->
    {Confirmed, Left} = split(Asked, Unconfirmed#unconfirmed{asked = none}),
    lists:foreach(fun(Msg) -> tell(Msg, C2S) end, Confirmed),
    case queue:is_empty(Left#unconfirmed.messages) of
        true -> C2S#{lhc_unconfirmed := Left};
        false -> ask_in_time(C2S#{lhc_unconfirmed := Left})
    end.

%% The component hears of the receipt itself in the usual way.
receipt(Id, #{lhc_unconfirmed := #unconfirmed{messages = Messages} = Unconfirmed} = C2S) ->
    case [Number || #sent{number = Number, message = #message{id = Known}} <- queue:to_list(Messages), Known == Id] of
        [Number | _] ->
            {Confirmed, Left} = split(Number, Unconfirmed),
            lists:foreach(fun(Msg) -> tell(Msg, C2S) end, lists:droplast(Confirmed)),
            C2S#{lhc_unconfirmed := Left};
        [] ->
            C2S
    end.

%% The messages up to that number, oldest first, and what is unconfirmed without them.
split(Number, #unconfirmed{messages = Messages, bytes = Bytes} = Unconfirmed) ->
    {Confirmed, Left} = lists:splitwith(fun(One) -> One#sent.number =< Number end, queue:to_list(Messages)),
    Taken = lists:sum([One#sent.bytes || One <- Confirmed]),
    {[One#sent.message || One <- Confirmed],
     Unconfirmed#unconfirmed{messages = queue:from_list(Left), bytes = Bytes - Taken}}.

tell(Msg, #{jid := Operator}) ->
    lhc_bridge_diversion:confirm(Operator, Msg).

%%%===================================================================
%%% The end of the connection
%%%===================================================================

-spec terminated(c2s(), term()) -> c2s().
terminated(#{jid := #jid{luser = User, lserver = Host} = JID,
             lhc_unconfirmed := #unconfirmed{messages = Messages}} = C2S, _Reason) ->
    %% an account that is removed takes with it what it has, as its offline messages
    is_lost(C2S) andalso lhc_bridge_storage:may_exist(Host, User) andalso
        begin
            Others = others(JID),
            lists:foreach(fun(One) -> has_another(One, Others) orelse route_anew(One, JID) end, queue:to_list(Messages))
        end,
    C2S;
terminated(C2S, _Reason) ->
    C2S.

%% Who leaves in good order has read what there was. If it gives receipts, it would have given one.
is_lost(C2S) ->
    maps:get(mgmt_state, C2S, inactive) == inactive
        andalso (maps:get(stop_reason, C2S, none) /= {stream, reset}
                 orelse (unconfirmed(C2S))#unconfirmed.gives_receipts).

%% The operator's connections that are available: their priorities, and the seconds since which they are there.
others(#jid{luser = User, lserver = Host}) ->
    [{Priority, {Mega, Second}}
     || {Priority, Resource} <- ejabberd_sm:get_user_present_resources(User, Host),
        {{Mega, Second, _}, _Pid} <- [ejabberd_sm:get_session_sid(User, Host, Resource)]].

%% Whether another connection got the message, too: it was there, and those of the highest priority all get it.
has_another(#sent{message = #message{to = #jid{lresource = <<_, _/binary>>}}}, _Others) ->
    false;
has_another(#sent{at = {Mega, Second, _}, priority = Own}, Others) ->
    lists:any(fun({Priority, Began}) -> Priority >= Own andalso Began < {Mega, Second} end, Others).

route_anew(#sent{at = At, message = Msg}, #jid{lserver = Host}) ->
    lhc_bridge_arrivals:route_or_store(misc:add_delay_info(Msg, jid:make(Host), At)).
