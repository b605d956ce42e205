"""Chat templates render as in Transformers, and what a template cannot or will not do is the caller's to read."""

import json
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers
from transformers.utils.chat_template_utils import render_jinja_template

from octavo.errors import InvalidRequest, Overloaded
from octavo.text import rendering
from octavo.text.chat_template import ChatTemplate
from octavo.text.rendering import template_helper
from octavo.text.tokenizer import load_tokenizer

HELPER = template_helper()

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
CHAT = [
    {"role": "system", "content": "Be brief.\n"},
    {"role": "user", "content": "Hi <b>'\"</b> ü"},
    {"role": "assistant", "content": "Hello.", "tool_calls": [{"name": "f", "arguments": {"ü": 1, "a": [True, None]}}]},
    {"role": "user", "content": "Again?"},
]
# The shapes of templates that models ship, small: loops, whitespace control, namespaces, tools as JSON, dates, checks.
TEMPLATES = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "llama3": "{{- bos_token }}\n{%- if not date_string is defined %}\n    {%- set date_string = '26 Jul 2024' %}\n{%- endif %}\n"
    "{%- for message in messages %}\n    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content "
    "| trim + '<|eot_id|>' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n"
    "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n",
    "namespace": "{% set ns = namespace(last=-1, self='s') %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{{ ns.last }}{{ ns.self }}{{ messages[ns.last].content }}"
    "{{ eos_token }}",
    "json": "{% for m in messages if m.tool_calls is defined %}{{ m.tool_calls | tojson }} {{ m.tool_calls | tojson(indent=2) }}"
    "{{ dict(a=1) | tojson }}{{ m.tool_calls | tojson(separators=(',', ':'), sort_keys=true) }}{% endfor %}",
    "generation": "{% for m in messages %}\n  {% if m.role == 'assistant' %}\n"
    "    {% generation %}{{ m.content }}{% endgeneration %}\n  {% else %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}",
    "loops": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% break %}{% endfor %}",
    "undefined": "{{ pad_token }}{{ tools is none }}{{ documents is none }}{{ messages[0].name }}{{ strftime_now('%Y') | length }}",
    "methods": "{{ messages[1].content.split('<')[0].strip() }}{{ messages[1].items() | list | length }}{{ '%s' % bos_token }}",
}


def template_of(source, special_tokens):
    return ChatTemplate(source, special_tokens, HELPER)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_renders_as_in_transformers(name):
    (expected,), _ = render_jinja_template([CHAT], chat_template=TEMPLATES[name], add_generation_prompt=True, **SPECIAL)
    assert template_of(TEMPLATES[name], SPECIAL).render(CHAT) == expected


def test_the_demo_models_template_comes_from_its_file(tokenizer):
    text = tokenizer.chat_template.render([{"role": "user", "content": "Hi"}])
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.encode(text, add_special_tokens=False)[0] == 1


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "{{ raise_exception('Roles must alternate.') }}",
            "The model's chat template refuses these messages: Roles must alternate.",
        ),
        ("{{ ''.__class__.__mro__ }}", "The model's chat template refuses these messages: access to attribute '__class__'"),
        ("{{ messages.append(1) }}", "The model's chat template refuses these messages: "),
        ("{% set n = namespace() %}{% set n.__x = 1 %}", "The model's chat template refuses these messages: a namespace holds no"),
        ("{{ namespace(__x=1) }}", "The model's chat template refuses these messages: a namespace holds no"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "The model's chat template cannot be applied to these messages."),
        ("{{ messages[0].content + 1 }}", "The model's chat template cannot be applied to these messages."),
        ("{{ 1 / 0 }}", "The model's chat template cannot be applied to these messages."),
        ("{% if %}", "The model's chat template is not valid Jinja, so it takes a prompt as text and no messages."),
    ],
)
def test_what_a_template_refuses_or_fails_at_is_told_in_a_sentence(source, text):
    with pytest.raises(InvalidRequest) as caught:
        template_of(source, {}).render(CHAT)
    assert str(caught.value).startswith(text)
    assert len(str(caught.value)) < 250


def snapshot(folder, config, jinja=None):
    backend = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    backend.decoder = decoders.ByteLevel()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if jinja is not None:
        (folder / "chat_template.jinja").write_text(jinja)
    return load_tokenizer(folder).chat_template


@pytest.mark.parametrize(
    ("config", "jinja", "expected"),
    [
        ({"chat_template": "A{{ bos_token }}", "bos_token": {"content": "<s>"}}, None, "A<s>"),
        ({"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}, None, "D"),
        ({"chat_template": "A", "eos_token": "</s>"}, "J{{ eos_token }}", "J</s>"),
        ({}, None, None),
        ({"chat_template": [{"name": "tool_use", "template": "T"}]}, None, None),
    ],
)
def test_a_snapshot_has_its_template_in_one_of_three_places(tmp_path, config, jinja, expected):
    template = snapshot(tmp_path, config, jinja)
    assert (template.render(CHAT) if template else None) == expected


def test_rendering_imports_neither_transformers_nor_torch():
    code = (
        "import sys; from octavo.text.chat_template import ChatTemplate; ChatTemplate('x', {}).render([]);"
        "assert not {'transformers', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


ENDLESS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 10 ** (10 ** 9) }}",  # while Jinja compiles it
]
GROWING = [
    "{% for i in range(99999) %}{{ messages[1].content * 999 }}{% endfor %}",
    "{% set n = namespace(t='xy') %}{% for i in range(99) %}{% set n.t = n.t ~ n.t %}{% endfor %}",
    "{% set n = namespace(t='xy') %}{% for i in range(99) %}{% set n.t = n.t + n.t %}{% endfor %}",
    "{% set n = namespace(a=[]) %}{% for i in range(1000) %}{% set n.a = [n.a, messages[0].role * 1000000] %}{% endfor %}",
    "{{ 'x' * 10 ** 9 }}",
    "{{ 'a'.rjust(800000000) | length }}",
    "{{ 'a' | center(700000000) | length }}",
    "{{ '{:>900000000}'.format('a') | length }}",
    "{{ '%900000000d' % 1 }}",
    "{{ ('x' * 16000000).replace('x', 'y' * 50) | length }}",
]


