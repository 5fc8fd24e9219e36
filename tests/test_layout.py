"What can be measured of how the library is written: CONTRIBUTING.md gives the reasons"

import ast
import json
import math
import re
import statistics
import subprocess
import sys
import tokenize
from base64 import b64decode
from configparser import ConfigParser
from functools import cache
from io import BytesIO, StringIO
from pathlib import Path

import faces
import lessons
import nbformat
import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from PIL import Image
from pyflakes import messages
from pyflakes.checker import Checker

ROOT = Path(__file__).parents[1]
CELL_LINES, COLUMNS, NOTEBOOK_KB = 80, 100, 300
WINGS = list(faces.WINGS)
notebooks = sorted(nbglob(get_config(ROOT).nbs_path, as_path=True))
rooms, modules = faces.notebooks(), faces.modules()
scripts = sorted(
    f
    for d in ("tests", "docs", "tools")
    for f in (ROOT / d).rglob("*.py")
    if not {"_src", "_build", "vendor"} & set(f.parts)
)
tests = [f for f in scripts if ROOT / "tests" in f.parents]
written = [
    *scripts,
    ROOT / "setup.py",
    ROOT / "denoise_study/__init__.py",
    ROOT / "denoise_study/__main__.py",
    ROOT / "denoise_study/all.py",
]


def name(path):
    return "/".join(path.relative_to(ROOT).with_suffix("").parts[1:]) or path.stem


def read(path):
    return path.read_text(encoding="utf-8")


each_notebook = pytest.mark.parametrize("path", notebooks, ids=name)
each_room = pytest.mark.parametrize("path", rooms, ids=name)
each_module = pytest.mark.parametrize("path", modules, ids=name)

ini = ConfigParser(delimiters=["="], interpolation=None)
ini.read(ROOT / "settings.ini", encoding="utf-8")


def requirements(extra=""):
    return ini["DEFAULT"][f"{extra}requirements"].split()


@cache
def notebook(path):
    return nbformat.read(path, 4)


def cells(path, kind):
    return [c for c in notebook(path).cells if c.cell_type == kind]


def code_cells(path):
    return [(c.id, c.source) for c in cells(path, "code")]


def exported(path):
    return [(cell, src) for cell, src in code_cells(path) if lessons.exported(src)]


def is_import(node):
    return isinstance(node, (ast.Import, ast.ImportFrom))


# Budgets of a notebook: each check takes a notebook's path and gives the list of what is wrong


def title(path):
    """The first cell is the title and the one-line summary, which become the module's docstring and
    the page's head"""
    first = cells(path, "markdown")[0].source
    if re.fullmatch(r"# \S.*\n\n> \S.*", first):
        return []
    return [f"first markdown cell is not '# Title', blank, '> summary': {first[:80]!r}"]


def size(path):
    kb = path.stat().st_size / 1024
    return [f"{kb:.0f} KB, at most {NOTEBOOK_KB}: smaller outputs"] if kb > NOTEBOOK_KB else []


def cell_lines(path):
    lengths = {cell: len(src.splitlines()) for cell, src in exported(path)}
    return [f"cell {cell} has {n} lines" for cell, n in lengths.items() if n > CELL_LINES]


def wide(src):
    "Lines that are too long, with their number; an alternative text has to be one line"
    lines = enumerate(src.splitlines(), 1)
    long = [(i, line) for i, line in lines if len(line) > COLUMNS and "#| fig-alt:" not in line]
    return [f"line {i}: {len(line)} columns: {line.strip()[:60]}..." for i, line in long]


def line_columns(path):
    return [f"cell {cell}, {w}" for cell, src in code_cells(path) for w in wide(src)]


def imports_alone(path):
    "nbdev runs import cells when it builds the docs: other code in them would run as well"

    def wrong(src):
        kinds = set(map(is_import, ast.parse(src).body))
        return len(kinds) > 1

    return [
        f"cell {cell} mixes imports with other code" for cell, src in exported(path) if wrong(src)
    ]


def no_star(path):
    lines = [(cell, line) for cell, src in exported(path) for line in src.splitlines()]
    return [
        f"cell {cell}: {line}" for cell, line in lines if re.match(r"\s*from .* import \*", line)
    ]


