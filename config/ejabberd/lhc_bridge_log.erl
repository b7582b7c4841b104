%%% What people write has no place in the log. Part of mod_lhc_bridge.
%%%
%%% When a process of ejabberd ends by a fault, its state, its mailbox and the stanza that it was at are logged, by OTP and
%%% by ejabberd itself, and so are the arguments of a hook that fails. This filter stands before all of the node's log
%%% handlers and leaves of such terms what a developer needs, which is their form: atoms, numbers, processes and where it
%%% happened, but no text. What ejabberd says in its own sentences is left as it is, with the names in it.
%%%
%%% At loglevel debug ejabberd logs each stanza in sentences; that is not kept back.
-module(lhc_bridge_log).

%% for mod_lhc_bridge
-export([start/0]).
%% the filter
-export([hide/2]).

%% Arguments of admin commands that are texts.
-define(TEXTS, [<<"nick">>, <<"nickname">>, <<"status">>, <<"reason">>, <<"title">>]).
%% How deep, and how far in a list, a term is shown.
-define(DEPTH, 12).
-define(LENGTH, 30).

%% Stays when the module stops: what is under way then may still fail.
-spec start() -> ok.
start() ->
    case logger:add_primary_filter(?MODULE, {fun ?MODULE:hide/2, []}) of
        ok -> ok;
        {error, {already_exist, _}} -> ok
    end.

%% Reports of OTP, those of its old interface (as p1_server's and p1_fsm's are), and sentences.
-spec hide(logger:log_event(), term()) -> logger:log_event().
hide(#{msg := {report, #{label := {_, progress}}}} = Event, _) ->
    Event;
hide(#{msg := {report, #{label := {error_logger, _}, format := _, args := Args} = Report}} = Event, _) ->
    Event#{msg := {report, Report#{args := form(Args, ?DEPTH)}}};
hide(#{msg := {report, #{} = Report}} = Event, _) ->
    Event#{msg := {report, maps:map(fun(Key, Value) -> kept(Key, Value) end, Report)}};
hide(#{msg := {report, Report}} = Event, _) ->
    Event#{msg := {report, form(Report, ?DEPTH)}};
hide(#{msg := {"API call" ++ _ = Format, [Name, Given | Args]}} = Event, _) ->
    Event#{msg := {Format, [Name, without_texts(Given) | Args]}};
hide(#{msg := {Format, Args}, level := Level} = Event, _)
  when Format /= string, is_list(Args), Level /= debug, Level /= info ->
    Event#{msg := {Format, arguments(Args)}};
hide(Event, _) ->
    Event.

without_texts({Name, Value}) when is_binary(Name) ->
    case lists:member(Name, ?TEXTS) of
        true -> {Name, form(Value, ?DEPTH)};
        false -> {Name, without_texts(Value)}
    end;
without_texts({Struct}) -> {without_texts(Struct)};
without_texts([First | Rest]) -> [without_texts(First) | without_texts(Rest)];
without_texts(Other) -> Other.

kept(label, Label) -> Label;
kept(_Key, Value) -> form(Value, ?DEPTH).

%% Of a sentence. A text by itself is a name or ejabberd's own, unless a call failed: then it may be one of its arguments.
arguments(Args) ->
    Read = [{Arg, text(Arg)} || Arg <- Args],
    case lists:any(fun({_, Text}) -> is_exception(Text) end, Read) of
        true -> [case is_exception(Text) of true -> places(Text); false -> form(Arg, ?DEPTH) end || {Arg, Text} <- Read];
        false -> [case is_plain(Text) of true -> Arg; false -> form(Arg, ?DEPTH) end || {Arg, Text} <- Read]
    end.

text(Arg) when is_binary(Arg); is_list(Arg) ->
    try unicode:characters_to_binary(Arg) of
        Text when is_binary(Text) -> Text;
        _ -> none
    catch
        _:_ -> none
    end;
text(_Arg) ->
    none.

is_exception(<<"exception ", _/binary>>) -> true;
is_exception(_Text) -> false.

is_plain(<<"#", _/binary>>) -> false; % a record, printed
is_plain(<<"<", _/binary>>) -> false; % XML
is_plain(Text) -> Text /= none.

%% Of an exception that is text already: where it was raised. The reason, and the arguments of the call, may hold anything.
places(Exception) ->
    Lines = binary:split(Exception, <<"\n">>, [global, trim_all]),
    Places = [Line || Line <- Lines, re:run(Line, <<"^\\s*in (function|call from)\\s">>) /= nomatch],
    iolist_to_binary(lists:join($\n, [<<"exception">> | Places])).

%% The form of a term, without any text.
form(Text, _Depth) when is_binary(Text) ->
    size_of(byte_size(Text));
form(Bits, _Depth) when is_bitstring(Bits) ->
    size_of(bit_size(Bits) div 8);
form(_Term, 0) ->
    '...';
form({file, File}, _Depth) when is_list(File) ->
    {file, filename:basename(File)}; % where in the code
form(Tuple, Depth) when is_tuple(Tuple) ->
    list_to_tuple([form(Element, Depth - 1) || Element <- tuple_to_list(Tuple)]);
form(Map, Depth) when is_map(Map) ->
    {map, form(maps:to_list(Map), Depth)};
form([_ | _] = List, Depth) ->
    case is_text(List) of
        true -> size_of(length(List));
        false -> elements(List, Depth, ?LENGTH)
    end;
form(Other, _Depth) ->
    Other.

elements([], _Depth, _Left) -> [];
elements(_More, _Depth, 0) -> ['...'];
elements([Element | More], Depth, Left) -> [form(Element, Depth - 1) | elements(More, Depth, Left - 1)];
elements(Tail, Depth, _Left) -> form(Tail, Depth - 1). % of an improper list

is_text([Char | More]) when is_integer(Char), Char >= 0, Char =< 16#10FFFF -> is_text(More);
is_text(Rest) -> Rest == [].

size_of(Size) ->
    <<"hidden: ", (integer_to_binary(Size))/binary>>.
