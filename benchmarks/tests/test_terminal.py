"""The screen that captures are made from, and commands in a terminal of their own."""

from __future__ import annotations

import os
import sys

import pytest

from benchmarks.terminal.pictures import svg
from benchmarks.terminal.screen import Screen
from benchmarks.terminal.session import CTRL_C, Press, Stuck, run


def screen(*written: str, columns: int = 20) -> Screen:
    made = Screen(columns)
    for part in written:
        made.feed(part)
    return made


def test_a_line_that_is_drawn_anew_is_there_once():
    assert screen("one\r\ntwo\r\x1b[2Kthree\r\n", "\x1b[1A\x1b[2K\x1b[1A\x1b[2Kfour").text() == "four"
    assert screen("abcdef\r\x1b[2Cx\x1b[K").text() == "abx"
    assert screen("abcdef\x1b[3Dx\r\n\x1b[?25lz").text() == "abcxef\nz"


def test_an_escape_sequence_may_be_cut_anywhere():
    whole = "\x1b[1;32mgreen\x1b[0m \x1b]8;;x\x1b\\link\r\nnext\x1b[1A\r\x1b[2Kx"
    expected = screen(whole).ansi()
    assert all(screen(whole[:cut], whole[cut:]).ansi() == expected for cut in range(len(whole)))


def test_lines_that_are_too_long_are_counted_and_colours_kept():
    assert screen("x" * 20 + "\r\n").broken == 0
    long = screen("x" * 45)
    assert (long.broken, long.text().splitlines()) == (2, ["x" * 20, "x" * 20, "x" * 5])
    assert str(screen("\x1b[31mred").rich().spans[0].style) in {"red", "color(1)"}
    assert "red" in svg(screen("\x1b[31mred"), "title")
    assert screen("a\x1b[31mb").copy().ansi() == screen("a\x1b[31mb").ansi()


def test_control_c_is_a_signal_to_what_runs_in_the_terminal():
    code = (
        "import os, sys, time\ntry:\n    print(os.get_terminal_size().columns, sys.stdin.isatty(), flush=True)\n"
        "    time.sleep(100)\nexcept KeyboardInterrupt:\n    print('ends'); sys.exit(130)\n"
    )
    ended = run([sys.executable, "-c", code], 72, os.environ, [Press("72 True", CTRL_C)])
    assert ended.code == 130
    assert ended.screen.text().splitlines()[-1].endswith("ends")
    assert [shot.text() for shot in ended.on_the_way] == ["72 True"]
    with pytest.raises(Stuck, match="never showed 'nothing'"):
        run([sys.executable, "-c", "print(1)"], 80, os.environ, [Press("nothing")])
