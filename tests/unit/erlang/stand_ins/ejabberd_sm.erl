%%% In the place of ejabberd's own: sessions are those that tests begin.
-module(ejabberd_sm).

-export([set_resources/2, get_user_resources/2]).

set_resources(User, Resources) -> persistent_term:put({?MODULE, User}, Resources).

get_user_resources(User, _Host) -> persistent_term:get({?MODULE, User}, []).
