"""What becomes of senseless calls of the public functions: python bench_bad_calls.py [--json FILE]

Each argument of a call that works is replaced by values that make no sense: None, a string, NaN, a
negative number, a tensor of another form. Counted is what is refused in words (by this library,
naming the argument), what ends deep in another one, what passes, and what takes over 20 s. The same
for each option of each command, until the first pass through a network."""

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers_calls import calls, DEEP, HANGS, PASSED, try_all, WORDS  # noqa: E402
from helpers_commands import COMMANDS, try_commands  # noqa: E402

from denoise_study.core import run_info, write_json  # noqa: E402


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--only", default="", help="functions whose name contains this")
    p.add_argument("--each", action="store_true", help="show every call that ended deep")
    p.add_argument("--json", help="write the counts to this file")
    args = p.parse_args()

    counts = {}
    for name, argument, value, kind, message in try_all(args.only):
        wing = name.split(".")[0]
        counts.setdefault(wing, Counter())[kind] += 1
        if kind == DEEP and args.each:
            print(f"{name}({argument}={value}): {message}")

    for name, option, word, kind, message in try_commands(args.only):
        counts.setdefault("commands", Counter())[kind] += 1
        if kind == DEEP and args.each:
            print(f"denoise-{name} --{option}={word}: {message}")

    tried = Counter(name.split(".")[0] for name in calls() if args.only in name)
    tried["commands"] = sum(args.only in name for name in COMMANDS)
    rows = []
    for wing, count in [*counts.items(), ("all", sum(counts.values(), Counter()))]:
        functions = tried.total() if wing == "all" else tried[wing]
        kinds = {kind.replace(" ", "_"): count[kind] for kind in (WORDS, DEEP, PASSED, HANGS)}
        row = dict(wing=wing, functions=functions, calls=count.total(), **kinds)
        rows.append(row | dict(share_deep=round(count[DEEP] / count.total(), 4)))
        print(rows[-1])
    if args.json:
        write_json(args.json, dict(run=run_info(), rows=rows))


if __name__ == "__main__":
    main()
