"""Build the site: python docs/build.py -> docs/_build/html/index.html, which needs no server and
no network.

Further arguments go to Sphinx, such as -E to begin anew. Warnings are errors. What is not built
here is written by hand in docs/pages."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from jinja2 import Environment, StrictUndefined

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "tools")]
from faces import notebooks as rooms, room_of, WINGS  # noqa: E402
from links import Names  # noqa: E402
from nb2sphinx import Site, convert, exported  # noqa: E402
from papers import ahead, arrived, beside, came_out, figures, measured_of  # noqa: E402
from papers import others, steps_of  # noqa: E402
from pictures import draw_pictures  # noqa: E402
from readme import code_md  # noqa: E402
from results import figure, overview, page as result_page, records, RESULTS  # noqa: E402
from scale import OFFERED as COSTS  # noqa: E402
from summaries import summary  # noqa: E402

TUTORIALS = [
    "the_study_in_five_minutes",
    "your_own_images",
    "where_does_a_diffusion_model_stop_generating",
    "what_a_blind_denoiser_sees",
    "sampling_from_a_representation",
    "denoise_the_features_of_a_network_you_already_have",
    "your_own_denoiser",
    "a_diffusers_model_under_the_microscope",
    "train_on_a_gpu",
]
IMAGE = re.compile(r'<img src="docs/images/([^"]+)" alt="([^"]*)" width="(\d+)">')
COPIED = {"CONTRIBUTING.md": "further/contributing", "CHANGELOG.md": "further/changelog"}


def place(path):
    return path.relative_to(ROOT).as_posix()


def library():
    return {place(p): f"library/{p.parent.name}/{room_of(p)}" for p in rooms()}


def tutorials():
    "Path from the root -> page, in the order above, new ones after them"
    paths = sorted((ROOT / "nbs/tutorials").glob("*.ipynb"))
    known = [p for name in TUTORIALS for p in paths if p.stem == name]
    others = [p for p in paths if p not in known]
    return {place(p): f"tutorials/{p.stem}" for p in known + others}


def notebooks():
    "Path from the root -> page: wing by wing from the ground up, then the tutorials"
    return library() | tutorials()


def module_of(page):
    "`library/daed/splits` -> daed.splits; nothing for a tutorial"
    parts = page.split("/")
    return ".".join(parts[1:]) if parts[0] == "library" else None


def head_of(notebook):
    "Title and one-line summary of a notebook"
    first = json.loads((ROOT / notebook).read_text(encoding="utf-8"))["cells"][0]
    title, _, summary = "".join(first["source"]).removeprefix("# ").partition("\n")
    return title, summary.strip().removeprefix("> ")


def front(site):
    """Named sections of nbs/index.ipynb, for the hand-written pages to include: README and site say
    the same, with the same pictures"""
    cells = json.loads((ROOT / "nbs/index.ipynb").read_text(encoding="utf-8"))["cells"]
    found, name = {}, ""
    for i, c in enumerate(cells):
        src = "".join(c["source"])
        name = (re.findall(r"^##? (.+)$", src, re.M) or [name])[0]
        if c["cell_type"] == "markdown":
            src = re.sub(r"^(##? |> ).+$", "", src, flags=re.M).strip()
        else:
            src = "\n\n".join(code_md(c, f"index-{i}", name, {}))
            src = IMAGE.sub(r"![\2](/images/\1){width=\3px}", src)
            src = src.replace("](docs/images/", "](/images/").replace("](docs/", "](../docs/")
        found.setdefault(name, []).append(src)
    return {k: "\n\n".join(v) for k, v in found.items()}


def seen_from(page, doc):
    return os.path.relpath(page, Path(doc).parent)


def titles(site, books, prefix, doc):
    "A table of notebooks: title, summary"
    rows = []
    for path, page in books.items():
        if not page.startswith(prefix):
            continue
        title, summary = head_of(path)
        rows.append(f"| [{title}]({seen_from(page, doc)}.ipynb) | {site.names.text(summary)} |")
    return "\n".join(["| | |", "|---|---|", *rows])


def wings(books, doc):
    "A table of the folders of the library: name, what is in it, its notebooks"
    rows = ["| wing | what is in it | notebooks |", "|---|---|---|"]
    for wing, what in WINGS.items():
        pages = [page for page in books.values() if page.startswith(f"library/{wing}/")]
        links = [f"[{page.rpartition('/')[2]}]({seen_from(page, doc)}.ipynb)" for page in pages]
        here = seen_from(f"library/{wing}/index.md", doc)
        rows.append(f"| [{wing}]({here}) | {what} | {', '.join(links)} |")
    return "\n".join(rows)


def wing_page(site, books, wing):
    "The page of a folder, under which its notebooks stand in the tree"
    doc = f"library/{wing}/index"
    pages = [page for page in books.values() if page.startswith(f"library/{wing}/")]
    say = (
        f"Everything here is imported from the wing: `from denoise_study.{wing} import ...`. "
        "A notebook uses those above it, and the wings before this one."
    )
    table = titles(site, books, f"library/{wing}/", doc)
    below = tree(f"/{page}" for page in pages)
    return "\n\n".join([f"# {wing}", f"{{.lead}}\n{WINGS[wing]}", say, table, below]) + "\n"


def listed(books, prefix):
    "What stands under a heading of the tree: the wings of the library, or pages of a folder"
    if prefix == "library/":
        return "\n".join(f"/library/{wing}/index" for wing in WINGS)
    return "\n".join(f"/{page}" for page in books.values() if page.startswith(prefix))


def notebooks_of(site, names, doc):
    "Links to the notebooks in which public names are made"
    found = {}
    for name in re.split(r",\s*", names):
        module = site.names.home.get(name, [None])[0]
        if not module:
            raise SystemExit(f"{doc}: {{{{of: {name}}}}}, but there is no such name")
        found[module] = seen_from(f"library/{module.replace('.', '/')}", doc)
    return ", ".join(f"[{m.rpartition('.')[2]}]({page}.ipynb)" for m, page in found.items())


def tree(names):
    "The pages below this one, for the sidebar"
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])


def offered(site, books, doc):
    "What a page of docs/pages can call, as {{ summary('daed_budget') }}"
    sections = front(site)
    return dict(
        index=lambda section: site.prose(sections[section], "nbs/index.ipynb", doc),
        titles=lambda prefix: titles(site, books, prefix, doc),
        wings=lambda: wings(books, doc),
        listed=lambda prefix: listed(books, prefix),
        of=lambda names: notebooks_of(site, names, doc),
        overview=lambda benchmarks: overview(records(benchmarks)),
        recorded=lambda benchmarks: tree(records(benchmarks)),
        figure=figure,
        summary=summary,
        came_out=came_out,
        figures=figures,
        others=others,
        beside=beside,
        ahead=ahead,
        steps_of=steps_of,
        arrived=arrived,
        measured_of=measured_of,
        **COSTS,
    )


def hand_written(site, books, src):
    "docs/pages/*.md, which are templates, and files of the root"
    templates = Environment(keep_trailing_newline=True, undefined=StrictUndefined)
    for f in sorted((HERE / "pages").rglob("*.md")):
        doc = f.relative_to(HERE / "pages").with_suffix("").as_posix()
        md = site.prose(f.read_text(encoding="utf-8"), place(f), doc)
        write(src / f"{doc}.md", templates.from_string(md).render(offered(site, books, doc)))
    for wing in WINGS:
        write(src / f"library/{wing}/index.md", wing_page(site, books, wing))
    for f, doc in COPIED.items():
        write(src / f"{doc}.md", site.prose((ROOT / f).read_text(encoding="utf-8"), f, doc))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def pages_of(books, results):
    "Path from the root of all that can be linked to -> its page"
    pages = (
        books
        | COPIED
        | {
            "nbs/index.ipynb": "index",
            "docs/results": "results/index",
            "CITATION.cff": "further/citation",
            "LICENSE": "further/citation",
        }
    )
    for f in (HERE / "pages").rglob("*.md"):
        pages[place(f)] = f.relative_to(HERE / "pages").with_suffix("").as_posix()
    for name in results:
        for ext in ("json", "md"):
            pages[f"docs/results/{name}.{ext}"] = f"results/{name}"
    return pages


def write_results(found, src):
    "A page for each results file, with its pictures, and the reports that commands wrote"
    for name, record in found.items():
        write(src / f"results/{name}.md", result_page(name, record))
        draw_pictures(name, record, src / "images")
    for report in RESULTS.glob("*.html"):
        write(src / f"whole/reports/{report.name}", report.read_text(encoding="utf-8"))


def verdict_colors(static):
    "The colours of verdicts are those of the reports"
    from denoise_study.core import verdict_css

    write(static / "verdicts.css", verdict_css() + "\n")


def sources(src):
    "Write everything that Sphinx reads"
    books = notebooks()
    code = {}
    for path, page in library().items():
        notebook = json.loads((ROOT / path).read_text(encoding="utf-8"))
        code[module_of(page)] = "\n\n".join(exported(notebook))
    results = records()
    pages = pages_of(books, results)
    site = Site(ROOT, Names(code), pages)
    write(src / "sources.json", json.dumps({page: path for path, page in pages.items()}))
    for path, page in books.items():
        write(
            src / f"{page}.ipynb", json.dumps(convert(site, path, page, module_of(page)), indent=1)
        )
    shutil.copytree(ROOT / "docs/images", src / "images", dirs_exist_ok=True)
    write_results(results, src)
    verdict_colors(src / "static")
    hand_written(site, books, src)
    return len(books)


def brought_up_to_date(folder, new):
    "What did not change keeps its time, so that Sphinx leaves it alone"
    wanted = {f.relative_to(new): f for f in new.rglob("*") if f.is_file()}
    for f in [f for f in folder.rglob("*") if f.is_file()]:
        if f.relative_to(folder) not in wanted:
            f.unlink()
    for name, f in wanted.items():
        there = folder / name
        if not there.exists() or there.read_bytes() != f.read_bytes():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(f, there)


def main(args):
    start, src = time.time(), HERE / "_src"
    with TemporaryDirectory() as new:
        n = sources(Path(new))
        brought_up_to_date(src, Path(new))
    middle = time.time()
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-j",
        "2",
        "-b",
        "html",
        "-c",
        HERE,
        src,
        HERE / "_build/html",
        *args,
    ]
    code = subprocess.run(command).returncode
    pages = sum(1 for _ in (HERE / "_build/html").rglob("*.html"))
    print(
        f"{pages} pages of {n} notebooks and more: sources {middle - start:.1f} s, "
        f"Sphinx {time.time() - middle:.1f} s -> docs/_build/html/index.html"
    )
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
