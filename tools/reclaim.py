"""Judge recorded results by today's rule: python tools/reclaim.py [NAME ...]

The numbers of a results file stay as they were recorded; its claims are made from them again, by
the functions that make them in a report. `claims_by` says at which commit that was."""

import argparse
import json
from pathlib import Path

from denoise_study.core import claims_table, run_info, write_json
from denoise_study.daed import daed_claims_of
from denoise_study.denoiserep import rep_claims
from denoise_study.representation import blind_claims, recorded_claims

RESULTS = Path(__file__).resolve().parents[1] / "docs/results"
# the beginning of a file's name -> claims of its results
PAPERS = {
    "daed_": daed_claims_of,
    "table1_": daed_claims_of,
    "blind_": recorded_claims,
    "rep_": rep_claims,
}
# chapters of a study's report, by a key that only they have
CHAPTERS = {"splits": daed_claims_of, "around": blind_claims, "arms": rep_claims}


def judged(results, claims_of):
    "Results with their claims made anew"
    if claims_of is rep_claims:
        # earlier versions kept the numbers under `claims`
        results.setdefault("comparisons", results["claims"])
    claims = claims_of(results)
    print(claims_table(claims)[["claim", "verdict"]].to_string(index=False))
    return results | dict(claims=[claim.to_dict() for claim in claims])


def reclaim(path, commit):
    "Write a results file with today's claims"
    results = json.loads(path.read_text(encoding="utf-8"))
    makers = [make for start, make in PAPERS.items() if path.stem.startswith(start)]
    if makers and "claims" in results:  # some records judge nothing
        print(f"\n{path.stem}")
        return write_json(path, judged(results, makers[0]) | dict(claims_by=commit))
    chapters = results.get("chapters", {})
    for title, found in chapters.items():
        for key, make in CHAPTERS.items():
            if key in found and "claims" in found:
                print(f"\n{path.stem}: {title}")
                chapters[title] = judged(found, make)
    if chapters:
        write_json(path, results | dict(claims_by=commit))


if __name__ == "__main__":
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("names", nargs="*", help="files in docs/results, without .json; default: all")
    names = p.parse_args().names
    commit = run_info()["commit"]
    for path in sorted(RESULTS.glob("*.json")):
        if not names or path.stem in names:
            reclaim(path, commit)
