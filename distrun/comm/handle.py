"""The handle of an async collective."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from distrun.comm.site import Site
from distrun.comm.transport import Work
from distrun.torch_private import keep_out_of_graphs

T = TypeVar("T")


class UnwaitedHandleWarning(UserWarning):
    """An async collective was started, and its handle was dropped without wait()."""


class Handle(Generic[T]):
    """A collective started with `async_op=True`.

    Args:
        call: The collective's name, for messages.
        works: The started messages.
        wait: Waits for one of them; raises what the collective itself would.
        finish: Makes the result after all of them.
        site: The line of code that made the call.
    """

    def __init__(
        self,
        call: str,
        works: Sequence[Work],
        wait: Callable[[Work, str], None],
        finish: Callable[[], T],
        site: Site,
    ) -> None:
        self._call = call
        self._works = works
        self._wait = wait
        self._finish: Callable[[], T] | None = finish
        self._error: BaseException | None = None
        self._site = site

    def wait(self) -> T:
        """Wait for the collective and return its result; later calls return it again."""
        if self._finish is not None:
            try:
                for work in self._works:
                    self._wait(work, self._call)
                self._value = self._finish()
            except Exception as error:  # raised again by later calls
                self._error = error
            self._finish, self._works = None, ()
        if self._error is not None:
            raise self._error
        return self._value

    def done(self) -> bool:
        """Return whether `wait` would return at once. Does not replace `wait`."""
        return all(work.is_completed() for work in self._works)

    @property
    def result(self) -> T:
        """The result; waits for it if necessary."""
        return self.wait()

    def __del__(self) -> None:
        if getattr(self, "_finish", None) is not None:
            warnings.warn_explicit(
                f"the handle of an async {self._call} was dropped without wait():"
                " its result may be incomplete",
                UnwaitedHandleWarning,
                self._site.file,
                self._site.line,
            )

    def __repr__(self) -> str:
        state = "waited for" if self._finish is None else "done" if self.done() else "under way"
        return f"<Handle of {self._call} at {self._site}: {state}>"


keep_out_of_graphs(Handle.wait, Handle.done)
