%%% In the place of ejabberd's own: what is sent to the client is seen in its state.
-module(ejabberd_c2s).

-export([send/2]).

send(C2S, Stanza) -> C2S#{told => Stanza}.
