-module(lhc_bridge_signs_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("xmpp/include/xmpp.hrl").

is_sign(Elements) ->
    Text = <<"<message xmlns='jabber:client' type='chat'>", Elements/binary, "</message>">>,
    lhc_bridge_signs:is_sign(xmpp:decode(fxml_stream:parse_element(Text), ?NS_CLIENT, [ignore_els])).

signs_test_() ->
    {setup, fun() -> application:ensure_all_started(fast_xml) end,
     [{binary_to_list(Elements), fun() -> ?assert(is_sign(Elements)) end} || Elements <-
      [<<>>, <<"<thread>1</thread>">>,
       <<"<composing xmlns='http://jabber.org/protocol/chatstates'/><thread>1</thread>">>,
       <<"<received xmlns='urn:xmpp:receipts' id='1'/><store xmlns='urn:xmpp:hints'/><origin-id xmlns='urn:xmpp:sid:0' id='2'/>">>,
       <<"<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>">>,
       <<"<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/><occupant-id xmlns='urn:xmpp:occupant-id:0' id='2'/>">>,
       <<"<nick xmlns='http://jabber.org/protocol/nick'>Bob</nick>">>]]
     ++ [{binary_to_list(Elements), fun() -> ?assertNot(is_sign(Elements)) end} || Elements <-
      [<<"<body>hello</body>">>, <<"<body/>">>, <<"<subject>hello</subject>">>,
       <<"<x xmlns='jabber:x:oob'><url>https://x</url></x>">>,
       <<"<encrypted xmlns='eu.siacs.conversations.axolotl'/><store xmlns='urn:xmpp:hints'/>">>,
       <<"<html xmlns='http://jabber.org/protocol/xhtml-im'/>">>,
       <<"<reactions xmlns='urn:xmpp:reactions:0' id='1'/><active xmlns='http://jabber.org/protocol/chatstates'/>">>,
       <<"<something xmlns='urn:unheard:of'/>">>]]}.
