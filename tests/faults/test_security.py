"""Nothing that comes from a file runs as code, and nothing connects to a network on its own."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.test_killed_workflow import start
from tests.workflow.conftest import ROOT

FORBIDDEN = {
    *("eval", "exec", "compile", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "joblib.load", "dill.load", "shelve.open"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "pd.read_pickle", "pandas.read_pickle"),
}
NEEDED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
"""Argument that makes a loader safe."""
NOT_FOUND = "\nDependency not found on PyPI and could not be audited: a (1)"
OFF = ["unshare", "--map-root-user", "--net"]
"""Runs a command without any network."""


def sources() -> Iterator[Path]:
    for folder in ("tmcnet", "workflow", "tools", "benchmarks"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def unsafe(tree: ast.AST) -> Iterator[str]:
    """Calls that can run code from a file or from a text."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, given = ast.unparse(node.func), {word.arg: word.value for word in node.keywords}
        shell = given.get("shell")
        if name in FORBIDDEN or (shell is not None and not (isinstance(shell, ast.Constant) and not shell.value)):
            yield ast.unparse(node)
        if (
            name == "yaml.load"
            and "SafeLoader" not in ast.unparse(node)
            and "_UniqueKeyLoader" not in ast.unparse(node)
        ):
            yield ast.unparse(node)
        if name in NEEDED:
            word, value = NEEDED[name]
            if not isinstance(given.get(word), ast.Constant) or given[word].value is not value:
                yield ast.unparse(node)


def test_no_call_can_run_code_from_a_file() -> None:
    found = {str(path): list(unsafe(ast.parse(path.read_text()))) for path in sources()}
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "call",
    ["subprocess.run(x, shell=True)", "eval(x)", "torch.load(x)", "np.load(x, allow_pickle=True)", "yaml.load(x)"],
)
def test_unsafe_calls_are_found(call: str) -> None:
    assert list(unsafe(ast.parse(call))) == [call]


def test_rules_run_no_shell() -> None:
    rules = [ROOT / "Snakefile", *sorted((ROOT / "workflow" / "rules").glob("*.smk"))]
    assert not [rule for rule in rules if re.search(r"^\s*(shell:|shell\()", rule.read_text(), re.MULTILINE)]


def test_the_loader_of_configs_is_a_safe_one() -> None:
    import yaml

    from tmcnet.config import root

    assert issubclass(root._UniqueKeyLoader, yaml.SafeLoader)


@pytest.mark.parametrize(
    ("said", "status", "code", "message"),
    [
        ("No known vulnerabilities found", 0, 0, ""),
        ("Found 1 known vulnerability in 1 package", 1, 1, ""),
        (f"No known vulnerabilities found{NOT_FOUND}", 0, 0, "No vulnerability data for 1 packages, which are named"),
        (f"No known vulnerabilities found{NOT_FOUND * 2}", 0, 2, "No vulnerability data: the database knows none"),
        ("ConnectionError: cannot reach pypi.org", 1, 2, "No vulnerability data: the database cannot be reached."),
    ],
)
def test_the_audit_says_when_it_has_no_data(tmp_path: Path, said: str, status: int, code: int, message: str) -> None:
    tool = tmp_path / ".audit" / "bin" / "pip-audit"
    tool.parent.mkdir(parents=True)
    tool.write_text(f"#!/bin/sh\necho '{said}'\nexit {status}\n")
    tool.chmod(0o755)
    (tmp_path / "constraints.txt").write_text("a==1\nb==2\n")
    done = subprocess.run(["bash", str(ROOT / "tools" / "audit.sh")], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, said in done.stdout) == (code, True)
    assert message in done.stderr and (message or not done.stderr)


@pytest.mark.slow
def test_the_whole_workflow_runs_without_a_network(tmp_path: Path) -> None:
    if not shutil.which("unshare") or subprocess.run([*OFF, "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no network namespaces")
    running = start(tmp_path / "offline", before=OFF)
    output, _ = running.communicate()
    assert running.returncode == 0, output[-5000:]
