%%% What leaves ejabberd's normal routing, which would spool it for an offline account or give it back. Part of
%%% mod_lhc_bridge.
%%%
%%% A visitor has no session: the component speaks for it. So what operators write to visitors is handed over to the
%%% component; and so is what comes back of the things that the component has sent for visitors. A browser of a visitor that
%%% is logged in itself gets what the component makes of it (lhc_bridge_browsers).
-module(lhc_bridge_diversion).

%% for mod_lhc_bridge
-export([hooks/1]).
%% for lhc_bridge_unconfirmed
-export([confirm/2]).
%% hooks
-export([divert/1, receive_packet/1]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% After the last of mod_mam (500, where it takes its marks off again): the operator's other devices have the carbon
%% and the archive has the message before it leaves.
-define(DIVERT_PRIORITY, 600).
%% Before any other module sees a message that comes in: a repeat is no message, and the mark of repeats is ours alone.
-define(RECEIVE_PRIORITY, 1).

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{user_send_packet, Host, ?MODULE, divert, ?DIVERT_PRIORITY},
     {sm_receive_packet, Host, ?MODULE, receive_packet, ?RECEIVE_PRIORITY}].

%%%===================================================================
%%% What operators write
%%%===================================================================

%% The guard has let this message pass, so it is an operator's to a visitor of the same tenant; it may be an error.
-spec divert({stanza(), ejabberd_c2s:state()}) ->
          {stanza(), ejabberd_c2s:state()} | {stop, {drop, ejabberd_c2s:state()}}.
