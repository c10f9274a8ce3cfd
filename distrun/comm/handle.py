"""The result of a collective that is still under way."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from distrun.comm.site import Site
from distrun.comm.transport import Work
from distrun.torch_private import keep_out_of_graphs

T = TypeVar("T")


class UnwaitedHandleWarning(UserWarning):
    """An async collective was started, and nobody waited for it."""


class Handle(Generic[T]):
    """A collective started with `async_op=True`.

    Args:
        call: What was called, for messages.
        works: The messages under way.
        wait: Waits for one of them; raises what `world.all_reduce` itself would.
        finish: Makes the result, after all of them.
        site: Where the call was made.
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
        """Wait for the collective and return its result; again, and it returns it again."""
        if self._finish is not None:
            try:
                for work in self._works:
                    self._wait(work, self._call)
                self._value = self._finish()
            except Exception as error:  # it is raised again whenever somebody asks
                self._error = error
            self._finish, self._works = None, ()
        if self._error is not None:
            raise self._error
        return self._value

    def done(self) -> bool:
        """Say whether `wait` would return at once. Does not wait, and is no `wait`."""
        return all(work.is_completed() for work in self._works)

    @property
    def result(self) -> T:
        """The result; waits for it if it is not there yet."""
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
