%%% Who may send what to rooms. Part of mod_lhc_bridge.
%%%
%%% Clients only use rooms, and only their own tenant's: the orchestrator makes and removes them, and invites people.
-module(lhc_bridge_room_guard).

%% for lhc_bridge_guard
-export([judge/2]).
%% for lhc_bridge_disco
-export([refused/1]).

-include_lib("xmpp/include/xmpp.hrl").

-define(OPERATORS_ONLY, <<"Only operators of this live chat may use its rooms">>).
-define(MAY_ONLY_ASK, <<"Clients may only ask for rooms here">>).

%% What becomes of a client's stanza. A refusal says nothing about whether there is such a room. The service of another
%% virtual host is another company's.
-spec judge(stanza(), binary()) -> no_room | pass | answered | {refuse, binary()}.
judge(Stanza, Host) ->
    #jid{lserver = Domain} = To = xmpp:get_to(Stanza),
    case [Owner || Owner <- lhc_bridge_options:hosts(), lhc_bridge_options:room_service(Owner) == Domain] of
        [] -> no_room;
        [Host] -> judge(To, Stanza, Host);
        _ -> {refuse, ?OPERATORS_ONLY}
    end.

judge(#jid{luser = <<>>, lresource = <<>>}, #iq{type = get, sub_els = [El]} = IQ, Host) ->
    case xmpp:get_ns(El) of
        ?NS_DISCO_ITEMS ->
            list_rooms(IQ, Host),
            answered;
        ?NS_DISCO_INFO ->
            pass;
        ?NS_PING ->
            pass;
        _ ->
            {refuse, ?MAY_ONLY_ASK}
    end;
judge(#jid{luser = <<>>}, _Stanza, _Host) ->
    {refuse, ?MAY_ONLY_ASK};
judge(#jid{luser = Room}, Stanza, Host) ->
    #jid{luser = User} = xmpp:get_from(Stanza),
    case lhc_bridge_names:room_tenant(Room, Host) of
        {ok, Tenant} ->
            case lhc_bridge_operators:is_operator_of(User, Tenant, Host) of
                true -> judge_operator(Stanza);
                false -> judge_former(Stanza, User, Tenant, Host)
            end;
        none ->
            {refuse, ?OPERATORS_ONLY}
    end.

%% mod_muc sends what declines an invitation to whomever the message names, in the room's name. And a subscriber (MUC/Sub)
%% would hear all without being seen, under a name that nobody has looked at.
judge_operator(#message{to = #jid{lresource = <<>>}, sub_els = Els}) ->
    case lists:any(fun(El) -> xmpp:get_ns(El) == ?NS_MUC_USER end, Els) of
        true -> {refuse, <<"The orchestrator alone invites people to rooms">>};
        false -> pass
    end;
judge_operator(#iq{to = #jid{lresource = <<>>}, sub_els = [El]}) ->
    case xmpp:get_ns(El) of
        ?NS_MUCSUB -> {refuse, <<"Clients enter rooms, and do not subscribe to them">>};
        _ -> pass
    end;
judge_operator(_Stanza) ->
    pass.

%% What mod_muc names among what it can do, and is refused above or done otherwise: of the service, of a room.
-spec refused(jid:jid()) -> [binary()].
refused(#jid{luser = <<>>}) -> [?NS_VCARD, ?NS_MUCSUB, ?NS_MUC_UNIQUE, ?NS_REGISTER, ?NS_RSM];
refused(_Room) -> [?NS_MUCSUB].

%% Who is no operator any more may still leave.
judge_former(#presence{type = unavailable}, User, Tenant, Host) ->
    case lhc_bridge_names:tenant(User, Host) of
        {ok, Tenant} -> pass;
        _ -> {refuse, ?OPERATORS_ONLY}
    end;
judge_former(_Stanza, _User, _Tenant, _Host) ->
    {refuse, ?OPERATORS_ONLY}.

%% Service discovery shows operators the rooms of their tenant, by the names that Live Helper Chat knows. mod_muc would ask
%% every room of everybody, and tell how many there are.
list_rooms(#iq{from = #jid{luser = User}} = IQ, Host) ->
    Service = lhc_bridge_options:room_service(Host),
    Items = [#disco_item{jid = jid:make(Room, Service), name = wire_name(Room, Host)} || Room <- own_rooms(User, Host)],
    ejabberd_router:route(xmpp:make_iq_result(IQ, #disco_items{items = Items})).

own_rooms(User, Host) ->
    case lhc_bridge_names:tenant(User, Host) of
        {ok, Tenant} ->
            case lhc_bridge_operators:is_operator_of(User, Tenant, Host) of
                true -> lhc_bridge_room_admin:rooms(Host, lhc_bridge_names:suffix(Tenant, Host));
                false -> []
            end;
        none ->
            []
    end.

wire_name(Room, Host) ->
    {ok, Tenant} = lhc_bridge_names:room_tenant(Room, Host),
    binary:part(Room, 0, byte_size(Room) - byte_size(lhc_bridge_names:suffix(Tenant, Host))).
