"""Converts CDNOW_master.txt to cdnow.parquet, the demo's transactions.

    pip download --no-deps --no-binary :all: lifetimes==0.11.3     # holds lifetimes/datasets/CDNOW_master.txt
    python make_cdnow.py CDNOW_master.txt cdnow.parquet            # needs pyarrow
"""

import datetime
import decimal
import sys

import pyarrow as pa
import pyarrow.parquet as pq

source, target = sys.argv[1:]
with open(source) as lines:
    next(lines)
    rows = [line.split() for line in lines if line.strip()]

table = pa.table(
    {
        # Text, as in the source: "00001".
        "customer_id": pa.array([row[0] for row in rows], pa.string()),
        "date": pa.array([datetime.date(int(r[1][:4]), int(r[1][4:6]), int(r[1][6:])) for r in rows], pa.date32()),
        "cds": pa.array([int(row[2]) for row in rows], pa.int32()),
        "amount": pa.array([decimal.Decimal(row[3]) for row in rows], pa.decimal128(9, 2)),
    }
)
pq.write_table(table, target, compression="zstd", compression_level=19)
print(f"{table.num_rows} purchases, {len(set(table['customer_id'].to_pylist()))} customers, {sum(table['amount'].to_pylist())} dollars")
