"""Where a name in backticks leads: to this library's own page, or to the documentation of fastai,
PyTorch and the other libraries."""

import re
from functools import cache

from apidoc import entries

TORCH = "https://docs.pytorch.org/docs/stable/"
PARAMETRIZE = f"{TORCH}generated/torch.nn.utils.parametrize"
PYTHON = "https://docs.python.org/3/library/"
ELSEWHERE = {
    "Tensor": f"{TORCH}tensors.html",
    "torch.Tensor": f"{TORCH}tensors.html",
    "nn": f"{TORCH}nn.html",
    "DistributedDataParallel": f"{TORCH}generated/torch.nn.parallel.DistributedDataParallel.html",
    "DataLoader": f"{TORCH}data.html#torch.utils.data.DataLoader",
    "MultiheadAttention": f"{TORCH}generated/torch.nn.MultiheadAttention.html",
    "torch.nn.utils.parametrize": f"{PARAMETRIZE}.register_parametrization.html",
    "pd.DataFrame": "https://pandas.pydata.org/docs/reference/api/pandas.DataFrame.html",
    "Figure": "https://matplotlib.org/stable/api/figure_api.html#matplotlib.figure.Figure",
    "Axes": "https://matplotlib.org/stable/api/axes_api.html",
    "plt.Axes": "https://matplotlib.org/stable/api/axes_api.html",
    "Path": f"{PYTHON}pathlib.html#pathlib.Path",
    "Callable": f"{PYTHON}collections.abc.html#collections.abc.Callable",
    "Iterator": f"{PYTHON}collections.abc.html#collections.abc.Iterator",
}
# these have a page each, named after them
GENERATED = {"nn.": "torch.nn.", "F.": "torch.nn.functional.", "torch.": "torch."}

# code blocks, links, formulas, headings, and code in double backticks
LEFT_ALONE = (
    r"(^```.*?^```|^~~~.*?^~~~|\[[^\]]*\]\([^)]*\)|\$\$.*?\$\$|\$[^$\n]+\$|^#.*$"
    r"|``.*?``)"
)


@cache
def fastai_names():
    "fastai's and fastcore's own index, which nbdev packages carry"
    from nbdev.doclinks import NbdevLookup

    return NbdevLookup(strip_libs="fastai fastcore")


def elsewhere(name):
    "Address of the documentation of another library's name, or None"
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    for short, full in GENERATED.items():
        if re.fullmatch(re.escape(short) + r"[\w.]+", name):
            return f"{TORCH}generated/{full}{name[len(short) :]}.html"
    # lower-case ones are words of English too often
    return fastai_names().doc(name) if name[:1].isupper() and len(name) > 2 else None


class Names:
    "The public names of the library"

    def __init__(self, sources):
        "From module below the package, like daed.splits -> source of its exported cells"
        self.home = {}
        for module, src in sources.items():
            for e in entries(src):
                self.home.setdefault(e["name"], []).append(module)

    def target(self, name, module=None):
        """Full name of what `name` means on the page of `module`: its own, that of the module or
        wing it names, or the only one there is"""
        name = name.removesuffix("()").removeprefix("denoise_study.")
        homes, parts = self.home.get(name, []), name.split(".")
        for i in range(1, len(parts)):  # module.name, wing.name or wing.module.name
            if homes:
                break
            first, name = ".".join(parts[:i]), ".".join(parts[i:])
            homes = [home for home in self.home.get(name, []) if first in (home, *home.split("."))]
        if module in homes:
            return f"denoise_study.{module}.{name}"
        return f"denoise_study.{homes[0]}.{name}" if len(homes) == 1 else None

    def link(self, name, module=None):
        "A name in code letters, linked where it leads somewhere"
        # the package, not its command
        target = self.target(name, module) if name != "denoise_study" else None
        if target:
            return f"{{py:obj}}`{name} <{target}>`"
        url = elsewhere(name.removesuffix("()"))
        return f"[`{name}`]({url})" if url else f"`{name}`"

    def kind(self, annotation, module=None):
        "A type, its alternatives linked one by one"
        if not annotation:
            return ""
        parts = annotation.split(" | ") if re.fullmatch(r"[\w.| ]+", annotation) else [annotation]
        return " or ".join(self.link(p, module) for p in parts)

    def text(self, md, module=None):
        "Markdown prose with its backticks linked; code blocks, links and formulas stay as they are"
        kept = re.split(LEFT_ALONE, md, flags=re.S | re.M)
        one = lambda m: self.link(m[1], module)
        return "".join(
            p if i % 2 else re.sub(r"`([A-Za-z_][\w.]*(?:\(\))?)`", one, p)
            for i, p in enumerate(kept)
        )

    def sentence(self, plain, module=None):
        "A docment or docstring, which is plain text but for its backticks"
        parts = re.split(r"(`[^`]+`)", plain)
        escape = lambda s: re.sub(r"([\\*_$<>\[\]{}~#])", r"\\\1", s)
        return "".join(
            self.link(p.strip("`"), module) if i % 2 else escape(p) for i, p in enumerate(parts)
        )
