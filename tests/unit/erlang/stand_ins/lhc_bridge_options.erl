%%% In the place of the bridge's own: a configuration that tests set.
-module(lhc_bridge_options).

-export([set/2, reset/0]).
-export([hosts/0, is_loaded/1, get/2, is_hosting/1, component/1, room_service/1]).

-define(DEFAULTS, #{hosting => true, iq_timeout => 60000, max_messages => 400, max_bytes => 1000000,
                    operator_rate => 2, operators_rate => 3, visitor_rate => 1, visitors_rate => 2,
                    stanza_bytes => 1000000}).

set(Name, Value) -> persistent_term:put(?MODULE, (options())#{Name => Value}).
reset() -> persistent_term:erase(?MODULE).
options() -> persistent_term:get(?MODULE, ?DEFAULTS).

hosts() -> [<<"host">>, <<"company">>].
is_loaded(Host) -> lists:member(Host, hosts()).
get(_Host, Name) -> maps:get(Name, options()).
is_hosting(Host) -> get(Host, hosting).
component(Host) -> <<"lhc.", Host/binary>>.
room_service(Host) -> <<"conference.", Host/binary>>.
