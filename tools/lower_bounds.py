"""Print the lower bound of every requirement as a pip constraint, so that the oldest supported set
can be installed and tested:

python tools/lower_bounds.py > constraints.txt && pip install -e '.[dev]' -c constraints.txt"""

import re
import sys
from configparser import ConfigParser
from pathlib import Path

ini = Path(__file__).resolve().parents[1] / "settings.ini"
extras = ("", "dev_")


def lower_bounds(path, extras=extras):
    "`name==version` for each `name>=version` among the run-time and development requirements"
    cfg = ConfigParser(delimiters=["="], interpolation=None)
    cfg.read(path, encoding="utf-8")
    lines = [
        line
        for extra in extras
        for line in cfg["DEFAULT"][f"{extra}requirements"].strip().splitlines()
    ]
    found = {line: re.match(r"([\w.-]+)>=([\w.]+)", line.strip()) for line in lines}
    if missing := [line for line, m in found.items() if not m]:
        raise SystemExit(
            f"{path.name}: no lower bound in {missing}; write each requirement as "
            f"name>=oldest,<next"
        )
    return sorted({f"{m[1]}=={m[2]}" for m in found.values()})


if __name__ == "__main__":
    print("\n".join(lower_bounds(Path(sys.argv[1]) if sys.argv[1:] else ini)))
