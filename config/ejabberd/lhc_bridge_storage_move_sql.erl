%%% What a move does with SQL, as the one or the other side: for lhc_bridge_storage_move. Part of mod_lhc_bridge.
-module(lhc_bridge_storage_move_sql).

-export([open/1, identities/2, messages/2, empty/1, keep/0]).

-include_lib("xmpp/include/xmpp.hrl").
-include("mod_offline.hrl").
-include("ejabberd_sql_pt.hrl").

%% Connects to the database, and makes ejabberd's tables, if they are not there.
-spec open(binary()) -> ok.
open(Host) ->
    ok = ejabberd_sql_sup:start(Host),
    lhc_bridge_sql_tables:make(Host).

-spec identities(binary(), lhc_bridge_storage:kind()) -> [term()].
identities(Host, members) ->
    Rows = lhc_bridge_storage_sql:select(Host, ?SQL("select @(grp)s, @(jid)s from sr_user where %(Host)H")),
    lists:usort([{Group, User, Server} || {Group, Text} <- Rows, {User, Server, _} <- [jid:split(jid:decode(Text))]]);
identities(Host, contacts) ->
    lists:usort(lhc_bridge_storage_sql:select(Host, ?SQL("select @(username)s, @(jid)s from rosterusers where %(Host)H")));
identities(Host, offline_messages) ->
    lists:usort([{User, Count} || {User, Count, _} <- lhc_bridge_storage_sql:waiting(Host)]);
identities(Host, Kind) ->
    lists:usort(lhc_bridge_storage_sql:names(Host, Kind, <<>>)).

%% In the order in which they came: the time of each is later than that of the one before.
-spec messages(binary(), binary()) -> [#offline_msg{}].
messages(Host, User) ->
    Rows = lhc_bridge_storage_sql:select(Host, ?SQL("select @(xml)s, @(seq)d from spool where username=%(User)s and %(Host)H"
                                                    " order by seq")),
    {Messages, _} = lists:mapfoldl(fun({XML, _}, Before) -> message(Host, User, XML, Before) end, 0, Rows),
    Messages.

message(Host, User, XML, Before) ->
    Packet = xmpp:decode(fxml_stream:parse_element(XML), ?NS_CLIENT, [ignore_els]),
    At = max(Before + 1, came_at(Packet)),
    {#offline_msg{us = {User, Host}, timestamp = misc:usec_to_now(At), expire = never,
                  from = xmpp:get_from(Packet), to = xmpp:get_to(Packet), packet = Packet}, At}.

%% Microseconds. mod_offline has written it into the message.
came_at(Packet) ->
    case xmpp:get_subtag(Packet, #delay{stamp = {0, 0, 0}}) of
        #delay{stamp = Stamp} -> misc:now_to_usec(Stamp);
        false -> erlang:system_time(microsecond)
    end.

-spec empty(binary()) -> ok.
empty(Host) ->
    Service = lhc_bridge_options:room_service(Host),
    lists:foreach(fun(Query) -> lhc_bridge_storage_sql:change(Host, Query) end,
                  [?SQL("delete from users where %(Host)H"), ?SQL("delete from sr_group where %(Host)H"),
                   ?SQL("delete from sr_user where %(Host)H"), ?SQL("delete from vcard where %(Host)H"),
                   ?SQL("delete from vcard_search where %(Host)H"), ?SQL("delete from spool where %(Host)H"),
                   ?SQL("delete from last where %(Host)H"), ?SQL("delete from rosterusers where %(Host)H"),
                   ?SQL("delete from rostergroups where %(Host)H"), ?SQL("delete from roster_version where %(Host)H"),
                   ?SQL("delete from muc_room where host=%(Service)s and %(Host)H"),
                   ?SQL("delete from muc_room_subscribers where host=%(Service)s")]).

-spec keep() -> ok.
keep() ->
    ok.
