"""The documentation site: built as CONTRIBUTING.md says, then read in a real browser, from files,
without a network.

Needs Debian's chromium and chromium-driver (or Chrome and chromedriver); skipped without them, or
without the `docs` extra."""

import ast
import importlib.util
import math
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlparse
from urllib.request import url2pathname

import faces
import pytest

ROOT = Path(__file__).parents[1]
HTML = ROOT / "docs/_build/html"
AXE = ROOT / "tests/vendor/axe.min.js"
CONTRAST = "color-contrast"  # four fifths of the time: asked of a page of each kind
RULES = [
    "image-alt",
    "link-name",
    "button-name",
    "label",
    "document-title",
    "html-has-lang",
    "heading-order",
    "list",
    "duplicate-id-aria",
    "aria-allowed-attr",
    "aria-required-attr",
    "aria-valid-attr-value",
    "scrollable-region-focusable",
]
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MISSING = [
    name for name in ("sphinx", "myst_nb", "furo", "selenium") if not importlib.util.find_spec(name)
]
pytestmark = [
    pytest.mark.skipif(
        not (BROWSER and shutil.which("chromedriver")),
        reason="no chromium and chromium-driver here",
    ),
    pytest.mark.skipif(
        bool(MISSING), reason=f"pip install -e '.[docs]' is needed: {', '.join(MISSING)} missing"
    ),
]

DRAWN = """const done = arguments[0];
Promise.resolve(window.MathJax?.startup?.promise).then(() => done(), () => done())"""

REPORT = """const [alike, rules, checker, done] = arguments;
async function report() {
  await window.MathJax?.startup?.promise;
  // the window was made narrower, and told so before it is drawn again
  await new Promise(requestAnimationFrame);
  // a report of a command has none
  const article = (document.querySelector("article") ?? document.body).cloneNode(true);
  article.querySelectorAll("pre, code, mjx-container, script").forEach(e => e.remove());
  const maths = document.querySelectorAll(".math").length;
  const drawn = document.querySelectorAll("mjx-container svg").length;
  const broken = [...document.images].filter(i => i.complete && i.naturalWidth === 0 &&
  i.currentSrc).map(i => i.src);
  document.querySelectorAll(alike).forEach(e => e.remove());

  const script = Object.assign(document.createElement("script"), {src: checker});
  await new Promise((loaded, failed) => {
    Object.assign(script, {onload: loaded, onerror: failed});
    document.head.append(script);
  });
  const found = await axe.run(document, {runOnly: {type: "rule", values: rules},
  resultTypes: ["violations"], elementRef: false});
  return {
    raw: /\\$\\$|\\\\\\(|\\\\\\[/.test(article.textContent), broken, maths, drawn,
    axe: found.violations.map(v => v.id + ": " + v.nodes.slice(0, 2).map(n => n.html.slice(0,
    120)).join(" | ")),
  };
}
report().then(done, e => done({error: String(e)}));"""

PLACE = """const here = [...document.querySelectorAll(`.sidebar-tree
.current-page > .reference`)].pop()?.getBoundingClientRect();
const cut = [...document.querySelectorAll("article .cell_input pre")].filter(e =>
e.scrollWidth > e.clientWidth + 1 && e.textContent.split("\\n").every(l => l.length <= 100));
return [here ? here.top >= 0 && here.bottom <= innerHeight : true, cut.length,
  document.querySelectorAll("article img").length]"""

# as wide as they are shown; previews in tables lead to the whole picture
DRAWINGS = """return [...document.querySelectorAll("article img")].filter(i =>
i.currentSrc.endsWith(".svg") && !i.closest("td"))
.map(i => [i.currentSrc, i.getBoundingClientRect().width])"""
LETTERS = 7  # pixels, on a phone: what is smaller is not read

