"""Functions of the user's own, named `module:function` in the configuration.

Importing a module runs it. So a name is only ever imported that the user wrote into a configuration; a name found in
a file that may come from elsewhere is not.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

from foundation.errors import UsageError

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


def names_a_function(name: str) -> bool:
    """Return whether a name has the form `module:function` or `package.module:function`."""
    return _NAME.fullmatch(name) is not None


def import_function(setting: str, name: str) -> Callable[..., Any]:
    """Import the user's module and return its function.

    Args:
        setting: where the name stands in the configuration, for the message.
        name: `module:function`.

    Raises:
        UsageError: the name has another form, or there is no such module or function.
    """
    if not names_a_function(name):
        raise UsageError(f"{setting}: expected a name of the form `module:function`, found {name!r}.")
    module_name, function_name = name.split(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises as it runs
        raise UsageError(
            f"{setting}: expected a module {module_name!r} that can be imported, found {what(error)}. "
            "Install it into this environment, or put its folder on PYTHONPATH."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UsageError(
            f"{setting}: expected a function {function_name!r} in {module_name}, found "
            f"{'nothing of that name' if function is None else type(function).__name__}."
        )
    return function  # type: ignore[no-any-return]


def what(error: Exception) -> str:
    """Return an exception as one reads it: its kind and its message."""
    return f"{type(error).__name__}: {error}"
