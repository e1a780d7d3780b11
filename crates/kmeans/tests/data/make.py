"""Writes the public data sets that tests/oracles.rs clusters, from scikit-learn's bundled copies (UCI, public).

python make.py    # scikit-learn 1.9; one line a row, comma separated, no header
"""
from pathlib import Path

from sklearn import datasets

HERE = Path(__file__).parent
for name in ["iris", "wine", "breast_cancer", "digits"]:
    rows = getattr(datasets, f"load_{name}")().data
    lines = [",".join(repr(float(value)) if value % 1 else str(int(value)) for value in row) for row in rows]
    (HERE / f"{name}.csv").write_text("\n".join(lines) + "\n")