WIDE = """const article = document.querySelector("article") ?? document.body;
return [...article.querySelectorAll("*")].filter(e =>
e.getBoundingClientRect().right > innerWidth + 1 && !e.closest("pre, .table-wrapper, .output,
.math, mjx-container, details, figure, .scroll"))
  .slice(0, 3).map(e => e.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="session")
def site():
    "The built site; its time is that of a fresh build"
    shutil.rmtree(HTML, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "docs/build.py", "-E"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return HTML


@pytest.fixture(scope="session")
def pages(site):
    "All pages but those that only list source code"
    found = sorted(
        p for p in site.rglob("*.html") if "_modules" not in p.parts and "_static" not in p.parts
    )
    assert len(found) > 40
    return found


def start(width, height, dark=False):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--window-size={width},{height}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
    )
    driver.execute_cdp_cmd("Network.enable", {})
    # as in a train
    driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["http://*", "https://*"]})
    if dark:
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
        )
    driver.set_script_timeout(60)
    return driver


@pytest.fixture(scope="session")
def browser():
    driver = start(1280, 900)
    yield driver
    driver.quit()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def complaints(driver):
    return [e["message"][:200] for e in driver.get_log("browser") if e["level"] == "SEVERE"]


def look(driver, page, everything=False):
    """What is wrong with a page: errors, missing files, raw or undrawn formulas, what axe-core
    finds, what does not fit a phone, and whether it has a picture, if it is one that shows results

    Coloured code, drawn formulas and the sidebar are the same everywhere and are thousands of
    elements: axe-core walks through them, and asks for contrast, on request. It sees the page as
    wide as a phone, where more has to be scrolled."""
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.get(page.as_uri())
    driver.execute_async_script(DRAWN)
    in_view, cut, images = driver.execute_script(PLACE)
    wrong = on_a_phone(driver)
    alike = "axe-nothing" if everything else "pre, mjx-container, .sidebar-drawer, .toc-drawer"
    rules = [CONTRAST, *RULES] if everything else RULES
    seen = driver.execute_async_script(REPORT, alike, rules, AXE.as_uri())
    wrong += complaints(driver) + seen.get("broken", []) + seen.get("axe", [])
    if "error" in seen:
        wrong.append(seen["error"])
    if not in_view:
        wrong.append("the page's own entry is not in the part of the tree that is shown")
    if cut:
        wrong.append(f"{cut} blocks of code are cut at the right")
    if seen.get("raw"):
        wrong.append("a formula is not drawn: raw $$ or \\( in the text")
    if seen.get("maths", 0) > seen.get("drawn", 0):
        wrong.append(f"{seen['maths']} formulas, {seen['drawn']} drawn")
    if page.parent.name in ("papers", "results") and not images:
        wrong.append("no picture")
    return wrong


@cache
def smallest_letters(url):
    "Size of the smallest letters of a drawing, as a share of its width"
    drawing = Path(url2pathname(urlparse(url).path)).read_text(encoding="utf-8")
    sizes = [int(n) for n in re.findall(r' font-size="(\d+)"', drawing)]
    return min(sizes, default=math.inf) / int(re.search(r'viewBox="0 0 (\d+) ', drawing)[1])


def on_a_phone(driver):
    """What of the page that is open is wider than a phone's screen, or too small there to be read;
    the page stays so narrow"""
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    width = driver.execute_script("return document.documentElement.scrollWidth")
    wrong = [f"{width} pixels wide", *driver.execute_script(WIDE)] if width > 390 else []
    for url, shown in driver.execute_script(DRAWINGS):
        size = shown * smallest_letters(url)
        if size < LETTERS:
            wrong.append(f"{url.rpartition('/')[2]}: letters of {size:.1f} pixels")
    return wrong


def test_pages(browser, pages):
    """Every page: no console errors, no missing files, formulas drawn, names for all that has none,
    pictures of results; and on a phone no page is wider than the screen, and drawings have letters
    that can be read"""
    second = start(1280, 900)

    def half(driver, some):
        wrong = {str(p.relative_to(HTML)): look(driver, p) for p in some}
        return {name: found for name, found in wrong.items() if found}

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(half, (browser, second), (pages[::2], pages[1::2])))
    second.quit()
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    print(f"{len(pages)} pages, {len(RULES)} rules of axe-core each")
    assert found == [{}, {}]


def test_no_window_cuts_a_page(browser, site):
    "From a wide screen to a phone: the sidebars come and go, and the text stays inside"
    cut = []
    for page in ("further/faq", "library/diffusion/unet", "results/study_digits"):
        browser.get((site / f"{page}.html").as_uri())
        for width in (1600, 1280, 1200, 1190, 1150, 1100, 1080, 1060, 1000, 900, 700, 390):
            screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            right = browser.execute_script(
                "const text = document.querySelector('article').getBoundingClientRect();"
                "return Math.max(text.right, document.documentElement.scrollWidth)"
            )
            if right > width:
                cut.append((page, width, right))
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert cut == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_kinds_of_pages(site, dark):
    "A page of each kind to the last element, on a light and on a dark page"
    driver = start(1280, 900, dark=dark)
    kinds = [
        "index",
        "choosing",
        "library/core/index",
        "library/diffusion/schedules",
        "results/study_digits",
        "results/index",
        "results/blind_fashion_mnist",
        "papers/daed",
        "further/traps",
        "tutorials/your_own_images",
    ]
    wrong = {k: w for k in kinds if (w := look(driver, site / f"{k}.html", everything=True))}
    driver.quit()
    assert wrong == {}


def test_search(browser, site):
    "The search, which runs in the browser, finds a patched method and leads to it"
    complaints(browser)  # of the pages before
    browser.get((site / "search.html").as_uri() + "?q=merge_first")
    for _ in range(100):
        found = browser.find_elements("css selector", "#search-results li a")
        links = [a.get_attribute("href") for a in found]
        if any("merge_first" in link for link in links):
            break
        time.sleep(0.1)
    room = ".".join(faces.homes()["Schedule"][0])
    there = f"library/{room.replace('.', '/')}.html#denoise_study.{room}.Schedule.merge_first"
    assert any(link.endswith(there) for link in links), links
    assert complaints(browser) == []


def test_search_with_a_server_has_excerpts(browser, site):
    "From files no page can be fetched; from a server each result shows what it says"
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
    handler = partial(Quiet, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        browser.get(f"http://127.0.0.1:{server.server_port}/search.html?q=whitened")
        for _ in range(100):
            found = browser.find_elements("css selector", "#search-results p.context")
            if any("whitened" in excerpt.text for excerpt in found):
                break
            time.sleep(0.1)
        server.shutdown()
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["http://*", "https://*"]})
    assert any("whitened" in excerpt.text for excerpt in found)
    complaints(browser)


def test_a_page_says_where_it_is_written(site):
    "A link to the file and one to the issues under every page that has a source"
    for page, source in {
        "library/core/report": "nbs/core/40_report.ipynb",
        "papers/daed": "docs/pages/papers/daed.md",
        "index": "docs/pages/index.md",
    }.items():
        html = (site / f"{page}.html").read_text(encoding="utf-8")
        assert re.search(f'href="https://github.com/[^"]+/edit/main/{source}"', html), page
        assert re.search('href="https://github.com/[^"]+/issues/new[^"]*"', html), page


def test_a_page_has_an_icon_and_a_card(site):
    "What a browser shows of it in a tab, and others where somebody links to it"
    page = site / "papers/daed.html"
    text = page.read_text(encoding="utf-8")
    icon = re.search(r'<link rel="[^"]*icon"[^>]* href="([^"?]+)', text)
    assert (page.parent / icon[1]).resolve().is_file()
    card = dict(re.findall(r'<meta property="og:(\w+)" content="([^"]*)"', text))
    assert card["title"].startswith("DAED") and card["description"]
    image = card["image"].partition("denoise_study/")[2]
    assert (site / image).is_file()


def test_widget_moves(browser, site):
    "A slider of a tutorial chooses another picture"
    from selenium.webdriver.common.keys import Keys

    browser.get((site / "tutorials/where_does_a_diffusion_model_stop_generating.html").as_uri())
    find = lambda css: browser.find_elements("css selector", css)
    for _ in range(150):
        if find(".noUi-handle") and find("img.widget-image"):
            break
        time.sleep(0.1)
    shown = lambda: [i.get_attribute("src") for i in find("img.widget-image") if i.is_displayed()]
    before, handle = shown(), find(".noUi-handle")[0]
    assert len(before) == 1 and handle.get_attribute("aria-label")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)
    handle.send_keys(Keys.ARROW_RIGHT)
    for _ in range(50):
        if shown() != before:
            break
        time.sleep(0.1)
    assert len(shown()) == 1 and shown() != before


def test_tutorials_open_in_colab(site):
    "Their link is there in words; the badge's picture would come from the network"
    for notebook in sorted((ROOT / "nbs/tutorials").glob("*.ipynb")):
        html = (site / f"tutorials/{notebook.stem}.html").read_text(encoding="utf-8")
        there = rf"https://colab\.research\.google\.com/github/[^\"]+/nbs/tutorials/{notebook.name}"
        assert re.search(f'href="{there}"', html), notebook.name
        assert "colab-badge" not in html, notebook.name


def patched_methods(tree):
    "Class.method of what a module patches into classes, fastai's events left out"
    for f in tree.body:
        if not isinstance(f, ast.FunctionDef):
            continue
        decorated = any("patch" in ast.unparse(d) for d in f.decorator_list)
        if decorated and not f.name.startswith(("_", "before_", "after_")):
            yield f"{ast.unparse(f.args.args[0].annotation)}.{f.name}"


def test_every_public_name_has_its_place(site):
    """Each name that a module offers has an entry with a source link, patched methods too; it is
    found under the name of the module and under that of the wing"""
    wrong = []
    for module in faces.modules():
        wing, room = module.parent.name, module.stem
        html = (site / f"library/{wing}/{room}.html").read_text(encoding="utf-8")
        tree = ast.parse(module.read_text(encoding="utf-8"))
        for name in [*faces.public(module), *patched_methods(tree)]:
            full = f"denoise_study.{wing}.{room}.{name}"
            source = f"_modules/denoise_study/{wing}/{room}.html#{full}"
            for anchor in full, f"denoise_study.{wing}.{name}":
                if f'id="{anchor}"' not in html:
                    wrong.append(f"{anchor} has no entry")
            if source not in html and f"{room}.html#{name}" not in html:
                wrong.append(f"{full} has no source link")
    assert wrong == []


def test_each_wing_has_its_page(site):
    "A folder of the library: its line, and its notebooks in reading order"
    for wing in faces.WINGS:
        html = (site / f"library/{wing}/index.html").read_text(encoding="utf-8")
        article = html[html.index("<article") : html.index("</article>")]
        rooms = [f"{faces.room_of(path)}.html" for path in faces.notebooks(wing)]
        places = [article.find(f'href="{room}"') for room in rooms]
        assert -1 not in places and places == sorted(places), wing


def test_verdicts_have_the_colors_of_the_reports(site):
    from denoise_study.core import Verdict, verdict_css

    assert verdict_css() in (site / "_static/verdicts.css").read_text(encoding="utf-8")
    html = (site / "results/daed_fashion_mnist.html").read_text(encoding="utf-8")
    assert f'class="{Verdict.HOLDS.css}"' in html and "_static/verdicts.css" in html
