import io

import pytest

from dataforge.trainer.progress import PlainLines, RichBar, progress_on

ROW = {"loss": 2.0, "tokens_per_s": 1234.5}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_tell_the_first_and_the_last_step():
    stream = io.StringIO()
    progress = progress_on(stream)
    assert isinstance(progress, PlainLines)
    progress.begin(30, 4)
    for step in range(5, 31):
        progress.step({"step": step, **ROW})
    progress.end()
    assert stream.getvalue().splitlines() == [
        "train: going on after step 4 of 30",
        "train: step 5 of 30  loss 2.000  1,234 tokens/s",
        "train: step 30 of 30  loss 2.000  1,234 tokens/s",
    ]


def test_a_terminal_gets_a_bar():
    pytest.importorskip("rich")
    stream = Terminal()
    progress = progress_on(stream)
    assert isinstance(progress, RichBar)
    progress.begin(3, 1)
    progress.step({"step": 2, **ROW, "held_out": {"bits_per_byte": 1.5}})
    progress.end()
    assert "held-out 1.500 bits/byte" in stream.getvalue()
    assert "2/3" in stream.getvalue()
