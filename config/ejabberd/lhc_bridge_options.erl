%%% What the bridge reads of ejabberd's configuration. Part of mod_lhc_bridge.
%%%
%%% Options are read whenever they are used, so a changed configuration holds at once.
-module(lhc_bridge_options).

-export([hosts/0, is_loaded/1, get/2, is_hosting/1, component/1, room_service/1]).

%% The virtual hosts that have the bridge.
-spec hosts() -> [binary()].
hosts() ->
    [Host || Host <- ejabberd_option:hosts(), is_loaded(Host)].

-spec is_loaded(binary()) -> boolean().
is_loaded(Host) ->
    gen_mod:is_loaded(Host, mod_lhc_bridge).

%% An option of the bridge, as mod_lhc_bridge:mod_options/1 lists them.
-spec get(binary(), atom()) -> term().
get(Host, Name) ->
    gen_mod:get_module_opt(Host, mod_lhc_bridge, Name).

%% Whether the server has many tenants, whose names end usernames, or one that has no name.
-spec is_hosting(binary()) -> boolean().
is_hosting(Host) ->
    get(Host, hosting).

%% The domain of the orchestrator's component.
-spec component(binary()) -> binary().
component(Host) ->
    jid:nameprep(misc:expand_keyword(<<"@HOST@">>, get(Host, component), Host)).

%% The domain of the virtual host's rooms.
-spec room_service(binary()) -> binary().
room_service(Host) ->
    hd(gen_mod:get_module_opt_hosts(Host, mod_muc)).
