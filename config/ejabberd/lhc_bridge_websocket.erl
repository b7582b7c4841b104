%%% The door for visitors' browsers: ejabberd's own (ejabberd_http_ws), with bounds for what comes in. Part of
%%% mod_lhc_bridge.
%%%
%%% ejabberd reads a frame of any length before it looks at a byte of it, from anybody, and as fast as it comes. Here
%%% nobody is read faster than a visitor before it is known who it is, and a connection on which too much has come in that
%%% makes no whole stanza is ended.
-module(lhc_bridge_websocket).

%% request handler of ejabberd_http
-export([socket_handoff/3]).

-include("logger.hrl").
-include("ejabberd_http.hrl").

%% Bytes a second, and bytes at once, of who has not logged in: as of a visitor in ejabberd.yml. Who logs in gets his own.
-define(RATE, {10000, 200000}).
%% Bytes: four times the longest stanza that a client may send (max_stanza_size).
-define(MOST, 1048576).
%% Milliseconds between two looks.
-define(INTERVAL, 1000).

%% The connection is handled in this process until it ends.
-spec socket_handoff([binary()], #request{}, term()) -> tuple().
socket_handoff(Path, #request{headers = Headers, ip = IP} = Request, Opts) ->
    case lists:keymember('Upgrade', 1, Headers) of
        true ->
            Connection = self(),
            Connection ! {new_shaper, ejabberd_shaper:new(?RATE)},
            spawn(fun() -> watch(Connection, erlang:monitor(process, Connection), IP) end);
        false ->
            ok
    end,
    ejabberd_http_ws:socket_handoff(Path, Request, Opts).

%% What it holds may be garbage of what it has handled, so it is collected before anything is said.
watch(Connection, Monitor, IP) ->
    receive
        {'DOWN', Monitor, process, Connection, _} -> ok
    after ?INTERVAL ->
        case holds(Connection) > ?MOST andalso erlang:garbage_collect(Connection) andalso holds(Connection) > ?MOST of
            true -> end_connection(Connection, IP);
            _ -> watch(Connection, Monitor, IP)
        end
    end.

%% Binaries that several processes refer to are not on the heap of any.
holds(Connection) ->
    case process_info(Connection, [memory, binary]) of
        [{memory, Memory}, {binary, Binaries}] ->
            lists:foldl(fun({_, Size, _}, Sum) -> Sum + Size end, Memory, lists:usort(Binaries));
        undefined ->
            0
    end.

end_connection(Connection, IP) ->
    ?WARNING_MSG("Ended a WebSocket connection from ~ts: more than ~B bytes came in that make no stanza",
                 [misc:ip_to_list(element(1, IP)), ?MOST]),
    lhc_bridge_refusals:note(long_frame),
    exit(Connection, shutdown).
