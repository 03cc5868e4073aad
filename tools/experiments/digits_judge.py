"""Judgement of the rows of digit banks by a classifier of all real digits.

The judge is a support-vector machine fitted to all 1,797 real digits, including the generator's
test part. It only measures generator and banks; nothing is trained or chosen with it. It judges

* unmixed rows: how often it confirms their label, class by class;
* mixed rows, by the share `lam` of class a: how often it answers a, b, or a third class, and which.
  A third class means that the label of the row is wrong.

    stylegan-mix generate --dataset digits_lt --n 10000
    stylegan-mix generate --dataset digits_lt --n 10000 --space none
    stylegan-mix generate --dataset digits_lt --n 10000 --space pixel
    python tools/experiments/digits_judge.py --out tools/results/generators/digits_lt.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

from stylegan_mix import datasets, output
from stylegan_mix.banks import store as bank_store
from stylegan_mix.banks.reader import Bank, open_bank
from stylegan_mix.generators import store as generator_store

CLASSES = 10


def newest_bank(space: str) -> Bank:
    """Finds the newest bank of the digits in that space."""
    found = bank_store.find(split_id=datasets.load("digits_lt").split_id, space=space)
    if not found:
        sys.exit(f"no digits_lt bank of space {space}: run the generate commands named above")
    return open_bank(found[0].folder)


def answers(judge: SVC, bank: Bank) -> np.ndarray:
    """Classifies every row, int [N]; scikit-learn's digits are 0..16, ours 0..255."""
    return np.asarray(judge.predict(np.asarray(bank.images).reshape(len(bank), -1) * (16 / 255)))


def agreement(judge: SVC, bank: Bank) -> list[float]:
    """Computes the percentage of each class's unmixed rows that the judge confirms."""
    said, asked = answers(judge, bank), bank.pair[:, 0]
    return [round(100 * float((said[asked == c] == c).mean()), 2) for c in range(CLASSES)]


def between(judge: SVC, bank: Bank) -> dict[str, Any]:
    """Counts the judge's answers on rows of two classes, in ten bins of lam."""
    said, a, b, lam = answers(judge, bank), bank.pair[:, 0], bank.pair[:, 1], bank.lam
    mixed = a != b
    bins = []
    for low in np.arange(10) / 10:
        rows = mixed & (lam >= low) & (lam < low + 0.1)
        is_a, is_b = (said == a)[rows].mean(), (said == b)[rows].mean()
        shares = {"a": is_a, "b": is_b, "third": 1 - is_a - is_b}
        bins.append({"lam": float(low), **{k: round(100 * float(v), 1) for k, v in shares.items()}})
    third = mixed & (said != a) & (said != b)
    return {
        "bank": bank.key,
        "percent_by_lam": bins,
        "third_class_percent": round(100 * float(third.sum() / mixed.sum()), 2),
        "third_class_rows": np.bincount(said[third], minlength=CLASSES).tolist(),
    }


def measure() -> dict[str, Any]:
    """Measures all figures, and describes their inputs."""
    digits = load_digits()
    judge = SVC(C=10.0, gamma=0.001)
    check = cross_val_score(judge, digits.data, digits.target, cv=5).mean()
    judge.fit(digits.data, digits.target)
    unmixed = newest_bank("none")
    generator = generator_store.load(str(unmixed.facts["generator"]))
    return {
        "judge": "SVC(C=10, gamma=0.001) on all 1,797 digits",
        "judge_cross_validated_accuracy": round(100 * float(check), 2),
        "generator": generator.hash,
        "kimg": generator.card["kimg"],
        "seed": generator.card["seed"],
        "training_images": generator.card["counts"],
        "diversity": [round(value, 3) for value in generator.card["diversity"]],
        "unmixed_bank": unmixed.key,
        "unmixed_rows": len(unmixed),
        "agreement": agreement(judge, unmixed),
        "between": {space: between(judge, newest_bank(space)) for space in ("w", "pixel")},
        "command": "python tools/experiments/digits_judge.py",
    }


def main() -> None:
    """Prints two tables; writes JSON with --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures there as JSON")
    options = parser.parse_args()
    figures = measure()
    print("digit  training images  agreement %  diversity")
    rows = zip(figures["training_images"], figures["agreement"], figures["diversity"], strict=True)
    for digit, (count, agreed, diversity) in enumerate(rows):
        print(f"{digit:>5}  {count:>15}  {agreed:>11.1f}  {diversity:>9.2f}")
    for space, found in figures["between"].items():
        print(
            f"\nspace {space}: rows that look like a third class: {found['third_class_percent']} %"
        )
        print("such rows by the class they look like:", *found["third_class_rows"])
        for entry in found["percent_by_lam"]:
            print("  lam {lam:.1f}..  a {a:5.1f}  b {b:5.1f}  third {third:5.1f}".format(**entry))
    if options.out:
        output.write_json(options.out, figures)


if __name__ == "__main__":
    main()
