"""The page in headless Chromium, on a server that wants keys: keys, chats, stops, engines, small screens, use without a mouse."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from http_calls import call, post
from openai_calls import CHAT, COMPLETIONS
from server import Server, running

pytest.importorskip("playwright", reason="no Playwright, which comes with the extra `test`")
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
PATIENCE = 60_000
PHONE = {"width": 390, "height": 844}
Open = Callable[..., Page]
KEY = {"Authorization": "Bearer everything"}
FIGURES = re.compile(
    r"^TTFT [\d,]+ ms · ITL [\d,]+\.\d ms · [\d,]+\.\d tokens/s · 12 tokens · prompt \d+(, \d+ of it cached)? · cut at max tokens$"
)


@pytest.fixture(scope="module")
def keyed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "tokens").write_text("inference,metadata: talks\nall: everything\n")
    models = ["--model-control-mode=explicit", "--load-model=tiny", "--load-model=untemplated"]
    with running(repository, *models, f"--auth-token-file={folder / 'tokens'}", log=folder / "log") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # A container's root has no namespaces for the sandbox; nothing but our own page is opened.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Browser, keyed: Server) -> Iterator[Open]:
    """Opens the page in a tab of its own. None may ask another server, break the page's policy or fail in a script."""
    wrong: list[str] = []
    contexts = []

    def open_page(key: str | None = "everything", **settings: Any) -> Page:
        context = browser.new_context(**settings)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "status of 40" not in said.text else None)
        page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith((address, "data:")) else None)
        address = f"http://{keyed.http}/"
        if key:
            page.add_init_script(f"sessionStorage.setItem('octavo-key', '{key}')")
        page.goto(address)
        if key:
            expect(page.locator("#model option")).to_have_count(4, timeout=PATIENCE)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def ask(page: Page, text: str, tokens: int, temperature: str = "0") -> None:
    page.get_by_label("Temperature").fill(temperature)
    page.get_by_label("Max tokens").fill(str(tokens))
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")


def answered(page: Page) -> str:
    """The newest answer, once it is whole."""
    expect(page.locator(".answering")).to_have_count(0, timeout=PATIENCE)
    return page.locator("#log > div > .text").last.text_content() or ""


def running_requests(server: Server) -> int:
    models = call(server, "GET", "/page/live", headers=KEY).json["models"]
    return sum(model["picture"]["stats"]["running"] for model in models)


def test_it_asks_for_a_key_keeps_it_for_the_tab_alone_and_says_what_it_does_not_open(opened: Open) -> None:
    page = opened(key=None)
    field = page.get_by_label("API key")
    expect(field).to_be_visible(timeout=PATIENCE)
    assert field.get_attribute("type") == "password"
    expect(page.locator("#model option")).to_have_count(0)
    expect(page.locator("#state")).to_have_text("This server wants a key.")
    for key, models in (("wrong", 0), ("talks", 4)):
        field.fill(key)
        page.keyboard.press("Enter")
        expect(page.locator("#model option")).to_have_count(models, timeout=PATIENCE)
        expect(field).to_be_visible(visible=models == 0, timeout=PATIENCE)
        expect(page.locator("#state")).to_have_text("" if models else "This server does not know this key.")
    expect(page.locator("#news")).to_contain_text("cannot be watched", timeout=PATIENCE)
    expect(page.locator("#news")).to_contain_text("'statistics'")
    kept = page.evaluate("[Object.values(sessionStorage), localStorage.length, document.cookie, location.href.includes('talks')]")
    assert kept == [["talks"], 0, "", False]


def test_an_answer_streams_with_its_figures_and_the_next_question_knows_it(opened: Open, keyed: Server) -> None:
    page = opened()
    page.get_by_label("Model").select_option("tiny")
    messages = []
    for question in ("Hi", "Go on"):
        ask(page, question, 12)
        messages.append({"role": "user", "content": question})
        body = {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 12}
        expected = post(keyed, CHAT, body, KEY).json["choices"][0]["message"]["content"]
        assert answered(page) == expected
        messages.append({"role": "assistant", "content": expected})
        expect(page.locator(".figures").last).to_have_text(FIGURES)
    expect(page.locator(".user")).to_have_count(2)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#log > div")).to_have_count(0)


@pytest.mark.long
def test_a_model_without_a_template_goes_on_with_the_text(opened: Open, keyed: Server) -> None:
    page = opened()
    expect(page.locator("#mode")).to_be_hidden()
    page.get_by_label("Model").select_option("untemplated")
    expect(page.locator("#mode")).to_be_visible(timeout=PATIENCE)
    ask(page, "Once", 12)
    body = {"model": "untemplated", "prompt": "Once", "temperature": 0, "max_tokens": 12}
    assert answered(page) == post(keyed, COMPLETIONS, body, KEY).json["choices"][0]["text"]
    page.get_by_label("Model").select_option("tiny")
    expect(page.locator("#mode")).to_be_hidden(timeout=PATIENCE)


