"""`import gradsmith` is light; what a name needs is brought when it is touched, with advice when it is missing."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_gradsmith_loads_neither_torch_nor_httpx() -> None:
    heavy = run(
        "import sys, gradsmith, gradsmith.errors, gradsmith.types\n"
        "dir(gradsmith); gradsmith.errors.NotFound\n"
        "print(sorted({'torch', 'httpx', 'numpy', 'safetensors', 'pydantic'} & set(sys.modules)))"
    )
    assert heavy.strip() == "[]"


def test_the_client_loads_no_torch_and_the_optimizer_no_httpx() -> None:
    assert run("import sys, gradsmith\nwith gradsmith.Client():\n    print('torch' in sys.modules)").strip() == "False"
    assert run("import sys, gradsmith\ngradsmith.LearnedOptimizer\nprint('httpx' in sys.modules)").strip() == "False"


@pytest.mark.parametrize("name", ["LearnedOptimizer", "load"])
def test_without_torch_the_error_says_what_to_install(name: str) -> None:
    said = run(
        "import sys; sys.modules['torch'] = None\n"
        "import gradsmith\n"
        f"try:\n    gradsmith.{name}\n"
        "except gradsmith.errors.MissingDependency as error:\n    print(isinstance(error, ImportError), error)"
    )
    assert said.startswith("True")
    assert "pip install './sdk[torch]'" in said  # the package is on no index yet


def test_an_unknown_name_is_an_attribute_error() -> None:
    import gradsmith

    with pytest.raises(AttributeError, match="Optimiser"):
        gradsmith.Optimiser  # noqa: B018
