"""How much of a lesson the notebooks are, how dense the modules: python tools/lessons.py [--each]

    shown      exported definitions (cells with a def or a class) whose next code cell is visible
    called     the same, where one of the next two code cells is visible
    seen       public names that a visible cell of their own notebook uses
    stretch    most lines of exported definitions between two visible code cells
    density    syntax (AST) nodes per code line of functions with five lines or more
    per 1000   tuple assignments, comprehensions and conditional expressions in 1000 code lines
    private    private functions and classes for each public name
    by hand    places that spell an interval's ends as `low` and `high` outside of its own rooms

With --each a line for each notebook and module comes first. The limits are here, and
tests/test_layout.py holds the tree to them."""

import ast
import json
import re
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import faces  # noqa: E402, it lies beside this file

CALLED, STRETCH, DENSITY, DENSITY_P90, MODULE_LINES = 0.75, 80, 9, 12, 250
BY_HAND = 125  # most of them are ends of pixels' ranges, of bins and of noise levels
CALLBACK = re.compile(r"forward|(before|after)_\w+")  # PyTorch and fastai call these
OWN_ROOMS = {("core", room) for room in ("intervals", "resampling", "verdicts", "claims")}
COMPREHENSIONS = ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp
QUIET_NODES = ast.Load, ast.Store, ast.Constant  # they add nothing to read


# Lessons


def flagged(source, flags):
    "Whether one of nbdev's directives stands in a cell"
    return bool(re.search(rf"^\s*#\s*\|\s*({flags})\b", source, re.M))


def exported(source):
    return flagged(source, "export|exporti|exports")


def visible(source):
    return not exported(source) and not flagged(source, "hide|default_exp")


def code_cells(notebook):
    "Sources of a notebook's code cells, those that say only where it is exported to left out"
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    return [s for s in sources if s.strip() and not flagged(s, "default_exp")]


def definitions(source):
    "Functions and classes at the top of a cell; a line of IPython is none"
    lines = [f"pass#{l}" if re.match(r"\s*[%!]", l) else l for l in source.splitlines()]
    try:
        body = ast.parse("\n".join(lines)).body
    except SyntaxError:
        return []
    return [n for n in body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]


def lesson(sources):
    "What is shown of what a notebook defines; `sources` are those of its code cells"
    shown = called = defined = run = stretch = 0
    names = []
    for i, source in enumerate(sources):
        found = definitions(source)
        if visible(source):
            run = 0
        if not exported(source) or not found:
            continue

        run += sum(bool(line.strip()) for line in source.splitlines())
        stretch = max(stretch, run)
        defined += 1
        shown += any(map(visible, sources[i + 1 : i + 2]))
        called += any(map(visible, sources[i + 1 : i + 3]))
        names += [n.name for n in found if not n.name.startswith("_")]

    seen = "\n".join(filter(visible, sources))
    names = [name for name in names if not CALLBACK.fullmatch(name)]
    unseen = [name for name in names if not re.search(rf"\b{re.escape(name)}\b", seen)]
    return dict(
        defined=defined,
        shown=shown,
        called=called,
        names=len(names),
        unseen=unseen,
        stretch=stretch,
    )


# Syntax


def nodes(tree):
    return sum(not isinstance(n, QUIET_NODES) for n in ast.walk(tree))


def code_lines(source):
    def counts(line):
        return line.strip() and not line.strip().startswith("#")

    return sum(map(bool, map(counts, source.splitlines())))


def densities(source):
    "Syntax nodes per line of each function of five lines and more, without signature and docstring"
    lines, found = source.splitlines(), []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        body = function.body[1:] if ast.get_docstring(function) else function.body
        if not body:
            continue
        n = code_lines("\n".join(lines[body[0].lineno - 1 : body[-1].end_lineno]))
        if n >= 5:
            found.append(sum(map(nodes, body)) / n)
    return found


def p90(values):
    return sorted(values)[int(0.9 * len(values))]


def ends_by_hand(tree):
    "Names, arguments and keys that spell the ends of an interval"

    def spelled(node):
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, (ast.arg, ast.keyword)):
            return node.arg
        return node.value if isinstance(node, ast.Constant) else None

    def counts(text):
        return isinstance(text, str) and re.fullmatch(r"(\w+_)?(low|high)", text)

    return sum(bool(counts(spelled(node))) for node in ast.walk(tree))


