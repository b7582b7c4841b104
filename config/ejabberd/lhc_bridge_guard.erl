%%% Who may write to whom. Part of mod_lhc_bridge.
%%%
%%% Each stanza that a client sends is judged before any other module sees it, so what is forbidden leaves no trace
%%% anywhere. A visitor's browser is judged by lhc_bridge_reach, what goes to rooms by lhc_bridge_room_guard, and the rest
%%% here: nothing passes from one tenant to another, nor to another virtual host, where other tenants live; and only
%%% operators write to visitors.
-module(lhc_bridge_guard).

%% for mod_lhc_bridge
-export([hooks/1]).
%% hook
-export([guard/1]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% Before mod_privacy (50), mod_mam (88) and mod_carboncopy (89).
-define(PRIORITY, 10).

-type sent() :: {stanza(), ejabberd_c2s:state()}.

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{user_send_packet, Host, ?MODULE, guard, ?PRIORITY}].

-spec guard(sent()) -> sent() | {stop, {drop, ejabberd_c2s:state()}}.
guard({Stanza, #{jid := #jid{luser = User}} = C2S}) ->
    guard(User, lhc_bridge_once:without_mark(Stanza), C2S).

guard(?IS_VISITOR = Visitor, Stanza, #{lserver := Host} = C2S) ->
    IsOperator = fun(User) -> lhc_bridge_operators:is_operator_for(User, Visitor, Host) end,
    case lhc_bridge_reach:judge(Stanza, lhc_bridge_options:component(Host), IsOperator) of
        {pass, Kept} ->
            {Kept, C2S};
        {refuse, Text} ->
            {stop, {drop, lhc_bridge_refusals:answer(Stanza, forbidden(Stanza, Text), C2S)}}
    end;
guard(_Operator, Stanza, #{lserver := Host} = C2S) ->
    case lhc_bridge_room_guard:judge(Stanza, Host) of
        no_room ->
            guard_no_room(Stanza, C2S);
        pass ->
            {Stanza, C2S};
        answered ->
            {stop, {drop, C2S}};
        {refuse, Text} ->
            %% also a presence: a client that enters a room waits for an answer to it
            ejabberd_router:route_error(Stanza, forbidden(Stanza, Text)),
            {stop, {drop, C2S}}
    end.

guard_no_room(Stanza, #{lserver := Host} = C2S) ->
    case judge(xmpp:get_to(Stanza), Stanza, Host) of
        pass ->
            {Stanza, C2S};
        answered ->
            {stop, {drop, C2S}};
        {refuse, Text} ->
            forbid(Stanza, Text),
            {stop, {drop, C2S}}
    end.

forbid(#presence{}, _Text) ->
    ok; % clients do not expect an error to a presence
forbid(Stanza, Text) ->
    ejabberd_router:route_error(Stanza, forbidden(Stanza, Text)).

forbidden(Stanza, Text) ->
    xmpp:err_forbidden(Text, xmpp:get_lang(Stanza)).

%% Whether an operator's stanza may pass. An error too may come from an operator of the visitor's tenant alone. (It is not
%% answered when it is refused: no error is.)
judge(#jid{luser = ?IS_VISITOR} = To, #message{from = From}, _Host) ->
    verdict(may_write(From, To), <<"Only operators of this live chat may write to its visitors">>);
%% Whom operators see say the shared rosters. A request would be answered by nobody, and leave a row on both sides.
judge(#jid{luser = ?IS_VISITOR}, #presence{type = Type}, _Host)
  when Type == subscribe; Type == subscribed; Type == unsubscribe; Type == unsubscribed ->
    {refuse, <<"Shared rosters say who sees this visitor">>};
%% A visitor's browser answers no operator, so it is asked nothing: it is answered for.
judge(#jid{luser = ?IS_VISITOR, lserver = Host} = To, #iq{type = Type, from = From} = IQ, Host)
  when Type == get; Type == set ->
    case may_write(From, To) of
        true -> lhc_bridge_answers:answer(IQ, Host);
        false -> {refuse, <<"Only operators of this live chat may ask its visitors">>}
    end;
judge(#jid{luser = ?IS_VISITOR, lresource = <<_, _/binary>>}, #iq{}, _Host) ->
    {refuse, <<"A visitor's browser has asked nothing">>};
%% The component hears of messages and presence from the bridge: no client may tell it of them. A client only answers
%% what the component has asked, as a ping.
judge(#jid{lserver = Other}, Stanza, Host) when Other /= Host ->
    case lhc_bridge_options:component(Host) of
        Other -> verdict(is_answer(Stanza), <<"Only the server may write to this address">>);
        _ -> verdict(not lists:member(Other, lhc_bridge_options:hosts()), <<"This address belongs to another live chat">>)
    end;
judge(#jid{luser = Other}, Stanza, Host) when Other /= <<>> ->
    #jid{luser = User} = xmpp:get_from(Stanza),
    verdict(User == Other orelse is_same_tenant(User, Other, Host), <<"This address belongs to another live chat">>);
judge(_To, _Stanza, _Host) ->
    pass.

verdict(true, _Text) -> pass;
verdict(false, Text) -> {refuse, Text}.

may_write(#jid{luser = Operator, lserver = Host}, #jid{luser = Visitor, lserver = Host}) ->
    lhc_bridge_operators:is_operator_for(Operator, Visitor, Host);
may_write(_Operator, #jid{lserver = Other}) ->
    not ejabberd_router:is_my_host(Other). % another virtual host is another company; other servers are not our matter

is_answer(#iq{type = Type}) ->
    Type == result orelse Type == error;
is_answer(_Stanza) ->
    false.

%% A name that is no tenant's is nobody's: nothing goes to it or comes from it.
is_same_tenant(User, Other, Host) ->
    case {lhc_bridge_names:tenant(User, Host), lhc_bridge_names:tenant(Other, Host)} of
        {{ok, Tenant}, {ok, Another}} -> Tenant == Another;
        _ -> false
    end.
