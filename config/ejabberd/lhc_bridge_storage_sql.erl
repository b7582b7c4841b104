%%% What ejabberd keeps in SQL: for lhc_bridge_storage, which says what each function is for. Part of mod_lhc_bridge.
%%%
%%% ejabberd's macros write the queries for both of its schemas, with and without a column for the virtual host.
-module(lhc_bridge_storage_sql).

-export([transaction/2, select/2, change/2, names/3, having/3]).
-export([opts/2, displaying/2, members/2, members_of/3, groups_of/2, groups_until_done/2, add_members/3, remove_members/3,
         leave_all/2]).
-export([nicks/2, contacts/1, waiting/1, waiting/2, bytes/1]).

-include("ejabberd_sql_pt.hrl").

%%%===================================================================
%%% Queries
%%%===================================================================

-spec transaction(binary(), fun(() -> Result)) -> Result.
transaction(Host, Work) ->
    case ejabberd_sql:sql_transaction(Host, Work) of
        {atomic, Result} -> Result;
        {aborted, Reason} -> lhc_bridge_storage:away(sql, Reason)
    end.

-spec select(binary(), tuple()) -> [tuple()].
select(Host, Query) ->
    case ejabberd_sql:sql_query(Host, Query) of
        {selected, Rows} -> Rows;
        Error -> lhc_bridge_storage:away(sql, Error)
    end.

-spec change(binary(), tuple() | [binary()]) -> ok.
change(Host, Query) ->
    case ejabberd_sql:sql_query(Host, Query) of
        {updated, _} -> ok;
        Error -> lhc_bridge_storage:away(sql, Error)
    end.

column(Rows) ->
    [Value || {Value} <- Rows].

%% A pattern of LIKE.
ending_in(Text) ->
    <<"%", (ejabberd_sql:escape_like_arg(Text))/binary>>.

%% What is written of a bare address.
address(User, Host) -> <<User/binary, $@, Host/binary>>.

addresses(Users, Host) -> [address(User, Host) || User <- Users].

local_part(Address) -> hd(binary:split(Address, <<"@">>)).

%%%===================================================================
%%% What there is
%%%===================================================================

-spec names(binary(), lhc_bridge_storage:kind(), binary()) -> [binary()].
names(Host, members, Suffix) ->
    Like = ending_in(address(Suffix, Host)),
    Rows = select(Host, ?SQL("select distinct @(jid)s from sr_user where jid like %(Like)s %ESCAPE and %(Host)H")),
    [local_part(Address) || {Address} <- Rows];
names(Host, Kind, Suffix) ->
    column(select(Host, ending(Kind, Host, ending_in(Suffix)))).

ending(accounts, Host, Like) ->
    ?SQL("select distinct @(username)s from users where username like %(Like)s %ESCAPE and %(Host)H");
ending(rosters, Host, Like) ->
    ?SQL("select @(name)s from sr_group where name like %(Like)s %ESCAPE and %(Host)H");
ending(rooms, Host, Like) ->
    Service = lhc_bridge_options:room_service(Host),
    ?SQL("select @(name)s from muc_room where name like %(Like)s %ESCAPE and host=%(Service)s and %(Host)H");
ending(vcards, Host, Like) ->
    ?SQL("select @(username)s from vcard where username like %(Like)s %ESCAPE and %(Host)H");
ending(offline_messages, Host, Like) ->
    ?SQL("select distinct @(username)s from spool where username like %(Like)s %ESCAPE and %(Host)H");
ending(last_activity, Host, Like) ->
    ?SQL("select @(username)s from last where username like %(Like)s %ESCAPE and %(Host)H");
ending(contacts, Host, Like) ->
    ?SQL("select distinct @(username)s from rosterusers where username like %(Like)s %ESCAPE and %(Host)H").

-spec having(binary(), lhc_bridge_storage:kind(), [binary()]) -> [binary()].
having(Host, members, Users) ->
    lists:usort([User || {User, _} <- groups_of(Host, Users)]);
having(Host, Kind, Users) ->
    column(select(Host, among(Kind, Host, Users))).

among(accounts, Host, Users) ->
    ?SQL("select distinct @(username)s from users where username in %(Users)ls and %(Host)H");
among(rooms, Host, Users) ->
    Service = lhc_bridge_options:room_service(Host),
    ?SQL("select @(name)s from muc_room where name in %(Users)ls and host=%(Service)s and %(Host)H");
among(vcards, Host, Users) ->
    ?SQL("select @(username)s from vcard where username in %(Users)ls and %(Host)H");
among(offline_messages, Host, Users) ->
    ?SQL("select distinct @(username)s from spool where username in %(Users)ls and %(Host)H");
among(last_activity, Host, Users) ->
    ?SQL("select @(username)s from last where username in %(Users)ls and %(Host)H");
among(contacts, Host, Users) ->
    ?SQL("select distinct @(username)s from rosterusers where username in %(Users)ls and %(Host)H").

%%%===================================================================
%%% Shared rosters
%%%===================================================================

-spec opts(binary(), binary()) -> {ok, [{atom(), term()}]} | error.
opts(Host, Group) ->
    case select(Host, ?SQL("select @(opts)s from sr_group where name=%(Group)s and %(Host)H")) of
        [{Opts}] -> {ok, decoded(Opts)};
        [] -> error
    end.

decoded(Opts) ->
    mod_shared_roster:opts_to_binary(ejabberd_sql:decode_term(Opts)).

%% To read an Erlang term takes long: of all groups those are read that name this one at all.
-spec displaying(binary(), binary()) -> [binary()].
displaying(Host, Group) ->
    Like = <<(ending_in(Group))/binary, "%">>,
    Rows = select(Host, ?SQL("select @(name)s, @(opts)s from sr_group where opts like %(Like)s %ESCAPE and %(Host)H")),
    [Other || {Other, Opts} <- Rows, lists:member(Group, proplists:get_value(displayed_groups, decoded(Opts), []))].

