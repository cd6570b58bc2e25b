"""Reading and writing in background threads, so that the device waits for neither."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
END = object()
MOST_WAITING = 8  # writes in the queue; each keeps its pictures in memory


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items in the same order; the next item is prepared while the caller works on one. Errors are raised here."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, END)
        while (item := coming.result()) is not END:
            coming = thread.submit(next, items, END)
            yield item


class Writer:
    """Called with a function and its arguments, runs the calls one after another in a thread. As a context it ends when all have run.

    If a call fails, its error is raised by a later call or at the end of the context, and the calls after it are not run. If the
    context ends by another error, the calls made before are still run.
    """

    def __init__(self):
        self.thread = ThreadPoolExecutor(1)
        self.waiting: deque[Future] = deque()
        self.failed = False  # a row of the table must not follow pictures that were not written

    def __call__(self, work: Callable, *args) -> None:
        while self.waiting and (self.waiting[0].done() or len(self.waiting) >= MOST_WAITING):
            self.waiting.popleft().result()
        self.waiting.append(self.thread.submit(self._do, work, *args))

    def _do(self, work: Callable, *args) -> None:
        if not self.failed:
            self.failed = True
            work(*args)
            self.failed = False

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind, *_) -> None:
        self.thread.shutdown()
        while kind is None and self.waiting:
            self.waiting.popleft().result()
