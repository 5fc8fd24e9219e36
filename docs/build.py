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

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))
from links import Names  # noqa: E402
from nb2sphinx import Site, convert, exported  # noqa: E402
from readme import code_md  # noqa: E402
from results import result_pages  # noqa: E402
from summaries import summary  # noqa: E402

TUTORIALS = ["the_study_in_five_minutes", "your_own_images",
             "where_does_a_diffusion_model_stop_generating", "what_a_blind_denoiser_sees",
             "sampling_from_a_representation",
             "denoise_the_features_of_a_network_you_already_have", "your_own_denoiser",
             "train_on_a_gpu"]
COPIED = {"CONTRIBUTING.md": "further/contributing", "CHANGELOG.md": "further/changelog"}


def title_of(notebook): return re.sub(r"^\d+[a-z]*_", "", Path(notebook).stem)


def notebooks():
    """Path from the root -> page: modules by number, tutorials in the order above, new ones after
    them"""
    modules = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT/"nbs").glob("[0-9]*.ipynb"))
    lessons = [p.relative_to(ROOT).as_posix() for p in (ROOT/"nbs/tutorials").glob("*.ipynb")]
    place = lambda p: (TUTORIALS.index(Path(p).stem) if Path(p).stem in TUTORIALS
                       else len(TUTORIALS), p)
    return {p: f"library/{title_of(p)}" for p in modules} | {p: f"tutorials/{Path(p).stem}"
                                                             for p in sorted(lessons, key=place)}


def front(site):
    """Named sections of nbs/index.ipynb, for the hand-written pages to include: README and site say
    the same, with the same pictures"""
    cells = json.loads((ROOT/"nbs/index.ipynb").read_text(encoding="utf-8"))["cells"]
    found, name = {}, ""
    for i, c in enumerate(cells):
        src = "".join(c["source"])
        name = (re.findall(r"^## (.+)$", src, re.M) or [name])[0]
        if c["cell_type"] == "markdown": src = re.sub(r"^## .+$", "", src, flags=re.M).strip()
        else:
            src = "\n\n".join(code_md(c, f"index-{i}", name, {})).replace("](docs/images/",
                                                                          "](/images/")
        found.setdefault(name, []).append(src)
    return {k: "\n\n".join(v) for k, v in found.items()}


def titles(site, books, prefix, doc):
    "A table of notebooks: title, summary"
    rows = []
    for p, there in books.items():
        if not there.startswith(prefix): continue
        head = "".join(json.loads((ROOT/p).read_text(encoding="utf-8"))["cells"][0]["source"])
        title, _, summary = head.removeprefix("# ").partition("\n")
        rows.append(f"| [{title}]({os.path.relpath(there, Path(doc).parent)}.ipynb) | "
                    f"{site.names.text(summary.strip().removeprefix('> '))} |")
    return "\n".join(["| | |", "|---|---|", *rows])


def summed(md):
    "{{summary: name}} -> the table of results that README.md has as well"
    return re.sub(r"\{\{summary: (\w+)\}\}", lambda m: summary(m[1]), md)


def hand_written(site, books, src):
    """docs/pages/*.md, with {{index: Section}} of the README, {{list: folder/}} for a toctree,
    {{titles: folder/}} and {{summary: name}} for a table"""
    sections = front(site)
    for f in sorted((HERE/"pages").rglob("*.md")):
        doc = f.relative_to(HERE/"pages").with_suffix("").as_posix()
        md = f.read_text(encoding="utf-8")
        md = re.sub(r"\{\{list: ([\w/]+)\}\}",
                    lambda m: "\n".join("/" + d for d in books.values() if d.startswith(m[1])), md)
        md = site.prose(md, f.relative_to(ROOT).as_posix(), doc)
        md = re.sub(r"\{\{titles: ([\w/]+)\}\}", lambda m: titles(site, books, m[1], doc), md)
        md = re.sub(r"\{\{index: ([^}]+)\}\}",
                    lambda m: site.prose(sections[m[1]], "nbs/index.ipynb", doc), md)
        write(src/f"{doc}.md", summed(md))
    for f, doc in COPIED.items():
        write(src/f"{doc}.md", site.prose((ROOT/f).read_text(encoding="utf-8"), f, doc))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def sources(src):
    "Write everything that Sphinx reads"
    books = notebooks()
    read = lambda p: json.loads((ROOT/p).read_text(encoding="utf-8"))
    code = {title_of(p): "\n\n".join(exported(read(p))) for p in books
            if not p.startswith("nbs/tutorials")}
    results = result_pages(ROOT)
    pages = books | COPIED | {"nbs/index.ipynb": "index", "CITATION.cff": "further/citation",
                              "LICENSE": "further/citation"}
    pages |= {f.relative_to(ROOT).as_posix(): f.relative_to(
        HERE/"pages").with_suffix("").as_posix() for f in (HERE/"pages").rglob("*.md")}
    pages |= {f"docs/results/{k}.{ext}": f"results/{k}" for k in results for ext in ("json", "md")}
    site = Site(ROOT, Names(code), pages)
    for p, doc in books.items():
        write(src/f"{doc}.ipynb",
              json.dumps(convert(site, p, doc, title_of(p) if doc.startswith("library/")
                                 else None), indent=1))
    for k, md in results.items(): write(src/f"results/{k}.md", summed(md))
    shutil.copytree(ROOT/"docs/images", src/"images")
    hand_written(site, books, src)
    return len(books)


def main(args):
    start, src = time.time(), HERE/"_src"
    shutil.rmtree(src, ignore_errors=True)
    n = sources(src)
    middle = time.time()
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-j", "2", "-b", "html",
               "-c", HERE, src, HERE/"_build/html", *args]
    code = subprocess.run(command).returncode
    pages = sum(1 for _ in (HERE/"_build/html").rglob("*.html"))
    print(f"{pages} pages of {n} notebooks and more: sources {middle - start:.1f} s, Sphinx "
          f"{time.time() - middle:.1f} s -> docs/_build/html/index.html")
    return code


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
