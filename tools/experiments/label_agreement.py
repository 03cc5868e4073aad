"""How often do unmixed bank rows look like their label to a classifier of all real digits?

The judge is a support-vector machine fitted to all 1,797 real digits (what the generator never
saw among them): it measures the generator, and nothing is trained or chosen with it. The bank must
be an unmixed one of `digits_lt`:

    stylegan-mix generate --dataset digits_lt --space none --n 2000
    python tools/experiments/label_agreement.py --out tools/results/digits/label_agreement.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

from stylegan_mix import datasets, generators, store
from stylegan_mix.banks import store as bank_store
from stylegan_mix.banks.reader import open_bank


def measure() -> dict[str, object]:
    """The agreement of every class, in percent, with what it was measured on."""
    dataset = datasets.load("digits_lt")
    found = bank_store.find(split_id=dataset.split_id, space="none")
    if not found:
        sys.exit("no unmixed bank of digits_lt: run the generate command named above")
    bank = open_bank(found[0].folder)
    digits = load_digits()
    # The bank's pixels are 0..255, those of scikit-learn 0..16.
    judge = SVC(C=10.0, gamma=0.001)
    check = cross_val_score(judge, digits.data, digits.target, cv=5).mean()
    judge.fit(digits.data, digits.target)
    said = judge.predict(np.asarray(bank.images).reshape(len(bank), -1) * (16 / 255))
    asked = bank.pair[:, 0]
    agreement = [100 * float((said[asked == c] == c).mean()) for c in range(10)]
    generator = generators.load(str(bank.facts["generator"]))
    return {
        "judge": "SVC(C=10, gamma=0.001) on all 1,797 digits",
        "judge_cross_validated_accuracy": round(100 * float(check), 2),
        "bank": bank.key,
        "rows": len(bank),
        "generator": generator.hash,
        "kimg": generator.card["kimg"],
        "seed": generator.card["seed"],
        "training_images": generator.card["counts"],
        "agreement": [round(value, 2) for value in agreement],
        "diversity": [round(value, 3) for value in generator.card["diversity"]],
    }


def main() -> None:
    """Prints a table; writes JSON with --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the figures there as JSON")
    options = parser.parse_args()
    figures = measure()
    print("digit  training images  agreement %  diversity")
    rows = zip(figures["training_images"], figures["agreement"], figures["diversity"], strict=True)
    for digit, (count, agreement, diversity) in enumerate(rows):
        print(f"{digit:>5}  {count:>15}  {agreement:>11.1f}  {diversity:>9.2f}")
    if options.out:
        store.write_json(options.out, figures)


if __name__ == "__main__":
    main()
