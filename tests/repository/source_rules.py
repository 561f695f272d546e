"""Rules for Python files. Each takes a tree and returns its findings, one sentence each."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.repository.tree import PACKAGES, files, imported_modules, kept_results, sources

FILE_LINES = 350
FUNCTION_LINES = 60
LONGER_FUNCTIONS = {"train": 80}  # the training loop stays in one piece, to be read as one
# Who may import whom. What is compared must not know of the comparison.
MAY_IMPORT = {
    "reproduction": set(),
    "reference": set(),
    "comparison": {"reproduction", "reference"},
    "workflow": {"reproduction", "reference", "comparison"},
}
EMPTY_NAMES = {"utils", "util", "misc", "common", "helpers", "helper", "core", "tools"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b|raise NotImplemented|mark\.xfail")
THIRD_PARTY = re.compile(
    r"(Written|Created|Modified) by (Bin Xiao|Ke Sun|Rainbowsecret|Jingyi Xie|Tianheng Cheng)"
    r"|Copyright \(c\) (Microsoft|Open-MMLab|OpenMMLab|Facebook)"
    r"|Hacked together by",
    re.IGNORECASE,
)
# A home or a work folder of one machine; /tmp, /usr and the like are everybody's.
MACHINE_PATH = re.compile(r"(?<![\w.:/)\]}>-])/(?:root|home|Users|work|mnt|workspace)/\w")
TEXT = (".py", ".md", ".toml", ".yml", ".yaml", ".ipynb", ".typ", ".bib", ".json", ".cff", ".lock")
# What opens pickles or executes what it reads; the official files are executed in one place.
OPENERS = {"pickle", "dill", "cloudpickle", "shelve", "joblib", "marshal", "code", "runpy"}
RUNNING = {"eval", "exec", "compile", "os.system", "os.popen", "torch.hub.load", "yaml.full_load"}
UNPACKING = {"read_pickle", "unsafe_load", "extractall", "unpack_archive"}
EXECUTES = {("reference/loader.py", "calls exec"), ("reference/loader.py", "calls compile")}
RULES = "tests/repository"  # spells out what it looks for
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def imports_point_one_way(root: Path) -> list[str]:
    """Reproduction and reference know nothing of each other, and neither of what compares them."""
    return [
        f"{name}:{line} imports {module}"
        for name, tree in sources(root, *PACKAGES)
        for module, line in imported_modules(tree)
        if (package := module.split(".")[0]) in (*PACKAGES, "tests")
        and package != name.split("/")[0]
        and package not in MAY_IMPORT[name.split("/")[0]]
    ]


def files_are_short(root: Path) -> list[str]:
    """No Python file is longer than FILE_LINES."""
    lengths = {
        path: len(path.read_text(encoding="utf-8").splitlines()) for path in files(root, ".py")
    }
    return [
        f"{path.relative_to(root)} has {length} lines; the limit is {FILE_LINES}"
        for path, length in lengths.items()
        if length > FILE_LINES
    ]


def functions_are_short(root: Path) -> list[str]:
    """No function, with its docstring, is longer than FUNCTION_LINES."""
    return [
        f"{name}:{node.lineno} {node.name} has {length} lines; the limit is {FUNCTION_LINES}"
        for name, tree in sources(root)
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1)
        > LONGER_FUNCTIONS.get(node.name, FUNCTION_LINES)
    ]


def public_names_are_documented(root: Path) -> list[str]:
    """Every module, public function and public class of the packages has a docstring."""
    return [
        f"{name}: {getattr(node, 'name', 'the module')} has no docstring"
        for name, tree in sources(root, *PACKAGES)
        for node in (tree, *_public(tree))
        if ast.get_docstring(node) is None and not (node is tree and name.endswith("__init__.py"))
    ]


def public_signatures_are_typed(root: Path) -> list[str]:
    """Every public function and method of the packages says what it takes and returns."""
    return [
        f"{name}:{node.lineno} {node.name} lacks a type for {missing[0]}"
        for name, tree in sources(root, *PACKAGES)
        for node in _public_functions(tree)
        if (missing := list(_untyped(node)))
    ]


def _public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in tree.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            yield node


def _public_functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in _public(tree):
        for inner in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(inner, FUNCTIONS) and not inner.name.startswith("_"):
                yield inner


def _untyped(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    given = node.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    starred = [argument for argument in (given.vararg, given.kwarg) if argument]
    for argument in [*named, *starred]:
        if argument.annotation is None and argument.arg not in ("self", "cls"):
            yield argument.arg
    if node.returns is None:
        yield "what it returns"


def modules_are_named_for_what_they_do(root: Path) -> list[str]:
    """No file or folder is called utils, common or the like."""
    return [
        f"{name} has a name that says nothing"
        for name, _ in sources(root)
        if EMPTY_NAMES & set(Path(name).with_suffix("").parts)
    ]


def nothing_is_unfinished(root: Path) -> list[str]:
    """No marks of unfinished work, no expected failures."""
    return [
        f"{path.relative_to(root)}:{number} is unfinished: {line.strip()}"
        for path in files(root, ".py", ".typ", ".ipynb")
        if not path.is_relative_to(root / RULES)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]


def loading_runs_no_foreign_code(root: Path) -> list[str]:
    """No pickle is opened, and nothing read is executed but the official files, in one place."""
    return [
        f"{name}:{node.lineno} {problem}"
        for name, tree in sources(root, *PACKAGES)
        for node in ast.walk(tree)
        if (problem := _unsafe(node)) and (name, problem) not in EXECUTES
    ]


def _unsafe(node: ast.AST) -> str | None:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return _unsafe_import(node)
    if not isinstance(node, ast.Call):
        return None
    called = ast.unparse(node.func)
    settings = {key.arg: ast.unparse(key.value) for key in node.keywords}
    last = called.rpartition(".")[2]
    if called == "torch.load" and settings.get("weights_only") != "True":
        return "calls torch.load without weights_only=True"
    if called == "np.load" and settings.get("allow_pickle") != "False":
        return "calls np.load without allow_pickle=False"
    if settings.get("allow_pickle", "False") != "False":
        return f"calls {called} with allow_pickle"
    if settings.get("shell", "False") != "False":
        return f"calls {called} with a shell"
    if called == "yaml.load" and not settings.get("Loader", "").endswith("PlainLoader"):
        return "calls yaml.load without a plain loader"
    return f"calls {called}" if called in RUNNING or last in UNPACKING else None


def _unsafe_import(node: ast.Import | ast.ImportFrom) -> str | None:
    modules = [module for module, _ in imported_modules(node)]
    unsafe = {module.split(".")[0] for module in modules} & OPENERS
    if isinstance(node, ast.ImportFrom) and node.module in ("torch", "numpy", "yaml"):
        unsafe |= {alias.name for alias in node.names} & {"load", "unsafe_load", "full_load"}
    return f"imports {min(unsafe)}" if unsafe else None


def tests_assert_something(root: Path) -> list[str]:
    """Every test has an assertion, or expects an error, or calls what asserts."""
    return [
        f"{name}:{node.lineno} {node.name} asserts nothing"
        for name, tree in sources(root, "tests")
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS) and node.name.startswith("test_") and not _asserts(node)
    ]


def _asserts(function: ast.AST) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant):
            return True
        if isinstance(node, ast.Call):
            last_name = ast.unparse(node.func).split(".")[-1]
            if last_name in ("raises", "warns") or last_name.startswith(("assert_", "check_")):
                return True
    return False


def nothing_is_copied(root: Path) -> list[str]:
    """No file carries the header of somebody else's code."""
    return [
        f"{path.relative_to(root)} carries a third-party header: {found.group()}"
        for path in files(root, ".py")
        if not path.is_relative_to(root / RULES)
        and (found := THIRD_PARTY.search(path.read_text(encoding="utf-8")))
    ]


def no_path_of_one_machine(root: Path) -> list[str]:
    """Nothing stored names a folder that only one machine has."""
    return [
        f"{path.relative_to(root)}:{number} names {found.group()}…"
        for path in [*files(root, *TEXT, ""), *kept_results(root, *TEXT)]
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if (found := MACHINE_PATH.search(line))
    ]
