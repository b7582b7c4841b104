%%% Answers what operators' clients ask of visitors, as a client that is there would. Part of mod_lhc_bridge.
%%%
%%% A visitor who is shown online has an address like any contact, and clients ask it what they ask everybody: what it is,
%%% what it can do, whether it is there. Behind the address is a web page, so the answers are the same for all.
-module(lhc_bridge_answers).

%% for lhc_bridge_guard
-export([answer/2]).

-include("lhc_bridge.hrl").
-include_lib("xmpp/include/xmpp.hrl").

-define(NAME, <<"Live Helper Chat">>).
-define(FEATURES, [?NS_CHATSTATES, ?NS_DISCO_INFO, ?NS_DISCO_ITEMS, ?NS_LAST, ?NS_NICK, ?NS_PING, ?NS_RECEIPTS, ?NS_TIME,
                   ?NS_VCARD, ?NS_VERSION]).

%% A question (`get` or `set`) of an operator of that visitor's live chat. `pass`: the server answers for the account.
-spec answer(iq(), binary()) -> pass | answered.
answer(#iq{to = #jid{luser = Visitor, lresource = Resource}} = IQ, Host) ->
    Addresses = addresses(Visitor, Host),
    case {Resource, lists:member(Resource, Addresses)} of
        {<<>>, _} when Addresses == [] -> of_absent(IQ, Host);
        {<<>>, _} -> route(IQ, of_account(IQ, Addresses));
        {_, true} -> route(IQ, of_client(IQ));
        {_, false} -> route(IQ, none)
    end.

%% The resources that operators see.
addresses(Visitor, Host) ->
    [?VIRTUAL || lhc_bridge_shown:is_shown(Host, Visitor)]
        ++ [Resource || {_, Resource} <- ejabberd_sm:get_user_present_resources(Visitor, Host), Resource /= ?VIRTUAL].

%% The vCard is kept for who is away, too; that there is an account can be pinged.
of_absent(#iq{to = #jid{luser = Visitor}, sub_els = [El]} = IQ, Host) ->
    IsKept = lists:member(xmpp:get_ns(El), [?NS_VCARD, ?NS_PING]) andalso ejabberd_auth:user_exists(Visitor, Host),
    case IsKept of
        true -> pass;
        false -> route(IQ, none)
    end.

of_account(#iq{to = Visitor} = IQ, Addresses) ->
    case question(IQ) of
        {?NS_DISCO_INFO, <<>>} ->
            #disco_info{identities = [#identity{category = <<"account">>, type = <<"registered">>}], features = ?FEATURES};
        {?NS_DISCO_ITEMS, <<>>} ->
            #disco_items{items = [#disco_item{jid = jid:replace_resource(Visitor, Resource)} || Resource <- Addresses]};
        _ ->
            of_client(IQ)
    end.

of_client(#iq{to = #jid{luser = Visitor, lserver = Host}} = IQ) ->
    case question(IQ) of
        {?NS_PING, _} -> undefined; % an empty result
        {?NS_VERSION, _} -> #version{name = ?NAME, ver = list_to_binary(lhc_bridge_admin:version())};
        {?NS_LAST, _} -> #last{seconds = 0};
        {?NS_TIME, _} -> #time{tzo = {0, 0}, utc = erlang:timestamp()};
        {?NS_VCARD, _} -> vcard(Visitor, Host);
        {?NS_DISCO_INFO, <<>>} ->
            #disco_info{identities = [#identity{category = <<"client">>, type = <<"web">>, name = ?NAME}],
                        features = ?FEATURES};
        {?NS_DISCO_ITEMS, <<>>} -> #disco_items{};
        {Namespace, _} when Namespace == ?NS_DISCO_INFO; Namespace == ?NS_DISCO_ITEMS -> no_item;
        _ -> unknown
    end.

%% The namespace, and the node if there is one. What sets something is no question.
question(#iq{type = get, sub_els = [El]}) ->
    #xmlel{attrs = Attributes} = xmpp:encode(El),
    {xmpp:get_ns(El), fxml:get_attr_s(<<"node">>, Attributes)};
question(_IQ) ->
    none.

vcard(Visitor, Host) ->
    case gen_mod:is_loaded(Host, mod_vcard) andalso mod_vcard:get_vcard(Visitor, Host) of
        [VCard | _] -> VCard;
        _ -> #vcard_temp{}
    end.

route(#iq{lang = Lang} = IQ, none) ->
    ejabberd_router:route(xmpp:make_error(IQ, xmpp:err_service_unavailable(<<"The visitor is not there">>, Lang))),
    answered;
route(#iq{lang = Lang} = IQ, unknown) -> % the condition of RFC 6120, 8.4, for what is not understood
    Text = <<"The visitor's client does not support this">>,
    ejabberd_router:route(xmpp:make_error(IQ, xmpp:err_service_unavailable(Text, Lang))),
    answered;
route(IQ, no_item) ->
    ejabberd_router:route(xmpp:make_error(IQ, xmpp:err_item_not_found())),
    answered;
route(IQ, undefined) ->
    ejabberd_router:route(xmpp:make_iq_result(IQ)),
    answered;
route(IQ, Answer) ->
    ejabberd_router:route(xmpp:make_iq_result(IQ, Answer)),
    answered.
