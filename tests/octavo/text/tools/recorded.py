"""Answers as models write them, by format, each with what a client is to get of it."""

from octavo.text.pieces import CallArguments, CallBegun, Content, Piece


def call(name: str, arguments: str) -> list[Piece]:
    return [CallBegun(name), CallArguments(arguments)]


# Qwen2.5 and Qwen3, Hermes 2 Pro and 3; then what smaller ones make of it.
HERMES: list[tuple[str, list[Piece]]] = [
    (
        '<tool_call>\n{"name": "get_current_temperature", "arguments": {"location": "San Francisco, CA, USA"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "get_temperature_date", "arguments": {"location": "Paris", "date": "2024-10-01"}}\n</tool_call>',
        [
            *call("get_current_temperature", '{"location": "San Francisco, CA, USA"}'),
            *call("get_temperature_date", '{"location": "Paris", "date": "2024-10-01"}'),
        ],
    ),
    (
        'I\'ll look that up.\n\n<tool_call>\n{"arguments": {"symbol": "TSLA"}, "name": "get_stock"}\n</tool_call>\n',
        [Content("I'll look that up."), *call("get_stock", '{"symbol": "TSLA"}')],
    ),
    ('<tool_call>{"name":"run","arguments":"{\\"code\\": 1}"}</tool_call>', call("run", '{"code": 1}')),
    ('<tool_call>\n{"name": "now"}\n</tool_call>', call("now", "{}")),
    (
        '<tool_call>\n{"name": "f", "arguments": {"html": "<b>}</b> \\" {"}, "id": 7}\n</tool_call> done',
        [
            *call("f", '{"html": "<b>}</b> \\" {"}'),
            Content(" done"),
        ],
    ),
    ('<tool_call>\n{"name": "f", "arguments": {"a": {"b": [1, 2]}}\n</tool_call>', call("f", '{"a": {"b": [1, 2]}}')),
    (
        '<tool_call>{"name": "f", "arguments": {"a": 1}, "x": [}</tool_call> and <tool_call>{"name": "g", "arguments": {}; }\n'
        '<tool_call>{"name": "h", "arguments": {}, oops',
        [*call("f", '{"a": 1}'), Content(" and"), *call("g", "{}"), *call("h", "{}"), Content("oops")],
    ),
    ('<tool_call>\n{"name": "f", "arguments": {"a": <1>}}\n</tool_call>ok', [*call("f", '{"a": <1>}}'), Content("ok")]),
    (
        '<tool_call>\n{"name": "f", "arguments": {"a": <1>}}\n</tool_call>Use <tool_call> tags.',
        [*call("f", '{"a": <1>}}'), Content("Use <tool_call> tags.")],
    ),
    ('<tool_call>\n{"name": "f", "arguments": {"a": "cut', call("f", '{"a": "cut')),
    ('<tool_call>\n{"name": "f", "argum', [Content('<tool_call>\n{"name": "f", "argum')]),
    ("Use <tool_call> tags. ", [Content("Use <tool_call> tags. ")]),
    ("<tool_call>\nnot a call\n</tool_call>", [Content("<tool_call>\nnot a call\n</tool_call>")]),
    ('<tool_call>{"nome": "f", "arguments": {}}</tool_call>', [Content('<tool_call>{"nome": "f", "arguments": {}}</tool_call>')]),
    ("a < b <tool <<tool_call", [Content("a < b <tool <<tool_call")]),
]
# Llama 3.1 and 3.2.
LLAMA: list[tuple[str, list[Piece]]] = [
    ('{"name": "get_weather", "parameters": {"city": "Paris"}}', call("get_weather", '{"city": "Paris"}')),
    (
        '<|python_tag|>{"type": "function", "name": "trending_songs", "parameters": {"n": "10", "genre": "all"}}',
        call("trending_songs", '{"n": "10", "genre": "all"}'),
    ),
    ('{"name": "a", "parameters": {}}; {"name": "b", "arguments": {"x": 1}}', [*call("a", "{}"), *call("b", '{"x": 1}')]),
    ('\n\n{"name": "a", "parameters": {}}\n', call("a", "{}")),
    ('Let me see. <|python_tag|>{"name": "a", "parameters": {}}', [Content("Let me see."), *call("a", "{}")]),
    ('{"name": "a", "parameters": {"x": 1}} That is all.', [*call("a", '{"x": 1}'), Content(" That is all.")]),
    ('{"name": "Ada", "age": 36}', [Content('{"name": "Ada", "age": 36}')]),
    ('{"name": "Ada"}', [Content('{"name": "Ada"}')]),
    ('{"city": "Paris"}', [Content('{"city": "Paris"}')]),
    ('<|python_tag|>print("hi")', [Content('<|python_tag|>print("hi")')]),
    ('{"name": "a", "para', [Content('{"name": "a", "para')]),
    (" {  ", [Content(" {  ")]),
    ("It is 5 < 6; {}.", [Content("It is 5 < 6; {}.")]),
]
# Mistral 7B v0.3 and Nemo, then Small 3.2, Devstral and Magistral.
MISTRAL: list[tuple[str, list[Piece]]] = [
    ('[TOOL_CALLS] [{"name": "add", "arguments": {"a": 3.5, "b": 4}}]', call("add", '{"a": 3.5, "b": 4}')),
    (
        '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 3.5}}, {"arguments": {"city": "SF"}, "name": "weather"}]',
        [*call("add", '{"a": 3.5}'), *call("weather", '{"city": "SF"}')],
    ),
    ('[TOOL_CALLS]add_one{"a": [1, "]"]}[TOOL_CALLS]now{}', [*call("add_one", '{"a": [1, "]"]}'), *call("now", "{}")]),
    ('Sure! [TOOL_CALLS]add[CALL_ID]aB3dE6gH9[ARGS]{"a": 1}', [Content("Sure!"), *call("add", '{"a": 1}')]),
    ('[TOOL_CALLS]add[ARGS]{"a": oops}', call("add", '{"a": oops}')),
    ('[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}', call("add", '{"a": 1}')),
    ('[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1', call("add", '{"a": 1')),
    ('[TOOL_CALLS]{"name": "add", "arguments": {"a": 1}', call("add", '{"a": 1}')),
    ("[TOOL_CALLS] none", [Content("[TOOL_CALLS] none")]),
    ("[TOOL_CALLS] [1, 2]", [Content("[TOOL_CALLS] [1, 2]")]),
    ('[TOOL_CALLS] [{"nome": "add"}] ', [Content('[TOOL_CALLS] [{"nome": "add"}] ')]),
    ("[TOOL_CALLS", [Content("[TOOL_CALLS")]),
    ("[1, 2] [TOOL]", [Content("[1, 2] [TOOL]")]),
]
# Llama 3.2 and 4, ToolACE, Olmo.
PYTHONIC: list[tuple[str, list[Piece]]] = [
    (
        "[get_weather(city='San Francisco', metric='celsius')]",
        call("get_weather", '{"city": "San Francisco", "metric": "celsius"}'),
    ),
    (
        '[a(x=1), b.c(y="]), \'", z=[{"k": None}, (1, -2.5)], from=true)]',
        [
            *call("a", '{"x": 1}'),
            *call("b.c", '{"y": "]), \'", "z": [{"k": null}, [1, -2.5]], "from": true}'),
        ],
    ),
    ("[now()]\n", call("now", "{}")),
    ("[f(a=1,)] Done.", [*call("f", '{"a": 1}'), Content(" Done.")]),
    ("[f(a=1), g(oops)]", [*call("f", '{"a": 1}'), Content(", g(oops)]")]),
    ("[f(a=1), g(b=2", [*call("f", '{"a": 1}'), Content(", g(b=2")]),
    ("[f(1)]", [Content("[f(1)]")]),
    ("[f(a=__import__('os').getcwd())]", [Content("[f(a=__import__('os').getcwd())]")]),
    ("[f(a=1, a=2)]", [Content("[f(a=1, a=2)]")]),
    ("[f(a=9**9)]", [Content("[f(a=9**9)]")]),
    ('[f(a="\\ud800")]', [Content('[f(a="\\ud800")]')]),
    ('[f(a="\\ud83d\\ude00")]', call("f", '{"a": "😀"}')),
    ("[f(a={'\\udfff': 1})]", [Content("[f(a={'\\udfff': 1})]")]),
    ("[1] Knuth, 1968", [Content("[1] Knuth, 1968")]),
    ("[]", [Content("[]")]),
    ("See [f(a=1)]", [Content("See [f(a=1)]")]),
]
