%%% Lets processes of ejabberd end by a fault, for tests of what is logged then.
-module(mod_ends_badly).
-behaviour(gen_mod).
-export([start/2, stop/1, reload/3, depends/2, mod_options/1, mod_doc/0]).
-export([end_session/3, end_room/2, fail/1]).

-include("ejabberd_commands.hrl").
-include_lib("xmpp/include/xmpp.hrl").

start(Host, _Opts) ->
    ejabberd_commands:register_commands(?MODULE, commands()),
    ejabberd_hooks:add(user_send_packet, Host, ?MODULE, fail, 20).

stop(_Host) -> ok.
reload(_Host, _New, _Old) -> ok.
depends(_Host, _Opts) -> [].
mod_options(_Host) -> [].
mod_doc() -> #{desc => <<"For tests alone">>}.

commands() ->
    [#ejabberd_commands{name = test_end_session, module = ?MODULE, function = end_session, result = {res, rescode},
                        args = [{user, binary}, {host, binary}, {resource, binary}]},
     #ejabberd_commands{name = test_end_room, module = ?MODULE, function = end_room, result = {res, rescode},
                        args = [{room, binary}, {service, binary}]}].

%% With what its client sends in the mailbox.
end_session(User, Host, Resource) ->
    Pid = ejabberd_sm:get_session_pid(User, Host, Resource),
    Pid ! {unheard_of, #message{body = [#text{data = <<"secret in an unknown message">>}]}},
    Pid ! {unheard_of, <<"<message><body>secret in XML</body></message>">>},
    sys:terminate(Pid, {of_no_use, #message{body = [#text{data = <<"secret as a reason">>}]}}),
    ok.

end_room(Room, Service) ->
    {ok, Pid} = mod_muc:unhibernate_room(hd(ejabberd_option:hosts()), Service, Room),
    sys:suspend(Pid),
    p1_fsm:send_event(Pid, {route, <<>>, #message{body = [#text{data = <<"secret in the mailbox">>}]}}),
    sys:terminate(Pid, "secret text as a reason"),
    ok.

%% A hook that fails at a message.
fail({#message{subject = [#text{data = <<"fail">>}]} = Msg, _C2S}) ->
    lists:nth(Msg, <<"secret argument">>);
fail(Acc) ->
    Acc.
