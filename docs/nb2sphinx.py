"""A notebook as a page of the site: its prose, its outputs, and for each exported cell what the
names in it are for, with the code folded beneath.

nbdev's own pages show an exported cell as documentation only. Here the code is the lesson, so it
stays, one click away."""

import ast
import json
import os
import re
from pathlib import Path

from apidoc import block, entries
from readme import split_directives

# a picture from the network: on a page its link stands in words
BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)\s*")


def exported(notebook):
    "The exported source of a notebook, cell by cell"
    cells = (("".join(c["source"]), c) for c in notebook["cells"] if c["cell_type"] == "code")
    return [split_directives(src)[1] for src, _ in cells if re.match(r"#\| *exporti?\b", src)]


def only_imports(code):
    body = ast.parse(code).body if not re.search(r"^\s*[%!]", code, re.M) else [None]
    return bool(body) and all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in body)


class Site:
    "What a page has to know of the others"

    def __init__(self, root, names, pages):
        # pages: path from the root -> docname
        self.root, self.names, self.pages = Path(root), names, pages

    def relink(self, md, source, docname):
        """Links to files of the repository -> pages of the site; a link to what has no page stops
        the build"""

        def move(m):
            path, _, anchor = m[2].partition("#")
            if not path:
                return f"{m[1]}(#{slug(anchor)})"
            target = os.path.normpath(Path(source).parent / path)
            if target not in self.pages and os.environ.get("DRAFT"):
                return m[1].strip("[]")
            if target not in self.pages:
                raise SystemExit(
                    f"{source}: {m[2]} is linked, but the site has no page for {target}"
                )
            there = os.path.relpath(self.pages[target], Path(docname).parent)
            book = target.endswith(".ipynb") and target != "nbs/index.ipynb"
            at = f"#{slug(anchor)}" if anchor else ""
            return f"{m[1]}({there}{'.ipynb' if book else '.md'}{at})"

        link = r"(\[(?:[^\[\]`]|`[^`]*`|\[[^\]]*\])*\])\((?![a-z]+:|/)([^)\s]+)\)"
        return re.sub(
            rf"^```.*?^```|{link}|`[^`\n]+`",
            lambda m: move(m) if m[1] else m[0],
            md,
            flags=re.S | re.M,
        )

    def prose(self, md, source, docname, module=None):
        return self.names.text(self.relink(md, source, docname), module)

    def head(self, md, source, docname, module=None, colab=()):
        "Title and summary, and under them where the notebook is"
        title, _, rest = md.partition("\n")
        summary, _, rest = rest.strip().removeprefix("> ").partition("\n")
        there = os.path.relpath(self.root / source, self.root / "docs/_src" / Path(docname).parent)
        where = [f"{{download}}`notebook <{there}>`"]
        if module:
            where.insert(0, f"`denoise_study.{module}`")
        where += [f"[open in Colab]({url})" for url in colab]
        out = [
            title,
            "{.lead}\n" + self.prose(summary, source, docname, module),
            "{.where}\n" + " · ".join(where),
        ]
        return "\n\n".join(out + [rest.strip()])


def slug(anchor):
    return re.sub(r"[^\w\- ]", "", anchor.lower()).replace(" ", "-")


def code_cell(cell, code, tags, alt, **config):
    "A code cell as myst-nb reads it; of an output's forms only the best is kept"
    outputs = []
    for o in cell["outputs"]:
        data = o.get("data", {})
        if "text/html" in data:
            data = {k: v for k, v in data.items() if k != "text/markdown"}
        outputs.append(dict(o, data=data) if data else o)
    meta = dict(tags=tags, mystnb=dict(image=dict(alt=alt), **config))
    return dict(cell_type="code", execution_count=None, metadata=meta, source=code, outputs=outputs)


def convert(site, source, docname, module=None):
    "The notebook at `source` (path from the root) as a notebook for myst-nb"
    nb, cells, heading = json.loads((site.root / source).read_text(encoding="utf-8")), [], ""
    md = lambda text: cells.append(dict(cell_type="markdown", metadata={}, source=text))
    colab = BADGE.findall(
        "".join("".join(c["source"]) for c in nb["cells"] if c["cell_type"] == "markdown")
    )
    kind, text = (lambda t: site.names.kind(t, module)), (lambda t: site.names.sentence(t, module))
    for i, cell in enumerate(nb["cells"]):
        src = "".join(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            heading = (re.findall(r"^#+ (.+)$", src, re.M) or [heading])[-1]
            md(
                site.head(src, source, docname, module, colab)
                if not cells
                else site.prose(BADGE.sub("", src), source, docname, module)
            )
        if cell["cell_type"] != "code":
            continue
        opts, code = split_directives(src)
        off = lambda key: opts.get(key) == "false"
        if "hide" in opts or "default_exp" in opts or off("include") or not code:
            continue
        alt = (
            opts.get("fig-alt")
            or opts.get("fig-cap")
            or f"Picture made by the code above, in the section {heading}"
        )
        if "export" in opts or "exporti" in opts:
            if only_imports(code):
                continue
            for e in entries(code):
                md(block(e, module, kind, text))
            cells.append(
                code_cell(
                    cell,
                    code,
                    ["hide-input"],
                    alt,
                    code_prompt_show="Code",
                    code_prompt_hide="Code",
                )
            )
            continue
        asked = {
            "remove-input": off("echo"),
            "remove-output": off("output"),
            "hide-input": only_imports(code),
        }
        tags = [tag for tag, wanted in asked.items() if wanted]
        flags = [f for f in ("slow", "cuda") if f in opts]
        if "cuda" in flags:
            md(
                "{.flag}\nRuns with a GPU only; outputs, where there are any, "
                "are those of its last run."
            )
        elif flags:
            md("{.flag}\nTakes minutes.")
        if "fig-cap" in opts:
            cells.append(code_cell(cell, code, tags, alt, figure=dict(caption=opts["fig-cap"])))
        else:
            cells.append(
                code_cell(
                    cell, code, tags, alt, code_prompt_show="Imports", code_prompt_hide="Imports"
                )
            )
    for i, c in enumerate(cells):
        c["id"] = f"c{i}"
    meta = {k: v for k, v in nb["metadata"].items() if k == "widgets"}
    meta |= dict(
        kernelspec=dict(name="python3", display_name="Python 3"), language_info=dict(name="python")
    )
    return dict(nb, cells=cells, metadata=meta)