def clean_outputs(path):
    outputs = [(c.id, o) for c in cells(path, "code") for o in c.outputs]
    return [
        f"cell {cell} keeps an error or stderr"
        for cell, o in outputs
        if o.output_type == "error" or o.get("name") == "stderr"
    ]


def pictures(path):
    "A cell with an alt text shows a picture: one that ends with `;` shows none"
    kinds = {"image/png", "image/svg+xml", "application/vnd.jupyter.widget-view+json"}
    alt = [c for c in cells(path, "code") if re.search(r"^#\| *fig-alt:", c.source, re.M)]
    return [
        f"cell {c.id} has an alt text and no picture"
        for c in alt
        if not any(kinds & set(o.get("data", {})) for o in c.outputs)
    ]


PAPER = 0.7  # more than this share of a figure of lines is white, and less of one of images
WHITE = {  # pictures that are mostly white and yet no lines
    "d6ad1566": "digits, thin strokes on white",
    "4e57b17d": "nine hundred marks on a line",
    "3618b4a1": "six hundred marks",
    "e6f69404": "clouds of thousands of points",
    "20bf55f8": "images, and curves below them",
    "31fa56d9": "a file that a command wrote",
}


def paper(png):
    "Which share of a picture is white"
    pixels = Image.open(BytesIO(b64decode(png))).convert("L")
    return sum(pixels.histogram()[250:]) / math.prod(pixels.size)


def lines_as_pixels(path):
    "A figure of lines alone is kept as SVG, which is sharp on every screen"
    kept = [
        (c.id, o.data["image/png"])
        for c in cells(path, "code")
        for o in c.outputs
        if "image/png" in o.get("data", {}) and c.id not in WHITE
    ]
    return [f"cell {cell} keeps lines as PNG" for cell, png in kept if paper(png) > PAPER]


BUDGETS = [
    title,
    size,
    cell_lines,
    line_columns,
    imports_alone,
    no_star,
    clean_outputs,
    pictures,
    lines_as_pixels,
]


def failed(checks, given):
    "Name of each check that finds something -> what it finds"
    found = {check.__name__: check(given) for check in checks}
    return {name: wrong for name, wrong in found.items() if wrong}


@each_notebook
def test_notebook(path):
    assert failed(BUDGETS, path) == {}


# Lessons: define, call, look. tools/lessons.py measures, and has the limits


def low_share(books):
    "Whether enough of what is defined is called at once; a line for each notebook if it is not"
    defined, called = (sum(b[k] for b in books.values()) for k in ("defined", "called"))
    if called >= lessons.CALLED * defined:
        return []
    return [f"{called} of {defined} definitions are followed by a visible cell"] + [
        f"{k}: {b['called']} of {b['defined']}"
        for k, b in books.items()
        if b["called"] < lessons.CALLED * b["defined"]
    ]


def long_stretch(book):
    n = book["stretch"]
    return [f"{n} lines of definitions without a call"] if n > lessons.STRETCH else []


def test_definitions_are_called_at_once():
    assert low_share({name(path): book for path, book in lessons.lessons().items()}) == []


@each_room
def test_every_name_is_seen_in_its_notebook(path):
    assert lessons.lesson(lessons.code_cells(path))["unseen"] == []


@each_room
def test_no_long_stretch_without_a_call(path):
    assert long_stretch(lessons.lesson(lessons.code_cells(path))) == []


DEFINE, LOOK, HIDDEN = "#| export\ndef f(x):\n    return x", "f(1)", "#| hide\nf(1)"
METHODS = "#| export\n@patch\ndef forward(self:A): pass\n@patch\ndef before_fit(self:A): pass"
LONG = "#| export\ndef g():\n" + "    pass\n" * 50


@pytest.mark.parametrize(
    "sources, expected",
    [
        ([DEFINE, LOOK], dict(defined=1, shown=1, called=1, unseen=[])),
        ([DEFINE, DEFINE, LOOK], dict(defined=2, shown=1, called=2)),
        ([DEFINE, DEFINE, DEFINE, LOOK], dict(defined=3, shown=1, called=2, stretch=9)),
        ([DEFINE, HIDDEN], dict(shown=0, called=0, unseen=["f"])),
        ([DEFINE, "g(f_1)"], dict(shown=1, unseen=["f"])),
        (["#| export\nN = 3", DEFINE, LOOK], dict(defined=1)),
        ([METHODS, LOOK], dict(names=0, unseen=[])),
        (["#| export\ndef _f(): pass"], dict(names=0)),
        ([LONG, LONG], dict(stretch=104)),
        ([LONG, "g()", LONG], dict(stretch=52)),
        (["%matplotlib inline", DEFINE, LOOK], dict(defined=1)),
    ],
)
def test_lessons_are_measured(sources, expected):
    found = lessons.lesson(sources)
    assert {key: found[key] for key in expected} == expected