def is_pair(node):
    "`a, b = c, d`"
    sides = [*node.targets, node.value] if isinstance(node, ast.Assign) else [None]
    return all(isinstance(side, ast.Tuple) for side in sides)


def private_names(tree):
    "Private functions and classes at the top of a module"
    found = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    return [n.name for n in found if n.name.startswith("_")]


def syntax(source):
    "What a module is made of"
    tree = ast.parse(source)
    every = list(ast.walk(tree))
    return dict(
        lines=len(source.splitlines()),
        code=code_lines(source),
        nodes=nodes(tree),
        densities=densities(source),
        tuples=sum(map(is_pair, every)),
        comprehensions=sum(isinstance(n, COMPREHENSIONS) for n in every),
        ternaries=sum(isinstance(n, ast.IfExp) for n in every),
        private=len(private_names(tree)),
        by_hand=ends_by_hand(tree),
    )


# Report


def place(path):
    return "/".join(Path(path).with_suffix("").parts[-2:])


def lessons():
    return {path: lesson(code_cells(path)) for path in faces.notebooks()}


def sources():
    "Module -> what it is made of, with the number of names that it offers"
    found = {}
    for path in faces.modules():
        found[path] = dict(syntax(path.read_text(encoding="utf-8")), public=len(faces.public(path)))
    return found


def hands(mods):
    "Module outside of the rooms of intervals -> places that spell an interval's ends"
    own = {(wing, f"{room}.py") for wing, room in OWN_ROOMS}
    return {p: row["by_hand"] for p, row in mods.items() if p.parts[-2:] not in own}


def table(books, mods):
    "The figures of the whole tree, as (what, how much)"

    def book(key):
        return sum(row[key] for row in books.values())

    def mod(key):
        return sum(row[key] for row in mods.values())

    every = [d for row in mods.values() for d in row["densities"]]
    defined, names = book("defined"), book("names")
    unseen = sum(len(row["unseen"]) for row in books.values())
    stretches = [row["stretch"] for row in books.values()]
    long = [place(path) for path, row in mods.items() if row["lines"] > MODULE_LINES]
    by_hand = hands(mods)

    def thousand(key):
        return f"{1000 * mod(key) / mod('code'):.0f}"

    return [
        ("shown: next code cell is visible", f"{book('shown') / defined:.0%}"),
        ("called: one of the next two is", f"{book('called') / defined:.0%}"),
        (
            "seen: names in a visible cell",
            f"{1 - unseen / names:.0%} ({unseen} of {names} are not)",
        ),
        ("stretch: median, longest", f"{statistics.median(stretches):.0f}, {max(stretches)} lines"),
        ("density: median, p90", f"{statistics.median(every):.1f}, {p90(every):.1f}"),
        ("tuple assignments per 1000", thousand("tuples")),
        ("comprehensions per 1000", thousand("comprehensions")),
        ("ternaries per 1000", thousand("ternaries")),
        ("private helpers per public name", f"{mod('private') / mod('public'):.2f}"),
        (f"modules over {MODULE_LINES} lines", f"{len(long)} of {len(mods)}: {', '.join(long)}"),
        (
            "low, high by hand",
            f"{sum(by_hand.values())} in {sum(map(bool, by_hand.values()))} modules",
        ),
        ("code lines", f"{mod('code'):,}"),
        ("syntax nodes", f"{mod('nodes'):,}"),
    ]


def each(books, mods):
    "A line for each notebook, and one for each module"
    for path, row in books.items():
        seen = row["names"] - len(row["unseen"])
        yield (
            f"{place(path):36} shown {row['shown']}/{row['defined']}, called {row['called']}, "
            f"seen {seen}/{row['names']}, stretch {row['stretch']}"
        )
        if row["unseen"]:
            yield f"{'':36} not seen: {', '.join(row['unseen'])}"
    for path, row in mods.items():
        dense = row["densities"]
        figures = ""
        if dense:
            figures = f", density {statistics.median(dense):.1f} (p90 {p90(dense):.1f})"
        yield (
            f"{place(path):36} {row['lines']} lines, {row['public']} public, "
            f"{row['private']} private, {row['nodes']} nodes{figures}"
        )


def main(args):
    if set(args) - {"--each"}:
        sys.exit(__doc__)
    books, mods = lessons(), sources()
    if args:
        print(*each(books, mods), "", sep="\n")
    for what, much in table(books, mods):
        print(f"{what:36} {much}")


if __name__ == "__main__":
    main(sys.argv[1:])
