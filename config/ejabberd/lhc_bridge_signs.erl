%%% Messages in which nothing is said: what clients tell each other by themselves. Part of mod_lhc_bridge.
-module(lhc_bridge_signs).

-export([is_sign/1]).

-include_lib("xmpp/include/xmpp.hrl").

%% Namespaces of elements that say nothing when they are alone. (docs/contents.md lists more, which are rare: the pool drops
%% those.) An element of no namespace of its own is one that the library has left of RFC 6121. Later versions of mod_muc add
%% the id of who wrote to each message in a room (XEP-0421).
-define(SIGNS, [?NS_CHATSTATES, ?NS_RECEIPTS, <<"urn:xmpp:chat-markers:0">>, ?NS_HINTS, ?NS_SID_0, ?NS_NICK, ?NS_DELAY,
                <<"urn:xmpp:occupant-id:0">>, ?NS_CLIENT, <<>>]).

%% Whether the message holds nothing else. One of body and subject is never a sign, even when it is empty.
-spec is_sign(message()) -> boolean().
is_sign(#message{body = [], subject = [], sub_els = Els}) ->
    lists:all(fun(El) -> lists:member(xmpp:get_ns(El), ?SIGNS) end, Els);
is_sign(_Msg) ->
    false.
