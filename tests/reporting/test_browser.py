"""The results page in a real browser: Debian's Chromium. Skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import browser
from tests.reporting.test_report import build
from workflow_scripts.stages import make_report as report

pytestmark = pytest.mark.skipif(not Path(browser.CHROMIUM).is_file(), reason=f"no Chromium at {browser.CHROMIUM}")

TAB, ENTER = ("Tab", 9), ("Enter", 13)
WIDTHS = (1280, 390)
# text of the page whose contrast to what is behind it is less than 4.5 (large text: 3)
FAINT = """(() => {
  const parse = (c) => {
    const m = c.match(/[\\d.]+/g).map(Number);
    return c.startsWith("color(srgb") ? [m[0] * 255, m[1] * 255, m[2] * 255, m[3] ?? 1] : [...m.slice(0, 3), m[3] ?? 1];
  };
  const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = (c) => [.2126, .7152, .0722].reduce((sum, w, i) => sum + w * linear(c[i] / 255), 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const found = new Set();
  let seen = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || e.closest("svg, script, style") || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), size = parseFloat(style.fontSize);
    const [a, b] = [light(parse(style.color)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    seen += 1;
    if (ratio < (large ? 3 : 4.5)) found.add(`${e.tagName}.${e.className}: ${ratio.toFixed(2)}`);
  }
  return {seen, found: [...found]};
})()"""
COLUMN = """((n) => [...document.querySelectorAll("#overview-table tbody tr")].filter((r) => !r.hidden)
  .map((r) => r.cells[n].dataset.v ?? r.cells[n].textContent.trim()))"""


@pytest.fixture(scope="module")
def chromium():
    one = browser.Browser()
    yield one
    one.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A page of made-up results with all that a page can have, one network missing."""
    folder = tmp_path_factory.mktemp("browser")
    config = build(folder, recipes=("pretrain", "oe"))
    config["papers"].append({"name": "npos", "title": "NPOS", "csv": None})
    (folder / "page config.json").write_text(json.dumps(config))
    report.main(["--config", str(folder / "page config.json"), "--out", str(folder / "report.html")])
    return (folder / "report.html").resolve().as_uri()


def sound(chromium, url):
    """What must hold for any page at any width; opens it."""
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            chromium.open(url, width, scheme=scheme)
            chromium.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
            assert chromium.complaints() == []
            assert chromium.requests() == [url]
            assert chromium.run("document.documentElement.scrollWidth") <= width
            contrast = chromium.run(FAINT)
            assert contrast["seen"] > 100 and contrast["found"] == [], (width, scheme)
            broken = chromium.run("Promise.all([...document.images].map((i) => "
                                  "i.decode().then(() => '', () => i.alt)))")
            assert broken and not any(broken)
            assert chromium.run("[...document.querySelectorAll('figure svg')].every((s) => "
                                "s.getBoundingClientRect().width > 100 && s.getBoundingClientRect().height > 50)")
    assert chromium.run("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 29)"  # the dark one, last


def test_the_page_is_sound_at_both_widths_in_both_schemes(chromium, url):
    sound(chromium, url)


def test_a_console_error_and_a_request_would_be_noticed(chromium, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text("<p style='width:2000px;color:#999'>faint</p><img src='https://example.invalid/a.png'>"
                    "<script>console.error('x'); nothing()</script>")
    chromium.open(page.as_uri(), 390)
    assert len(chromium.complaints()) >= 2
    assert "https://example.invalid/a.png" in chromium.requests()
    assert chromium.run("document.documentElement.scrollWidth") > 390
    assert chromium.run(FAINT)["found"] and chromium.run("document.images[0].naturalWidth") == 0


def test_sorting(chromium, url):
    chromium.open(url, 1280)
    chromium.run("document.querySelector('.filters select[data-key=sets]').value = ''; "
                 "document.querySelector('.filters').dispatchEvent(new Event('input', {bubbles: true}))")
    header = "document.querySelector('#overview-table th[data-col=\"3\"]')"  # AUROC
    before = chromium.run(f"{COLUMN}(3)")
    orders = []
    for expected in ("descending", "ascending", None):
        chromium.run(f"{header}.querySelector('button').click()")
        assert chromium.run(f"{header}.getAttribute('aria-sort')") == expected
        orders.append(chromium.run(f"{COLUMN}(3)"))
    values = [float(v) for v in orders[0]]
    assert values == sorted(values, reverse=True) and orders[1] == orders[0][::-1] and orders[2] == before != orders[0]
    chromium.run("document.querySelector('#overview-table th[data-col=\"0\"] button').click()")
    names = chromium.run(f"{COLUMN}(0)")
    assert names == sorted(names, key=str.lower) and len(set(names)) > 1


def test_filtering(chromium, url):
    chromium.open(url, 1280)
    rows = "[...document.querySelectorAll('#overview-table tbody tr')].filter((r) => !r.hidden)"
    said = "document.querySelector('.filters output').textContent"
    total = chromium.run("document.querySelectorAll('#overview-table tbody tr').length")
    shown = chromium.run(f"{rows}.length")
    assert set(chromium.run(f"{rows}.map((r) => r.dataset.sets)")) == {"all"} and 0 < shown < total
    assert chromium.run(said) == f"{shown} of {total} rows"
    for words, expected in (("knn outlier", 1), ("energy", 2), ("nothing like it", 0), ("", shown)):
        chromium.run(f"(() => {{ const i = document.querySelector('.filters input'); i.value = {json.dumps(words)}; "
                     "i.dispatchEvent(new Event('input', {bubbles: true})); })()")
        assert chromium.run(f"{rows}.length") == expected, words
        assert chromium.run(said) == f"{expected} of {total} rows"


def test_everything_is_reached_and_worked_by_keyboard(chromium, url):
    chromium.open(url, 1280)
    wanted = chromium.run("""(() => { let n = 0;
      for (const e of document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']"))
        if (e.getClientRects().length && !e.closest("details:not([open]) > :not(summary)")) e.dataset.stop = n++;
      return n; })()""")
    reached = []
    for _ in range(wanted + 5):
        chromium.press(*TAB)
        stop, ring = chromium.run("(() => { const e = document.activeElement, s = getComputedStyle(e); return ["
                                  "e.dataset.stop, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0]; })()")
        if stop is None:
            break
        reached.append(int(stop))
        assert ring, f"no focus ring on stop {stop}"
    assert reached[0] == 0 and set(reached) == set(range(wanted)) and wanted > 30
    chromium.open(url, 1280)
    header = "document.querySelector('#overview-table th[data-col=\"3\"]')"
    chromium.run(f"{header}.querySelector('button').focus()")
    chromium.press(*ENTER)
    assert chromium.run(f"{header}.getAttribute('aria-sort')") == "descending"


def test_the_page_of_the_default_run_is_sound(chromium, default_run):
    sound(chromium, (default_run / "results" / "small" / "report.html").resolve().as_uri())