def test_limits_of_lessons_are_seen():
    assert low_share(dict(a=dict(defined=4, called=3))) == []
    wrong = low_share(dict(a=dict(defined=4, called=2), b=dict(defined=4, called=3)))
    assert wrong == ["5 of 8 definitions are followed by a visible cell", "a: 2 of 4"]
    assert long_stretch(dict(stretch=81)) and not long_stretch(dict(stretch=80))


# One thought a line


def dense(src):
    "Whether functions of a module say too much in a line"
    found, wrong = lessons.densities(src), []
    if not found:
        return wrong
    middle, high = statistics.median(found), lessons.p90(found)
    if middle > lessons.DENSITY:
        wrong.append(f"{middle:.1f} syntax nodes a line in the median, at most {lessons.DENSITY}")
    if high > lessons.DENSITY_P90:
        wrong.append(f"{high:.1f} in the 90% quantile, at most {lessons.DENSITY_P90}")
    return wrong


@each_module
def test_one_thought_a_line(path):
    assert dense(read(path)) == []


THIN = "def f(x):\n" + "    x = x + 1\n" * 6
THICK = "def f(x):\n" + "    a, b = (x + i for i in x if x), [x.a(b, c)[d] for c, d in e(f)]\n" * 6


def test_density_is_seen():
    assert dense(THIN) == [] and len(dense(THICK)) == 2
    assert dense(THIN + THIN.replace("f(", "g(") + THICK)[0].endswith("90% quantile, at most 12")
    assert dense("def f(x): return [x.a(b, c)[d] for c, d in e(f) if g(h)]") == []  # short


def test_syntax_is_counted():
    src = """
def f(low, x):
    "Low and high"
    a, b = x, 1
    for c, d in x: pass
    return {k: row["se_high"] for k in x} if x else dict(high=i.high)
def _g(): pass
"""
    found = lessons.syntax(src)
    assert {k: found[k] for k in ("tuples", "comprehensions", "ternaries", "private")} == dict(
        tuples=1, comprehensions=1, ternaries=1, private=1
    )
    assert found["by_hand"] == 3  # the argument, the key and the keyword; not the attribute


def test_intervals_do_what_is_theirs():
    "Who needs more places puts an interval into a table by `interval_cells`, and reads it by `of`"
    found = lessons.hands(lessons.sources())
    assert sum(found.values()) <= lessons.BY_HAND, {name(p): n for p, n in found.items() if n > 9}


# Documentation of public names, read from the source as show_doc reads it

DUNDERS = {"__init__", "__call__"}  # the others mean what Python says they mean
# PyTorch and fastai say what these are for: no docstring needed
FRAMEWORK = re.compile(r"forward|(before|after)_\w+|__\w+__")


def is_public(name):
    return name in DUNDERS or not name.startswith("_")


def is_function(node):
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


def decorators(node):
    return {ast.unparse(d).split("(")[0].rpartition(".")[2] for d in node.decorator_list}


def public_nodes(tree):
    "Public functions, classes and methods, as (qualified name, node)"
    for node in tree.body:
        if not (is_function(node) or isinstance(node, ast.ClassDef)):
            continue
        if not is_public(node.name):
            continue
        yield node.name, node
        if not isinstance(node, ast.ClassDef):
            continue
        for f in filter(is_function, node.body):
            if is_public(f.name):
                yield f"{node.name}.{f.name}", f


def tokens(src):
    return tokenize.generate_tokens(StringIO(src).readline)


def comments(src):
    "Line number -> text of its comment"
    found = [t for t in tokens(src) if t.type == tokenize.COMMENT]
    return {t.start[0]: t.string.lstrip("# ") for t in found}


