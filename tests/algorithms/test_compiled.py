"""A cached kernel is compiled again when any source that is compiled into it changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from skyloom.algorithms import sampled_clipping
from skyloom.algorithms.compiled import source_stamp


@pytest.fixture
def room(tmp_path: Path) -> Path:
    sources = {
        "outer.py": "from skyloom.algorithms.middle import (\n    a,\n    b,\n)\n",
        "middle.py": "from skyloom.algorithms.deep import inner\n",
        "deep/inner.py": "from skyloom.algorithms.middle import a\n",
        "unrelated.py": "",
    }
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "matters"),
    [("outer.py", True), ("middle.py", True), ("deep/inner.py", True), ("unrelated.py", False)],
)
def test_the_stamp_follows_imports_and_nothing_else(room, changed, matters):
    before = source_stamp(room / "outer.py", room)
    with (room / changed).open("a") as source:
        source.write("# changed\n")
    source_stamp.cache_clear()
    assert (source_stamp(room / "outer.py", room) != before) == matters


def test_kernels_carry_the_stamp_of_their_module():
    stamp = source_stamp(Path(sampled_clipping.__file__).resolve())
    assert sampled_clipping.clipped._cache._cache_file._source_stamp == stamp


CALLER = "from skyloom.algorithms.callee import f\n{decorated}def g(x):\n    return f(x)\n"


def test_a_change_in_a_called_module_reaches_the_caller(tmp_path):
    """Two runs with one cache, between which only the called module changes."""
    package = tmp_path / "skyloom" / "algorithms"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    real = Path(sampled_clipping.__file__).resolve().with_name("compiled.py")
    (package / "compiled.py").write_text(real.read_text())
    use = "from skyloom.algorithms.compiled import compiled\n"
    (package / "caller.py").write_text(use + CALLER.format(decorated="\n@compiled\n"))
    results = []
    for factor in (2, 3):
        callee = f"{use}\n@compiled\ndef f(x):\n    return {factor} * x\n"
        (package / "callee.py").write_text(callee)
        run = "from skyloom.algorithms.caller import g; print(g(1))"
        environment = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, "-B", "-c", run]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        results.append(done.stdout.strip())
    assert results == ["2", "3"]
