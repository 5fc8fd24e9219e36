"Sphinx settings of the site; build.py writes the sources that it reads"

import json
import re
import sys
from configparser import ConfigParser
from functools import cache
from html import escape
from pathlib import Path
from urllib.parse import quote

from docutils import nodes
from sphinx.addnodes import toctree
from sphinx.pycode import ModuleAnalyzer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from apidoc import spans  # noqa: E402, it lies beside this file

ini = ConfigParser(delimiters=["="], interpolation=None)
ini.read(HERE.parent / "settings.ini", encoding="utf-8")
project, author, release = (ini["DEFAULT"][k] for k in ("lib_name", "author", "version"))
USER, REPO, BRANCH = (ini["DEFAULT"][k] for k in ("user", "repo", "branch"))
REPOSITORY = f"https://github.com/{USER}/{REPO}"
SITE = f"https://{USER}.github.io/{REPO}"
project_copyright = f"2026, {author}"
extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx.ext.viewcode", "sphinx_copybutton"]
myst_enable_extensions = [
    "dollarmath",
    "amsmath",
    "colon_fence",
    "attrs_block",
    "attrs_inline",
    "deflist",
]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {"widgets-embed.js": {}}
mathjax_path = "mathjax-tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "global"}}
html_theme = "furo"
html_title = "denoise_study"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static", "vendor", "_src/static"]  # the last is written by build.py
html_extra_path = [p for p in ["_src/whole"] if (HERE / p).exists()]  # reports of commands
html_css_files = ["site.css", "verdicts.css"]
html_js_files = ["site.js"]
html_show_sourcelink = html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0b62a3",
        "color-brand-content": "#0b62a3",
        "color-foreground-muted": "#5a6068",
        "font-stack": "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7cc0f0",
        "color-brand-content": "#7cc0f0",
        "color-foreground-muted": "#a3adb8",
    },
}
pygments_style, pygments_dark_style = "a11y-light", "github-dark"
add_module_names = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
copybutton_exclude = ".linenos, .gp, .go"
# with find_source: no module is imported, and fastai takes seconds
viewcode_follow_imported_members = False


def find_source(app, module):
    code = (HERE.parent / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
    ModuleAnalyzer.for_string(code, module)
    return code, spans(code)


def add_links(app, page, template, context, doctree):
    "Under each page: where it is written, and where to say that something is wrong"
    source = app.sources.get(page)
    if source and "body" in context:
        links = [f'<a href="{REPOSITORY}/issues/new?title={quote(page)}">Report a problem</a>']
        if not source.startswith("docs/results"):
            links.insert(0, f'<a href="{REPOSITORY}/edit/{BRANCH}/{source}">Edit this page</a>')
        context["body"] += f'<p class="where">{" · ".join(links)}</p>'


def add_card(app, page, template, context, doctree):
    "What is shown of a page where somebody links to it"
    title = re.sub("<[^>]+>", "", context.get("title", ""))
    card = {
        "og:site_name": project,
        "og:type": "website",
        "og:title": title,
        "og:description": ini["DEFAULT"]["description"],
        "og:url": f"{SITE}/{page}.html",
        "og:image": f"{SITE}/_images/index-1-0.png",  # the first picture of the first page
    }
    tags = [f'<meta property="{k}" content="{escape(v)}">' for k, v in card.items()]
    context["metatags"] = context.get("metatags", "") + "\n".join(tags)


def title_of(contents):
    "Of the contents of a page its title, and the pages below it"
    title = nodes.bullet_list()
    for entry in contents:
        item = nodes.list_item("", entry[0].deepcopy())
        if below := [node.copy() for node in entry.findall(toctree)]:
            item += nodes.bullet_list("", *below)
        title += item
    return title


@cache
def titles(env):
    return {page: title_of(contents) for page, contents in env.tocs.items()}


def tree_of_titles(app, page, template, context, doctree):
    """The tree in the sidebar from titles alone: Sphinx copies all headings and names of all pages
    for each page and then leaves them out, which took half of the time of a build"""
    of_all, contents = context["toctree"], app.env.tocs

    def tree(**options):
        app.env.tocs = titles(app.env)
        try:
            return of_all(**options)
        finally:
            app.env.tocs = contents

    context["toctree"] = tree


def setup(app):
    app.sources = json.loads((HERE / "_src/sources.json").read_text(encoding="utf-8"))
    app.connect("html-page-context", add_links)
    app.connect("html-page-context", add_card)
    app.connect("html-page-context", tree_of_titles, priority=400)  # before the theme asks for it
    app.connect("viewcode-find-source", find_source)
