"""Make the development set for repository search anew: fetch the pinned archives, draw questions, split by package.

    python -m benchmarks.development_set --work DIR [--questions OUT] [--seed 0]

DIR keeps the archives (npm, pip and apt-get must be there); the same seed gives the same file. `repository_search
--development SPLIT` asks the questions.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from benchmarks.development_set.archives import fetch, listed, read_tree
from benchmarks.development_set.questions import QUESTIONS, draw, splits, unanswerable, vocabulary, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps the archives")
    parser.add_argument("--questions", type=Path, default=QUESTIONS, help="file to write, by default the committed one")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    packages = {package.name: package for package in listed()}
    of = splits(packages.values(), options.seed)
    questions, vocabularies = [], {}
    for name, package in packages.items():
        tree = read_tree(fetch(package, options.work))
        vocabularies[name] = vocabulary(tree)
        questions += draw(package, tree, of[name], options.seed)
    questions += unanswerable(packages, vocabularies, questions, options.seed)
    write(questions, options.questions)
    print(f"{len(questions)} questions: {dict(Counter(f'{one.split} {one.kind}' for one in questions))}")


if __name__ == "__main__":
    main()
