"What can be measured of how the library is written: CONTRIBUTING.md gives the reasons"
import ast
import re
import subprocess
import sys
import tokenize
from configparser import ConfigParser
from io import StringIO
from pathlib import Path

import nbformat
import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from pyflakes import messages
from pyflakes.checker import Checker

ROOT = Path(__file__).parents[1]
CELL_LINES, LINE_COLUMNS, NOTEBOOK_KB = 40, 120, 300
notebooks = sorted(nbglob(get_config(ROOT).nbs_path, as_path=True))
modules = sorted(f for f in (ROOT / "denoise_study").glob("*.py") if not f.name.startswith("_"))
each_notebook = pytest.mark.parametrize("path", notebooks, ids=lambda p: p.stem)
each_module = pytest.mark.parametrize("path", modules, ids=lambda p: p.stem)

ini = ConfigParser(delimiters=["="], interpolation=None)
ini.read(ROOT / "settings.ini", encoding="utf-8")
def requirements(extra=""): return ini["DEFAULT"][f"{extra}requirements"].split()


def cells(path, kind): return [c for c in nbformat.read(path, 4).cells if c.cell_type == kind]
def code_cells(path): return [(c.id, c.source) for c in cells(path, "code")]
def exported(path):
    return [(name, src) for name, src in code_cells(path) if re.search(r"^#\| *exporti?\b", src,
                                                                       re.M)]
def is_import(node): return isinstance(node, (ast.Import, ast.ImportFrom))


# Budgets of a notebook: each check takes a notebook's path and gives the list of what is wrong with
# it.

def title(path):
    """The first cell is the title and the one-line summary, which become the module's docstring and
    the page's head"""
    first = cells(path, "markdown")[0].source
    return [] if re.fullmatch(r"# \S.*\n\n> \S.*",
                              first) else [f"first markdown cell is not '# Title', blank, '> "
                                           f"summary': {first[:80]!r}"]


def size(path):
    kb = path.stat().st_size / 1024
    return ([f"{kb:.0f} KB, at most {NOTEBOOK_KB}: make the kept outputs smaller"]
            if kb > NOTEBOOK_KB and "experiments" not in path.parts else [])


def cell_lines(path):
    return [f"cell {name} has {n} lines" for name, src in exported(path)
            if (n := len(src.splitlines())) > CELL_LINES]


def line_columns(path):
    return [f"cell {name}: {len(line)} columns: {line[:60]}..." for name, src in code_cells(path)
            for line in src.splitlines() if len(line) > LINE_COLUMNS]


def imports_alone(path):
    "nbdev runs import cells when it builds the docs: other code in them would run as well"
    def wrong(src):
        nodes = ast.parse(src).body
        return any(map(is_import, nodes)) and not all(map(is_import, nodes))
    return [f"cell {name} mixes imports with other code" for name, src in exported(path)
            if wrong(src)]


def no_star(path):
    return [f"cell {name}: {line}" for name, src in exported(path) for line in src.splitlines()
            if re.match(r"\s*from .* import \*", line)]


def clean_outputs(path):
    outputs = [(c.id, o) for c in cells(path, "code") for o in c.outputs]
    return [f"cell {name} keeps an error or stderr" for name, o in outputs if o.output_type
            == "error" or o.get("name") == "stderr"]


def pictures(path):
    "A cell with an alt text shows a picture: one that ends with `;` shows none"
    kinds = {"image/png", "image/svg+xml", "application/vnd.jupyter.widget-view+json"}
    alt = [c for c in cells(path, "code") if re.search(r"^#\| *fig-alt:", c.source, re.M)]
    return [f"cell {c.id} has an alt text and no picture" for c in alt
            if not any(kinds & set(o.get("data", {})) for o in c.outputs)]


@each_notebook
@pytest.mark.parametrize("check", [title, size, cell_lines, line_columns, imports_alone, no_star,
                                   clean_outputs, pictures], ids=lambda f: f.__name__)
def test_notebook(path, check): assert check(path) == []


# Documentation of public names, read from the source as show_doc reads it.

DUNDERS = {"__init__", "__call__"}      # the others mean what Python says they mean
# PyTorch and fastai say what these are for: no docstring needed
FRAMEWORK = re.compile(r"forward|(before|after)_\w+|__\w+__")
def is_public(name): return name in DUNDERS or not name.startswith("_")
def is_function(node): return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
def decorators(node):
    return {ast.unparse(d).split("(")[0].rpartition(".")[2] for d in node.decorator_list}


def public_nodes(tree):
    "Public functions, classes and methods, as (qualified name, node)"
    for node in tree.body:
        if not (is_function(node) or isinstance(node, ast.ClassDef)) or not is_public(node.name):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{f.name}", f) for f in node.body if is_function(f)
                        and is_public(f.name))


def comments(src):
    "Line number -> text of its comment"
    return {t.start[0]: t.string.lstrip("# ")
            for t in tokenize.generate_tokens(StringIO(src).readline) if t.type == tokenize.COMMENT}


