%%% What a visitor's browser that is logged in itself gets of what operators write. Part of mod_lhc_bridge.
%%%
%%% Not what the operator's client has sent: that may be encrypted, with words beside it for who cannot read it; it may be for
%%% other programs; and the chat may be another operator's. The component judges it as it does for a visitor without a browser.
%%% When it has stored the message it answers with what the visitor reads of it, and that is what goes to the browser.
-module(lhc_bridge_browsers).

%% for mod_lhc_bridge and its helpers
-export([has_any/2, question/2, read_answer/1, show/2]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

-spec has_any(binary(), binary()) -> boolean().
has_any(?IS_VISITOR = Visitor, Host) ->
    ejabberd_sm:get_user_resources(Visitor, Host) /= [];
has_any(_Operator, _Host) ->
    false.

%% What the component is asked beside the message.
-spec question(binary(), binary()) -> [xmlel()].
question(Visitor, Host) ->
    [#xmlel{name = <<"browser">>, attrs = [{<<"xmlns">>, ?NS_BRIDGE}]} || has_any(Visitor, Host)].

%% What the visitor reads, in the component's answer; empty when that is nothing, or it was not asked.
-spec read_answer(iq()) -> binary().
read_answer(IQ) ->
    iolist_to_binary([fxml:get_tag_cdata(El) || #xmlel{name = <<"shown">>} = El <- xmpp:get_els(IQ),
                                                xmpp:get_ns(El) == ?NS_BRIDGE]).

%% One that goes just then finds it in offline storage.
-spec show(message() | presence(), binary()) -> term().
show(#message{id = Id, from = From, to = #jid{luser = Visitor, lserver = Host} = To}, Text) ->
    has_any(Visitor, Host) andalso
        ejabberd_router:route(#message{type = chat, id = Id, from = From, to = To, body = xmpp:mk_text(Text)});
show(_Presence, _Text) ->
    false.
