%%% Hands over a stanza to the component, by the queue, and tells the operator when that is refused. Part of
%%% mod_lhc_bridge.
-module(lhc_bridge_handover).

-export([hand_over/2]).

-include("logger.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Returns when the stanza is on disk: what the operator's client hears acknowledged after this, a ping or a stanza
%% count (XEP-0198), includes it. If it is refused, the operator is told.
-spec hand_over(binary(), message() | presence()) -> ok | refused.
hand_over(Host, Stanza) ->
    try lhc_bridge_queue:deliver(Host, Stanza) of
        ok ->
            ok;
        full ->
            lhc_bridge_refusals:note(queue_full),
            Text = <<"The message was not delivered: too many messages wait. Please send it again later.">>,
            give_back(Stanza, xmpp:err_resource_constraint(Text, xmpp:get_lang(Stanza)))
    catch
        exit:Reason ->
            ?ERROR_MSG("The deliverer of ~ts did not take a message: ~p", [Host, without_call(Reason)]),
            Text = <<"The message was not delivered: the live chat cannot be reached right now. "
                     "Please send it again later.">>,
            give_back(Stanza, xmpp:err_service_unavailable(Text, xmpp:get_lang(Stanza)))
    end.

%% The call holds the message, which has no place in the log.
without_call({Reason, {gen_server, call, _}}) -> Reason;
without_call(Reason) -> Reason.

%% Type wait: trying again is what the operator should do. (An error that comes back is not answered with an error, and
%% who enters or leaves a room has nothing to try.)
give_back(#message{} = Msg, Error) ->
    ejabberd_router:route_error(Msg, Error#stanza_error{type = wait}),
    refused;
give_back(_Presence, _Error) ->
    refused.
