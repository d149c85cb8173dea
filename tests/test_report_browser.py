"""The report in a headless Chromium: quiet, without a network, safe, and usable by pointer and keyboard."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from miniature import evaluation, failure, run
from test_report import with_text

from analysis.report import page as report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(
        None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))
    ),
    None,
)
pytestmark = [
    pytest.mark.no_cover,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: the package chromium)"),
]
#: what would say so if it were ever taken for markup
EVIL = "<img src=x onerror=\"document.title='run'\"></script><script>document.title='run'</script>"
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> Path:
    """A report on some cells, one of which has names and translations that are markup."""
    evil = run(grouping=EVIL, cell=f"luong/{EVIL.replace('/', '')}", remaining=0.5, test=29.0)
    cells = [
        run(model, grouping, seed=seed, remaining=0.6 + 0.01 * seed + 0.05 * (grouping == "layer"))
        for model in ("luong", "transformer")
        for grouping in ("gate", "layer")
        for seed in (1, 2, 3)
    ]
    broken = failure(failure__message=EVIL, failure__traceback=EVIL, cell="luong/broken")
    candidates = [(i, (0.1 * i, 0.01 * i * i), 0.2 * i) for i in range(9)]
    tried = [evaluation(one["cell"], *candidate) for one in (evil, *cells) for candidate in candidates]
    folder = tmp_path_factory.mktemp("report")
    pruned = ["die Lampe", f"der {EVIL}", "schalte es jetzt ein"]
    results = with_text(folder, evil, pruned, runs=[*cells, broken], evaluations=tried)
    path = folder / "report.html"
    path.write_text(report(results), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as driver:
        # tests run as root in containers, where Chromium's own sandbox cannot be made
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def opened(browser, html) -> Iterator:
    """Opens the report with the options of a context; nothing may go wrong on it, whatever a test does."""
    troubles: list[str] = []
    contexts = []

    def go(address: str = "", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda said: troubles.append(f"console: {said.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("request", lambda asked: troubles.append(asked.url) if _foreign(asked.url) else None)
        page.goto(html.as_uri() + address)
        return page

    def _foreign(url: str) -> bool:
        return url.partition("#")[0] != html.as_uri() and not url.startswith("data:")

    yield go
    for context in contexts:
        assert context.pages[0].title() == "Report: grid"  # EVIL has not run
        assert context.pages[0].locator("main img, dialog img").count() == 0
        context.close()
    assert troubles == []


def charts(page) -> int:
    """Bring all figures into sight and wait until they are drawn."""
    figures = page.locator("figure")
    for i in range(figures.count()):
        figures.nth(i).scroll_into_view_if_needed()
        figures.nth(i).locator(".chart[data-ready] svg.marks").wait_for()
    return figures.count()


def column(page, number: int) -> list[str]:
    return page.locator(f"#table tbody tr > :nth-child({number})").all_inner_texts()


def test_figures_are_drawn(opened):
    page = opened()
    assert charts(page) == 7  # all but see2016
    assert "Pruned to a given sparsity" in page.locator("#missing").inner_text()


def test_the_table_is_sorted_by_its_heads(opened):
    page = opened()
    heads = page.locator("#table thead th").all_inner_texts()
    left = next(i for i, text in enumerate(heads) if text.startswith("% left"))
    head = page.locator("#table thead th").nth(left)
    head.get_by_role("button").click()
    sizes = [float(text) for text in column(page, left + 1) if text]
    assert sizes == sorted(sizes)
    assert len(sizes) == 13
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").press("Enter")
    assert [float(text) for text in column(page, left + 1) if text] == sorted(sizes, reverse=True)
    assert column(page, left + 1)[-1] == ""  # the failed cell is last, either way


def test_the_table_is_filtered_by_words_and_by_choice(opened):
    page = opened()
    count = page.locator("#count")
    assert count.inner_text() == "14 of 14 cells"
    page.get_by_label("Find").fill("transformer LAYER")
    assert count.inner_text() == "3 of 14 cells"
    assert set(column(page, 1)) == {"layer"}
    page.get_by_label("Find").fill("")
    page.get_by_label("model", exact=True).select_option("transformer")
    assert count.inner_text() == "6 of 14 cells"
    page.get_by_label("model", exact=True).select_option("")
    page.get_by_label("status", exact=True).select_option("failed")
    assert count.inner_text() == "1 of 14 cells"


def test_a_point_tells_its_cell_and_leads_to_it(opened):
    page = opened()
    charts(page)
    page.locator("#figure-group-sparsity").scroll_into_view_if_needed()
    # the number on a field of the heat map is part of it
    point = page.locator("#figure-group-sparsity .mark-text text").first
    point.hover()
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    name = tooltip.locator("tr", has_text="cell").locator("td.value").inner_text()
    point.click()
    assert page.locator("dialog#cell h2").inner_text() == name
    page.locator("dialog .chart[data-ready] svg.marks").wait_for()
    assert "Thresholds by group" in page.locator("dialog").inner_text()


def test_translations_are_side_by_side_with_differences_marked(opened):
    page = opened()
    page.locator("button.open").first.click()
    lines = page.locator("dialog .sentence").first.locator("dd").all_inner_texts()
    assert lines == ["the sensor is off", "der Sensor ist aus", "der Sensor ist aus", f"der {EVIL}"]
    gone = page.locator("dialog .sentence").first.locator("mark.gone").all_inner_texts()
    assert gone == ["Sensor", "ist", "aus"]
    assert page.locator("dialog .sentence").first.locator("mark.new").first.inner_text() == "<img"


def test_the_keyboard_is_enough(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    link = page.locator("#table .link").first
    link.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog#cell").is_visible()
    assert page.evaluate("document.activeElement.closest('dialog') !== null")
    page.keyboard.press("Escape")
    assert not page.locator("dialog#cell").is_visible()
    assert link.evaluate("element => element === document.activeElement")


def test_the_words_are_explained_by_keyboard(opened):
    page = opened()
    words = page.locator("#words dl")
    assert not words.is_visible()
    page.locator("#words summary").focus()
    page.keyboard.press("Enter")
    assert words.is_visible()
    assert "percent of the prunable connections that remain" in words.inner_text()
    assert "head" not in words.locator("dt").all_inner_texts()


def test_an_address_opens_its_cell(opened):
    page = opened("#cell=luong%2Fgate-NCS-seed1")
    assert page.locator("dialog#cell h2").inner_text() == "luong/gate-NCS-seed1"


def test_a_failed_cell_shows_its_traceback_as_text(opened):
    page = opened("#cell=luong%2Fbroken")
    assert page.locator("dialog pre").inner_text() == EVIL


def test_the_theme_follows_the_system_and_the_button(opened):
    page = opened(color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    label = "getComputedStyle(document.querySelector('#figure-cells svg.marks text')).fill"
    charts(page)
    dark = page.evaluate(ground), page.evaluate(label)
    page.locator("#theme").click()
    assert page.locator("#theme").inner_text() == "Theme: light"
    page.wait_for_function(f"{label} !== '{dark[1]}'")  # the figures are drawn anew
    light = page.evaluate(ground)
    assert light == "rgb(255, 255, 255)"
    assert dark[0] != light


def test_paper_shows_all_figures_on_light_ground(opened):
    page = opened(color_scheme="dark")
    # what figures look like when the page is put on paper, of which nothing was in sight before
    page.evaluate(
        "addEventListener('beforeprint', () => { window.printed = document.documentElement.dataset.theme; })"
    )
    paper = len(page.pdf())
    assert page.evaluate("window.printed") == "light"
    assert page.locator("figure .chart[data-ready] svg.marks").count() == 7
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    page.locator("#figures").evaluate("section => section.remove()")
    assert paper > 1.5 * len(page.pdf())


#: the least contrast of any text with its ground, as the Web Content Accessibility Guidelines compute it
CONTRAST = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const colour = parts(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility() || element.closest("svg, script")) continue;
    const [a, b] = [light(parts(getComputedStyle(element).color)), light(ground(element))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.textContent.slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0])[0];
}"""  # noqa: E501


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(opened, scheme):
    page = opened(color_scheme=scheme)
    contrast, text = page.evaluate(CONTRAST)
    assert contrast >= 4.5, text
    page.locator("button.open").first.click()
    contrast, text = page.evaluate(CONTRAST)
    assert contrast >= 4.5, text


def test_a_phone_shows_it_without_scrolling_sideways(opened):
    page = opened(viewport=PHONE, has_touch=True, is_mobile=True)
    charts(page)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    widths = page.locator("#figure-cells svg.marks, #figure-progress svg.marks").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect().width)"
    )
    assert widths
    assert max(widths) <= PHONE["width"]
    page.locator("button.open").first.tap()
    box = page.locator("dialog#cell").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]


def test_without_scripts_the_answers_are_there(opened):
    page = opened(java_script_enabled=False)
    assert page.locator(".answer").count() == 2
    assert "What does the pruned model get wrong?" in page.locator(".answer").first.inner_text()
