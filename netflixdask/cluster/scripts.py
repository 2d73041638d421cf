"""Scripts that start worker processes: those that must not, and what to tell them."""

from __future__ import annotations

import ast
import sys
from pathlib import Path


def forget_standard_input() -> None:
    """Let worker processes start although the program came from standard input.

    Python calls its file "<stdin>", and multiprocessing would have each worker import that.
    """
    main = sys.modules["__main__"]
    if str(getattr(main, "__file__", "")).startswith("<"):
        del main.__file__


def refuse_unguarded_script() -> None:
    """End a script whose worker processes would run its own top level again, and again.

    A worker process is spawned: it imports the main script first. Only a call below
    ``if __name__ == "__main__":`` is not repeated there. Notebooks, ``python -c`` and standard
    input have no file and are not imported.
    """
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
    # pytest, python -m and console scripts have a guard or an importable main module.
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if path is None or getattr(main, "__spec__", None) is not None:
        return
    if frame.f_globals.get("__name__") not in ("__main__", "__mp_main__"):
        caller = None
    else:
        caller = frame.f_lineno
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return
    if caller is None or _is_guarded(tree, caller):
        return
    raise SystemExit(
        f"{path}:{caller}: a script that opens worker processes must do so below "
        "'if __name__ == \"__main__\":', because each worker imports the script first"
    )


def _is_guarded(tree: ast.Module, line: int) -> bool:
    for node in tree.body:
        if node.lineno <= line <= (node.end_lineno or node.lineno):
            return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
    return True
