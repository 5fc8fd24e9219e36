"Whatever can be asked of one model can be asked of others: the table on the site, cell by cell"

import re
import warnings
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("timm")

from helpers_kinds import ASK, KINDS  # noqa: E402

PAGE = Path(__file__).parents[1] / "docs/pages/kinds.md"


def table():
    "Row of the page -> column -> yes or no"
    text, _, _ = PAGE.read_text(encoding="utf-8").partition("\n## ")
    lines = re.findall(r"^\|(.+)\|$", text, re.M)
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    head, _, *rows = cells
    return {row[0]: dict(zip(head[1:], row[1:])) for row in rows}


TABLE = table()
OF_THE_CHAIN = "sample", "switch", "split", "transfer"  # asked of every schedule
CELLS = [
    pytest.param(make, column, mark == "yes", id=f"{row}, {name} {column}")
    for row, variants in KINDS.items()
    for i, (name, make) in enumerate(variants.items())
    for column, mark in TABLE[row].items()
    if i == 0 or column in OF_THE_CHAIN
]


def test_the_page_has_every_kind_and_every_question():
    assert list(TABLE) == list(KINDS)
    for marks in TABLE.values():
        assert list(marks) == list(ASK) and set(marks.values()) <= {"yes", "no"}


@pytest.mark.parametrize("make, column, can", CELLS)
def test_what_the_page_says_of_a_kind(make, column, can, tmp_path):
    "A yes gives finite numbers; a no is an error in words"
    torch.manual_seed(0)
    model = make()
    arguments = (model, tmp_path) if column == "study" else (model,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sets too small for their space
        if can:
            found = torch.as_tensor(ASK[column](*arguments))
            assert found.numel() and found.isfinite().all()
            return
        with pytest.raises((ValueError, TypeError), match=r"^\w+: "):
            ASK[column](*arguments)
