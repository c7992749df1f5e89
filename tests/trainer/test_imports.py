"""A GPU machine has torch, numpy, safetensors and pyarrow, and nothing else of ours need be there."""

import subprocess
import sys
from pathlib import Path

TOY = Path(__file__).parent / "toy_rows.py"

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r} or name == "dataforge._native":
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked by the test)", name=name)
sys.meta_path.insert(0, Blocked())
"""
NAMES = (
    "click",
    "ray",
    "faiss",
    "fastapi",
    "uvicorn",
    "xxhash",
    "regex",
    "rich",
    "sentence_transformers",
    "transformers",
)


def test_moe_model_and_trainer_run_with_nothing_but_torch_numpy_and_safetensors(tmp_path):
    code = f"""{BLOCKED.format(names=NAMES)}
import runpy
sys.argv = ["toy", {str(tmp_path)!r}, "3", "switch"]
runpy.run_path({str(TOY)!r}, run_name="__main__")
import dataforge.trainer.progress
dataforge.trainer.progress.progress_on(sys.stderr)
assert not [name for name in sys.modules if name.split(".")[0] in {NAMES!r}]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "checkpoints" / "step-00000003").is_dir()