def parameters(fn):
    "The parameters that need a docment: (name, line)"
    a, names = fn.args, decorators(fn)
    args = [*a.posonlyargs, *a.args][1 if "patch" in names else 0 :]
    rest = [a.vararg, *a.kwonlyargs, None if "delegates" in names else a.kwarg]
    found = [arg for arg in [*args, *rest] if arg and arg.arg not in ("self", "cls")]
    return [(arg.arg, arg.lineno) for arg in found]


def gives_value(fn):
    "Whether `fn` itself, not a function inside it, returns or yields something"
    functions = [f for f in ast.walk(fn) if is_function(f) or isinstance(f, ast.Lambda)]
    inner = {n for f in functions if f is not fn for n in ast.walk(f)}
    own = [n for n in ast.walk(fn) if n not in inner]
    return any(
        isinstance(n, (ast.Yield, ast.YieldFrom, ast.Return)) and n.value is not None for n in own
    )


def undocumented(src):
    """Parameters and returns of public names without a comment of their own; a return needs an
    annotation to be shown"""
    notes, missing = comments(src), []
    for name, node in public_nodes(ast.parse(src)):
        if isinstance(node, ast.ClassDef):
            fields = [f for f in node.body if isinstance(f, ast.AnnAssign)]
            if "dataclass" not in decorators(node):
                fields = []
            missing += [f"{name}.{f.target.id}" for f in fields if not notes.get(f.lineno)]
            continue
        lines = parameters(node)
        returns = node.returns.lineno if node.returns else None
        taken = [line for _, line in lines] + [returns]
        missing += [
            f"{name}({arg})" for arg, line in lines if not notes.get(line) or taken.count(line) > 1
        ]
        # a property's docstring says it
        simple = name.endswith("__init__") or any(
            "prop" in ast.unparse(d) for d in node.decorator_list
        )
        if gives_value(node) and not simple and not notes.get(returns):
            missing.append(f"{name} -> ")
    return missing


def undescribed(src):
    "Public names without a docstring of one line"
    named = [
        (name, node)
        for name, node in public_nodes(ast.parse(src))
        if not FRAMEWORK.fullmatch(name.rpartition(".")[2])
    ]
    return [
        name for name, node in named if len((ast.get_docstring(node) or "\n\n").splitlines()) != 1
    ]


def undefined(src):
    """Names that the module doesn't define, such as a notebook's globals, and imports or variables
    that it doesn't use"""
    tree, lines = ast.parse(src), src.splitlines()
    # one name for a method of several classes
    patched = {n.name for n in tree.body if is_function(n) and "patch" in decorators(n)}

    def allowed(m):
        if "# noqa" in lines[m.lineno - 1]:
            return True
        return isinstance(m, messages.RedefinedWhileUnused) and m.message_args[0] in patched

    return [
        f"line {m.lineno}: {m.message % m.message_args}"
        for m in Checker(tree).messages
        if not allowed(m)
    ]


def undeclared(src):
    """Third-party packages that are imported and not required, unless in a `try`: they would be
    missing for a user"""
    names = {"scikit-learn": "sklearn", "pillow": "PIL"}
    required = [re.split(r"[<>=!;]", line)[0] for line in requirements()]
    known = {names.get(r, r).replace("-", "_") for r in required}
    tree = ast.parse(src)
    optional = {n for t in ast.walk(tree) if isinstance(t, ast.Try) for n in ast.walk(t)}
    found = [n for n in ast.walk(tree) if is_import(n) and n not in optional]
    plain = [n for n in found if isinstance(n, ast.Import)]
    tops = {a.name.split(".")[0] for n in plain for a in n.names}
    tops |= {n.module.split(".")[0] for n in found if n not in plain and n.level == 0}
    return sorted(tops - known - {"denoise_study"} - set(sys.stdlib_module_names))


@each_module
def test_module(path):
    assert failed([undocumented, undescribed, undefined, undeclared], read(path)) == {}


GOOD = """
def f(
    x:int, # how many
    y=(1, # the value may go on
       2),
) -> int: # the sum
    "One line"
    return x
"""
CALLBACKS = 'class A:\n    "An A"\n    def forward(self): pass\n    def after_step(self): pass'
INIT = "class A:\n    def __init__(self, x): pass\n    def __len__(self): return 1"
TWO_PATCHES = "@patch\ndef f(self:int): pass\n@patch\ndef f(self:str): pass"
PACKAGES = (
    "import os\nimport torch\nfrom sklearn.svm import SVC\nfrom .schedules import gather\n"
    "import requests"
)


