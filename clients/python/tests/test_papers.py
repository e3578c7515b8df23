"""The programs of the README run, and the package holds what it should."""

from __future__ import annotations

import asyncio
import pathlib
import re
import sys
import tempfile
import unittest
import zipfile

from .support import Broker, Test, within

HOME = pathlib.Path(__file__).resolve().parents[1]


class Demo(Broker):
    mode = "demo"


class Readme(Test):
    async def test_the_programs_of_the_readme_run(self) -> None:
        text = (HOME / "README.md").read_text()
        programs = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        self.assertEqual(len(programs), 3)
        broker = await self.enter(Demo())
        expected = ["ticker.MSFT", "101 badTopic never", "whole: ['AAPL'"]
        for program, words in zip(programs, expected, strict=True):
            self.assertIn("127.0.0.1:7600", program)
            out = await self.output(program.replace("127.0.0.1:7600", broker.address))
            self.assertIn(words, out)

    async def output(self, program: str) -> str:
        pipe, joined = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
        command = [sys.executable, "-W", "error", "-c", program]
        process = await asyncio.create_subprocess_exec(*command, cwd=HOME, stdout=pipe, stderr=joined)
        out, _ = await within("the end of the program", process.communicate())
        self.assertEqual(process.returncode, 0, out.decode())
        return out.decode()


class Package(unittest.TestCase):
    def test_the_wheel_holds_the_modules_and_says_that_they_are_typed(self) -> None:
        from hatchling.builders.wheel import WheelBuilder  # noqa: PLC0415 - only here

        with tempfile.TemporaryDirectory() as folder:
            wheel = next(WheelBuilder(str(HOME)).build(directory=folder, versions=["standard"]))
            names = zipfile.ZipFile(wheel).namelist()
        modules = {f"fanfare/{path.name}" for path in (HOME / "fanfare").iterdir() if path.is_file()}
        self.assertIn("fanfare/py.typed", modules)
        self.assertEqual({name for name in names if name.startswith("fanfare/")}, modules)
