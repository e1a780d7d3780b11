"""Recomputes features in plain Python, decimals and sets, with nothing shared with the SQL: the goldens of `retail.rs`.

    python golden.py SHARED_DATA > golden.json      # SHARED_DATA holds cdnow/ and completejourney/; needs pyarrow
"""

import collections
import datetime
import json
import math
import sys
import zoneinfo
from decimal import Decimal

import pyarrow.parquet as pq

NOT_MERCHANDISE = {"MISCELLANEOUS", "COUPON", "POSTAL CENTER", "CNTRL/STORE SUP"}


def money(value):
    return Decimal(repr(value)).quantize(Decimal("0.0001"))


def text(value):
    """Numbers as text, which no JSON reader rounds."""
    return value if value is None else repr(value) if isinstance(value, float) else str(value)


def summary(table, ids):
    """Exact sums of integers and money, fsum of the rest, and a few customers."""
    sums = {}
    for name in next(iter(table.values())):
        values = [row[name] for row in table.values() if row[name] is not None]
        exact = not isinstance(values[0], float)
        sums[name] = text(sum(values) if exact else math.fsum(values))
    rows = {str(i): {name: text(value) for name, value in table[i].items()} for i in ids}
    return {"n_customers": len(table), "sums": sums, "rows": rows}


def describe(lines, as_of):
    """lines: (day, basket, amount, discount, coupon, private, variety) of one customer."""
    days = {line[0] for line in lines}
    n_baskets = len({line[1] for line in lines})
    spend, discounts, coupons = (sum((line[i] for line in lines), Decimal(0)) for i in (2, 3, 4))
    private = sum((line[2] for line in lines if line[5]), Decimal(0))
    first, last = min(days), max(days)
    return {
        "recency": (as_of - last).days,
        "frequency": n_baskets,
        "spend": spend.quantize(Decimal("0.0001")),
        "tenure": (as_of - first).days,
        "gap": (last - first).days / (len(days) - 1) if len(days) > 1 else None,
        "basket_value": float(spend) / n_baskets,
        "variety": len({line[6] for line in lines if line[6] is not None}),
        "discount_share": float(discounts) / float(spend + discounts) if spend + discounts > 0 else 0.0,
        "private_label_share": float(private) / float(spend) if spend > 0 else 0.0,
        "coupon_share": float(coupons) / float(spend + coupons) if spend + coupons > 0 else 0.0,
    }


def complete_journey(folder):
    products = {row["product_id"]: row for row in pq.read_table(f"{folder}/products.parquet").to_pylist()}
    zone = zoneinfo.ZoneInfo("America/New_York")
    households = collections.defaultdict(list)
    counts = collections.Counter()
    for row in pq.read_table(f"{folder}/transactions.parquet").to_pylist():
        counts["read"] += 1
        product = products.get(row["product_id"])
        counts["unknown_product"] += product is None
        if product and (product["is_fuel"] or product["department"] in NOT_MERCHANDISE):
            counts["filtered"] += 1
            continue
        households[row["household_id"]].append(
            (
                row["ts_utc"].astimezone(zone).date(),
                row["basket_id"],
                money(row["sales_value"]),
                money(row["retail_disc"]),
                money(row["coupon_disc"]) + money(row["coupon_match_disc"]),
                bool(product) and product["brand"] == "Private",
                product["product_category"] if product else None,
            )
        )
    as_of = datetime.date(2018, 1, 1)
    table = {i: describe(lines, as_of) for i, lines in households.items()}
    counts["seen"] = len(table)
    table = {i: row for i, row in table.items() if row["frequency"] >= 12 and row["spend"] >= 50}
    return {"counts": counts, **summary(table, [1, 1000, 2500])}


def cdnow(folder):
    customers = collections.defaultdict(list)
    with open(f"{folder}/CDNOW_master.txt") as lines:
        next(lines)
        for customer, day, _, amount in map(str.split, lines):
            day = datetime.date(int(day[:4]), int(day[4:6]), int(day[6:]))
            customers[customer].append((day, day, Decimal(amount), Decimal(0), Decimal(0), False, None))
    as_of = datetime.date(1998, 7, 1)
    table = {i: describe(lines, as_of) for i, lines in customers.items()}
    names = ["recency", "frequency", "spend", "tenure", "gap", "basket_value"]
    table = {i: {n: row[n] for n in names} for i, row in table.items()}
    return summary(table, ["00001", "00002", "23570"])


shared = sys.argv[1]
answer = {"completejourney": complete_journey(f"{shared}/completejourney"), "cdnow": cdnow(f"{shared}/cdnow")}
json.dump(answer, sys.stdout, indent=1)
print()