@pytest.mark.long
def test_an_answer_is_seen_in_the_engine_and_ends_when_it_is_stopped(opened: Open, keyed: Server) -> None:
    page = opened()
    page.get_by_label("Model").select_option("tiny")
    ask(page, "For ever", 1900)
    card = page.locator("article", has=page.get_by_role("heading", name="tiny", exact=True))
    expect(card.locator(".running")).to_have_text("1", timeout=PATIENCE)
    expect(card.locator("tbody tr td").first).to_have_text(re.compile(r"#\d+"))
    told = re.compile(r"Page pool: [1-9]\d* of [\d,]+ pages in use, [\d,]+ cached")
    expect(card.locator(".pool")).to_have_attribute("aria-label", told)
    assert len(colours(card.locator(".pool"))) >= 2, "the pool shows free pages and those of the request"
    expect(card.locator(".generated")).not_to_have_text("0.0", timeout=PATIENCE)
    page.get_by_role("button", name="Stop").click()
    check_stopped(page, keyed)
    ask(page, "Again for ever", 1900)
    expect(page.locator(".figures").last).to_contain_text("ITL", timeout=PATIENCE)
    page.keyboard.press("Escape")
    check_stopped(page, keyed)


def check_stopped(page: Page, server: Server) -> None:
    expect(page.locator(".figures").last).to_have_text(re.compile("stopped$"))
    server.wait_until(lambda: running_requests(server) == 0, "the request to end")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.get_by_label("Message")).to_be_focused()


def colours(canvas: Locator) -> set[str]:
    """The colours of a picture."""
    return set(
        canvas.evaluate(
            """(canvas) => {
              const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height), seen = new Set();
              for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255) seen.add(data.slice(at, at + 3).join());
              return [...seen];
            }"""
        )
    )


@pytest.mark.long
def test_what_is_refused_is_told_and_can_be_tried_again(opened: Open) -> None:
    page = opened()
    page.get_by_label("Model").select_option("tiny")
    ask(page, "x" * 4000, 12)
    expect(page.get_by_role("alert")).to_contain_text("2048", timeout=PATIENCE)
    expect(page.get_by_label("Message")).to_have_value("x" * 4000)
    ask(page, "Hi", 12, temperature="9")
    expect(page.locator(".user")).to_have_count(1)
    expect(page.get_by_label("Temperature")).to_be_focused()


@pytest.mark.long
def test_it_fits_small_and_large_screens_and_can_be_read_by_day_and_night(opened: Open) -> None:
    page = opened(viewport=PHONE)
    ask(page, "A" + "word" * 60, 12)
    answered(page)
    expect(page.locator("article")).to_have_count(2, timeout=PATIENCE)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for part in ("body", ".user", ".soft", "#send"):
            assert contrast(page, part) >= 4.5, (scheme, part)
        assert (luminance(page, "body") > 0.5) is (scheme == "light")
        for width in (320, PHONE["width"], 768, 1280):
            page.set_viewport_size({**PHONE, "width": width})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(BEYOND, width) == [], width


BEYOND = """(width) => [...document.querySelectorAll("input, select, textarea, button, canvas, td")]
  .filter((part) => part.checkVisibility() && part.getBoundingClientRect().right > width).map((part) => part.outerHTML)"""
BACKGROUND = """(element) => {
  while (getComputedStyle(element).backgroundColor === "rgba(0, 0, 0, 0)") element = element.parentElement;
  return getComputedStyle(element).backgroundColor;
}"""


def relative_luminance(colour: str) -> float:
    """As WCAG 2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def luminance(page: Page, part: str) -> float:
    return relative_luminance(page.locator(part).first.evaluate(BACKGROUND))


def contrast(page: Page, part: str) -> float:
    text = relative_luminance(page.locator(part).first.evaluate("(element) => getComputedStyle(element).color"))
    dark, light = sorted([text, luminance(page, part)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.long
def test_it_can_be_used_by_keyboard_and_every_control_has_a_name(opened: Open) -> None:
    page = opened(reduced_motion="reduce")
    unnamed = (
        "[...document.querySelectorAll('input, select, textarea')].filter((field) => !field.labels.length).map((field) => field.id)"
    )
    assert page.evaluate(unnamed) == []
    order = []
    for _ in range(7):
        page.keyboard.press("Tab")
        order.append(page.evaluate("document.activeElement.id"))
    assert order == ["model", "temperature", "max-tokens", "forget", "log", "prompt", "send"]
    ask(page, "Hi", 1900)
    moves = "getComputedStyle(document.querySelector('.answering > .text'), '::after').animationName"
    expect(page.locator(".answering")).to_have_count(1)
    assert page.evaluate(moves) == "none"
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moves) == "blink"
    page.keyboard.press("Escape")
    answered(page)
    assert page.get_by_role("log").get_attribute("aria-busy") == "false"
