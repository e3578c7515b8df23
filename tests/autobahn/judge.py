"""Judges a run of the Autobahn TestSuite against `examples/echo.rs`.

    judge.py FOLDER

Reads FOLDER/chosen.json and FOLDER/report/index.json, prints what fell short, and exits with 1 if
anything did that is not listed here. What is listed has to happen: a case that has become better is
to be taken from its list.
"""
import json
import sys
from pathlib import Path

# So many cases there are in the classes that `launch.py` chooses.
CASES = 517

# An invalid text is closed at the first byte that cannot become UTF-8. These two send it in one
# frame, in pieces, and want to see it closed before the frame has arrived; the decoder looks at a
# text frame when it is there, which is at most 64 KiB later.
NON_STRICT = {"6.4.3", "6.4.4"}

# Offers of nothing but a window of the server smaller than 32 KiB (`server_max_window_bits=9`). A
# frame is compressed once for everybody, with the largest window, so such an offer is declined,
# and the connection goes on without compression, as RFC 7692 section 5.1 lets it.
UNIMPLEMENTED = {f"13.{group}.{case}" for group in (3, 5) for case in range(1, 19)}

# Cases that only tell how a server behaves where the RFC leaves it open.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}

CLOSED_WELL = ("OK", "INFORMATIONAL")


def expected(case):
    for verdict, cases in (
        ("NON-STRICT", NON_STRICT),
        ("UNIMPLEMENTED", UNIMPLEMENTED),
        ("INFORMATIONAL", INFORMATIONAL),
    ):
        if case in cases:
            return verdict
    return "OK"


def shortcoming(case, result):
    """What is wrong with a result, or nothing."""
    if result is None:
        return "did not run"
    if result["behavior"] != expected(case):
        return f"is {result['behavior']}, expected was {expected(case)}"
    if expected(case) != "UNIMPLEMENTED" and result["behaviorClose"] not in CLOSED_WELL:
        return f"was closed {result['behaviorClose']}"
    return None


def by_number(case):
    return [int(part) for part in case.split(".")]


def main():
    folder = Path(sys.argv[1])
    try:
        chosen = json.loads((folder / "chosen.json").read_text())
        (results,) = json.loads((folder / "report/index.json").read_text()).values()
    except (OSError, ValueError) as error:
        sys.exit(f"judge.py: the suite has left no report: {error}")
    short = 0
    for case in sorted(set(chosen) | NON_STRICT | UNIMPLEMENTED | INFORMATIONAL, key=by_number):
        wrong = shortcoming(case, results.get(case))
        if wrong:
            short += 1
            print(f"case {case} {wrong}")
    ok = len(chosen) - short - len(NON_STRICT | UNIMPLEMENTED | INFORMATIONAL)
    print(
        f"Autobahn: {len(chosen)} cases, {ok} OK, {len(INFORMATIONAL)} informational, "
        f"{len(NON_STRICT)} non-strict and {len(UNIMPLEMENTED)} declined as listed, {short} short"
    )
    if len(chosen) != CASES:
        sys.exit(f"judge.py: {len(chosen)} cases were chosen, there are {CASES}")
    sys.exit(1 if short else 0)


if __name__ == "__main__":
    main()
