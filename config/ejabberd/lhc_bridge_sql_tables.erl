%%% Makes ejabberd's tables in an empty SQL database. From 23.10 on ejabberd does so itself. Part of mod_lhc_bridge.
-module(lhc_bridge_sql_tables).

-export([make/1]).

-include("logger.hrl").

%% Seconds until the database must have answered.
-define(WAIT, 60).

%% The file of the option makes all of them, or none: PostgreSQL takes it as one transaction.
-spec make(binary()) -> ok.
make(Host) ->
    case [Opts || {mod_lhc_bridge, Opts, _} <- ejabberd_option:modules(Host)] of
        [#{sql_tables := File}] when File /= <<>> ->
            makes_them_itself(Host) orelse make(Host, File, ?WAIT),
            ok;
        _ -> ok
    end.

%% Each of its modules makes its own when it starts: some are there before we are asked, and the file fails at those.
makes_them_itself(Host) ->
    ejabberd_option:default_db(Host) == sql andalso
        code:ensure_loaded(ejabberd_sql_schema) == {module, ejabberd_sql_schema}.

make(Host, File, Wait) ->
    case are_there(Host) of
        true ->
            ok;
        false ->
            {ok, Tables} = file:read_file(File),
            ?INFO_MSG("Making the tables of ~ts", [File]),
            %% another node may have been faster
            Result = ejabberd_sql:sql_query(Host, [Tables]),
            are_there(Host) == true orelse error({no_tables, Result}),
            ok;
        {error, Reason} when Wait == 0 ->
            error({no_database, Reason});
        {error, _} ->
            timer:sleep(1000),
            make(Host, File, Wait - 1)
    end.

are_there(Host) ->
    case ejabberd_sql:sql_query(Host, [<<"select 1 from pg_tables where tablename = 'users' and"
                                         " schemaname = any (current_schemas(false))">>]) of
        {selected, _, [_ | _]} -> true;
        {selected, _, []} -> false;
        {error, Reason} -> {error, Reason}
    end.
