%%% What several files of the bridge share. Part of mod_lhc_bridge.

%% The username of a visitor begins so, and no operator's does (`visitorcentre.acme` is an operator).
-define(IS_VISITOR, <<"visitor.", _/binary>>).

%% The resource of each visitor for whom the component speaks (tenants/visitors/presence.py).
-define(VIRTUAL, <<"lhc">>).

%% The namespace of what the component and the bridge say to each other alone.
-define(NS_BRIDGE, <<"urn:lhc:bridge:0">>).

%% A function that ejabberd calls: hook, virtual host, module, function, priority (the lowest is called first).
-type hook() :: {atom(), binary() | global, module(), atom(), integer()}.
