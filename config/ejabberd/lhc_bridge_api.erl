%%% The admin API's gate: what has to be right before mod_http_api may run a command. Part of mod_lhc_bridge.
%%%
%%% mod_http_api itself asks for an address (api_permissions) or for the password of an XMPP account. The address alone is
%%% not enough: a page in a browser on the same machine calls from that address as well. An XMPP account is too much: who
%%% has its password could also log in as it. So here a secret is asked for, which is an option of mod_lhc_bridge. While
%%% none is set, nothing is answered.
-module(lhc_bridge_api).

%% request handler of ejabberd_http; the record #request{} was the same from 23.01 to 26.07
-export([process/2]).

-include("ejabberd_http.hrl").

%% mod_http_api's own code for credentials that are wrong.
-define(UNAUTHORIZED, 10).

-spec process([binary()], #request{}) -> {pos_integer(), [{binary(), binary()}], iodata()} | tuple().
process(Path, #request{} = Request) ->
    case refusal(Path, Request) of
        none -> mod_http_api:process(Path, Request#request{auth = undefined}); % the secret is no token of its own
        {Status, Code, Text} -> {Status, [{<<"Content-Type">>, <<"application/json">>}], body(Code, Text)}
    end.

%% A browser sends neither another site's Host nor this content type without asking first, and is told no.
refusal(_, #request{method = Method}) when Method /= 'POST' ->
    {405, 0, "Commands are sent by POST"};
refusal(Path, #request{auth = Auth, headers = Headers}) ->
    Wrong = [Refusal || {false, Refusal} <-
                 [{knows_secret(Auth), {401, ?UNAUTHORIZED, "Not the secret that mod_lhc_bridge has as api_secret"}},
                  {is_host(header('Host', Headers)), {403, 0, "Host is not the name of a virtual host"}},
                  {is_json(header('Content-Type', Headers)), {415, 0, "Content-Type is not application/json"}},
                  {may_run(Path), {503, 0, "Everything is being moved into another storage, until ejabberd is started again"}}]],
    hd(Wrong ++ [none]).

%% By digests: how long it takes tells nothing of the secret.
knows_secret({oauth, Given, _}) ->
    Digest = crypto:hash(sha256, Given),
    lists:any(fun(Secret) -> Secret /= <<>> andalso crypto:hash(sha256, Secret) == Digest end, secrets());
knows_secret(_NoneOrBasic) ->
    false.

secrets() ->
    [lhc_bridge_options:get(Host, api_secret) || Host <- lhc_bridge_options:hosts()].

is_host(Host) ->
    [Name | _] = binary:split(Host, <<":">>),
    lists:member(jid:nameprep(Name), ejabberd_option:hosts()).

is_json(Type) ->
    [Media | _] = binary:split(Type, <<";">>),
    string:lowercase(string:trim(Media)) == <<"application/json">>.

may_run([Command | _]) when Command == <<"status">>; Command == <<"lhc_move_storage">> -> true;
may_run(_) -> not lhc_bridge_storage_move:is_under_way().

header(Name, Headers) ->
    proplists:get_value(Name, Headers, <<>>).

body(Code, Text) ->
    ["{\"status\":\"error\",\"code\":", integer_to_list(Code), ",\"message\":\"", Text, "\"}"].
