"""What a record depends on: the files that its notebook imports, and their data."""

import json
from pathlib import Path

import pytest

from comparison.study import ROOT
from workflow import jobs, sources


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a small repository: a notebook that imports one of two modules."""
    (tmp_path / "comparison").mkdir()
    (tmp_path / "reproduction").mkdir()
    (tmp_path / "comparison" / "used.py").write_text("from reproduction import deep\nx = 1\n")
    (tmp_path / "comparison" / "other.py").write_text("y = 1\n")
    (tmp_path / "comparison" / "figures.py").write_text("z = 1\n")
    (tmp_path / "reproduction" / "__init__.py").write_text("")
    (tmp_path / "reproduction" / "deep.py").write_text("import os\n")
    cells = [
        {"cell_type": "markdown", "source": ["# A question\n"]},
        {"cell_type": "code", "source": ["from comparison import used, figures\n", "used.x\n"]},
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    return tmp_path


def hashed(tree: Path) -> str:
    """Hash what the small repository's notebook depends on."""
    for cached in (sources._read, sources._imported, sources._modules):
        cached.cache_clear()
    return sources.digest(sources.sources("n.ipynb", tree), tree)


def test_sources_are_the_notebook_and_what_it_imports(tree: Path) -> None:
    names = [str(path.relative_to(tree)) for path in sources.sources("n.ipynb", tree)]
    assert names == [
        "comparison/used.py",
        "n.ipynb",
        "reproduction/__init__.py",
        "reproduction/deep.py",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    if x:\n        import comparison.used\n",
        "try:\n    pass\nexcept ValueError:\n    pass\nelse:\n    import comparison.used\n",
        "try:\n    import comparison.used\nfinally:\n    pass\n",
        "try:\n    pass\nexcept ValueError:\n    from comparison import used\n",
        "with x:\n    from comparison.used import x\n",
        "match x:\n    case 1:\n        import comparison.used\n",
        "class C:\n    async def f():\n        for x in y:\n            import comparison.used\n",
    ],
)
def test_an_import_counts_wherever_it_stands(tree: Path, text: str) -> None:
    (tree / "entry.py").write_text(text)
    assert tree / "comparison" / "used.py" in sources.sources("entry.py", tree)


@pytest.mark.parametrize(
    ("file", "text", "matters"),
    [
        ("comparison/used.py", "from reproduction import deep\nx = 2\n", True),
        ("reproduction/deep.py", "import sys\n", True),
        ("comparison/other.py", "y = 2\n", False),
        ("comparison/figures.py", "z = 2\n", False),
        ("comparison/used.py", "from reproduction import deep  # why\n\nx = 1\n", False),
    ],
)
def test_only_source_that_is_imported_matters(
    tree: Path, file: str, text: str, matters: bool
) -> None:
    before = hashed(tree)
    (tree / file).write_text(text)
    assert (hashed(tree) != before) is matters


def test_outputs_and_prose_of_a_notebook_do_not_matter(tree: Path) -> None:
    before = hashed(tree)
    notebook = json.loads((tree / "n.ipynb").read_text())
    notebook["cells"][0]["source"] = ["# Another question\n"]
    notebook["cells"][1]["outputs"] = [{"output_type": "stream", "text": "7"}]
    (tree / "n.ipynb").write_text(json.dumps(notebook))
    assert hashed(tree) == before
    notebook["cells"][1]["source"] = ["from comparison import used\n", "used.x + 1\n"]
    (tree / "n.ipynb").write_text(json.dumps(notebook))
    assert hashed(tree) != before


def test_data_files_of_a_module_are_among_its_sources() -> None:
    """Every data file that lies beside a package's modules is known to matter to one of them."""
    known = {
        path
        for patterns in sources.DATA_FILES.values()
        for pattern in patterns
        for path in ROOT.glob(pattern)
    }
    lying = {
        path
        for name in sources.PACKAGES
        for path in (ROOT / name).glob("*")
        if path.is_file() and path.suffix != ".py"
    }
    assert lying <= known
    assert all((ROOT / module).is_file() for module in sources.DATA_FILES)


def test_training_does_not_depend_on_how_it_is_drawn() -> None:
    names = {str(path.relative_to(ROOT)) for path in sources.sources(jobs.NOTEBOOKS["training"])}
    assert {"comparison/training.py", "reproduction/hrnet.py", "reference/loader.py"} <= names
    assert not {"comparison/figures.py", "comparison/statistics.py", "comparison/tables"} & names


def test_the_audit_depends_on_all_of_the_reproduction() -> None:
    names = {str(path.relative_to(ROOT)) for path in sources.audit_sources()}
    assert {"reproduction/hrnet.py", "CLEANROOM.md", "reference/audit.py"} <= names