@pytest.mark.parametrize(
    "check, src, wrong",
    [
        (undocumented, GOOD, []),
        (undocumented, "def f(x, y): # both\n    pass", ["f(x)", "f(y)"]),
        (undocumented, "def f(x:int) -> int: # the sum\n    return x", ["f(x)"]),
        (undocumented, "def f(\n    x, # an x\n): return x", ["f -> "]),
        (undocumented, "def f(): return 1", ["f -> "]),
        (undocumented, "def f():\n    def g(): return 1", []),
        (undocumented, "def _f(x): return x", []),
        (undocumented, "@patch\ndef f(self:A,\n    x,\n): pass", ["f(x)"]),
        (undocumented, "@delegates(g)\ndef f(**kwargs): pass", []),
        (undocumented, INIT, ["A.__init__(x)"]),
        (undocumented, "class A:\n    @property\n    def n(self): return 1", []),
        (undocumented, "@patch(as_prop=True)\ndef n(self:A): return 1", []),
        (undocumented, "@dataclass\nclass A:\n    x:int # an x\n    y:int", ["A.y"]),
        (undescribed, GOOD, []),
        (undescribed, CALLBACKS, []),
        (
            undescribed,
            'def f():\n    """One\n\n    two"""\nclass A:\n    def g(self): pass',
            ["f", "A", "A.g"],
        ),
        (undefined, "import math\ndef f(x): return math.sqrt(x)", []),
        (undefined, f"from fastcore.basics import patch\n{TWO_PATCHES}", []),
        (undefined, "import math # noqa: for its effect", []),
        (undeclared, "try: import lmdb\nexcept ImportError: lmdb = None", []),
        (undeclared, PACKAGES, ["requests"]),
    ],
)
def test_checks_see_it(check, src, wrong):
    assert check(src) == wrong


def test_notebook_globals_are_seen():
    assert "undefined name 'dls'" in undefined("def f(): return dls")[0]


# Who imports from whom: wings from wings before them, rooms from rooms before them

ORDER = {(path.parts[-2], faces.room_of(path)): i for i, path in enumerate(rooms)}


def inner_imports(src, wing):
    "Imports from the package in a module of `wing`, as (module below the package, names)"
    for node in ast.walk(ast.parse(src)):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = [[], ["denoise_study", wing], ["denoise_study"]][min(node.level, 2)]
        full = base + (node.module or "").split(".") * bool(node.module)
        names = [a.name for a in node.names]
        if full == ["denoise_study"]:  # `from denoise_study import core`: a wing as a whole
            yield from (([n], [n]) for n in names)
        elif full[:1] == ["denoise_study"]:
            yield full[1:], names


def upward(src, wing, room, order=ORDER, wings=WINGS):
    "Imports that a module of `wing` should not have"

    def wrong(where):
        if where[0] not in wings:
            return "is no wing"
        if where[0] != wing:
            if len(where) > 1:
                return "through the wing, not from its room"
            if wings.index(where[0]) > wings.index(wing):
                return "is a wing above"
        elif len(where) == 1:
            return "from a room, not from its own wing"
        elif order.get(tuple(where), len(order)) >= order[wing, room]:
            return "is no room before"

    return [
        f"{wing}.{room} imports from {'.'.join(['denoise_study', *where])}: {why}"
        for where, _ in inner_imports(src, wing)
        if (why := wrong(where))
    ]


def borrowed(src, wing):
    "Private names that come from another module"
    return [
        f"{name} of {'.'.join(where)}"
        for where, names in inner_imports(src, wing)
        for name in names
        if name.startswith("_") and not name.startswith("__")
    ]


@each_module
def test_imports_go_down(path):
    assert upward(read(path), path.parts[-2], path.stem) == []


@each_module
def test_no_private_name_of_another_module(path):
    assert borrowed(read(path), path.parts[-2]) == []


