"""Pickles functions by value for ranks, with the classes of their module.

The server that ranks are forked from has not imported the caller's module. A rank does not import
it either, because that would run the module again. But pickle finds a class by its name in its
module, so a rank has a module of that name that holds what was sent.
"""

from __future__ import annotations

import functools
import io
import marshal
import pickle
import sys
import threading
from collections.abc import Callable, Iterable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle

_REGISTERING = threading.Lock()
"""cloudpickle's list of modules belongs to the process, and threads may pickle at once."""


def pickled(value: Any, fn: Callable[..., Any]) -> bytes:
    """Pickle a value with `fn` and the module of it by value."""
    modules = [m for m in _modules_of(fn) if m.__name__.partition(".")[0] != "distrun"]
    with _REGISTERING:
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
        try:
            return _dumps(value, {"__main__", *(module.__name__ for module in modules)})
        finally:
            for module in modules:
                cloudpickle.unregister_pickle_by_value(module)


def _dumps(value: Any, modules: Iterable[str]) -> bytes:
    with io.BytesIO() as file:
        pickler = _RecordingPickler(file, modules)
        pickler.dump(value)
        pickler.dump(
            pickler.recorded
        )  # the same pickler: they refer to the same objects as the value
        return file.getvalue()


class _RecordingPickler(cloudpickle.CloudPickler):  # type: ignore[misc] # it has no types
    """Records the classes and functions of some modules, and keeps the file of each function."""

    def __init__(self, file: io.BytesIO, modules: Iterable[str]) -> None:
        super().__init__(file)
        self._modules = set(modules)
        self.recorded: list[Any] = []

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, CodeType):  # cloudpickle 3.1.3 leaves the file out
            return marshal.loads, (marshal.dumps(obj),)
        is_theirs = isinstance(obj, type | FunctionType) and obj.__module__ in self._modules
        if is_theirs and _named(obj) is obj:
            self.recorded.append(obj)
        return super().reducer_override(obj)


def _named(obj: type | FunctionType) -> object:
    """Return what pickle finds under the name of a class or function in its module."""
    found: object = sys.modules.get(obj.__module__)
    for part in obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found


def unpickled(data: bytes) -> Any:
    """Undo `pickled`, on a rank; pickle can then find what was sent by its name."""
    unpickler = pickle.Unpickler(io.BytesIO(data))
    value = unpickler.load()
    for obj in unpickler.load():
        module = sys.modules.setdefault(obj.__module__, _Module(obj.__module__))
        if "." not in obj.__qualname__:
            setattr(module, obj.__qualname__, obj)
    return value


class _Module(ModuleType):
    """Takes the place of a module; runs it when something that was not sent is read."""

    def __getattr__(self, name: str) -> Any:
        spec = None if name.startswith("__") else self._spec()
        if spec is None or spec.loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        came = dict(vars(self))
        self.__class__ = ModuleType  # type: ignore[assignment] # run once
        self.__file__ = spec.origin
        spec.loader.exec_module(self)
        vars(self).update(came)
        self.__spec__ = spec
        return getattr(self, name)

    def _spec(self) -> ModuleSpec | None:
        del sys.modules[self.__name__]  # else find_spec reads its __spec__
        try:
            return find_spec(self.__name__)
        except ImportError:
            return None
        finally:
            sys.modules[self.__name__] = self


def _modules_of(fn: object) -> set[ModuleType]:
    """Return the modules that define a function, or the functions that a partial holds."""
    found: set[ModuleType] = set()
    parts = [fn]
    while parts:
        part = parts.pop()
        if isinstance(part, functools.partial):
            parts += [part.func, *part.args, *part.keywords.values()]
        elif callable(part) and (module := sys.modules.get(getattr(part, "__module__", ""))):
            found.add(module)
    return found