def parameters(fn):
    "The parameters that need a docment: (name, line)"
    a, names = fn.args, decorators(fn)
    args = [*a.posonlyargs, *a.args][1 if "patch" in names else 0:]
    rest = [a.vararg, *a.kwonlyargs, None if "delegates" in names else a.kwarg]
    return [(arg.arg, arg.lineno) for arg in [*args, *rest] if arg and arg.arg not
            in ("self", "cls")]


def gives_value(fn):
    "Whether `fn` itself, not a function inside it, returns or yields something"
    inner = {n for f in ast.walk(fn) if f is not fn
             and (is_function(f) or isinstance(f, ast.Lambda)) for n in ast.walk(f)}
    own = [n for n in ast.walk(fn) if n not in inner]
    return any(isinstance(n, (ast.Yield, ast.YieldFrom, ast.Return)) and n.value is not None
               for n in own)


def undocumented(src):
    """Parameters and returns of public names without a comment of their own; a return needs an
    annotation to be shown"""
    notes, missing = comments(src), []
    for name, node in public_nodes(ast.parse(src)):
        if isinstance(node, ast.ClassDef):
            fields = [f for f in node.body if isinstance(f, ast.AnnAssign) and "dataclass"
                      in decorators(node)]
            missing += [f"{name}.{f.target.id}" for f in fields if not notes.get(f.lineno)]
            continue
        lines = parameters(node)
        returns = node.returns.lineno if node.returns else None
        taken = [line for _, line in lines] + [returns]
        missing += [f"{name}({arg})" for arg, line in lines if not notes.get(line)
                    or taken.count(line) > 1]
        # a property's docstring says it
        simple = name.endswith("__init__") or any("prop" in ast.unparse(d)
                                                  for d in node.decorator_list)
        if gives_value(node) and not simple and not notes.get(returns):
            missing.append(f"{name} -> ")
    return missing


def undescribed(src):
    "Public names without a docstring of one line"
    named = [(name, node) for name, node in public_nodes(ast.parse(src))
             if not FRAMEWORK.fullmatch(name.rpartition(".")[2])]
    return [name for name, node in named
            if len((ast.get_docstring(node) or "\n\n").splitlines()) != 1]


def undefined(src):
    """Names that the module doesn't define, such as a notebook's globals, and imports or variables
    that it doesn't use"""
    tree = ast.parse(src)
    # one name for a method of several classes
    patched = {n.name for n in tree.body if is_function(n) and "patch" in decorators(n)}
    lines = src.splitlines()
    def allowed(m):
        return "# noqa" in lines[m.lineno - 1] or isinstance(m,
                                                             messages.RedefinedWhileUnused) and m.message_args[0] in patched
    return [f"line {m.lineno}: {m.message % m.message_args}" for m in Checker(tree).messages
            if not allowed(m)]


def undeclared(src):
    """Third-party packages that are imported and not required, unless in a `try`: they would be
    missing for a user"""
    names = {"scikit-learn": "sklearn", "pillow": "PIL"}
    known = {names.get(r, r).replace("-", "_")
             for r in (re.split(r"[<>=!;]", line)[0] for line in requirements())}
    tree = ast.parse(src)
    optional = {n for t in ast.walk(tree) if isinstance(t, ast.Try) for n in ast.walk(t)}
    found = [n for n in ast.walk(tree) if is_import(n) and n not in optional]
    tops = {a.name.split(".")[0] for n in found if isinstance(n, ast.Import) for a in n.names}
    tops |= {n.module.split(".")[0] for n in found if isinstance(n, ast.ImportFrom)
             and n.level == 0}
    return sorted(tops - known - {"denoise_study"} - set(sys.stdlib_module_names))


@each_module
@pytest.mark.parametrize("check", [undocumented, undescribed, undefined, undeclared],
                         ids=lambda f: f.__name__)
def test_module(path, check): assert check(path.read_text(encoding="utf-8")) == []


GOOD = '''
def f(
    x:int, # how many
    y=(1, # the value may go on
       2),
)->int: # the sum
    "One line"
    return x
'''


@pytest.mark.parametrize("check, src, wrong", [
    (undocumented, GOOD, []),
    (undocumented, "def f(x, y): # both\n    pass", ["f(x)", "f(y)"]),
    (undocumented, "def f(x:int)->int: # the sum\n    return x", ["f(x)"]),
    (undocumented, "def f(\n    x, # an x\n): return x", ["f -> "]),
    (undocumented, "def f(): return 1", ["f -> "]),
    (undocumented, "def f():\n    def g(): return 1", []),
    (undocumented, "def _f(x): return x", []),
    (undocumented, "@patch\ndef f(self:A,\n    x,\n): pass", ["f(x)"]),
    (undocumented, "@delegates(g)\ndef f(**kwargs): pass", []),
    (undocumented, "class A:\n    def __init__(self, x): pass\n    def __len__(self): return 1",
     ["A.__init__(x)"]),
    (undocumented, "class A:\n    @property\n    def n(self): return 1", []),
    (undocumented, "@patch(as_prop=True)\ndef n(self:A): return 1", []),
    (undocumented, "@dataclass\nclass A:\n    x:int # an x\n    y:int", ["A.y"]),
    (undescribed, GOOD, []),
    (undescribed,
     'class A:\n    "An A"\n    def forward(self): pass\n    def after_step(self): pass', []),
    (undescribed, 'def f():\n    """One\n\n    two"""\nclass A:\n    def g(self): pass',
     ["f", "A", "A.g"]),
    (undefined, "import math\ndef f(x): return math.sqrt(x)", []),
    (undefined,
     "from fastcore.basics import patch\n@patch\ndef f(self:int): pass\n@patch\ndef f(self:str): "
     "pass", []),
    (undefined, "import math # noqa: for its effect", []),
    (undeclared, "try: import lmdb\nexcept ImportError: lmdb = None", []),
    (undeclared,
     "import os\nimport torch\nfrom sklearn.svm import SVC\nfrom .schedules import gather\nimport "
     "requests", ["requests"]),
])
def test_checks_see_it(check, src, wrong): assert check(src) == wrong