divert({#message{from = #jid{luser = Operator, lserver = Host},
                 to = #jid{luser = ?IS_VISITOR = Visitor, lserver = Host}} = Msg, C2S} = Acc)
  when Operator /= Visitor ->
    IsBridged = is_bridged(Msg),
    IsBridged andalso lhc_bridge_handover:hand_over(Host, Msg),
    is_signal(Msg) andalso signal(Host, Msg),
    case IsBridged orelse lhc_bridge_browsers:has_any(Visitor, Host) of
        true when IsBridged -> {stop, {drop, C2S}};
        _ when Msg#message.type == groupchat -> {stop, {drop, give_back_no_room(Msg, C2S)}};
        true -> {without_requests(Msg), C2S}; % "is typing", receipts, errors
        false when Msg#message.body == [] -> {stop, {drop, C2S}}; % the same: else bounced or spooled
        false -> Acc
    end;
divert(Acc) ->
    Acc.

%% A visitor is no room. A browser would get it, if it were written to its full address.
give_back_no_room(Msg, C2S) ->
    lhc_bridge_refusals:answer(Msg, xmpp:err_service_unavailable(), C2S).

%% What is asked of the visitor's client is answered when LHC has the message, never by a browser.
without_requests(Msg) ->
    xmpp:set_els(Msg, [El || El <- xmpp:get_els(Msg), not is_request(xmpp:get_name(El), xmpp:get_ns(El))]).

is_request(<<"request">>, ?NS_RECEIPTS) -> true;
is_request(<<"markable">>, ?NS_CHAT_MARKERS_0) -> true;
is_request(_Name, _Namespace) -> false.

%% What it means, and whether a visitor can be shown it, is for the pool to judge: it gives back what cannot.
is_bridged(Msg) ->
    is_said(Msg) andalso not lhc_bridge_signs:is_sign(Msg).

%% "Is typing" (XEP-0085), and receipts (XEP-0184).
is_signal(#message{body = Body, sub_els = Els} = Msg) ->
    is_said(Msg) andalso Body == [] andalso
        (lists:any(fun(El) -> xmpp:get_ns(El) == ?NS_CHATSTATES end, Els) orelse is_receipt(Msg)).

is_receipt(Msg) ->
    case xmpp:get_subtag(Msg, #receipt_response{}) of
        #receipt_response{id = Id} -> is_line(Id);
        false -> false
    end.

%% Of a line that is kept (tenants/conversations/stanza_ids.py: its key, and more). Of others nobody waits for a receipt.
is_line(Id) ->
    case binary:split(Id, <<"-">>) of
        [<<_, _/binary>> = Key, _] -> lists:all(fun(Character) -> Character >= $0 andalso Character =< $9 end, binary_to_list(Key));
        _ -> false
    end.

%% Not an error: a client that refuses what it was sent gives back the same elements.
is_said(#message{type = Type}) ->
    Type == chat orelse Type == normal orelse Type == headline.

%% The operator's client has what a visitor wrote, though it gives no receipt: the component is told as if it did.
-spec confirm(jid:jid(), message()) -> term().
confirm(#jid{lserver = Host} = Operator, #message{from = #jid{luser = ?IS_VISITOR, lserver = Host} = Visitor, id = Id} = Msg) ->
    is_line(Id) andalso xmpp:has_subtag(Msg, #receipt_request{}) andalso
        signal(Host, #message{type = chat, from = Operator, to = jid:remove_resource(Visitor),
                              sub_els = [#receipt_response{id = Id}]});
confirm(_Operator, _Msg) ->
    false.

%% Nothing keeps a signal: it is lost when no connection of the component is there. Any of them will do. The visitor's line
%% whose receipt is lost stays `sent`, and nobody asks for the receipt again.
signal(Host, #message{to = #jid{luser = Visitor}} = Msg) ->
    case {lhc_bridge_component:connections(Host), lhc_bridge_names:tenant(Visitor, Host)} of
        {[Connection | _], {ok, Tenant}} ->
            To = jid:make(Tenant, lhc_bridge_options:component(Host)),
            Wrapped = #message{from = jid:make(Host), to = To, sub_els = [#forwarded{sub_els = [Msg]}]},
            lhc_bridge_component:send(Connection, Wrapped);
        _ ->
            false
    end.

%%%===================================================================
%%% What comes back
%%%===================================================================

%% Something that the component sent for a visitor comes back: no such account, no more room for offline messages, or a
%% client that refuses it. Visitors have no session that would get it, so the component does. All other messages are
%% looked at for the mark of repeats.
-spec receive_packet(stanza()) -> stanza() | {stop, drop}.
receive_packet(#message{type = error, body = [_ | _], to = #jid{luser = ?IS_VISITOR}} = Msg) ->
    receive_bounce_to_visitor(Msg);
receive_packet(#message{type = error, body = [_ | _], from = #jid{lserver = Service}, to = To} = Msg) ->
    #jid{luser = User, lserver = Host} = To,
    %% the same for what was said in a room: who said it need not have an account
    case lhc_bridge_options:room_service(Host) == Service andalso ejabberd_sm:get_user_resources(User, Host) of
        [] ->
            lhc_bridge_handover:hand_over(Host, Msg),
            {stop, drop};
        _ ->
            lhc_bridge_once:receive_message(Msg)
    end;
receive_packet(#message{} = Msg) ->
    lhc_bridge_once:receive_message(Msg);
receive_packet(Stanza) ->
    Stanza.

receive_bounce_to_visitor(#message{from = From, to = To} = Msg) ->
    #jid{luser = Visitor, lserver = Host, lresource = Resource} = To,
    Browsers = ejabberd_sm:get_user_resources(Visitor, Host),
    %% what a browser wrote is told to that browser, and is nothing that LHC has sent
    lists:member(Resource, Browsers)
        orelse (is_operator_name(From, To) andalso lhc_bridge_handover:hand_over(Host, Msg)),
    case Browsers of
        [_ | _] -> Msg;
        [] -> {stop, drop}
    end.

%% That the account exists is not asked: that it does not is one of the errors. But no client may forge an error for the
%% visitors of another tenant.
is_operator_name(#jid{luser = ?IS_VISITOR}, _Visitor) ->
    false;
is_operator_name(#jid{luser = Operator, lserver = Host}, #jid{luser = Visitor, lserver = Host}) ->
    case lhc_bridge_names:tenant(Visitor, Host) of
        {ok, _} = Tenant -> lhc_bridge_names:tenant(Operator, Host) == Tenant;
        none -> false
    end;
is_operator_name(_Stranger, _Visitor) ->
    false.