-spec members(binary(), binary()) -> [binary()].
members(Host, Group) ->
    Like = ending_in(address(<<>>, Host)),
    Rows = select(Host, ?SQL("select @(jid)s from sr_user where grp=%(Group)s and jid like %(Like)s %ESCAPE"
                             " and %(Host)H")),
    [local_part(Address) || {Address} <- Rows].

-spec members_of(binary(), binary(), [binary()]) -> [binary()].
members_of(Host, Group, Users) ->
    Addresses = addresses(Users, Host),
    Rows = select(Host, ?SQL("select @(jid)s from sr_user where jid in %(Addresses)ls and grp=%(Group)s and %(Host)H")),
    [local_part(Address) || {Address} <- Rows].

-spec groups_of(binary(), [binary()]) -> [{binary(), binary()}].
groups_of(Host, Users) ->
    Addresses = addresses(Users, Host),
    pairs(select(Host, ?SQL("select @(jid)s, @(grp)s from sr_user where jid in %(Addresses)ls and %(Host)H"))).

%% In a function of a transaction an error must end that.
-spec groups_until_done(binary(), [binary()]) -> [{binary(), binary()}].
groups_until_done(Host, Users) ->
    Addresses = addresses(Users, Host),
    {selected, Rows} =
        ejabberd_sql:sql_query_t(
          [{pgsql, ?SQL("select @(jid)s, @(grp)s from sr_user where jid in %(Addresses)ls and %(Host)H for share")},
           {any, ?SQL("select @(jid)s, @(grp)s from sr_user where jid in %(Addresses)ls and %(Host)H"
                      " lock in share mode")}]),
    pairs(Rows).

pairs(Rows) ->
    [{local_part(Address), Group} || {Address, Group} <- Rows].

%% One statement for all of them: the macros write one for each.
-spec add_members(binary(), binary(), [binary()]) -> ok.
add_members(Host, Group, Users) ->
    Type = ejabberd_option:sql_type(Host),
    Text = fun(Value) -> ejabberd_sql:to_string_literal(Type, Value) end,
    {Column, Value} = case is_multihost() of
                          true -> {", server_host", [", ", Text(Host)]};
                          false -> {"", ""}
                      end,
    Rows = [["(", Text(Address), ", ", Text(Group), Value, ")"] || Address <- addresses(Users, Host)],
    {Verb, End} = case Type of
                      pgsql -> {"insert", " on conflict do nothing"};
                      _ -> {"insert ignore", ""}
                  end,
    Query = [Verb, " into sr_user (jid, grp", Column, ") values ", lists:join(", ", Rows), End],
    change(Host, [iolist_to_binary(Query)]).

%% The function was renamed in 25.10.
is_multihost() ->
    Name = case erlang:function_exported(ejabberd_sql, use_multihost_schema, 0) of
               true -> use_multihost_schema;
               false -> use_new_schema
           end,
    apply(ejabberd_sql, Name, []).

-spec remove_members(binary(), binary(), [binary()]) -> ok.
remove_members(Host, Group, Users) ->
    Addresses = addresses(Users, Host),
    change(Host, ?SQL("delete from sr_user where jid in %(Addresses)ls and grp=%(Group)s and %(Host)H")).

-spec leave_all(binary(), [binary()]) -> [{binary(), binary()}].
leave_all(Host, Users) ->
    Addresses = addresses(Users, Host),
    transaction(Host,
                fun() ->
                        {selected, Rows} = ejabberd_sql:sql_query_t(
                                             ?SQL("select @(jid)s, @(grp)s from sr_user where jid in %(Addresses)ls"
                                                  " and %(Host)H for update")),
                        ejabberd_sql:sql_query_t(?SQL("delete from sr_user where jid in %(Addresses)ls and %(Host)H")),
                        pairs(Rows)
                end).

%%%===================================================================
%%% What belongs to accounts
%%%===================================================================

%% The table that searches go to has them in columns of their own.
-spec nicks(binary(), [binary()]) -> #{binary() => binary()}.
nicks(Host, Users) ->
    Rows = select(Host, ?SQL("select @(lusername)s, @(nickname)s, @(fn)s from vcard_search"
                             " where lusername in %(Users)ls and %(Host)H")),
    maps:from_list([{User, Nick} || {User, Nickname, FullName} <- Rows,
                                    Nick <- [case Nickname of <<>> -> FullName; _ -> Nickname end], Nick /= <<>>]).

-spec contacts(binary()) -> [{{binary(), binary(), jid:ljid()}, binary()}].
contacts(Host) ->
    Rows = select(Host, ?SQL("select @(username)s, @(jid)s from rosterusers where %(Host)H")),
    [{{User, Host, JID}, Contact} || {User, Text} <- Rows,
                                     {Contact, Server, _} = JID <- [jid:tolower(jid:decode(Text))], Server == Host].

-spec waiting(binary()) -> [{binary(), non_neg_integer(), non_neg_integer()}].
waiting(Host) ->
    select(Host, ?SQL("select @(username)s, @(count(*))d, @(sum(octet_length(xml)))d from spool where %(Host)H"
                      " group by username")).

-spec waiting(binary(), binary()) -> {non_neg_integer(), non_neg_integer()}.
waiting(Host, User) ->
    [Row] = select(Host, ?SQL("select @(count(*))d, @(coalesce(sum(octet_length(xml)), 0))d from spool"
                              " where username=%(User)s and %(Host)H")),
    Row.

-spec bytes(fxml:xmlel()) -> non_neg_integer().
bytes(Packet) ->
    byte_size(fxml:element_to_binary(Packet)).
