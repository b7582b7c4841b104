%%% In the place of ejabberd's own: tells the test what is routed.
-module(ejabberd_router).

-export([route_error/2, route/1, is_my_host/1]).

route_error(Stanza, Error) -> tell({given_back, Stanza, Error}).
route(Stanza) -> tell({routed, Stanza}).
is_my_host(Domain) -> lists:member(Domain, lhc_bridge_options:hosts()).

tell(What) ->
    test ! What,
    ok.