@pytest.mark.parametrize(
    "line, why",
    [
        ("from denoise_study.a import f", None),
        ("from ..a import f", None),
        ("from .one import f", None),
        ("import torch", None),
        ("from .two import f", "no room before"),
        ("from denoise_study.b.three import f", "no room before"),
        ("from ..a.one import f", "through the wing"),
        ("from ..c import f", "a wing above"),
        ("from . import f", "from a room"),
        ("from denoise_study import a", None),
        ("from denoise_study import c", "a wing above"),
        ("from denoise_study import load_pretrained", "is no wing"),
        ("def f():\n    from ..c import g", "a wing above"),
    ],
)
def test_wrong_imports_are_seen(line, why):
    order = {("b", "one"): 0, ("b", "two"): 1, ("b", "three"): 2}
    found = upward(line, "b", "two", order, ["a", "b", "c"])
    assert [why in f for f in found] == ([True] if why else [])


def test_private_imports_are_seen():
    assert borrowed("from .one import f, _g\nfrom torch import _C", "b") == ["_g of b.one"]


# Faces: what the wings hand on


def test_every_notebook_has_its_module():
    exports = {(path.parts[-2], path.stem) for path in modules}
    assert exports == set(ORDER)


def test_faces_are_fresh():
    assert [name(path) for path in faces.stale()] == [], "run python tools/faces.py"


def test_each_public_name_is_in_one_place():
    assert faces.clashes() == []


def test_clashes_are_seen():
    offered = {"f": [("a", "x"), ("b", "y")], "y": [("b", "y")], "g": [("a", "x")]}
    taken = {"a": {"x": []}, "b": {"y": []}}
    assert faces.clashing(offered, taken) == ["f is in a.x and b.y", "b: y is a name and a module"]


# Tests mirror the wings


def unmirrored(rooms, files, wings=WINGS):
    "Rooms without a test file, and test files without a room; both as `wing/name`"
    rooms = list(rooms)
    tested = {f.replace("/test_", "/") for f in files if f.split("/")[0] in wings}
    return [f"{room} has no test file" for room in rooms if room not in tested] + [
        f"{f}: no such room" for f in sorted(tested - set(rooms))
    ]


def is_tested_by_its_lesson(wing, room, least=2):
    "Whether cells that are not exported assert something: small rooms need no file beside them"
    (path,) = (ROOT / "nbs" / wing).glob(f"??_{room}.ipynb")
    cells = [c["source"] for c in json.loads(read(path))["cells"] if c["cell_type"] == "code"]
    shown = ["".join(c) for c in cells if "#| export" not in "".join(c)]
    return len(re.findall(r"^\s*(?:assert|test_\w+\()", "\n".join(shown), re.M)) >= least


def test_each_room_has_its_test_file():
    "Or asserts in its lesson; and no test file is without its room"
    files = [name(f) for f in tests if f.stem.startswith("test_")]
    rooms = ["/".join(room) for room in ORDER if not is_tested_by_its_lesson(*room)]
    assert [m for m in unmirrored(rooms, files) if "no test file" in m] == []
    assert [m for m in unmirrored(map("/".join, ORDER), files) if "no such room" in m] == []


def test_missing_test_files_are_seen():
    wrong = unmirrored(["a/one", "a/two"], ["a/test_one", "a/test_three", "test_b"], ["a"])
    assert wrong == ["a/two has no test file", "a/three: no such room"]


def from_tests(src):
    "Imports from other test files"
    nodes = [n for n in ast.walk(ast.parse(src)) if is_import(n)]
    names = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
    names += [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)]
    return [n for n in names if re.search(r"(^|\.)(test|run)_\w+$", n)]


@pytest.mark.parametrize("path", tests, ids=name)
def test_helpers_are_not_in_other_tests(path):
    assert from_tests(read(path)) == []


def test_imports_from_tests_are_seen():
    src = "import run_training\nfrom test_unet import f\nfrom helpers import test_of"
    assert from_tests(src) == ["run_training", "test_unet"]


# What a reader of this repository alone could not look up, and one way of spelling

CITED = re.compile(
    r"\b(?:[Tt]raps?|[Nn]otes?)\W+T?\d|\btest_t\d|\btest_trap_\w*\d"
    r"|_T\d+\b|\bT\d+\.\."
)


def citations(src):
    return [
        f"line {i}: {line.strip()[:80]}"
        for i, line in enumerate(src.splitlines(), 1)
        if CITED.search(line)
    ]


