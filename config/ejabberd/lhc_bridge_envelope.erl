%%% How a stanza of the queue goes to the component: an IQ with the stanza in <forwarded/> (XEP-0297) and an id of our own
%%% (XEP-0359). Part of mod_lhc_bridge.
%%%
%%% The IQ's id says what it is about, so an answer is understood whenever it comes: bridge, conversation, stanza, attempt.
-module(lhc_bridge_envelope).

-export([encode/1, decode/1, wrap/5, read_answer/1]).
-export_type([answer/0]).

-include_lib("xmpp/include/xmpp.hrl").

-define(IQ_PREFIX, "lhc-bridge/").

%% What of it a browser of the visitor reads; empty: nothing.
-type answer() :: {stored, binary()} | {refused, stanza_error()}.

%%%===================================================================
%%% Stanzas as text
%%%===================================================================

-spec encode(message() | presence()) -> binary().
encode(Stanza) ->
    fxml:element_to_binary(xmpp:encode(Stanza, ?NS_CLIENT)).

%% Fails when the text is no stanza.
-spec decode(binary()) -> message() | presence().
decode(Text) ->
    #xmlel{} = El = fxml_stream:parse_element(Text),
    xmpp:decode(El, ?NS_CLIENT, [ignore_els]).

%%%===================================================================
%%% There and back
%%%===================================================================

%% Fails when the text is no stanza. A username holds no slash, so the IQ's id can be read again.
-spec wrap(binary(), binary(), binary(), binary(), binary()) -> iq().
wrap(Host, Conversation, Id, Attempt, Text) ->
    Component = lhc_bridge_options:component(Host),
    Decoded = decode(Text),
    {ok, Tenant} = lhc_bridge_names:tenant_of(xmpp:get_to(Decoded), Host),
    Stamp = misc:usec_to_now(lhc_bridge_queue_table:time_of(Id)),
    #iq{type = set, id = <<?IQ_PREFIX, Conversation/binary, $/, Id/binary, $/, Attempt/binary>>,
        from = jid:make(Host), to = jid:make(Tenant, Component),
        sub_els = [#forwarded{delay = #delay{stamp = Stamp},
                              sub_els = [add_stanza_id(Id, Decoded, Component)
                                         | lhc_bridge_browsers:question(Conversation, Host)]}]}.

add_stanza_id(Id, Stanza, Component) ->
    Honest = [El || El <- xmpp:get_els(Stanza), not is_stanza_id_of(Component, El)],
    xmpp:set_els(Stanza, [#stanza_id{by = jid:make(Component), id = Id} | Honest]).

is_stanza_id_of(Component, El) ->
    xmpp:get_name(El) == <<"stanza-id">> andalso
        try xmpp:decode(El) of
            #stanza_id{by = #jid{lserver = By}} -> By == Component;
            _ -> false
        catch
            _:_ -> true % one that cannot be read is of no use to anybody
        end.

%% What the answer is about; `strange` when it is to an IQ of the bridge, but not one that wrap/5 has made; `other` when
%% it is to anything else.
-spec read_answer(stanza()) -> {Conversation :: binary(), Id :: binary(), Attempt :: binary(), answer()} | strange | other.
read_answer(#iq{type = Type, id = <<?IQ_PREFIX, About/binary>>} = IQ) when Type == result; Type == error ->
    case binary:split(About, <<"/">>, [global]) of
        [Conversation, Id, Attempt] when Type == result -> {Conversation, Id, Attempt, {stored, lhc_bridge_browsers:read_answer(IQ)}};
        [Conversation, Id, Attempt] -> {Conversation, Id, Attempt, {refused, error_of(IQ)}};
        _ -> strange
    end;
read_answer(_Stanza) ->
    other.

error_of(IQ) ->
    case xmpp:get_error(IQ) of
        #stanza_error{} = Error -> Error;
        undefined -> #stanza_error{type = cancel, reason = 'undefined-condition'}
    end.
