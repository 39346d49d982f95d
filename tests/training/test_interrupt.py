"""A signal asks the loop to stop at the end of its step; a second Ctrl-C insists."""

import os
import signal
import threading

import pytest

from training.interrupt import Interrupt


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_request(number):
    with Interrupt() as interrupt:
        assert not interrupt.requested
        send(number)
        assert interrupt.requested


def test_the_first_wish_is_acknowledged_at_once(capfd):
    with Interrupt():
        send(signal.SIGINT)
        assert "stopping after the work in hand, then saving; Ctrl-C again ends at once" in capfd.readouterr().err
        send(signal.SIGTERM)
        assert capfd.readouterr().err == ""


def test_a_wish_is_noted_though_nobody_can_be_told(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as unread:
        for stderr in (unread, None):
            monkeypatch.setattr("training.interrupt.sys.stderr", stderr)
            with Interrupt() as interrupt:
                send(signal.SIGTERM)
                assert interrupt.requested


def test_a_second_ctrl_c_insists(monkeypatch):
    with Interrupt():
        send(signal.SIGINT)
        monkeypatch.setattr("training.interrupt.SAME_PRESS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_one_press_that_arrives_twice_does_not_insist():
    with Interrupt() as interrupt:
        send(signal.SIGINT)
        send(signal.SIGINT)
        assert interrupt.requested


def test_repeated_sigterm_and_one_ctrl_c_do_not_insist():
    with Interrupt() as interrupt:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert interrupt.requested


def test_previous_handlers_come_back_even_after_an_exception():
    def own(number, frame):
        raise AssertionError

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, own) for number in numbers]
    try:
        with pytest.raises(ZeroDivisionError), Interrupt():
            _ = 1 / 0
        assert [signal.getsignal(number) for number in numbers] == [own, own]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_outside_the_main_thread_nothing_happens():
    seen: list[bool] = []

    def work() -> None:
        with Interrupt() as interrupt:
            seen.append(interrupt.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