def spelling(src):
    "`colour` in identifiers, and arrows without spaces around them"
    found = list(tokens(src))
    wrong = [
        f"line {t.start[0]}: {t.string}"
        for t in found
        if t.type == tokenize.NAME and "colour" in t.string.lower()
    ]
    arrows = [t for t in found if t.type == tokenize.OP and t.string == "->"]
    tight = [t for t in arrows if t.line[t.start[1] - 1] != " " or t.line[t.end[1] :][:1] != " "]
    return wrong + [f"line {t.start[0]}: spaces around ->" for t in tight]


@pytest.mark.parametrize("path", tests, ids=name)
def test_no_citation_of_private_notes(path):
    assert path == Path(__file__) or citations(read(path)) == []


@pytest.mark.parametrize("path", [*modules, *written], ids=name)
def test_dialect(path):
    assert spelling(read(path)) == []


@pytest.mark.parametrize("path", written, ids=name)
def test_columns(path):
    assert wide(read(path)) == []


def test_words_are_seen():
    assert len(citations("def test_t6_score(): pass\n# Note 1.1\n# traps T1\n# 3 notes")) == 3
    assert spelling("def f() -> int: 'colour'  # colour") == []
    assert spelling("def f()->int: return ax_colour") == [
        "line 1: ax_colour",
        "line 1: spaces around ->",
    ]
    assert wide("a\n" + "b" * 101)[0].startswith("line 2: 101 columns") and not wide("b" * 100)


# The whole repository


def code_of(fn):
    "What a function does, without its docstring"
    return "\n".join(
        ast.unparse(n) for n in fn.body if not isinstance(getattr(n, "value", None), ast.Constant)
    )


def test_no_helper_is_written_twice():
    bodies = {}
    for module in modules:
        for fn in filter(is_function, ast.parse(read(module)).body):
            code = code_of(fn)
            # shorter ones may meet by chance
            if len(code) > 60:
                bodies.setdefault(code, []).append(f"{name(module)}.{fn.name}")
    assert [names for names in bodies.values() if len(names) > 1] == []


def python(code):
    "What a new interpreter prints"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_light():
    """The package itself imports in milliseconds: none of the large libraries is touched before a
    wing is asked for one of its names"""
    large = "torch", "fastai", "numpy", "matplotlib", "pandas", "scipy"
    code = (
        "import sys, time; start = time.process_time(); "
        "import denoise_study, denoise_study.all; "
        f"print(time.process_time() - start, [m for m in {large} if m in sys.modules])"
    )
    seconds, loaded = zip(*(python(code).split(" ", 1) for _ in range(3)))
    assert set(loaded) == {"[]"} and min(map(float, seconds)) < 0.1


def test_the_package_offers_its_wings_the_models_and_its_version():
    import denoise_study

    assert {*WINGS, "load_pretrained"} <= set(dir(denoise_study))
    assert list(denoise_study.WINGS) == WINGS
    assert denoise_study.__version__ == ini["DEFAULT"]["version"]
    assert (ROOT / "denoise_study/py.typed").exists()


@cache
def everything():
    names = {}
    exec("from denoise_study.all import *", names)
    return names


def test_everything_public_in_one_import():
    assert set(everything()) - {"__builtins__"} == set(faces.homes())


def test_every_public_name_can_be_had_from_its_wing():
    from importlib import import_module

    for public, places in faces.homes().items():
        for wing, _ in places:
            assert hasattr(import_module(f"denoise_study.{wing}"), public), public


