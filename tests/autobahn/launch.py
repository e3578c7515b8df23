"""Runs the fuzzing client of the Autobahn TestSuite. This file is Python 2.7, like the suite.

    launch.py FOLDER URL MESSAGES

Writes FOLDER/chosen.json, the cases that it chose, and FOLDER/report/index.json, how they went.
The cases of compression, 12 and 13, send MESSAGES messages each; the suite's own number is 1,000.
"""
import json
import sys

CLASSES = (1, 2, 3, 4, 5, 6, 7, 9, 10, 12, 13)

folder, url, messages = sys.argv[1:]
spec = {
    "outdir": folder + "/report",
    "servers": [{"agent": "echo", "url": url}],
    "cases": ["%d.*" % number for number in CLASSES],
    "exclude-cases": [],
    "exclude-agent-cases": {},
}
with open(folder + "/spec.json", "w") as file:
    json.dump(spec, file)
sys.argv = ["wstest", "-m", "fuzzingclient", "-s", folder + "/spec.json"]

from autobahntestsuite import case, fuzzing, wstest  # noqa: E402: they read sys.argv

for chosen in case.Cases:
    if chosen.__name__.startswith(("Case12_", "Case13_")):
        chosen.COUNT = int(messages)

begin = fuzzing.FuzzingClientFactory.__init__


def begin_and_note(self, spec, debug=False):
    begin(self, spec, debug)
    with open(folder + "/chosen.json", "w") as file:
        json.dump(self.specCases, file)


fuzzing.FuzzingClientFactory.__init__ = begin_and_note
wstest.run()
