%% In the place of the bridge's own: compares nothing, as an ejabberd without it.
-module(lhc_bridge_identity).

-export([hooks/1]).

hooks(_Host) ->
    [].
