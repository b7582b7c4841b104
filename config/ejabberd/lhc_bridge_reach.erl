%%% Whom a visitor's browser may reach, and with what: the operators of its live chat with messages, the server with the
%%% few questions that a chat page asks, and nobody else with anything. Part of mod_lhc_bridge.
%%%
%%% A visitor is anybody on the web. So this is a list of what may pass, and what is not on it is refused, in the same
%%% words whoever was meant and whether or not there is such an address. What may pass holds only elements that are on a
%%% list too: no forged delay, forwarded message or invitation comes along.
-module(lhc_bridge_reach).

%% for mod_lhc_bridge
-export([judge/3]).

-include_lib("xmpp/include/xmpp.hrl").

-define(REFUSED, <<"A visitor may write to the operators of this live chat, and to nobody else">>).

%% Beside the status and the text themselves.
-define(SHOWN, [?NS_NICK]).
-define(SAID, [?NS_NICK, ?NS_CHATSTATES, ?NS_RECEIPTS, <<"urn:xmpp:chat-markers:0">>, <<"urn:xmpp:sid:0">>]).
%% What the server, or the visitor's own account, is asked.
-define(QUESTIONS, [{get, ?NS_ROSTER}, {get, ?NS_PING}, {get, ?NS_DISCO_INFO}, {get, ?NS_DISCO_ITEMS},
                    {set, ?NS_SESSION}]).

%% What of the stanza may pass. `IsOperator` says of a username whether it is an operator's of the visitor's live chat.
-spec judge(stanza(), binary(), fun((binary()) -> boolean())) -> {pass, stanza()} | {refuse, binary()}.
judge(Stanza, Component, IsOperator) ->
    case may_pass(Stanza, Component, IsOperator) of
        {true, Kept} -> {pass, Kept};
        false -> {refuse, ?REFUSED}
    end.

%% The server tells operators of it (lhc_bridge_visitors).
may_pass(#presence{type = Type, from = From, to = To} = Presence, _Component, _IsOperator)
  when Type == available; Type == unavailable ->
    is_own_account(From, To) andalso {true, keep(?SHOWN, Presence)};
may_pass(#message{type = Type, from = #jid{lserver = Host}, to = #jid{luser = User, lserver = Host}} = Msg, _Component,
         IsOperator) when Type == chat; Type == normal ->
    Kept = keep(?SAID, Msg),
    IsOperator(User) andalso (Kept#message.body /= [] orelse Kept#message.sub_els /= []) andalso {true, Kept};
may_pass(#iq{type = Type, from = From, to = To, sub_els = [El]} = IQ, _Component, _IsOperator)
  when Type == get; Type == set ->
    lists:member({Type, xmpp:get_ns(El)}, ?QUESTIONS) andalso (is_own_account(From, To) orelse is_server(From, To))
        andalso {true, IQ};
%% Answers to pings and roster pushes.
may_pass(#iq{type = Type, from = From, to = #jid{lserver = Server} = To} = IQ, Component, _IsOperator)
  when Type == result; Type == error ->
    (is_own_account(From, To) orelse is_server(From, To) orelse Server == Component) andalso {true, IQ};
may_pass(_Stanza, _Component, _IsOperator) ->
    false.

is_own_account(#jid{luser = User, lserver = Host}, #jid{luser = User, lserver = Host, lresource = <<>>}) -> true;
is_own_account(_From, _To) -> false.

is_server(#jid{lserver = Host}, #jid{luser = <<>>, lserver = Host, lresource = <<>>}) -> true;
is_server(_From, _To) -> false.

keep(Namespaces, Stanza) ->
    xmpp:set_els(Stanza, [El || El <- xmpp:get_els(Stanza), lists:member(xmpp:get_ns(El), Namespaces)]).
