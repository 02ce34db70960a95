"""Who may import whom, and what loads what."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.real import ROOT

HEAVY = ("torch", "onnx", "onnxruntime", "datasets", "transformers", "pyarrow", "numpy", "tokenizers")


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


def test_the_import_contracts_hold() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = python("-c", code, "--no-cache")
    assert done.returncode == 0, done.stdout[done.stdout.find("Broken contracts") :] + done.stderr


@pytest.mark.parametrize("module", ["compress", "compress.cli", "compress.recipe", "compress.gates", "compress.report"])
def test_decisions_load_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY[:5]} if name in sys.modules])"
    done = python("-c", code)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom compress.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    print('exit', end.code)\n"
        f"print('loaded', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = python("-c", code)
    assert done.stdout.splitlines()[-2:] == ["exit 0", "loaded []"], done.stderr


def test_it_runs_as_a_module() -> None:
    done = python("-m", "compress", "--help")
    assert done.returncode == 0, done.stderr
    assert "distill" in done.stdout


@pytest.mark.parametrize("package", ["models", "export"])
def test_importing_a_leaf_loads_no_torch(package: str) -> None:
    leaf = {"models": "models.errors", "export": "export.target"}[package]
    assert python("-c", f"import sys, {leaf}; sys.exit('torch' in sys.modules)").returncode == 0


def test_public_names_are_all_there() -> None:
    import compress

    for name in compress.__all__:
        assert getattr(compress, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = compress.nonsense


# A user's own folder, which holds names that are also ours.

RUN_THERE = "import sys; sys.path.append({root!r}); import compress; print(compress.__version__)"


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("WHOSE = 'the user'")
    (tmp_path / "export.py").write_text("raise RuntimeError('the user\\'s own script ran')")
    return tmp_path


def test_a_users_own_models_are_named(users_folder: Path) -> None:
    done = python("-c", RUN_THERE.format(root=str(ROOT)), cwd=users_folder)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError")
    assert str(users_folder / "models") in last
    assert "python -P" in last
    assert "own script ran" not in done.stderr


def test_a_users_own_export_is_named(users_folder: Path) -> None:
    (users_folder / "models" / "__init__.py").unlink()
    (users_folder / "models").rmdir()
    done = python("-c", RUN_THERE.format(root=str(ROOT)), cwd=users_folder)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError")
    assert str(users_folder / "export.py") in last
    assert "own script ran" not in done.stderr


def test_a_folder_of_weights_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "weights.bin").write_bytes(b"x")
    done = python("-c", RUN_THERE.format(root=str(ROOT)), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="python -P came with Python 3.11")
def test_python_without_the_current_folder_works_there(users_folder: Path) -> None:
    done = python("-P", "-c", RUN_THERE.format(root=str(ROOT)), cwd=users_folder)
    assert done.returncode == 0, done.stderr


def test_the_console_script_works_there(users_folder: Path) -> None:
    # What an installed script does: its own folder, not the current one, comes first on the path.
    script = users_folder / "bin" / "compress"
    script.parent.mkdir()
    script.write_text(f"import sys\nsys.path.append({str(ROOT)!r})\nfrom compress.cli import main\nmain()\n")
    done = python(str(script), "--help", cwd=users_folder)
    assert done.returncode == 0, done.stderr
    assert "distill" in done.stdout
