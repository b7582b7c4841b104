%%% Service discovery names only what its reader may use: what the guard refuses is left out. Part of mod_lhc_bridge.
-module(lhc_bridge_disco).

%% for mod_lhc_bridge
-export([hooks/1]).
%% hooks
-export([local_features/5, local_items/5, own_features/5, receive_packet/1]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

%% What a visitor's browser may ask of the server and of its own account (lhc_bridge_reach).
-define(FOR_VISITORS, [?NS_DISCO_INFO, ?NS_DISCO_ITEMS, ?NS_PING, ?NS_ROSTER]).
%% After mod_disco (100).
-define(PRIORITY, 110).

-spec hooks(binary()) -> [hook()].
hooks(Host) ->
    [{disco_local_features, Host, ?MODULE, local_features, ?PRIORITY},
     {disco_local_items, Host, ?MODULE, local_items, ?PRIORITY},
     {disco_sm_features, Host, ?MODULE, own_features, ?PRIORITY},
     {sm_receive_packet, Host, ?MODULE, receive_packet, 2}].

-type found(Thing) :: {result, [Thing]} | {error, stanza_error()} | empty.

%% Of the server. Our own namespace is the component's alone.
-spec local_features(found(binary()), jid:jid(), jid:jid(), binary(), binary()) -> found(binary()).
local_features({result, Features}, #jid{luser = ?IS_VISITOR}, _To, _Node, _Lang) ->
    {result, [Feature || Feature <- Features, lists:member(Feature, ?FOR_VISITORS)]};
local_features({result, Features}, _From, _To, _Node, _Lang) ->
    {result, lists:delete(?NS_BRIDGE, Features)};
local_features(Acc, _From, _To, _Node, _Lang) ->
    Acc.

%% Services beside the server: no client may ask the component; a browser may ask none.
-spec local_items(found(disco_item()), jid:jid(), jid:jid(), binary(), binary()) -> found(disco_item()).
local_items({result, _Items}, #jid{luser = ?IS_VISITOR}, _To, _Node, _Lang) ->
    {result, []};
local_items({result, Items}, _From, #jid{lserver = Host}, _Node, _Lang) ->
    Component = lhc_bridge_options:component(Host),
    {result, [Item || #disco_item{jid = #jid{lserver = Service}} = Item <- Items, Service /= Component]};
local_items(Acc, _From, _To, _Node, _Lang) ->
    Acc.

%% Of the client's own account.
-spec own_features(found(binary()), jid:jid(), jid:jid(), binary(), binary()) -> found(binary()).
own_features({result, Features}, #jid{luser = ?IS_VISITOR}, _To, _Node, _Lang) ->
    {result, [Feature || Feature <- Features, lists:member(Feature, ?FOR_VISITORS)]};
own_features(Acc, _From, _To, _Node, _Lang) ->
    Acc.

%% Of rooms, which say what they can do by themselves (lhc_bridge_room_guard says what of it clients may use).
-spec receive_packet(stanza()) -> stanza().
receive_packet(#iq{type = result, from = #jid{lserver = Service}, to = #jid{lserver = Host}, sub_els = [El]} = IQ)
  when Service /= Host ->
    case lhc_bridge_options:room_service(Host) == Service andalso El of
        #disco_info{features = Features} = Info ->
            IQ#iq{sub_els = [Info#disco_info{features = Features -- lhc_bridge_room_guard:refused(xmpp:get_from(IQ))}]};
        _ ->
            IQ
    end;
receive_packet(Stanza) ->
    Stanza.
