import io

from dppmask.evaluation.progress import progress_line, reported


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_items_pass_unchanged_and_a_short_loop_leaves_a_file_empty():
    stream = io.StringIO()
    assert list(reported("abc", "letters", total=3, stream=stream)) == ["a", "b", "c"]
    assert stream.getvalue() == ""


def test_a_terminal_ends_with_the_total_on_one_line():
    stream = Terminal()
    list(reported("abc", "letters", total=5, per_item=2, stream=stream))
    assert stream.getvalue().count("\n") == 1
    assert "letters  5/5 images" in stream.getvalue().splitlines()[-1]


def test_a_long_loop_in_a_file_has_lines():
    stream = io.StringIO()
    list(reported(range(3), "numbers", total=3, unit="numbers", interval=0.0, stream=stream))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert all(f"{done}/3 numbers" in line for done, line in enumerate(lines, start=1))


def test_time_left():
    assert progress_line("a", 50, 200, 5.0, "images") == "a  50/200 images  10.0 images/s  left 0:00:15"
    assert progress_line("a", 0, 200, 5.0, "images").endswith("left unknown")
