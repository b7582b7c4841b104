-module(lhc_bridge_reach_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("xmpp/include/xmpp.hrl").

-define(VISITOR, jid:make(<<"visitor.1.acme">>, <<"host">>, <<"browser">>)).
-define(ACCOUNT, jid:make(<<"visitor.1.acme">>, <<"host">>)).
-define(OPERATOR, jid:make(<<"bob.acme">>, <<"host">>)).
-define(SERVER, jid:make(<<"host">>)).

judge(Stanza) ->
    IsOperator = fun(User) -> User == <<"bob.acme">> end,
    lhc_bridge_reach:judge(xmpp:set_from(Stanza, ?VISITOR), <<"lhc.host">>, IsOperator).

passes(Stanza) -> ?assertMatch({pass, _}, judge(Stanza)).
refused(Stanza) -> ?assertMatch({refuse, _}, judge(Stanza)).

message(To) -> message(To, chat).
message(To, Type) -> #message{type = Type, to = To, body = [#text{data = <<"hello">>}]}.
question(To, Type, Name, Namespace) ->
    #iq{type = Type, to = To, sub_els = [#xmlel{name = Name, attrs = [{<<"xmlns">>, Namespace}]}]}.

messages_reach_operators_alone_test() ->
    passes(message(?OPERATOR)),
    passes(message(?OPERATOR, normal)),
    refused(message(?OPERATOR, headline)),
    refused(message(?OPERATOR, groupchat)),
    refused(message(?OPERATOR, error)),
    refused(message(jid:make(<<"carol.acme">>, <<"host">>))),
    refused(message(jid:make(<<"bob.acme">>, <<"elsewhere">>))),
    refused(message(?SERVER)),
    refused(message(jid:make(<<"team.acme">>, <<"conference.host">>))).

%% No forged delay, forwarded message or invitation comes along.
messages_hold_what_is_listed_alone_test() ->
    Typing = #xmlel{name = <<"composing">>, attrs = [{<<"xmlns">>, ?NS_CHATSTATES}]},
    Forged = #xmlel{name = <<"delay">>, attrs = [{<<"xmlns">>, ?NS_DELAY}]},
    {pass, Kept} = judge((message(?OPERATOR))#message{sub_els = [Typing, Forged]}),
    ?assertEqual([Typing], xmpp:get_els(Kept)),
    passes(#message{type = chat, to = ?OPERATOR, sub_els = [Typing]}),
    refused(#message{type = chat, to = ?OPERATOR, sub_els = [Forged]}).

presence_is_told_to_the_server_alone_test() ->
    passes(#presence{to = ?ACCOUNT}),
    passes(#presence{type = unavailable, to = ?ACCOUNT}),
    refused(#presence{to = ?OPERATOR}),
    refused(#presence{type = subscribe, to = ?OPERATOR}),
    refused(#presence{type = subscribe, to = ?ACCOUNT}).

questions_are_those_of_a_chat_page_test() ->
    passes(question(?SERVER, get, <<"ping">>, ?NS_PING)),
    passes(question(?ACCOUNT, get, <<"query">>, ?NS_ROSTER)),
    refused(question(?ACCOUNT, set, <<"query">>, ?NS_ROSTER)),
    refused(question(?SERVER, get, <<"query">>, <<"jabber:iq:search">>)),
    refused(question(?OPERATOR, get, <<"ping">>, ?NS_PING)),
    refused(question(jid:make(<<"conference.host">>), get, <<"query">>, ?NS_DISCO_ITEMS)).

answers_go_to_who_may_ask_test() ->
    [passes(#iq{type = Type, to = To}) || Type <- [result, error], To <- [?SERVER, ?ACCOUNT, jid:make(<<"lhc.host">>)]],
    refused(#iq{type = result, to = ?OPERATOR}).

%% The refusal tells nothing of the one who was meant.
all_are_refused_in_the_same_words_test() ->
    ?assertEqual(judge(message(jid:make(<<"carol.acme">>, <<"host">>))), judge(#presence{to = ?OPERATOR})).
