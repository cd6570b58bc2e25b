"""Reading ahead and writing behind: order, errors, and that they do overlap with the work between them."""

import threading

import pytest

from strdiffusion.evaluation.overlap import MOST_WAITING, Writer, ahead
from strdiffusion.system.errors import UserError


def test_items_come_in_order_and_the_next_is_prepared_meanwhile():
    prepared = [threading.Event() for _ in range(4)]

    def items():
        for i in range(4):
            prepared[i].set()
            yield i

    seen = []
    for i in ahead(items()):
        assert i == 3 or prepared[i + 1].wait(10)
        assert not any(event.is_set() for event in prepared[i + 2 :])
        seen.append(i)
    assert seen == [0, 1, 2, 3]


def test_a_failure_while_preparing_comes_after_the_items_before_it():
    def items():
        yield 1
        raise UserError("unreadable")

    seen = []
    with pytest.raises(UserError, match="unreadable"):
        for i in ahead(items()):
            seen.append(i)
    assert seen == [1]


def test_writing_is_in_order_and_does_not_hold_up():
    written, may_write = [], threading.Event()
    with Writer() as write:
        write(may_write.wait, 10)
        for i in range(MOST_WAITING - 1):
            write(written.append, i)
        assert written == []
        may_write.set()
    assert written == list(range(MOST_WAITING - 1))


def test_no_more_waits_than_fits():
    may_write, waiting = threading.Event(), []
    threading.Timer(0.2, may_write.set).start()
    with Writer() as write:
        write(may_write.wait, 10)
        for _ in range(3 * MOST_WAITING):
            write(lambda: None)
            waiting.append(len(write.waiting))
    assert max(waiting) == MOST_WAITING


def test_a_failure_to_write_is_raised_and_nothing_is_written_after_it():
    written = []

    def fail():
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), Writer() as write:
        write(fail)
        write(written.append, 1)
    with pytest.raises(OSError, match="disk full"), Writer() as write:
        write(fail)
        for _ in range(MOST_WAITING + 1):
            write(written.append, 2)
        pytest.fail("this comes too late")
    assert written == []


def test_what_was_asked_for_is_written_when_the_work_is_interrupted():
    written = []
    with pytest.raises(KeyboardInterrupt), Writer() as write:
        write(written.append, 1)
        raise KeyboardInterrupt
    assert written == [1]