@pytest.mark.parametrize(
    "path, today",
    [
        ("denoise_study.ddgm.DDGM", "DDGM"),
        ("denoise_study.daed.DAED", "DAED"),
        ("denoise_study.unet.UNet", "UNet"),
        ("denoise_study.unet.BlindUNet", "BlindUNet"),
        ("denoise_study.denoiser.Blind", "Blind"),
        ("denoise_study.diffusion.DDGM", "DDGM"),
    ],
)
def test_files_of_earlier_versions_load(path, today):
    "A description names the module that the class was in when the file was written"
    from denoise_study.core import build, describe

    config = dict(channels=1, width=32, mult=(1,), n_blocks=1, attn=())
    net = {"class": "denoise_study.unet.UNet", "args": config}
    blind = {
        "class": "denoise_study.unet.BlindUNet",
        "args": dict(channels=1, widths=(4, 4, 4, 4), depths=(2, 2, 2)),
    }
    everyone = everything()
    sched = everyone["Schedule"].linear(30)
    made = dict(
        UNet=lambda: everyone["UNet"](**config),
        BlindUNet=lambda: everyone["BlindUNet"](**blind["args"]),
        DDGM=lambda: everyone["DDGM"](build(net), sched, (1, 8, 8)),
        DAED=lambda: everyone["DAED"](build(net), build(net), sched.merge_first(5), (1, 8, 8)),
        Blind=lambda: everyone["Blind"](build(blind), shape=(1, 16, 16)),
    )[today]()
    desc = describe(made)
    assert type(build(desc | {"class": path})) is everyone[today]


def test_requirements_are_bounded():
    every = [r for extra in ("", "dev_", "docs_", "bench_") for r in requirements(extra)]
    assert [r for r in every if not re.fullmatch(r"[\w.-]+>=[\d.]+,<[\d.]+", r)] == []


@pytest.mark.parametrize("extra", ["", "dev_", "docs_", "bench_"])
def test_requirements_are_sorted(extra):
    assert requirements(extra) == sorted(requirements(extra), key=str.casefold)


def test_no_local_paths():
    "Nothing that is committed names a folder of the machine that wrote it"
    local = re.compile(r"(?<![\w.:/~-])/(?:home|root|Users|mnt|tmp|work|workspace)/\w")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git clone")
    files = [ROOT / f for f in listed.stdout.split("\0") if f and (ROOT / f).is_file()]
    lines = [
        (f, line) for f in files for line in f.read_bytes().decode("utf-8", "ignore").splitlines()
    ]
    assert [
        f"{f.relative_to(ROOT)}: {line.strip()[:100]}" for f, line in lines if local.search(line)
    ] == []


def test_traps_name_tests_that_exist():
    "The table of traps names the test that holds each: file::name, seen from tests/"
    page = read(ROOT / "docs/pages/further/traps.md")
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", page)
    texts = {f: read(ROOT / "tests" / f) if (ROOT / "tests" / f).exists() else "" for f, _ in named}
    assert len(named) > 40
    assert [f"{f}::{test}" for f, test in named if f"def {test}(" not in texts[f]] == []


# The head of the tutorials: tools/badges.py writes it

tutorials = sorted((ROOT / "nbs/tutorials").glob("*.ipynb"))


def test_tutorials_have_their_badge():
    import badges

    assert [p.name for p in badges.stale()] == [], "run python tools/badges.py"


@pytest.mark.parametrize("path", tutorials, ids=lambda p: p.stem)
def test_tutorial_on_colab(path):
    """The badge has an alt text and leads to this notebook in the repository of settings.ini; every
    wing that is used is linked; a first cell installs, on Colab only"""
    user, repo, branch = (ini["DEFAULT"][k] for k in ("user", "repo", "branch"))
    head, code = cells(path, "markdown")[1].source, cells(path, "code")
    assert re.match(r"\[!\[[^\]]+\]\(https://\S+\.svg\)\]", head)
    blob = f"https://colab.research.google.com/github/{user}/{repo}/blob/{branch}"
    assert f"]({blob}/nbs/tutorials/{path.name})" in head
    linked = [path.parent / target for target in re.findall(r"\((\.\./[\w./]+)\)", head)]
    assert linked and all(p.exists() for p in linked)
    used = {
        m for c in code for m in re.findall(r"^from denoise_study\.(\w+) import", c.source, re.M)
    }
    assert used <= {p.parent.name for p in linked} | {"all"}
    assert ran(code[0].source, colab=False) == []
    install = f"install -q git+https://github.com/{user}/{repo}.git@{branch}"
    assert ran(code[0].source, colab=True) == [("pip", install)]


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


def test_tests_docs_and_tools_are_formatted():
    "By ruff, which settles their dialect; notebooks are set by hand"
    command = [sys.executable, "-m", "ruff", "format", "--check", "--line-length", "100"]
    found = subprocess.run([*command, "tests", "docs", "tools"], cwd=ROOT, capture_output=True)
    assert found.returncode == 0, found.stdout.decode()