@pytest.mark.parametrize("source", [*ENDLESS, *GROWING])
def test_a_template_that_has_no_end_is_ended(source):
    template = template_of(source, {})
    with pytest.raises(InvalidRequest, match="takes more than 1 s, 256 MiB of memory or 16777216 characters"):
        template.render(CHAT)
    assert template_of("{{ messages | length }}", {}).render(CHAT) == "4"


def test_a_template_that_was_ended_renders_again():
    template = template_of("{% if messages[0].role == 'evil' %}{{ 'x' * 10 ** 9 }}{% endif %}{{ 'ü' * (messages | length) }}", {})
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="takes more than"):
            template.render([{"role": "evil", "content": ""}])
        assert template.render(CHAT) == "üüüü"


def helpers():
    found = set()
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # one that has just been ended
            if child.name() == "octavo-template":
                found.add(child)
    return found


def alone(source):
    """A template with a helper of its own, and that."""
    before = helpers()
    template = ChatTemplate(source, {}, template_helper())
    assert template.render(CHAT) == "4"
    (helper,) = helpers() - before
    return template, helper


def test_processes_that_somebody_ends_are_replaced():
    template, helper = alone("{{ messages | length }}")
    gone = [*helper.children(), helper]
    for process in gone:
        process.kill()
    psutil.wait_procs(gone, timeout=30)
    assert template.render(CHAT) == "4"


def test_a_machine_too_busy_to_render_is_not_the_callers_mistake(monkeypatch):
    template, helper = alone("{{ messages | length }}")
    (idle,) = helper.children()
    idle.suspend()
    monkeypatch.setattr(rendering, "_PATIENCE", 0.1)
    with pytest.raises(Overloaded, match=r"was not applied within 0.1 s: the machine is busy"):
        template.render(CHAT)
    monkeypatch.undo()
    assert template.render(CHAT) == "4"
    idle.kill()  # it cannot see that nobody wants it any more


def test_who_waits_for_a_helper_that_is_killed_is_answered_by_the_next():
    template, helper = alone("{{ messages | length }}")
    (idle,) = helper.children()
    helper.suspend()
    idle.kill()
    psutil.wait_procs([idle], timeout=30)
    answers = []
    asker = threading.Thread(target=lambda: answers.append(template.render(CHAT)))
    asker.start()
    deadline = time.monotonic() + 30
    while not any(frame.f_code.co_name == "poll" for frame, _ in traceback.walk_stack(sys._current_frames()[asker.ident])):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    helper.kill()
    asker.join(30)
    assert answers == ["4"]


def test_threads_do_not_wait_for_one_another_and_get_their_own_texts():
    template = template_of("{% for i in range(n) %}{% endfor %}{{ n }}", {})
    with ThreadPoolExecutor(4) as threads:
        texts = list(threads.map(lambda n: template.render(CHAT, {"n": n}), range(200)))
    assert texts == [str(n) for n in range(200)]


def test_a_process_ends_with_its_template_and_a_helper_with_its_last():
    template, helper = alone("{{ messages | length }}")
    (process,) = helper.children()
    del template
    psutil.wait_procs([process, helper], timeout=30)
    assert not process.is_running() and not helper.is_running()


def test_variables_reach_the_template_and_cannot_hide_the_messages():
    template = template_of(
        "{{ enable_thinking }}{{ tools }}{{ add_generation_prompt }}{{ bos_token }}{{ messages | length }}", SPECIAL
    )
    variables = {"enable_thinking": False, "tools": [1], "messages": [], "bos_token": "x"}
    assert template.render(CHAT, variables) == "False[1]True<s>4"


@pytest.mark.parametrize("trim", ["", " | trim"])
@pytest.mark.parametrize("content", ["So it", "So it ", ""])
def test_the_final_message_is_continued_as_in_transformers(trim, content):
    source = "{% for m in messages %}<{{ m.role }}>{{ m.content" + trim + " }}</s>{% endfor %}"
    chat = [*CHAT[:2], {"role": "assistant", "content": content}]
    (expected,), _ = render_jinja_template([chat], chat_template=source, continue_final_message=True, **SPECIAL)
    assert template_of(source, SPECIAL).render(chat, continue_final_message=True) == expected


def test_what_leaves_the_final_message_out_cannot_continue_it():
    with pytest.raises(InvalidRequest, match="leaves the final message out"):
        template_of("{{ messages[0].content }}", {}).render(CHAT, continue_final_message=True)


def test_developers_are_the_system_to_a_template_that_does_not_know_them():
    chat = [{"role": "developer", "content": "Be brief."}]
    assert template_of("{{ messages[0].role }}", {}).render(chat) == "system"
    assert template_of("{# developer #}{{ messages[0].role }}", {}).render(chat) == "developer"