def test_notebook_globals_are_seen():
    assert "undefined name 'dls'" in undefined("def f(): return dls")[0]


# The whole repository.

def test_rooms_import_from_rooms_above():
    order = [re.sub(r"^\d+[a-z]*_", "", p.stem) for p in notebooks if re.match(r"\d", p.stem)]
    seen = [(m.stem, name) for m in modules
            for name in re.findall(r"^from (?:\.|denoise_study\.)(\w+) import",
                                   m.read_text(encoding="utf-8"), re.M)]
    assert [f"{room} imports {name}" for room, name in seen
            if order.index(name) >= order.index(room)] == []


def test_no_helper_is_written_twice():
    bodies = {}
    for module in modules:
        for fn in filter(is_function, ast.parse(module.read_text(encoding="utf-8")).body):
            code = "\n".join(ast.unparse(n) for n in fn.body
                             if not isinstance(getattr(n, "value", None), ast.Constant))
            # shorter ones may meet by chance
            if len(code) > 60: bodies.setdefault(code, []).append(f"{module.stem}.{fn.name}")
    assert [names for names in bodies.values() if len(names) > 1] == []


def test_import_is_light():
    """The package itself imports in milliseconds: none of the large libraries is touched before a
    module asks for it"""
    code = ("import sys, denoise_study; print([m for m in ('torch', 'fastai', 'numpy', "
            "'matplotlib', 'pandas') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True,
                          text=True).stdout.strip() == "[]"


def test_requirements_are_bounded():
    assert [r for r in requirements() + requirements("dev_")
            if not re.fullmatch(r"[\w.-]+>=[\d.]+,<[\d.]+", r)] == []


def test_no_local_paths():
    "Nothing that is committed names a folder of the machine that wrote it"
    local = re.compile(r"(?<![\w.:/~-])/(?:home|root|Users|mnt|tmp|work|workspace)/\w")
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard",
                             "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode: pytest.skip("not a git clone")
    files = [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    lines = [(f, line) for f in files for line in f.read_bytes().decode("utf-8",
                                                                        "ignore").splitlines()]
    assert [f"{f.relative_to(ROOT)}: {line.strip()[:100]}" for f, line in lines
            if local.search(line)] == []


# The head of the tutorials: tools/badges.py writes it.

tutorials = sorted((ROOT / "nbs/tutorials").glob("*.ipynb"))


def test_tutorials_have_their_badge(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    import badges
    assert [p.name for p in badges.stale()] == [], "run python tools/badges.py"


@pytest.mark.parametrize("path", tutorials, ids=lambda p: p.stem)
def test_tutorial_on_colab(path):
    """The badge has an alt text and leads to this notebook in the repository of settings.ini; every
    module that is used is linked; a first cell installs, on Colab only"""
    user, repo, branch = (ini["DEFAULT"][k] for k in ("user", "repo", "branch"))
    head, code = cells(path, "markdown")[1].source, cells(path, "code")
    assert re.match(r"\[!\[[^\]]+\]\(https://\S+\.svg\)\]", head)
    assert (f"](https://colab.research.google.com/github/{user}/{repo}/blob/{branch}/nbs/tutorials/{path.name})" in head)
    linked = [ROOT / "nbs" / name for name in re.findall(r"\(\.\./([\w.]+)\)", head)]
    used = {m for c in code for m in re.findall(r"^from denoise_study\.(\w+) import", c.source,
                                                re.M)}
    assert {re.sub(r"^\d+[a-z]*_", "", p.stem) for p in linked} == used and all(p.exists()
                                                                                for p in linked)
    assert ran(code[0].source, colab=False) == [] and ran(code[0].source,
                                                          colab=True) == [("pip",
                                                                           f"install -q "
                                                                           f"git+https://github.com/{user}/{repo}.git@{branch}")]


def ran(source, colab):
    "The magics that a cell calls, here or on Colab"
    from types import ModuleType, SimpleNamespace
    from unittest.mock import patch
    from IPython.core.inputtransformer2 import TransformerManager
    called = []
    shell = SimpleNamespace(run_line_magic=lambda *args: called.append(args))
    with patch.dict(sys.modules, {"google.colab": ModuleType("google.colab")} if colab else {}):
        exec(TransformerManager().transform_cell(source), {"get_ipython": lambda: shell})
    return called
