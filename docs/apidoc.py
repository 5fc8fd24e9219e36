"""What the pages say of a public name, read from the source: signature, docstring, a table of
parameters from the docments.

Nothing is imported for it, so that a page is made in milliseconds and the names that are
documented are those that are written."""

import ast
import re
import tokenize
from io import StringIO

# fastai's events and Python's own methods: shown where they say something of their own
QUIET = re.compile(r"(before|after)_\w+|__\w+__")


def is_function(node):
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


def name_of(decorator):
    return ast.unparse(decorator).split("(")[0].rpartition(".")[2]


def decorators(node):
    return {name_of(d) for d in node.decorator_list}


def comments(src):
    "Line number -> text of its comment"
    return {
        t.start[0]: t.string.lstrip("# ")
        for t in tokenize.generate_tokens(StringIO(src).readline)
        if t.type == tokenize.COMMENT
    }


def patched(fn):
    "Class that a function is patched into, or None"
    if "patch" not in decorators(fn) or not fn.args.args:
        return None
    return ast.unparse(fn.args.args[0].annotation).strip("'\"")


def kind_of(fn, cls):
    "Python-domain directive of a function"
    if not cls:
        return "function"
    text = " ".join(map(ast.unparse, fn.decorator_list))
    if "as_prop" in text or "property" in decorators(fn):
        return "property"
    return "classmethod" if "cls_method" in text or "classmethod" in decorators(fn) else "method"


def parameters(fn, notes, bound):
    "Rows (name, type, default, meaning) of a function's parameters and of what it returns"
    a = fn.args
    plain = [*a.posonlyargs, *a.args]
    named = [*zip(plain, [None] * (len(plain) - len(a.defaults)) + a.defaults)][bound:]
    if a.vararg:
        named.append((a.vararg, None))
    named += zip(a.kwonlyargs, a.kw_defaults)
    if a.kwarg:
        named.append((a.kwarg, None))
    stars = {id(a.vararg): "*", id(a.kwarg): "**"}
    text = lambda node: "" if node is None else ast.unparse(node)
    rows = [
        (
            stars.get(id(arg), "") + arg.arg,
            text(arg.annotation),
            text(default),
            notes.get(arg.lineno, ""),
        )
        for arg, default in named
    ]
    back = notes.get(fn.returns.lineno, "") if fn.returns else ""
    return rows, (text(fn.returns), back) if fn.returns else None


def fields(cls, notes):
    "Rows of the fields of a dataclass or named tuple"
    return [
        (
            f.target.id,
            ast.unparse(f.annotation),
            ast.unparse(f.value) if f.value else "",
            notes.get(f.lineno, ""),
        )
        for f in cls.body
        if isinstance(f, ast.AnnAssign)
    ]


def signature(rows):
    "`(x, n=3, *, seed=0)` without the types, which the table has"
    return f"({', '.join(n + (f'={d}' if d else '') for n, _, d, _ in rows)})"


def class_entry(node, notes):
    init = next((f for f in node.body if is_function(f) and f.name == "__init__"), None)
    rows = parameters(init, notes, 1)[0] if init else fields(node, notes)
    return dict(
        kind="class", name=node.name, rows=rows, back=None, doc=ast.get_docstring(node) or ""
    )


def function_entry(fn, notes, cls=None):
    "Entry of a function, or of a method of `cls`"
    cls, kind = cls or patched(fn), kind_of(fn, cls or patched(fn))
    static = "staticmethod" in decorators(fn)
    rows, back = parameters(fn, notes, 1 if cls and not static else 0)
    return dict(
        kind="staticmethod" if static else kind,
        name=f"{cls}.{fn.name}" if cls else fn.name,
        rows=rows,
        back=back,
        doc=ast.get_docstring(fn) or "",
    )


def entries(src):
    "What a cell of source defines for the public, in order"
    notes = comments(src)
    public = lambda n: not n.startswith("_")
    for node in ast.parse(src).body:
        if isinstance(node, ast.ClassDef) and public(node.name):
            yield class_entry(node, notes)
            for f in filter(is_function, node.body):
                e = function_entry(f, notes, node.name)
                said = e["doc"] or any(r[3] for r in e["rows"])
                named = public(f.name) or f.name == "__call__"
                if named and f.name != "__init__" and (said or not QUIET.fullmatch(f.name)):
                    yield e
        elif is_function(node) and public(node.name):
            e = function_entry(node, notes)
            if public(e["name"]) and (e["doc"] or not QUIET.fullmatch(node.name)):
                yield e
        elif isinstance(node, ast.Assign):
            for t in node.targets:
                if isinstance(t, ast.Name) and t.id.isupper() and public(t.id):
                    yield dict(
                        kind="data",
                        name=t.id,
                        rows=[],
                        back=None,
                        doc=notes.get(node.lineno - 1) or notes.get(node.lineno, ""),
                    )


def spans(src):
    """Sphinx's viewcode tags, name -> (kind, first line, last line), with patched methods and
    constants under their full names"""
    found = {}
    for node in ast.parse(src).body:
        start = lambda n: min([n.lineno, *(d.lineno for d in getattr(n, "decorator_list", []))])
        if isinstance(node, ast.ClassDef):
            found[node.name] = ("class", start(node), node.end_lineno)
            for f in filter(is_function, node.body):
                found[f"{node.name}.{f.name}"] = ("def", start(f), f.end_lineno)
        elif is_function(node):
            cls = patched(node)
            name = f"{cls}.{node.name}" if cls else node.name
            found[name] = ("def", start(node), node.end_lineno)
        elif isinstance(node, ast.Assign):
            for t in node.targets:
                if isinstance(t, ast.Name):
                    found[t.id] = ("other", start(node), node.end_lineno)
    return found


def block(e, module, kind, text):
    """One entry as a MyST directive; `kind` and `text` turn a type and a sentence into linked
    markdown"""
    plain = e["kind"] in ("property", "data")
    head = e["name"] + ("" if plain else signature(e["rows"]))
    # the wing offers the name as well, so it leads here under both
    short = f"denoise_study.{module.partition('.')[0]}.{e['name']}"
    out = [
        f"````{{py:{e['kind']}}} {head}",
        f":module: denoise_study.{module}",
        f":canonical: {short}",
        "",
        f'<span id="{short}"></span>',
        "",
        text(e["doc"]),
    ]
    back = e["back"]
    given = [r for r in e["rows"] if r[2]]
    if plain:
        rows = []
    else:
        rows = [(f"`{n}`", kind(t), f"`{d}`" if d else "", text(m)) for n, t, d, m in e["rows"]]
    if back and back[1]:
        rows.append(("*returns*", kind(back[0]), "", text(back[1])))
    elif back and plain:
        out += ["", kind(back[0])]
    if rows:
        keep = (0, 1, 2, 3) if given else (0, 1, 3)
        line = lambda r: "| " + " | ".join(r[i].replace("|", "\\|") for i in keep) + " |"
        out += [
            "",
            line(("Name", "Type", "Default", "Meaning")),
            line(("---",) * 4),
            *map(line, rows),
        ]
    return "\n".join(out + ["````"])
